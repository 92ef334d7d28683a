"""Ignore comments: what they say, where they stand, what they cover."""

from __future__ import annotations

import tokenize

import pytest

from padcheck.checks.code import Suppression, suppressions


def only(text: str) -> Suppression:
    (found,) = suppressions(text, "e.py")
    return found


def test_comment_behind_a_statement() -> None:
    found = only("x = 1\ny = 2  # padcheck: ignore[COD101, cache-without-key] 组里约定\n")
    assert (found.line, found.rules, found.reason, found.file_level) == (
        2,
        ("COD101", "cache-without-key"),
        "组里约定",
        False,
    )
    assert (found.place.path, found.place.line, found.place.column) == ("e.py", 2, 8)
    assert found.place.end_column == 8 + len("# padcheck: ignore[COD101, cache-without-key] 组里约定")
    assert [found.covers(line) for line in (1, 2, 3)] == [False, True, False]


@pytest.mark.parametrize(
    ("text", "covered"),
    [
        ("f(a,\n  b)  # padcheck: ignore[COD101]\nx\n", {1, 2}),
        ("f(a,  # padcheck: ignore[COD101]\n  b)\nx\n", {1, 2}),
        ("# padcheck: ignore[COD101]\nx\ny\n", {1, 2}),
        ("if x:\n    # padcheck: ignore[COD101]\n    f(a,\n      b)\n", {2, 3, 4}),
        ("def f(a,\n      b):  # padcheck: ignore[COD101]\n    x\n", {1, 2}),
        ("x\n# padcheck: ignore[COD101]\n", {2}),
        ("x = '''\n'''  # padcheck: ignore[COD101]\n", {1, 2}),
    ],
)
def test_covered_lines(text: str, covered: set[int]) -> None:
    found = only(text)
    assert {line for line in range(1, 6) if found.covers(line)} == covered


def test_whole_file() -> None:
    found = only("import x  #padcheck:ignore-file[COD117]\n")
    assert found.file_level
    assert found.covers(999)
    assert found.covers(None)


def test_several_in_one_comment() -> None:
    assert [each.rules for each in suppressions("x  # padcheck: ignore[COD101] a # padcheck: ignore[COD102] b\n")] == [
        ("COD101",),
        ("COD102",),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "x = '# padcheck: ignore[COD101]'\n",
        "'''\n# padcheck: ignore[COD101]\n'''\n",
        "# padcheck: fine\n",
        "# padcheck: ignore COD101\n",
        "",
    ],
)
def test_what_is_no_ignore_comment(text: str) -> None:
    assert suppressions(text) == []


def test_empty_brackets_name_no_rule() -> None:
    assert only("x  # padcheck: ignore[]\n").rules == ()


def test_text_that_does_not_tokenize_is_read_line_by_line() -> None:
    found = suppressions("x  # padcheck: ignore[COD101] a\ny = (\nz  # padcheck: ignore[COD102] b\n")
    assert [(each.line, each.rules) for each in found] == [(1, ("COD101",)), (3, ("COD102",))]


def test_nothing_is_tokenized_where_the_word_does_not_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize, "generate_tokens", lambda _: pytest.fail("tokenized"))
    assert suppressions("x = 1  # noqa\n" * 1000) == []


def test_byte_order_mark_and_cell() -> None:
    (found,) = suppressions("\ufeffx  # padcheck: ignore[COD101]\r\n", "n.ipynb", 4)
    assert (found.place.column, found.place.cell) == (4, 4)
