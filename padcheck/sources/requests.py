"""Edit requests read from a file, one at a time, in every shape that the public editors' own loaders read.

Records are told apart by their keys. The shapes, and where each was read (EE is EasyEdit 14cea82, UME is
unified-model-editing 23d72b5, rome 0874014, memit 80426fd, FastEdit 76a8cf6; file:line):

easyedit     prompt, subject, target_new (text or {"str": text})
             EE easyeditor/editors/utils.py:170-212, easyeditor/models/eamet/compute_z.py:18-22
fastedit     prompt, subject, target
             FastEdit data/example.json:3-5, fastedit/rome/compute_v.py:29
knowedit     prompt or text, subject or concept, target_new or labels
             EE easyeditor/dataset/knowedit.py:66-68
zsre         src, subject and alt             EE examples/run_AlphaEdit_editing.py:70-73
                          or answers[0]       rome dsets/zsre.py:36-39, and its descendants
                          or ans              EE examples/run_ultraedit_editing.py:50-53
wikibigedit  update, subject, ans
             EE easyeditor/dataset/wikibigedit.py:66-68
safeedit     adversarial prompt, safe generation; no subject; its id is `id`
             EE easyeditor/dataset/safety.py:54-58
unke         question, answer; a subject where there is one
             EE easyeditor/dataset/AKEW_both.py:279-281, UME data/counterfact_qna.json:3-6 (`case_index`)
counterfact  requested_rewrite: {prompt, subject, target_new or answer_new}
             memit experiments/evaluate.py:150, EE easyeditor/dataset/AKEW_both.py:157-159
mquake       requested_rewrite: [{prompt, subject, target_new}, ...]: one request each
             EE easyeditor/dataset/MQuAKE.py:70-74

Around the records: a JSON array, JSON Lines, CSV or TSV with a header (EE
easyeditor/dataset/HalluEditBench.py:57 reads CSV), each plain or gzip; an object around the array; one record
alone; or an object of lists under the names of the keywords of EasyEdit's `edit()` (EE
easyeditor/editors/utils.py:159-266).
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal, NamedTuple, get_args

from padcheck.sources.jsonstream import JsonCursor, parse_line
from padcheck.sources.reading import PIECE_BYTES, SourceError, decoded, not_utf8, open_source, pieces

Format = Literal["json", "jsonl", "csv", "tsv"]
ZsreTarget = Literal["alt", "answers"]

WHOLE_LIMIT = 50_000_000
"""An object around the requests is read whole; this many bytes at most."""


@dataclass(frozen=True, slots=True)
class Request:
    """One edit as its file has it: nothing is added, stripped or filled in.

    index       0-based position among the requests of the file, those that could not be read included
    case_id     the record's own id; "7.0", "7.1", ... for the edits of an MQuAKE record 7
    prompt      may hold one `{}` in the subject's place
    subject     "" where the record has none, which is a problem unless the caller needs none
    target_new  the new answer, without the space that editors put before it
    line, column  1-based place of the record, None where unknown; a column in code points
    extra       everything else of the record (ground_truth, target_true, rephrase_prompt, locality, ...)
    shape       which of the shapes above the record has
    """

    index: int
    case_id: str | int | None
    prompt: str
    subject: str
    target_new: str
    line: int | None
    column: int | None
    extra: Mapping[str, Any]
    shape: str


@dataclass(frozen=True, slots=True)
class RequestProblem:
    """A record that is no request, or a place from which the file cannot be read on (`stopped`)."""

    index: int
    case_id: str | int | None
    line: int | None
    column: int | None
    message: str
    remedy: str
    stopped: bool = False


class _Shape(NamedTuple):
    name: str
    prompt: str
    target: str
    subjects: tuple[str, ...] = ("subject",)


# The first shape wins whose prompt and target keys a record has.
_SHAPES = (
    _Shape("easyedit", "prompt", "target_new"),
    _Shape("fastedit", "prompt", "target"),
    _Shape("knowedit", "prompt", "labels", ("subject", "concept")),
    _Shape("knowedit", "text", "labels", ("subject", "concept")),
    _Shape("knowedit", "text", "target_new", ("subject", "concept")),
    _Shape("zsre", "src", "alt"),
    _Shape("zsre", "src", "answers"),
    _Shape("zsre", "src", "ans"),
    _Shape("wikibigedit", "update", "ans"),
    _Shape("safeedit", "adversarial prompt", "safe generation"),
    _Shape("unke", "question", "answer"),
)
_REWRITE_SHAPES = (
    _Shape("counterfact", "prompt", "target_new"),
    _Shape("counterfact", "prompt", "answer_new"),
)
_PROMPTS = tuple(dict.fromkeys(shape.prompt for shape in _SHAPES))
# No misspellings of another key, however near they come.
_KNOWN_KEYS = {key for shape in _SHAPES for key in (shape.prompt, shape.target, *shape.subjects)} | {"target_neg"}
_REWRITE = "requested_rewrite"
_CASE_IDS = ("case_id", "id", "case_index")

# Keywords of EasyEdit's edit() -> keys of the request that it makes of them.
_KEYWORDS = {
    "prompts": "prompt",
    "rephrase_prompts": "rephrase_prompt",
    "loc_prompts": "loc_prompt",
    "locality_inputs": "locality",
    "portability_inputs": "portability",
}
# The objects around a list of requests that need no guess where several lists of objects stand in one object.
_WRAPPERS = ("requests", "data")

# A record before it is understood: line, column and value, or the fault that stands in its place.
_Record = tuple[int, int, Any]


def read_requests(
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,
    zsre_target: ZsreTarget = "alt",
    subject_required: bool = True,
    piece_bytes: int = PIECE_BYTES,
) -> Iterator[Request | RequestProblem]:
    """The requests of the file `path` (`-`: standard input), in order, one at a time.

    format            what the file is; None: told by its name and its first characters
    zsre_target       the answer of a zsRE record that is edited in: "alt" for EasyEdit, "answers" for kmeng01 and its
                      descendants
    subject_required  False: a record may do without a subject, for methods that need none (fine-tuning)
    piece_bytes       how much is read at a time

    Memory does not depend on the number of records in a JSON array, JSON Lines, CSV or TSV; an object around
    the requests is read whole, up to WHOLE_LIMIT. A record that is no request comes as a RequestProblem and
    reading goes on. Where it cannot go on (broken JSON inside an array, damaged gzip, bytes that are no UTF-8)
    everything before is given first, and a RequestProblem with `stopped` is the last thing that comes.
    Raises SourceError, while iterating, only where there is nothing to give: a file that cannot be opened,
    is no request file, or holds no request at all.
    """
    if format is not None and format not in get_args(Format):
        raise ValueError(f"format is {format!r}; it is one of {', '.join(get_args(Format))}")
    name = os.fspath(path)
    reader = _RecordReader(zsre_target, subject_required)
    with open_source(name) as binary:
        records = _records(binary, name, format, reader, piece_bytes)
        try:
            for line, column, value in records:
                yield from reader.requests(value, line, column)
        except SourceError as fault:
            yield reader.problem(fault.message, fault.remedy, fault.line, fault.column, stopped=True)
    if not reader.index:
        raise SourceError("There is no request in the file.", path=name, remedy=_RIGHT_FILE)


def as_requests(
    records: Iterable[Mapping[str, Any]], *, zsre_target: ZsreTarget = "alt", subject_required: bool = True
) -> Iterator[Request | RequestProblem]:
    """The same for records that are objects already. They are left as they are; line and column are None."""
    reader = _RecordReader(zsre_target, subject_required)
    for record in records:
        if isinstance(record, Mapping):
            record = {str(key): value for key, value in record.items()}
        yield from reader.requests(record, None, None)


# ---- One record


class _RecordReader:
    """Makes requests of records, and counts them."""

    def __init__(self, zsre_target: ZsreTarget, needs_subject: bool) -> None:
        # Of the zsRE shapes, the one with the wanted answer comes first (the sort is stable).
        self._shapes = sorted(_SHAPES, key=lambda shape: shape.name == "zsre" and shape.target != zsre_target)
        self._needs_subject = needs_subject
        self.index = 0

    def requests(self, record: Any, line: int | None, column: int | None) -> Iterable[Request | RequestProblem]:
        """The requests of one record: one, or one for each edit of an MQuAKE record."""
        if isinstance(record, SourceError):
            return (self.problem(record.message, record.remedy, record.line, record.column),)
        if not isinstance(record, dict):
            return (self.problem(f"The record is {_kind(record)}, not an object with keys.", _USE_OBJECT, line, column),)
        case_id = _take_case_id(record)
        if _REWRITE not in record:
            return (self._request(record, self._shapes, case_id, line, column),)
        rewrite = record.pop(_REWRITE)
        if isinstance(rewrite, dict):
            return (self._request(dict(rewrite), _REWRITE_SHAPES, case_id, line, column, around=record),)
        if not isinstance(rewrite, list) or not rewrite:
            found = "an empty list" if rewrite == [] else _kind(rewrite)
            message = f"'{_REWRITE}' is {found}, not an edit or a list of edits."
            return (self.problem(message, _USE_OBJECT, line, column, case_id),)
        return self._edits(rewrite, record, case_id, line, column)

    def _edits(
        self,
        edits: list[Any],
        around: dict[str, Any],
        case_id: str | int | None,
        line: int | None,
        column: int | None,
    ) -> Iterator[Request | RequestProblem]:
        for number, edit in enumerate(edits):
            edit_id = None if case_id is None else f"{case_id}.{number}"
            if isinstance(edit, dict):
                yield self._request(dict(edit), _REWRITE_SHAPES, edit_id, line, column, around=around, name="mquake")
            else:
                message = f"Edit {number} of '{_REWRITE}' is {_kind(edit)}, not an object with keys."
                yield self.problem(message, _USE_OBJECT, line, column, edit_id)

    def _request(
        self,
        fields: dict[str, Any],
        shapes: Sequence[_Shape],
        case_id: str | int | None,
        line: int | None,
        column: int | None,
        *,
        around: dict[str, Any] | None = None,
        name: str | None = None,
    ) -> Request | RequestProblem:
        shape, subject_key, missing = self._shape_of(fields, shapes)
        if missing:
            thing = "The request" if around is None else f"'{_REWRITE}'"
            return self.problem(*_without(thing, "key", fields, missing), line, column, case_id)
        prompt = fields.pop(shape.prompt)
        subject = fields.pop(subject_key) if subject_key else ""
        if subject is None and not self._needs_subject:
            subject = ""
        if shape.target == "answers":
            answers = fields["answers"]  # kept: the first is the target, the others are answers too
            target = answers[0] if isinstance(answers, list) and answers else answers
        else:
            target = fields.pop(shape.target)
            if isinstance(target, dict) and "str" in target:
                target = target["str"]
        for key, value in ((shape.prompt, prompt), (subject_key, subject), (shape.target, target)):
            if isinstance(value, str):
                if value.isascii() or _is_text(value):
                    continue
                message = f"'{key}' holds half of a surrogate pair, which is no character."
                remedy = "Write the character itself, or both halves of its escape."
            else:
                message = f"'{key}' is {_kind(value)}, not text."
                remedy = f"Write '{key}' as text in double quotes."
            return self.problem(message, remedy, line, column, case_id)
        index = self.index
        self.index += 1
        extra = fields if around is None else {**around, **fields}
        return Request(index, case_id, prompt, subject, target, line, column, extra, name or shape.name)

    def _shape_of(self, keys: Collection[str], shapes: Sequence[_Shape]) -> tuple[_Shape, str | None, list[tuple[str, str]]]:
        """The shape of these keys or the nearest one, its subject's key, and missing keys with their use."""
        for shape in shapes:
            if shape.prompt in keys and shape.target in keys:
                break
        else:
            shape = next((shape for shape in shapes if shape.prompt in keys), shapes[0])
        missing = []
        if shape.prompt not in keys:
            missing.append((shape.prompt, "the sentence to complete"))
        subject_key: str | None = None
        for key in shape.subjects:
            if key in keys:
                subject_key = key
                break
        if subject_key is None and self._needs_subject:
            missing.append((shape.subjects[0], "the words of the prompt that the fact is about"))
        if shape.target not in keys:
            missing.append((shape.target, "the new answer"))
        return shape, subject_key, missing

    def columns(self, names: Collection[str], thing: str, word: str) -> tuple[list[str], tuple[str, str] | None]:
        """The columns that requests need, and message and remedy where one of them is not among `names`."""
        shape, subject_key, missing = self._shape_of(names, self._shapes)
        needed = [shape.prompt, shape.target] if subject_key is None else [shape.prompt, subject_key, shape.target]
        return needed, _without(thing, word, names, missing) if missing else None

    def problem(
        self,
        message: str,
        remedy: str,
        line: int | None,
        column: int | None,
        case_id: str | int | None = None,
        *,
        stopped: bool = False,
    ) -> RequestProblem:
        """The problem of the next request."""
        index = self.index
        self.index += 1
        return RequestProblem(index, case_id, line, column, message, remedy, stopped)


_RIGHT_FILE = "Check that it is the right file."
_USE_OBJECT = "Write each request as an object with 'prompt', 'subject' and 'target_new'."


def _take_case_id(record: dict[str, Any]) -> str | int | None:
    for key in _CASE_IDS:
        value = record.get(key)
        if isinstance(value, str):
            del record[key]
            return _printable(value)
        if isinstance(value, int) and not isinstance(value, bool):
            del record[key]
            return value
    return None


def _without(thing: str, word: str, keys: Collection[str], missing: list[tuple[str, str]]) -> tuple[str, str]:
    """Message and remedy for missing keys: what is there, and what of it may be a misspelling."""
    names = " and no ".join(f"'{key}'" for key, _ in missing)
    message = f"{thing} has no {names} {word}; it has {_listed(keys)}."
    key, use = missing[0]
    strange = {name.strip().casefold(): name for name in keys if name not in _KNOWN_KEYS}
    near = difflib.get_close_matches(key, strange, n=1, cutoff=0.8)
    if near:
        return message, f"Rename '{_printable(strange[near[0]])}' to '{key}'."
    return message, f"Add '{key}': {use}."


def _listed(keys: Collection[str]) -> str:
    """'a', 'b' and 'c', at most a dozen."""
    there = [f"'{_printable(key)[:40]}'" for key in islice(keys, 12)]
    if len(keys) > len(there):
        there.append(f"{len(keys) - len(there)} more")
    if not there:
        return "nothing"
    return there[0] if len(there) == 1 else f"{', '.join(there[:-1])} and {there[-1]}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _kind(value: Any) -> str:
    """What a JSON value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float() if math.isnan(value):
            return "NaN (a missing value)"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case []:
            return "an empty list"
        case list():
            return "a list"
        case _:
            return "an object"


def _is_text(value: str) -> bool:
    """False for half a surrogate pair, which JSON can escape but no tokenizer can read."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(value: str) -> str:
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


# ---- The file around the records


def _records(
    binary: io.BufferedReader, path: str, format: Format | None, reader: _RecordReader, piece_bytes: int
) -> Iterator[_Record]:
    """The file's records. What is wrong with the file as a whole is raised here, before the first of them."""
    stem = path.lower().removesuffix(".gz")
    if format is None:
        if stem.endswith(".csv"):
            format = "csv"
        elif stem.endswith((".tsv", ".tab")):
            format = "tsv"
    if format == "csv" or format == "tsv":
        return _csv_records(binary, path, "," if format == "csv" else "\t", reader)

    seen = b""
    while not (ahead := binary.peek()).strip():
        if not ahead:
            raise SourceError("The file is empty.", path=path, remedy=_RIGHT_FILE)
        seen += binary.read(len(ahead))
    first = ahead.lstrip()[:1]
    named_lines = stem.endswith((".jsonl", ".ndjson"))
    if format == "jsonl" or (format is None and named_lines and first != b"["):
        return _line_records(chain(io.BytesIO(seen + binary.readline()), binary), path)
    if first == b"[":
        return _array_records(chain((seen,), pieces(binary, piece_bytes)), path)
    if first != b"{":
        cursor = JsonCursor(decoded((seen, ahead), path), path)
        cursor.peek()
        raise cursor.fault(
            f"Found {cursor.found} where the requests should start with [ or {{.",
            "Give a JSON array, JSON Lines, or CSV in a file whose name ends in .csv or .tsv.",
        )
    # An object: the first of JSON Lines, something around the requests, or a single request.
    opening = seen + _line_with_text(binary)
    following = _line_with_text(binary)
    if format is None and _are_lines(opening, following):
        return _line_records(chain(io.BytesIO(opening + following), binary), path)
    data = opening + following
    data += binary.read(max(0, WHOLE_LIMIT + 1 - len(data)))
    if len(data) > WHOLE_LIMIT:
        raise SourceError(
            f"The file is one object, which is read whole, and larger than {WHOLE_LIMIT // 1_000_000} MB.",
            path=path,
            remedy="Save the requests alone, as a JSON array or as JSON Lines: both are read piece by piece.",
        )
    return _document_records(data, path, reader)


def _line_with_text(binary: io.BufferedReader) -> bytes:
    """The next line that is not blank, with the blank ones before it; nothing at the end of the file."""
    lines = b""
    while not lines.strip() and (line := binary.readline(WHOLE_LIMIT + 1)):
        lines += line
    return lines


def _are_lines(opening: bytes, following: bytes) -> bool:
    """True where the first lines are JSON Lines, be it with a fault, and not parts of one object."""
    first, second = opening.strip(), following.strip()
    if not second:
        return False
    try:
        json.loads(first.rstrip(b","))
    except (ValueError, RecursionError):
        return first.endswith(b"}") and second.startswith(b"{")
    return True


def _array_records(parts: Iterable[bytes], path: str) -> Iterator[_Record]:
    cursor = JsonCursor(decoded(parts, path), path)
    yield from cursor.items()
    cursor.finish()


def _line_records(lines: Iterable[bytes], path: str) -> Iterator[_Record]:
    for number, raw in enumerate(lines, start=1):
        try:
            text = raw.decode()
            if text.isspace():
                continue
            value = parse_line(text, path, number)
        except UnicodeDecodeError as error:
            value = _not_utf8_in_line(error, path, number)
        except SourceError as fault:
            value = fault
        yield number, len(raw) - len(raw.lstrip()) + 1, value


def _document_records(data: bytes, path: str, reader: _RecordReader) -> Iterator[_Record]:
    """The records of one JSON object: those it wraps, those its lists make up, or itself."""
    cursor = JsonCursor(decoded((data,), path), path)
    cursor.peek()
    line, column = cursor.line, cursor.column
    value = cursor.value()
    cursor.finish()

    lists = [key for key in _WRAPPERS if isinstance(value.get(key), list)][:1]
    if not lists:
        prompts = [key for key in ("prompts", *_PROMPTS) if key in value]
        if prompts and (prompts[0] == "prompts" or isinstance(value[prompts[0]], list)):
            return _column_records(data, path, reader, value, prompts[0])
        if prompts or "subject" in value or _REWRITE in value:
            return iter([(line, column, value)])
        lists = [key for key, items in value.items() if _is_list_of_objects(items)]
    if len(lists) == 1:
        cursor = JsonCursor(decoded((data,), path), path)
        cursor.enter(lists[0])
        return cursor.items()
    if lists:
        raise SourceError(
            f"It is not clear which list of the object holds the requests: {_listed(lists)}.",
            path=path,
            line=line,
            column=column,
            remedy="Save the list of requests alone, or name it 'requests'.",
        )
    raise SourceError(
        f"The object is no request and holds no list of requests; it has {_listed(value)}.",
        path=path,
        line=line,
        column=column,
        remedy=_RIGHT_FILE,
    )


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _column_records(data: bytes, path: str, reader: _RecordReader, value: dict[str, Any], prompts: str) -> Iterator[_Record]:
    """The records of an object of lists, each with one member per prompt (a text alone is a list of one)."""
    cursor = JsonCursor(decoded((data,), path), path)
    cursor.enter(prompts)
    places = [(cursor.line, cursor.column)]
    if isinstance(value[prompts], list):
        places = [(line, column) for line, column, _ in cursor.items()]

    fields = {_KEYWORDS.get(key, key): column for key, column in value.items()}
    needed, wrong = reader.columns(fields, "The object of lists", "key")
    if wrong:
        raise SourceError(wrong[0], path=path, remedy=wrong[1])
    for key in needed:
        count = len(fields[key]) if isinstance(fields[key], list) else 1
        if count != len(places):
            raise SourceError(
                f"'{prompts}' has {_count(len(places), 'member')}, but '{key}' has {count}.",
                path=path,
                remedy=f"Give each prompt its '{key}'.",
            )
    return (
        (line, column, {key: _member(field, number, len(places)) for key, field in fields.items()})
        for number, (line, column) in enumerate(places)
    )


def _member(column: Any, number: int, count: int) -> Any:
    """What belongs to prompt `number` of `count`; also inside objects, as in EasyEdit's `locality_inputs`."""
    if isinstance(column, list) and len(column) == count:
        return column[number]
    if isinstance(column, dict):
        return {key: _member(inner, number, count) for key, inner in column.items()}
    return column


def _csv_records(binary: io.BufferedReader, path: str, delimiter: str, reader: _RecordReader) -> Iterator[_Record]:
    rows = csv.reader(_decoded_lines(binary, path), delimiter=delimiter, strict=True)
    header: list[str] = []
    while not header:
        try:
            header = next(rows)
        except StopIteration:
            raise SourceError("The file is empty.", path=path, remedy=_RIGHT_FILE) from None
        except csv.Error as error:
            raise _csv_fault(error, path, 1) from None
    _, wrong = reader.columns(header, "The header", "column")
    if wrong:
        message, remedy = wrong
        if len(header) == 1 and any(mark in header[0] for mark in ",;\t|"):
            remedy = f"Separate the cells by {'commas' if delimiter == ',' else 'tabs'}."
        raise SourceError(message, path=path, line=rows.line_num, column=1, remedy=remedy)
    ids = [name for name in _CASE_IDS if name in header]

    def records() -> Iterator[_Record]:
        while True:
            line = rows.line_num + 1
            record: Any
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                record = _csv_fault(error, path, line)
                # Any other fault may have swallowed the rows that follow.
                if "expected after" not in str(error):
                    raise record from None
            else:
                if not cells:
                    continue
                if len(cells) == len(header):
                    record = dict(zip(header, cells, strict=True))
                    for name in ids:
                        _mend_case_id(record, name)
                else:
                    record = SourceError(
                        f"The row has {_count(len(cells), 'cell')}, but the header has {len(header)}.",
                        path=path,
                        line=line,
                        column=1,
                        remedy="Put a cell with the separator in it into double quotes; leave no cell out.",
                    )
            yield line, 1, record

    return records()


def _mend_case_id(record: dict[str, Any], name: str) -> None:
    """CSV knows text only: a number is the number that JSON would hold, and an empty cell is no id."""
    cell = record[name]
    if not cell:
        del record[name]
    elif cell.isascii() and cell.isdigit() and len(cell) < 19 and str(int(cell)) == cell:
        record[name] = int(cell)


def _decoded_lines(lines: Iterable[bytes], path: str) -> Iterator[str]:
    for number, raw in enumerate(lines, start=1):
        try:
            yield raw.decode()
        except UnicodeDecodeError as error:
            raise _not_utf8_in_line(error, path, number) from None


def _not_utf8_in_line(error: UnicodeDecodeError, path: str, line: int) -> SourceError:
    return not_utf8(error, path, line, len(error.object[: error.start].decode()) + 1)


def _csv_fault(error: csv.Error, path: str, line: int) -> SourceError:
    """What the csv module found, in plain words; `line` is where the row starts."""
    what = str(error)
    message, remedy = "The row is no valid CSV.", "Write the file with a CSV writer."
    if "expected after" in what:
        message = "Text follows the closing double quote of a cell."
        remedy = 'Write a double quote inside a quoted cell as "".'
    elif "unexpected end" in what:
        message, remedy = "The file ends inside a cell in double quotes.", 'Add the missing ".'
    elif "field limit" in what:
        message = f"A cell is longer than {csv.field_size_limit()} characters."
        remedy = "Check for a missing closing double quote, or save the requests as JSON Lines."
    return SourceError(message, path=path, line=line, column=1, remedy=remedy)
