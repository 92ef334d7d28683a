"""Whatever text comes: findings with places in code points, never an exception, and no work where no rule is concerned."""

from __future__ import annotations

import ast
import gc

import pytest

from padcheck.checks.code import Unreadable, check_source, checking, decode_source
from padcheck.checks.code.rule import RULES, CodeRule, Words
from padcheck.checks.code.scopes import Walker

from .test_pages import bad

ASSERT = "assert x or print('no')\n"


def places(text: str) -> list[tuple[int | None, int | None]]:
    return [(each.place.line, each.place.column) for each in check_source(text, "e.py") if each.rule == "COD117"]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        (ASSERT, 1, 1),
        ("\ufeff" + ASSERT, 1, 1),
        ("# coding: latin-1\n" + ASSERT, 2, 1),
        ("x = 1\r\n" + ASSERT, 2, 1),
        ("x = 1\r" + ASSERT, 2, 1),
        ("x = 1\n\x0c\n" + ASSERT, 3, 1),
        ("\x0c" + ASSERT, 1, 2),
        ("x = '\u2028\x85'\n" + ASSERT, 2, 1),
        ("if x:\n\t" + ASSERT, 2, 2),
        ("'汉字𝄞'; " + ASSERT, 1, 8),
        ("x = '''\n汉'''; " + ASSERT, 2, 7),
        ("if x:\n  y = '\\d'\n  " + ASSERT, 3, 3),
        ("await x; " + ASSERT, 1, 10),
    ],
)
def test_places(text: str, line: int, column: int) -> None:
    assert places(text) == [(line, column)]


def test_end_is_exclusive_and_in_code_points() -> None:
    (finding,) = check_source("assert '汉' or print('字')\n", "e.py")
    assert (finding.place.end_line, finding.place.end_column) == (1, 25)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("def f(:\n    pass\n" + ASSERT, 1),
        (ASSERT + "  x\n", 2),
        (ASSERT + "'", 2),
        (ASSERT + "print 'python 2'\n", 2),
        (ASSERT + "x = 0777\n", 2),
        (ASSERT + "汉 = (1\n", 2),
        (ASSERT + "\x00", None),
        (ASSERT + "'\ud800'", None),
    ],
)
def test_invalid_python_is_a_finding_with_a_place(text: str, line: int | None) -> None:
    (finding,) = check_source(text, "e.py")
    assert (finding.rule, finding.severity, finding.place.path) == ("LNT104", "error", "e.py")
    assert line is None or finding.place.line == line


def test_invalid_python_that_concerns_no_rule_is_left_to_others() -> None:
    assert check_source("def f(:\n", "e.py") == []


@pytest.mark.parametrize("depth", [150, 100_000])
@pytest.mark.parametrize(
    ("opening", "closing"), [("(", ")"), ("[", "]"), ("-", ""), ("not ", ""), ("lambda: ", ""), ("x.a(", ")")]
)
def test_deep_nesting(opening: str, closing: str, depth: int) -> None:
    text = ASSERT + "y = " + opening * depth + "1" + closing * depth + "\n"
    assert {each.rule for each in check_source(text, "e.py")} <= {"COD117", "LNT104"}


def test_nested_too_deeply_is_a_warning() -> None:
    (finding,) = check_source(ASSERT + "y = " + "-" * 100_000 + "1\n", "e.py")
    assert (finding.rule, finding.severity) == ("LNT104", "warning")


def test_long_sums_of_texts() -> None:
    text = "def f(tok, prompt, ids):\n    return " + " + ".join(["prompt"] * 900) + " + tok.decode(ids[:-1])\n"
    assert [each.rule for each in check_source(text, "e.py")] == ["COD116"]


def test_names_bound_in_circles() -> None:
    text = "def f(model, tok, a, b):\n    while a:\n        a, b = b, a\n        a = b[a]\n    return a[b['attention_mask'].sum()]\n"
    assert check_source(text, "e.py") == []


def test_large_files_take_linear_time() -> None:
    text = "\n".join(
        f"def f{i}(tok, texts):\n    b = tok(texts, padding=True)\n    return b['input_ids'][0, b['attention_mask'].sum()]"
        for i in range(1500)
    )
    assert len(check_source(text, "e.py")) == 1500


# --- Only what is needed ---------------------------------------------------------------------------------------------------


def test_file_that_names_no_word_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking.Source, "parse", lambda self: pytest.fail("parsed"))
    assert check_source("import os\n\n\ndef f(x):\n    return os.path.join(x, 'y')\n", "e.py") == []


def test_only_selected_rules_run() -> None:
    text = "def f(tok, x):\n    tok.padding_side = 'left'\n    " + ASSERT
    assert {each.rule for each in check_source(text, "e.py")} == {"COD101", "COD117"}
    assert {each.rule for each in check_source(text, "e.py", select=frozenset({"COD117", "PAD101"}))} == {"COD117"}
    assert check_source(text, "e.py", select=frozenset()) == []
    assert check_source("(", "e.py", select=frozenset({"COD117"})) == []


@pytest.mark.parametrize("rule_id", sorted(RULES))
def test_words_of_a_rule_are_enough_and_needed(rule_id: str) -> None:
    rule = RULES[rule_id]
    assert rule.words
    assert rule.concerns(Words(bad(rule_id)))
    assert not rule.concerns(Words(""))


def test_cell_is_in_every_place() -> None:
    findings = check_source(
        "def f(tok):\n    b = tok.padding_side\n    tok.padding_side = 'left'\n    g()\n    tok.padding_side = b\n",
        "n.ipynb",
        cell=7,
    )
    (finding,) = findings
    assert finding.place.cell == 7
    assert finding.related[0].place.cell == 7
    assert finding.fix is not None
    assert {edit.place.cell for edit in finding.fix.edits} == {7}


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_left_as_it_was(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    try:
        check_source(ASSERT, "e.py")
        check_source("assert (", "e.py")
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


def test_tree_is_dropped() -> None:
    """No reference cycles hold it: without a collection nothing of it is left."""
    gc.collect()
    gc.disable()
    try:
        check_source("def f(tok, x):\n    tok.padding_side = 'left'\n    " + ASSERT, "e.py")
        assert not [each for each in gc.get_objects() if isinstance(each, ast.Module)]
    finally:
        gc.enable()


# --- Crashes ---------------------------------------------------------------------------------------------------------------


def test_rule_that_crashes_is_a_finding_and_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyError("offsets")

    monkeypatch.setitem(RULES, "COD101", CodeRule("COD101", (("padding_side",),), None, (), crash))  # type: ignore[arg-type]
    findings = check_source("def f(tok, x):\n    tok.padding_side = 'left'\n    " + ASSERT, "e.py")
    assert sorted(each.rule for each in findings) == ["COD117", "LNT101"]
    (crashed,) = [each for each in findings if each.rule == "LNT101"]
    assert crashed.evidence["rule"] == "COD101"
    assert "KeyError" in crashed.message


def test_walk_that_crashes_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Walker, "walk", lambda self, tree: 1 / 0)
    (finding,) = check_source(ASSERT, "e.py")
    assert finding.rule == "LNT101"


# --- Bytes -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"x = 1\n", "x = 1\n"),
        ("x = '汉'\n".encode(), "x = '汉'\n"),
        (b"\xef\xbb\xbfx = 1\n", "x = 1\n"),
        ("# -*- coding: gbk -*-\nx = '汉'\n".encode("gbk"), "# -*- coding: gbk -*-\nx = '汉'\n"),
        ("#!/usr/bin/python\n# vim: set fileencoding=latin-1 :\nx = 'é'\n".encode("latin-1"), "#!/usr/bin/python\n# vim: set fileencoding=latin-1 :\nx = 'é'\n"),
        (b"x = 1\r\n", "x = 1\r\n"),
    ],
)  # fmt: skip
def test_encodings(data: bytes, text: str) -> None:
    assert decode_source(data).removeprefix("\ufeff") == text


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"# coding: no-such\nx\n", "x = '汉'".encode("gbk"), b"\xef\xbb\xbf# coding: latin-1\n"]
)
def test_bytes_that_are_no_text(data: bytes) -> None:
    with pytest.raises(Unreadable, match="cannot be decoded"):
        decode_source(data)
