"""Shell completion, as the shells ask for it."""

from __future__ import annotations

import pytest

from tests.running import run_installed


def completed(words: str) -> list[str]:
    count = str(len(words.split(" ")) - 1)
    ran = run_installed(_PADCHECK_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=count)
    assert ran.err == ""
    return [line.partition(",")[2] for line in ran.out.splitlines()]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("padcheck che", {"check"}),
        ("padcheck check --fail-on wa", {"warning"}),
        ("padcheck check --unsafe", {"--unsafe-fixes"}),
        ("padcheck explain pad10", {f"PAD10{number}" for number in range(1, 9)}),
        ("padcheck check --select COD101,STA", {"COD101,STA101", "COD101,STA102", "COD101,STA103"}),
    ],
)
def test_what_is_proposed(words: str, wanted: set[str]) -> None:
    assert set(completed(words)) == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell: str) -> None:
    ran = run_installed(_PADCHECK_COMPLETE=f"{shell}_source")
    assert ran.code == 0
    assert "_PADCHECK_COMPLETE" in ran.out


def test_help_says_how() -> None:
    assert "_PADCHECK_COMPLETE=bash_source" in run_installed("--help").out
