"""What the README says about tests and CI is so: its snippets are run, or held against the files that they are about."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import yaml

from tests.plugin.conftest import Run, _imported, inner, models_imported  # noqa: F401 (fixtures)
from tests.running import ROOT

MY_EDITOR = """
from padcheck import locate

def lookup(tokenizer, texts, subject):
    return [span.{attribute} for span in locate(tokenizer, texts, subject)]

def hidden_states(model, batch):
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return model(**batch, {positions}output_hidden_states=True).hidden_states[-1]
"""


@cache
def section() -> str:
    text = (ROOT / "README.md").read_text("utf-8")
    (found,) = re.findall(r"^## In your tests and your CI\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)
    return str(found)


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", section(), re.DOTALL)


@pytest.mark.usefixtures("models_imported")
def test_the_tests(pytester: pytest.Pytester, inner: Run) -> None:  # noqa: F811
    (snippet,) = snippets("python")
    pytester.makepyfile(
        test_readme_snippet=snippet, my_editor=MY_EDITOR.format(attribute="last", positions="position_ids=positions, ")
    )
    pytester.syspathinsert()
    inner("--strict-markers").assert_outcomes(passed=6)
    pytester.makepyfile(my_editor=MY_EDITOR.format(attribute="naive", positions=""))
    inner("-v").assert_outcomes(passed=3, failed=3)  # the lookup under left padding on both models; learned positions


def test_what_it_names_exists() -> None:
    from padcheck import pytest_plugin

    for name in re.findall(r"^\| `(\w+)", section(), re.MULTILINE):
        assert hasattr(pytest_plugin, name)
    for path in re.findall(r"\]\(([\w./-]+)\)", section()):
        assert (ROOT / path).exists()
    source = ROOT / "padcheck" / "pytest_plugin.py"
    if source.is_file():
        assert set(re.findall(r"`(padcheck_\w+)`", section())) == set(
            re.findall(r'addini\(\s*"(\w+)"', source.read_text("utf-8"))
        )


def test_the_hooks_and_the_action() -> None:
    config, action = (yaml.safe_load(snippet) for snippet in snippets("yaml"))
    hooks: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    assert {hook["id"] for hook in config["repos"][0]["hooks"]} == {hook["id"] for hook in hooks}
    inputs = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))["inputs"]
    assert set(action[0]["with"]) <= set(inputs)
