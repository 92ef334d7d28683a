"""JSON read from pieces: the same values as json.loads, the right places, faults in plain words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from padcheck.sources import jsonstream
from padcheck.sources.jsonstream import JsonCursor, parse_line
from padcheck.sources.reading import SourceError

RECORDS: list[Any] = [
    {"prompt": 'a }] [{ " \\ b', "subject": "東京", "n": [1, -2.5e3, [], {}, {"x": None}]},
    {},
    12,
    -0.5,
    True,
    "text, with ] and }",
    [[{"deep": [1, 2]}]],
    {"emoji": "👩‍🚀", "controls": "\n\t\x00\u2028"},
    None,
]

LAYOUTS: dict[str, Callable[[Any], str]] = {
    "compact": lambda value: json.dumps(value, separators=(",", ":")),
    "default": json.dumps,
    "unicode": lambda value: json.dumps(value, ensure_ascii=False),
    "indented": lambda value: json.dumps(value, indent=2),
    "crlf": lambda value: json.dumps(value, indent=1, ensure_ascii=False).replace("\n", "\r\n"),
    "blanks": lambda value: "\n \t" + json.dumps(value, indent=0, separators=(" \t,\n", "\n: ")) + " \r\n",
}


def in_pieces(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def read(text: str, size: int) -> list[tuple[int, int, Any]]:
    """All members of the list `text`, and then its end."""
    cursor = JsonCursor(in_pieces(text, size), "file.json")
    members = list(cursor.items())
    cursor.finish()
    return members


def until_the_fault(parts: Iterator[str]) -> tuple[list[Any], SourceError]:
    """The members that come before the list breaks off, and why it does."""
    got = []
    try:
        for _, _, value in JsonCursor(parts, "file.json").items():
            got.append(value)
    except SourceError as fault:
        return got, fault
    raise AssertionError("the list was read to its end")


def offset(text: str, line: int, column: int) -> int:
    """The index into `text` of a place."""
    starts = [0, *(index + 1 for index, char in enumerate(text) if char == "\n")]
    return starts[line - 1] + column - 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_piece_size_gives_the_same_values_and_places(layout: str) -> None:
    # Pieces of k characters, for every k, put a border at every offset of the text.
    text = LAYOUTS[layout](RECORDS)
    whole = read(text, len(text))
    assert [value for _, _, value in whole] == json.loads(text) == RECORDS
    decoder = json.JSONDecoder()
    for line, column, value in whole:
        assert decoder.raw_decode(text, offset(text, line, column))[0] == value
    for size in range(1, len(text)):
        assert read(text, size) == whole


@given(st.lists(st.text() | st.integers() | st.lists(st.none() | st.floats(allow_nan=False))), st.integers(1, 40))
def test_any_list_is_read_back(values: list[Any], size: int) -> None:
    for layout in LAYOUTS.values():
        text = layout(values)
        assert [value for _, _, value in read(text, size)] == json.loads(text)


@given(st.data())
def test_broken_text_is_a_fault_exactly_where_json_says(data: st.DataObject) -> None:
    text = json.dumps(RECORDS, indent=data.draw(st.sampled_from([None, 1])), ensure_ascii=False)
    at = data.draw(st.integers(1, len(text)))
    cut = data.draw(st.integers(0, 3))
    new = data.draw(st.text("[]{},:\"'\\u1aN\n\t\x00 tru\u00a0", max_size=3))
    text = text[:at] + new + text[at + cut :]
    size = data.draw(st.integers(1, len(text)))
    expected: Any = None
    error: json.JSONDecodeError | None = None
    try:
        expected = json.loads(text)
    except json.JSONDecodeError as caught_error:
        error = caught_error
    if error is None:
        assert repr([value for _, _, value in read(text, size)]) == repr(expected)
        return
    with pytest.raises(SourceError) as caught:
        read(text, size)
    fault = caught.value
    assert fault.line is not None
    assert fault.column is not None
    place = offset(text, fault.line, fault.column)
    moved_to_the_comma = text[place : place + 1] == "," and "comma stands" in fault.message
    assert (fault.line, fault.column) == (error.lineno, error.colno) or moved_to_the_comma
    assert "Expecting" not in fault.message
    assert "char " not in fault.message


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("text", "line", "column", "message", "remedy"),
    [
        ('[{"a": 1},\n]', 1, 10, "A comma stands before the closing ].", "Remove the comma."),
        ('[\n{"a": 1, }]', 2, 8, "A comma stands before the closing }.", "Remove the comma."),
        ('[{"a": [1,]}]', 1, 10, "A comma stands before the closing ].", "Remove the comma."),
        (
            '[{"a": 1}\n{"a": 2}]',
            2,
            1,
            "Found '{' where a comma or the closing ] should stand.",
            "between two",
        ),
        ('[\n{"a": 1}', 2, 9, "The file ends before the list that opens in line 1 is closed.", "closing ]"),
        ('[{"a": 1},\n', 2, 1, "The file ends before the list that opens in line 1 is closed.", "closing ]"),
        ("[", 1, 2, "The file ends before the list that opens in line 1 is closed.", "closing ]"),
        ('[{"a": 1', 1, 9, "The file ends in the middle of a value.", "the rest of the file"),
        ('[{"a"', 1, 6, "The file ends in the middle of a value.", "the rest"),
        ('[{"a": "x', 1, 8, "The text that starts here is never closed by a double quote.", 'missing "'),
        (
            '[{"a": "x,\n"b": 1}]',
            1,
            11,
            "A text in double quotes is not closed before its line ends.",
            'with "',
        ),
        ('[{"a": "x,\r\n"b": 1}]', 1, 11, "A text in double quotes is not closed before its line", 'with "'),
        ('[{"a": "x\ty"}]', 1, 10, "Found the character U+0009 inside a text.", r"\u0009"),
        (r'[{"a": "C:\dir"}]', 1, 11, r"Found '\d' inside a text, which is no escape of JSON.", r"as \\"),
        (r'[{"a": "\u12"}]', 1, 10, r"Found \u without four hexadecimal digits after it.", r"\\"),
        ("[{'a': 1}]", 1, 3, "Found ''' where a key in double quotes should stand.", "not str()"),
        ("[{a: 1}]", 1, 3, "Found 'a' where a key in double quotes should stand.", "keys in double quotes"),
        ('[{"a": None}]', 1, 8, "Found 'None' where a value should stand.", "true, false and null"),
        ('[{"a": Lyon"}]', 1, 8, "Found 'Lyon' where a value should stand.", "text in double quotes"),
        ('[{"a": }]', 1, 8, "Found '}' where a value should stand.", ""),
        ('[{"a" 1}]', 1, 7, "Found '1' where a colon should stand.", "a colon between"),
        (
            '[{"a": "he said "hi""}]',
            1,
            18,
            "Found 'hi' where a comma or a closing bracket should stand.",
            r"\".",
        ),
        ('[{"a": 1, // no\n"b": 2}]', 1, 11, "Found '/' where a key in double quotes", "no comments"),
        ('[{"a":\u00a01}]', 1, 7, "Found the character U+00A0 where a value should stand.", ""),
        (
            '[1]\n{"a": 1}',
            2,
            1,
            "Found '{' after the end of the value, where the file should end.",
            "one list",
        ),
        ('[{"東": "京",\n "👩": x}]', 2, 7, "Found 'x' where a value should stand.", ""),
    ],
)
def test_faults_in_plain_words(text: str, line: int, column: int, message: str, remedy: str, size: int) -> None:
    with pytest.raises(SourceError) as caught:
        read(text, size)
    fault = caught.value
    assert message in fault.message
    assert remedy in fault.remedy
    assert (fault.line, fault.column) == (line, column)
    assert str(fault).startswith(f"file.json:{line}:{column}: ")


def test_what_stands_before_a_fault_is_given_first() -> None:
    text = "[\n" + ",\n".join(json.dumps({"n": number}) for number in range(400)) + "\n]"
    lines = text.split("\n")
    lines[311] = lines[311].replace(":", "")
    for size in (1, 100, 10_000):
        got, fault = until_the_fault(in_pieces("\n".join(lines), size))
        assert [value["n"] for value in got] == list(range(310))
        assert fault.line == 312


def test_a_value_of_many_pieces_is_decoded_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = 0
    real = jsonstream._decode

    def counting(text: str, at: int) -> tuple[Any, int]:
        nonlocal decoded
        decoded += len(text) - at
        return real(text, at)

    monkeypatch.setattr(jsonstream, "_decode", counting)
    text = json.dumps([{"a": "x" * 200_000}, {"b": ["y" * 10] * 20_000}])
    assert [list(value) for _, _, value in read(text, 64)] == [["a"], ["b"]]
    assert decoded < 5 * len(text)


def test_numbers_at_a_border_are_not_cut() -> None:
    assert [value for _, _, value in read("[123, -1.5e-10, 1E5,0 ]", 1)] == [123, -1.5e-10, 1e5, 0]


def test_constants_that_json_loads_accepts() -> None:
    values = [value for _, _, value in read('[NaN, Infinity, -Infinity, {"a": NaN}]', 2)]
    assert repr(values) == "[nan, inf, -inf, {'a': nan}]"


def test_an_integer_that_python_refuses_does_no_harm() -> None:
    digits = "9" * 5000
    assert read(f'[{{"a": {digits}}}]', 100) == [(1, 2, {"a": digits})]


def test_deep_nesting_is_a_fault_and_no_crash() -> None:
    with pytest.raises(SourceError, match="nested too deeply"):
        read("[" * 200_000, 10_000)


def test_a_fault_of_the_pieces_comes_after_all_text_before_it() -> None:
    def parts() -> Iterator[str]:
        yield '[{"a": 1}, {"a"'
        yield ": 2}"
        raise SourceError("The gzip data ends too early.", path="f")

    got, fault = until_the_fault(parts())
    assert got == [{"a": 1}, {"a": 2}]
    assert "gzip" in fault.message


def test_enter_moves_to_the_value_of_a_key() -> None:
    text = '\n{"meta": {"requests": [0]},\n "requests": [1, 2]}'
    cursor = JsonCursor(in_pieces(text, 3), "f")
    cursor.enter("requests")
    assert (cursor.line, cursor.column) == (3, 14)
    assert [value for _, _, value in cursor.items()] == [1, 2]


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ('{"a": 1},\n', 9, "Found ',' after the end of the value, where the line should end."),
        ('{"a": 1} {"a": 2}', 10, "Found '{' after the end of the value, where the line should end."),
        ('{"a": 1 \r\n', 8, "The line ends in the middle of a value."),
    ],
)
def test_faults_of_one_line(text: str, column: int, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_line(text, "file.jsonl", 7)
    assert caught.value.message == message
    assert (caught.value.line, caught.value.column) == (7, column)
