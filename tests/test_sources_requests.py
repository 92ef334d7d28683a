"""Request files: every shape and container is read to the same requests; faults are sentences with places."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from padcheck.sources import requests as requests_module
from padcheck.sources.reading import SourceError
from padcheck.sources.requests import Request, RequestProblem, as_requests, read_requests

COUNTERFACT_500 = Path(__file__).parents[2] / "shared" / "data" / "counterfact_500.json"

EASY: list[dict[str, Any]] = [
    {"case_id": 0, "prompt": "The mother tongue of Ann is", "subject": "Ann", "target_new": "English"},
    {
        "case_id": "b",
        "prompt": "{} 的首都是",
        "subject": "日本",
        "target_new": " 京都",
        "rephrase_prompt": "?",
    },
    {
        "prompt": 'Who said "hi", [{}]?',
        "subject": "👩‍🚀",
        "target_new": "",
        "locality": {"a": [1, {"b": None}]},
    },
]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path | str, **options: Any) -> list[Request | RequestProblem]:
    return list(read_requests(path, **options))


def requests_of(path: Path | str, **options: Any) -> list[Request]:
    got = read(path, **options)
    assert not [one for one in got if isinstance(one, RequestProblem)]
    return [one for one in got if isinstance(one, Request)]


def only_problem(path: Path | str, **options: Any) -> RequestProblem:
    (problem,) = (one for one in read(path, **options) if isinstance(one, RequestProblem))
    return problem


def summary(request: Request) -> tuple[Any, ...]:
    return (request.index, request.case_id, request.prompt, request.subject, request.target_new)


def lines_of(records: list[Any]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def table_of(records: list[dict[str, Any]], delimiter: str = ",") -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["case_id", "prompt", "subject", "target_new"], delimiter=delimiter, restval="")
    writer.writeheader()
    writer.writerows({key: record.get(key, "") for key in writer.fieldnames} for record in records)
    return file.getvalue()


# ---- Shapes


@pytest.mark.parametrize(
    ("record", "shape", "expected", "extra"),
    [
        (
            {"prompt": "{} is", "subject": "S", "target_new": "T", "ground_truth": "G", "target_neg": "N"},
            "easyedit",
            (None, "{} is", "S", "T"),
            {"ground_truth": "G", "target_neg": "N"},
        ),
        (
            {"case_id": 3, "prompt": "P S", "subject": "S", "target_new": {"str": "T", "id": "Q1"}},
            "easyedit",
            (3, "P S", "S", "T"),
            {},
        ),
        (
            {"prompt": "{} is", "subject": "S", "target": "T", "queries": ["Q"]},
            "fastedit",
            (None, "{} is", "S", "T"),
            {"queries": ["Q"]},
        ),
        ({"text": "P", "concept": "S", "labels": "T"}, "knowedit", (None, "P", "S", "T"), {}),
        ({"text": "P", "subject": "S", "target_new": "T"}, "knowedit", (None, "P", "S", "T"), {}),
        (
            {
                "src": "P?",
                "subject": "S",
                "alt": "T",
                "answers": ["A"],
                "pred": "X",
                "rephrase": "R",
                "loc": "L",
            },
            "zsre",
            (None, "P?", "S", "T"),
            {"answers": ["A"], "pred": "X", "rephrase": "R", "loc": "L"},
        ),
        (
            {"src": "P?", "subject": "S", "answers": ["A", "B"]},
            "zsre",
            (None, "P?", "S", "A"),
            {"answers": ["A", "B"]},
        ),
        ({"src": "P?", "subject": "S", "ans": "T"}, "zsre", (None, "P?", "S", "T"), {}),
        ({"update": "P", "subject": "S", "ans": "T"}, "wikibigedit", (None, "P", "S", "T"), {}),
        (
            {
                "id": 9,
                "question": "Q",
                "adversarial prompt": "P",
                "safe generation": "T",
                "unsafe generation": "U",
            },
            "safeedit",
            (9, "P", "", "T"),
            {"question": "Q", "unsafe generation": "U"},
        ),
        (
            {"question": "P", "answer": "T", "para_question": "R"},
            "unke",
            (None, "P", "", "T"),
            {"para_question": "R"},
        ),
        ({"case_index": 4, "question": "P", "subject": "S", "answer": "T"}, "unke", (4, "P", "S", "T"), {}),
        (
            {
                "case_id": 5,
                "requested_rewrite": {
                    "prompt": "{} in",
                    "relation_id": "P1",
                    "target_new": {"str": "T", "id": "Q1"},
                    "target_true": {"str": "O", "id": "Q2"},
                    "subject": "S",
                },
                "paraphrase_prompts": ["R"],
            },
            "counterfact",
            (5, "{} in", "S", "T"),
            {"paraphrase_prompts": ["R"], "relation_id": "P1", "target_true": {"str": "O", "id": "Q2"}},
        ),
        (
            {"requested_rewrite": {"prompt": "{} in", "subject": "S", "answer_new": "T", "answer_true": "O"}},
            "counterfact",
            (None, "{} in", "S", "T"),
            {"answer_true": "O"},
        ),
    ],
)
def test_shapes(
    tmp_path: Path, record: dict[str, Any], shape: str, expected: tuple[Any, ...], extra: dict[str, Any]
) -> None:
    needs = {"subject_required": bool(expected[2])}
    (request,) = requests_of(write(tmp_path, "r.json", json.dumps([record])), **needs)
    assert summary(request) == (0, *expected)
    assert request.shape == shape
    assert dict(request.extra) == extra
    # The same record alone in its file, and on a line of its own.
    for path in (
        write(tmp_path, "one.json", json.dumps(record, indent=1)),
        write(tmp_path, "r.jsonl", lines_of([record])),
    ):
        assert [summary(one) for one in requests_of(path, **needs)] == [summary(request)]


def test_mquake_gives_one_request_for_each_edit(tmp_path: Path) -> None:
    def edit(subject: str) -> dict[str, Any]:
        return {"prompt": "{} is", "subject": subject, "target_new": {"str": "T"}, "question": "Q?"}

    records = [
        {"case_id": 7, "requested_rewrite": [edit("A"), edit("B")], "questions": ["X?"]},
        {"case_id": 8, "requested_rewrite": [edit("C"), 5, {"prompt": "{}"}]},
        {"requested_rewrite": [edit("D")]},
        {"case_id": 9, "requested_rewrite": []},
    ]
    got = read(write(tmp_path, "r.json", json.dumps(records)))
    assert [(one.index, one.case_id) for one in got] == [
        (0, "7.0"),
        (1, "7.1"),
        (2, "8.0"),
        (3, "8.1"),
        (4, "8.2"),
        (5, None),
        (6, 9),
    ]
    assert [getattr(one, "subject", None) for one in got] == ["A", "B", "C", None, None, "D", None]
    assert [getattr(one, "message", "") for one in got if isinstance(one, RequestProblem)] == [
        "Edit 1 of 'requested_rewrite' is a number, not an object with keys.",
        "'requested_rewrite' has no 'subject' and no 'target_new' key; it has 'prompt'.",
        "'requested_rewrite' is an empty list, not an edit or a list of edits.",
    ]
    assert isinstance(got[0], Request)
    assert got[0].shape == "mquake"
    assert dict(got[0].extra) == {"questions": ["X?"], "question": "Q?"}


def test_zsre_target_is_the_one_that_the_framework_takes(tmp_path: Path) -> None:
    path = write(tmp_path, "r.json", json.dumps([{"src": "P", "subject": "S", "alt": "new", "answers": ["true"]}]))
    assert requests_of(path)[0].target_new == "new"
    assert requests_of(path, zsre_target="answers")[0].target_new == "true"
    assert requests_of(path, zsre_target="answers")[0].extra["alt"] == "new"


def test_subject_may_be_left_out_where_the_method_needs_none(tmp_path: Path) -> None:
    path = write(tmp_path, "r.json", json.dumps([{"prompt": "P", "target_new": "T"}]))
    assert only_problem(path).message == "The request has no 'subject' key; it has 'prompt' and 'target_new'."
    assert requests_of(path, subject_required=False)[0].subject == ""
    null = write(tmp_path, "n.json", json.dumps([{"prompt": "P", "subject": None, "target_new": "T"}]))
    assert only_problem(null).message == "'subject' is null, not text."
    assert requests_of(null, subject_required=False)[0].subject == ""
    unke = write(tmp_path, "u.json", json.dumps([{"question": "P", "answer": "T"}]))
    assert only_problem(unke).message == "The request has no 'subject' key; it has 'question' and 'answer'."


def test_records_that_are_objects_already_are_left_as_they_are() -> None:
    records: list[Any] = [
        {"case_id": 1, "requested_rewrite": {"prompt": "{} is", "subject": "S", "target_new": {"str": "T"}}},
        {"case_id": 2, "requested_rewrite": [{"prompt": "{} is", "subject": "S", "target_new": {"str": "T"}}]},
        MappingProxyType({"prompt": "S is", "subject": "S", "target_new": "T", 5: "five"}),
        {"prompt": "S is", "subject": "S"},
        "S is",
    ]
    before = repr(records)
    got = list(as_requests(records))
    assert repr(records) == before
    assert [(one.index, one.case_id, one.line) for one in got] == [
        (0, 1, None),
        (1, "2.0", None),
        (2, None, None),
        (3, None, None),
        (4, None, None),
    ]
    assert [type(one) for one in got] == [Request, Request, Request, RequestProblem, RequestProblem]
    (bare,) = as_requests([{"prompt": "P", "target_new": "T"}], subject_required=False)
    assert isinstance(bare, Request)
    assert bare.subject == ""


# ---- Containers


CONTAINERS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "array.json": lambda records: json.dumps(records),
    "indented.json": lambda records: json.dumps(records, indent=4, ensure_ascii=False),
    "tight.json": lambda records: json.dumps(records, separators=(",", ":")),
    "array.jsonl": lambda records: json.dumps(records),
    "unnamed": lambda records: "\n\n" + json.dumps(records) + "\n\n",
    "lines.jsonl": lines_of,
    "lines.ndjson": lambda records: lines_of(records).replace("\n", "\n\n \n"),
    "lines.json": lines_of,
    "lines": lambda records: "\n\n" + lines_of(records),
    "wrapped.json": lambda records: json.dumps({"about": {"n": [1]}, "requests": records, "end": [{}]}),
    "wrapped-indented.json": lambda records: json.dumps({"data": records}, indent=1),
    "wrapped-otherwise.json": lambda records: json.dumps({"version": 1, "edits": records}, indent=1),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_of_json(tmp_path: Path, name: str, newline: str, bom: bytes, packed: bool) -> None:
    text = CONTAINERS[name](EASY)
    data = bom + text.replace("\n", newline).encode()
    # Packed files keep their name: gzip is told by its first bytes.
    path = write(tmp_path, name, gzip.compress(data) if packed else data)
    for piece_bytes in (1, 5, 64, 1 << 16):
        got = requests_of(path, piece_bytes=piece_bytes)
        assert [summary(one) for one in got] == [
            (0, 0, "The mother tongue of Ann is", "Ann", "English"),
            (1, "b", "{} 的首都是", "日本", " 京都"),
            (2, None, 'Who said "hi", [{}]?', "👩‍🚀", ""),
        ]
        assert [dict(one.extra) for one in got] == [
            {},
            {"rephrase_prompt": "?"},
            {"locality": {"a": [1, {"b": None}]}},
        ]
        lines = text.split("\n")
        for one in got:
            assert one.line is not None
            assert one.column is not None
            assert lines[one.line - 1][one.column - 1] == "{"
        assert len({(one.line, one.column) for one in got}) == 3


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("name", "delimiter"), [("r.csv", ","), ("r.tsv", "\t"), ("R.CSV.GZ", ",")])
def test_tables(tmp_path: Path, name: str, delimiter: str, packed: bool) -> None:
    records = [
        EASY[0],
        {"case_id": "007", "prompt": 'Two\nlines, "{}"\tis', "subject": "日本", "target_new": " 京都"},
        {"prompt": "P", "subject": "", "target_new": ""},
    ]
    data = b"\xef\xbb\xbf" + table_of(records, delimiter).encode()
    got = requests_of(write(tmp_path, name, gzip.compress(data) if packed else data))
    assert [summary(one) for one in got] == [
        (0, 0, "The mother tongue of Ann is", "Ann", "English"),
        (1, "007", 'Two\nlines, "{}"\tis', "日本", " 京都"),
        (2, None, "P", "", ""),
    ]
    assert [(one.line, one.column) for one in got] == [(2, 1), (3, 1), (5, 1)]


def test_format_can_be_named(tmp_path: Path) -> None:
    assert len(requests_of(write(tmp_path, "r.txt", table_of(EASY)), format="csv")) == 3
    assert len(requests_of(write(tmp_path, "r.dat", table_of(EASY, "\t")), format="tsv")) == 3
    assert len(requests_of(write(tmp_path, "r.txt", lines_of(EASY)), format="jsonl")) == 3
    assert len(requests_of(write(tmp_path, "r.jsonl", json.dumps(EASY)), format="json")) == 3
    with pytest.raises(ValueError, match="format is 'xml'"):
        read(tmp_path / "r.txt", format="xml")


def test_standard_input_is_read_and_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (json.dumps(EASY).encode(), gzip.compress(lines_of(EASY).encode())):
        stdin = io.TextIOWrapper(io.BytesIO(data))
        monkeypatch.setattr("sys.stdin", stdin)
        assert [one.target_new for one in requests_of("-")] == ["English", " 京都", ""]
        assert not stdin.buffer.closed


def test_keywords_of_easyedits_edit(tmp_path: Path) -> None:
    document = {
        "prompts": ["A is", "B is"],
        "subject": ["A", "B"],
        "target_new": ["x", "y"],
        "ground_truth": None,
        "rephrase_prompts": ["A?", "B?"],
        "locality_inputs": {"near": {"prompt": ["p", "q"], "ground_truth": ["r", "s"]}},
    }
    got = requests_of(write(tmp_path, "r.json", json.dumps(document, indent=1)))
    assert [summary(one) for one in got] == [(0, None, "A is", "A", "x"), (1, None, "B is", "B", "y")]
    assert [(one.line, one.column) for one in got] == [(3, 3), (4, 3)]
    assert dict(got[1].extra) == {
        "ground_truth": None,
        "rephrase_prompt": "B?",
        "locality": {"near": {"prompt": "q", "ground_truth": "s"}},
    }
    single = {"prompts": "A is", "subject": "A", "target_new": "x"}
    assert [summary(one) for one in requests_of(write(tmp_path, "s.json", json.dumps(single)))] == [summary(got[0])]
    columns = {"prompt": ["A is"], "subject": ["A"], "target_new": ["x"]}
    assert [summary(one) for one in requests_of(write(tmp_path, "c.json", json.dumps(columns)))] == [summary(got[0])]


TEXTS = st.text() | st.text('{}[]",\\:\n\r\t \u2028é東👩', max_size=8)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {"prompt": TEXTS, "subject": TEXTS, "target_new": TEXTS},
        optional={
            "case_id": st.integers() | TEXTS,
            "locality": st.recursive(st.none() | st.floats(allow_nan=False) | TEXTS, st.lists, max_leaves=5),
        },
    ),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(RECORDS, st.integers(1, 200), st.booleans())
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], piece_bytes: int, ascii: bool
) -> None:
    folder = tmp_path_factory.mktemp("written")
    texts = {f"{indent}.json": json.dumps(records, indent=indent, ensure_ascii=ascii) for indent in (None, 0, 3)}
    texts["l.jsonl"] = "".join(json.dumps(record, ensure_ascii=ascii) + "\n" for record in records)
    for name, text in texts.items():
        got = requests_of(write(folder, name, text), piece_bytes=piece_bytes)
        assert [
            {"prompt": one.prompt, "subject": one.subject, "target_new": one.target_new, **one.extra} for one in got
        ] == [{key: record[key] for key in record if key != "case_id"} for record in records]
        assert [one.case_id for one in got] == [record.get("case_id") for record in records]
        assert [one.index for one in got] == list(range(len(records)))


# ---- Records that are no requests


@pytest.mark.parametrize(
    ("record", "message", "remedy"),
    [
        (
            {"case_id": 1, "prompt": "P", "subjct": "S", "target_new": "T"},
            "The request has no 'subject' key; it has 'prompt', 'subjct' and 'target_new'.",
            "Rename 'subjct' to 'subject'.",
        ),
        (
            {"case_id": 1, "prompt": "P", "target_new": "T"},
            "The request has no 'subject' key; it has 'prompt' and 'target_new'.",
            "Add 'subject': the words of the prompt that the fact is about.",
        ),
        (
            {"case_id": 1, "Prompt": "P", "subject": "S", "target_new": "T"},
            "The request has no 'prompt' key; it has 'Prompt', 'subject' and 'target_new'.",
            "Rename 'Prompt' to 'prompt'.",
        ),
        (
            {"case_id": 1, "prompt": "P", "subject": "S", "target_true": "T", "target_neg": "N"},
            "The request has no 'target_new' key; it has 'prompt', 'subject', 'target_true' and 'target_neg'.",
            "Add 'target_new': the new answer.",
        ),
        (
            {"case_id": 1, "src": "P", "subject": "S"},
            "The request has no 'alt' key; it has 'src' and 'subject'.",
            "Add 'alt': the new answer.",
        ),
        (
            {"case_id": 1},
            "The request has no 'prompt' and no 'subject' and no 'target_new' key; it has nothing.",
            "Add 'prompt': the sentence to complete.",
        ),
        (
            {"case_id": 1, "prompt": "P", "subject": "S", "target_new": 7},
            "'target_new' is a number, not text.",
            "quotes",
        ),
        (
            {"case_id": 1, "prompt": None, "subject": "S", "target_new": "T"},
            "'prompt' is null, not text.",
            "quotes",
        ),
        (
            {"case_id": 1, "prompt": "P", "subject": float("nan"), "target_new": "T"},
            "'subject' is NaN (a missing",
            "",
        ),
        (
            {"case_id": 1, "prompt": "P", "subject": True, "target_new": "T"},
            "'subject' is true, not text.",
            "",
        ),
        (
            {"case_id": 1, "prompt": ["P"], "subject": "S", "target_new": "T"},
            "'prompt' is a list, not text.",
            "",
        ),
        (
            {"case_id": 1, "prompt": "P", "subject": "S", "target_new": {"id": "Q"}},
            "'target_new' is an object, not",
            "",
        ),
        (
            {"case_id": 1, "src": "P", "subject": "S", "answers": []},
            "'answers' is an empty list, not text.",
            "",
        ),
        (
            {"case_id": 1, "prompt": "P", "subject": "\ud83d", "target_new": "T"},
            "'subject' holds half of a surrog",
            "",
        ),
        (
            {"case_id": 1, "requested_rewrite": "P"},
            "'requested_rewrite' is text, not an edit or a list of edits.",
            "",
        ),
        (
            {"case_id": 1, "requested_rewrite": {"prompt": "P", "subject": "S"}},
            "'requested_rewrite' has no 'target_new' key; it has 'prompt' and 'subject'.",
            "Add 'target_new'",
        ),
        (
            {"case_id": 1, **{f"key{number}": 0 for number in range(40)}},
            "'key10', 'key11' and 28 more.",
            "",
        ),
    ],
)
def test_a_record_that_is_no_request_is_named_and_reading_goes_on(
    tmp_path: Path, record: Any, message: str, remedy: str
) -> None:
    records = [EASY[0], record, EASY[1]]
    for path, line in (
        (write(tmp_path, "r.json", json.dumps(records, indent=None).replace(", {", ",\n{")), 2),
        (write(tmp_path, "r.jsonl", "".join(json.dumps(one) + "\n" for one in records)), 2),
    ):
        before, problem, after = read(path)
        assert isinstance(before, Request)
        assert isinstance(after, Request)
        assert after.index == 2
        assert isinstance(problem, RequestProblem)
        assert not problem.stopped
        assert message in problem.message
        assert remedy in problem.remedy
        assert (problem.index, problem.case_id, problem.line, problem.column) == (1, 1, line, 1)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("[1]", "a list"), ("null", "null"), ("3", "a number"), ('"P"', "text"), ("[]", "an empty list")],
)
def test_a_record_that_is_no_object(tmp_path: Path, text: str, kind: str) -> None:
    first = json.dumps(EASY[0])
    for path in (
        write(tmp_path, "r.json", f"[{first},\n{text},\n{first}]"),
        write(tmp_path, "r.jsonl", f"{first}\n{text}\n{first}\n"),
    ):
        got = read(path)
        assert [type(one) for one in got] == [Request, RequestProblem, Request]
        assert only_problem(path).message == f"The record is {kind}, not an object with keys."
        assert only_problem(path).line == 2


def test_ids_that_are_none_stay_with_the_record(tmp_path: Path) -> None:
    records = [{**EASY[2], "case_id": value} for value in (None, True, 1.5, [1], "\ud800")]
    got = requests_of(write(tmp_path, "r.json", json.dumps(records)))
    assert [one.case_id for one in got] == [None, None, None, None, "\\ud800"]
    assert [one.extra.get("case_id") for one in got] == [None, True, 1.5, [1], None]


# ---- Files that break off


def test_broken_json_in_line_312(tmp_path: Path) -> None:
    lines = ["["] + [json.dumps({**EASY[0], "case_id": number}) + "," for number in range(500)] + ["]"]
    lines[500] = lines[500].rstrip(",")
    for broken, message in (
        (lines[311].replace('"subject": "', '"subject": '), "Found 'Ann' where a value should stand."),
        (
            lines[311].replace('Ann"', "Ann"),
            "Found 'target_new' where a comma or a closing bracket should stand.",
        ),
        (lines[311].replace("case_id", "case\\id"), "Found '\\i' inside a text, which is no escape of JSON."),
        (lines[311][:-1], "Found '{' where a comma or the closing ] should stand."),
    ):
        text = "\n".join([*lines[:311], broken, *lines[312:]])
        *before, problem = read(write(tmp_path, "r.json", text))
        assert isinstance(problem, RequestProblem)
        assert problem.stopped
        assert problem.message == message
        assert problem.line == (313 if "closing ]" in message else 312)
        assert problem.index == len(before) == (311 if problem.line == 313 else 310)
        assert all(isinstance(one, Request) for one in before)


def test_broken_json_lines_are_named_and_skipped(tmp_path: Path) -> None:
    good = json.dumps(EASY[0])
    broken = {2: good[:-1], 4: good + ",", 5: "{'prompt': 1}", 7: good.replace("Ann", "\xff")}
    lines = [broken.get(number, good) for number in range(1, 10)]
    for name in ("r.jsonl", "r.json"):
        got = read(write(tmp_path, name, "\n".join(lines).encode("latin-1")))
        assert [one.index for one in got] == list(range(9))
        problems = [one for one in got if isinstance(one, RequestProblem)]
        assert [(one.index, one.line) for one in problems] == [(1, 2), (3, 4), (4, 5), (6, 7)]
        assert [one.message for one in problems] == [
            "The line ends in the middle of a value.",
            "Found ',' after the end of the value, where the line should end.",
            "Found ''' where a key in double quotes should stand.",
            "The byte 0xFF is not UTF-8.",
        ]
        assert problems[3].column == good.index("Ann") + 1
        assert not any(one.stopped for one in problems)


def test_the_first_of_the_lines_may_be_the_broken_one(tmp_path: Path) -> None:
    good = json.dumps(EASY[0])
    for first in (good + ",", good.replace("Ann", 'A"n'), good.replace(":", "", 1)):
        got = read(write(tmp_path, "r.json", f"{first}\n{good}\n{good}\n"))
        assert [type(one) for one in got] == [RequestProblem, Request, Request]
        assert got[0].line == 1


def test_bytes_that_are_no_utf8_stop_an_array_at_their_place(tmp_path: Path) -> None:
    first, second = json.dumps(EASY[1], ensure_ascii=False).encode(), json.dumps(EASY[0]).encode()
    data = b"[" + first + b",\r\n" + second.replace(b"Ann", b"A\xe9n", 1) + b"]"
    for piece_bytes in (1, 3, 1 << 16):
        before, problem = read(write(tmp_path, "r.json", data), piece_bytes=piece_bytes)
        assert isinstance(before, Request)
        assert isinstance(problem, RequestProblem)
        assert problem.message == "The byte 0xE9 is not UTF-8."
        assert problem.stopped
        assert (problem.line, problem.column) == (2, second.index(b"Ann") + 2)
    cut = b"[" + first + b', {"prompt": "\xe6\x9d'
    problem = only_problem(write(tmp_path, "r.json", cut))
    assert problem.message == "The file ends in the middle of a UTF-8 character."
    table = table_of([EASY[1], EASY[0]]).encode().replace(b"Ann", b"\xff")
    _, problem = read(write(tmp_path, "r.csv", table))
    assert isinstance(problem, RequestProblem)
    assert (problem.line, problem.column) == (3, 24)
    assert problem.stopped


def test_gzip_cut_short_or_damaged(tmp_path: Path) -> None:
    data = gzip.compress(json.dumps([{**EASY[0], "case_id": number} for number in range(5000)]).encode())
    got = read(write(tmp_path, "r.json.gz", data[: len(data) // 2]))
    assert len(got) > 100
    assert all(isinstance(one, Request) for one in got[:-1])
    assert isinstance(got[-1], RequestProblem)
    assert got[-1].message == "The gzip data ends too early."
    damaged = data[:-8] + b"\x00" * 8  # the check sum
    *got, problem = read(write(tmp_path, "r.json.gz", damaged))
    assert len(got) == 5000
    assert isinstance(problem, RequestProblem)
    assert problem.message == "The gzip data is damaged."
    assert problem.stopped


@pytest.mark.parametrize(
    ("row", "message", "line", "stopped"),
    [
        ("1,a,b", "The row has 3 cells, but the header has 4.", 3, False),
        ("1,a, b,c,d", "The row has 5 cells, but the header has 4.", 3, False),
        ('1,"a"b,c,d', "Text follows the closing double quote of a cell.", 3, False),
        ('1,"a,b,c', "The file ends inside a cell in double quotes.", 3, True),
        ('1,"' + "a" * 140_000 + '",b,c', "A cell is longer than 131072 characters.", 3, True),
    ],
)
def test_broken_rows(tmp_path: Path, row: str, message: str, line: int, stopped: bool) -> None:
    text = f"case_id,prompt,subject,target_new\r\n0,P,S,T\r\n{row}\r\n2,P,S,T\r\n"
    got = read(write(tmp_path, "r.csv", text))
    problem = got[1]
    assert isinstance(problem, RequestProblem)
    assert (problem.message, problem.line, problem.stopped) == (message, line, stopped)
    assert len(got) == (2 if stopped else 3)


# ---- Files with nothing to give


@pytest.mark.parametrize(
    ("name", "content", "message", "remedy"),
    [
        ("r.json", b"", "The file is empty.", "right file"),
        ("r.json", b" \r\n\t\n", "The file is empty.", ""),
        ("r.json", b"\xef\xbb\xbf", "The file is empty.", ""),
        ("r.jsonl", b"\n\n", "The file is empty.", ""),
        ("r.csv", b"", "The file is empty.", ""),
        ("r.json.gz", gzip.compress(b"", mtime=0), "The file is empty.", ""),
        ("r.json", b"[\n]\n", "There is no request in the file.", ""),
        ("r.json", b'{"requests": []}', "There is no request in the file.", ""),
        ("r.csv", b"case_id,prompt,subject,target_new\n\n", "There is no request in the file.", ""),
        (
            "r.csv",
            b"prompt,subjects,target_new\nP,S,T",
            "The header has no 'subject' column; it has",
            "Rename 'subjects'",
        ),
        (
            "r.csv",
            b"prompt;subject;target_new\nP;S;T",
            "The header has no 'prompt'",
            "Separate the cells by commas.",
        ),
        ("r.json", b"hello", "Found 'hello' where the requests should start with [ or {.", "CSV"),
        ("r.json", b"case_id,prompt\n", "Found 'case_id' where the requests should start", "CSV"),
        ("r.json", '["P"]'.encode("utf-16"), "The file is UTF-16, not UTF-8.", "Save it as UTF-8."),
        ("r.json", b"\x80abc", "The byte 0x80 is not UTF-8.", "UTF-8"),
        ("r.json", b"PK\x03\x04rest", "The file is a zip archive (an Excel workbook is one), not text.", ""),
        ("r.json", b"BZh9rest", "The file is a bzip2 archive, not text.", ""),
        (
            "r.json",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 45108470\n",
            "The file is a Git LFS pointer, not the data itself.",
            "git lfs pull",
        ),
        (
            "r.json",
            b'{"a": 1, "b": [2]}',
            "The object is no request and holds no list of requests; it has 'a' and",
            "",
        ),
        (
            "r.json",
            b'{"a": [{}], "b": [{}]}',
            "It is not clear which list of the object holds the requests: 'a'",
            "alone",
        ),
        (
            "r.json",
            b'{"prompts": ["P", "Q"], "subject": ["S"], "target_new": ["T", "U"]}',
            "'prompts' has 2 members, but 'subject' has 1.",
            "Give each prompt its 'subject'.",
        ),
        (
            "r.json",
            b'{"prompts": ["P"], "target_new": ["T"]}',
            "The object of lists has no 'subject' key",
            "Add 'subject'",
        ),
        ("r.json", b'{"requests": [\n{"prompt": }]}', "Found '}' where a value should stand.", ""),
        ("r.json.gz", b"\x1f\x8b\x08nothing", "The gzip data", "again"),
    ],
)
def test_files_with_nothing_to_give(tmp_path: Path, name: str, content: bytes, message: str, remedy: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(SourceError) as caught:
        read(path)
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.path == str(path)
    assert str(caught.value).startswith(str(path))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    write(tmp_path, "counterfact.json", "[]")
    with pytest.raises(SourceError, match="no such file") as caught:
        read(tmp_path / "conterfact.json")
    assert caught.value.remedy == f"Did you mean {str(tmp_path / 'counterfact.json')!r}?"
    with pytest.raises(SourceError, match="no such file") as caught:
        read(tmp_path / "absent" / "r.json")
    assert caught.value.remedy == f"There is no folder {str(tmp_path / 'absent')!r} either."
    with pytest.raises(SourceError, match="This is a folder"):
        read(tmp_path)
    with pytest.raises(SourceError, match="not the name of a file"):
        read("a\0b")


def test_an_object_too_large_to_be_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests_module, "WHOLE_LIMIT", 2_000_000)
    path = write(tmp_path, "r.json", json.dumps({"requests": EASY, "rest": "x" * 2_000_000}))
    with pytest.raises(SourceError, match="larger than 2 MB") as caught:
        read(path)
    assert "JSON Lines" in caught.value.remedy


# ---- Memory, and real data


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["array", "lines", "table"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, layout: str) -> None:
    def peak(count: int) -> int:
        records = ({**EASY[0], "case_id": number, "rephrase_prompt": "x" * 40} for number in range(count))
        path = tmp_path / (f"{count}.csv" if layout == "table" else f"{count}.json")
        with path.open("w", encoding="utf-8") as file:
            if layout == "table":
                csv.writer(file).writerow(EASY[0])
                csv.writer(file).writerows([record[key] for key in EASY[0]] for record in records)
            else:
                begin, between, end = ("[", ", ", "]") if layout == "array" else ("", "\n", "\n")
                file.write(begin)
                for record in records:
                    file.write((between if record["case_id"] else "") + json.dumps(record))
                file.write(end)
        tracemalloc.start()
        try:
            assert sum(isinstance(one, Request) for one in read_requests(path)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1000)  # what is made once, such as compiled patterns
    assert peak(100_000) <= 1.2 * peak(1000) + 100_000


@pytest.mark.skipif(not COUNTERFACT_500.exists(), reason="the shared data is not here")
def test_500_requests_of_counterfact() -> None:
    got = requests_of(COUNTERFACT_500)
    assert [one.case_id for one in got] == [record["case_id"] for record in json.loads(COUNTERFACT_500.read_text("utf-8"))]
    assert summary(got[0]) == (
        0,
        0,
        "The mother tongue of Danielle Darrieux is",
        "Danielle Darrieux",
        "English",
    )
    assert (got[0].line, got[0].column, got[1].line) == (2, 1, 9)
    assert all(one.subject and one.subject in one.prompt and one.extra["rephrase_prompt"] for one in got)
