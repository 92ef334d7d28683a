"""Documents to take statistics on: text, JSON and JSON Lines files, and folders that `datasets` saved.

What a document is: in a text file, a paragraph (blank lines separate them; its own lines are joined by spaces), or a line where
the file has no blank line (see `one_per_line`); in JSON Lines, one line; in a `.json` file, one element of its array, or one line
where it holds JSON Lines; in a saved dataset, one row. JSON and datasets are read at their field `text` unless told otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from padcheck.resources import shipped_dir
from padcheck.sources.reading import SourceError, decoded, open_source, pieces

JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
JSON = (".json", ".json.gz")
TEXT = (".txt", ".txt.gz", ".text", ".md")

_LOOK_AHEAD = 1 << 20
"""Characters of a text file within which its first blank line is looked for: a paragraph that long is none."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """The documents of some files and folders, in a fixed order. It can be walked more than once.

    paths   files, folders of text and JSON files (read in the order of their names), folders saved by `datasets`
    field   where JSON and datasets have their text
    split   which split of a saved `DatasetDict`
    """

    paths: tuple[Path, ...]
    field: str = "text"
    split: str = "train"

    def __post_init__(self) -> None:
        for path in self.paths:
            if not path.exists():
                raise SourceError("The corpus does not exist.", path=str(path), remedy="Check the path.")

    def __iter__(self) -> Walk:
        """The documents that hold more than spaces. Raises SourceError at what cannot be read."""
        return Walk([source for path in self.paths for source in self._sources(path)], self.field)

    def _sources(self, path: Path) -> list[Path]:
        """The files, and the folders of datasets, that are read one after another."""
        if path.is_file():
            return [path]
        if (path / "dataset_dict.json").is_file():
            return _dataset_files(self._split(path))
        if (path / "state.json").is_file() or (path / "dataset_info.json").is_file():
            return _dataset_files(path)
        if not path.is_dir():
            raise SourceError("This is neither a file nor a folder.", path=str(path), remedy="Write it to a file first.")
        files = sorted(file for file in path.rglob("*") if file.name.lower().endswith((*JSON_LINES, *JSON, *TEXT)))
        if not files:
            raise SourceError(
                "The folder holds no text, no JSON Lines and no saved dataset.",
                path=str(path),
                remedy=f"Text ends in {', '.join(TEXT)}, JSON in {', '.join((*JSON_LINES, *JSON))}.",
            )
        return [source for file in files for source in self._sources(file)]

    def _split(self, path: Path) -> Path:
        if not (path / self.split).is_dir():
            there = ", ".join(sorted(child.name for child in path.iterdir() if child.is_dir()))
            raise SourceError(f"The dataset has no split '{self.split}'.", path=str(path), remedy=f"It has: {there}.")
        return path / self.split


class Walk(Iterator[str]):
    """One walk through a corpus: its documents, and how far it is.

    share    of the corpus' bytes, how much was read: 0 to 1; None where that is not known (gzip)
    by_line  the text files reached so far in which every line is a document, because they have no blank line
    """

    def __init__(self, sources: Sequence[Path], field: str) -> None:
        self._sources = sources
        self._field = field
        self._documents = self._walk()
        self.share: float | None = 0.0
        self.by_line: list[Path] = []

    def __next__(self) -> str:
        return next(self._documents)

    def _walk(self) -> Iterator[str]:
        sizes = [None if _is_gzip(source) else _size(source) for source in self._sources]
        known = [size for size in sizes if size is not None]
        whole = sum(known) if len(known) == len(sizes) else 0
        before = 0
        for source, size in zip(self._sources, sizes, strict=True):
            for part in self._of(source):
                self.share = min(1.0, (before + part.share * (size or 0)) / whole) if whole else None
                if part.text and not part.text.isspace():
                    yield part.text
            before += size or 0

    def _of(self, source: Path) -> Iterator[_Part]:
        if source.is_dir():
            return _dataset(source, self._field)
        name = source.name.lower()
        if name.endswith(".arrow"):
            return _arrow_rows(source, self._field)
        if name.endswith(JSON_LINES):
            return _json_lines(source, self._field)
        if name.endswith(JSON):
            return _json(source, self._field)
        if one_per_line(source):
            self.by_line.append(source)
            return (_Part(line.strip(), share) for line, share in _lines(source))
        return _paragraphs(source)


def open_corpus(paths: Sequence[str | Path], *, field: str = "text", split: str = "train") -> Corpus:
    """The documents below `paths`; see `Corpus`. Raises SourceError for a path that does not exist."""
    return Corpus(tuple(Path(path) for path in paths), field, split)


def embedded_corpus() -> Corpus:
    """The small corpus that padcheck ships: enough for an estimate that is called one, not for a published number."""
    return Corpus((shipped_dir() / "corpus",))


class _Part(NamedTuple):
    """A text, and the share of its source that was read with it."""

    text: str
    share: float


def _size(source: Path) -> int:
    files = source.glob("*.arrow") if source.is_dir() else [source]
    return sum(file.stat().st_size for file in files)


def _is_gzip(source: Path) -> bool:
    if source.is_dir():
        return False
    try:
        with open(source, "rb") as file:
            return file.read(2) == b"\x1f\x8b"
    except OSError:
        return False  # reading it will say why


# ---- text


def _lines(path: Path) -> Iterator[_Part]:
    size = max(1, path.stat().st_size)
    read = 0
    for line in _bare_lines(path):
        read += 1 + (len(line) if line.isascii() else len(line.encode()))
        yield _Part(line, read / size)


def _bare_lines(path: Path) -> Iterator[str]:
    with open_source(path) as binary:
        held: list[str] = []
        for part in decoded(pieces(binary), str(path)):
            first, *rest = part.split("\n")
            held.append(first)
            if rest:
                yield "".join(held)
                yield from rest[:-1]
                held = rest[-1:]
        yield "".join(held)


def one_per_line(path: Path) -> bool:
    """Whether a text file has several lines and no blank one between them: then a document is a line, not the whole file."""
    lines = characters = 0
    blank = False
    for line in _bare_lines(path):
        if not line.strip():
            blank = lines > 0
            continue
        if blank:
            return False
        lines, characters = lines + 1, characters + len(line)
        if lines > 1 and characters > _LOOK_AHEAD:
            break
    return lines > 1


def _paragraphs(path: Path) -> Iterator[_Part]:
    lines: list[str] = []
    share = 0.0
    for line, now in _lines(path):
        if line.strip():
            lines.append(line.strip())
        elif lines:
            yield _Part(" ".join(lines), share)
            lines = []
        share = now
    if lines:
        yield _Part(" ".join(lines), share)


# ---- JSON


def _json_lines(path: Path, field: str) -> Iterator[_Part]:
    for number, (line, share) in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            column = error.colno if isinstance(error, json.JSONDecodeError) else None
            fault = f"This line is not JSON: {_fault(error)}."
            raise SourceError(fault, path=str(path), line=number, column=column, remedy=_JSON_REMEDY) from None
        yield _Part(_text_of(record, field, str(path), number), share)


_JSON_REMEDY = "JSON Lines have one record a line; name a file that holds one array .json."


def _json(path: Path, field: str) -> Iterator[_Part]:
    """An array where the file begins like one, else JSON Lines."""
    with open_source(path) as binary:
        start = "".join(_until_text(decoded(pieces(binary), str(path)))).lstrip()
    return _json_array(path, field) if start.startswith("[") else _json_lines(path, field)


def _until_text(parts: Iterator[str]) -> Iterator[str]:
    for part in parts:
        yield part
        if not part.isspace():
            return


_GAP = re.compile(r"[ \t\r\n]*")


def _json_array(path: Path, field: str) -> Iterator[_Part]:
    """The elements of an array, one at a time: only the text of the file is held."""
    with open_source(path) as binary:
        text = "".join(decoded(pieces(binary), str(path)))
    line, counted = 1, 0

    def gap(at: int) -> int:
        found = _GAP.match(text, at)
        assert found is not None
        return found.end()

    def refused(fault: str, at: int) -> SourceError:
        row, column = line + text.count("\n", counted, at), at - text.rfind("\n", 0, at)
        return SourceError(
            f"This is not JSON: {fault}.", path=str(path), line=row, column=column, remedy="Mend the file there."
        )

    decoder = json.JSONDecoder()
    at = gap(gap(0) + 1)
    closed = text[at : at + 1] == "]"
    while not closed:
        line, counted = line + text.count("\n", counted, at), at
        try:
            record, after = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise refused(_fault(error), error.pos if isinstance(error, json.JSONDecodeError) else at) from None
        yield _Part(_text_of(record, field, str(path), line), after / len(text))
        at = gap(after)
        if text[at : at + 1] not in {",", "]"}:
            raise refused("Expecting ',' or ']' after an element", at)
        closed = text[at] == "]"
        at = at if closed else gap(at + 1)
    if gap(at + 1) < len(text):
        raise refused("Extra data after the array", gap(at + 1))


def _fault(error: Exception) -> str:
    """What json says, in words that do not point into its own code."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "it is nested too deeply" if isinstance(error, RecursionError) else "it holds a number of thousands of digits"


def _text_of(record: Any, field: str, path: str, line: int | None) -> str:
    text = record.get(field) if isinstance(record, dict) else record
    if isinstance(text, str):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            fault = f"The text holds half a character (\\u{ord(text[error.start]):04x}, one of a pair that is not whole)."
            raise SourceError(fault, path=path, line=line, remedy="Take it out of the record, or write its pair.") from None
        return text
    if not isinstance(record, dict):
        raise SourceError("This record is neither a text nor an object with one.", path=path, line=line)
    found = ", ".join(re.sub(r"\s", " ", str(key)) for key in record)
    raise SourceError(f"There is no text at '{field}'.", path=path, line=line, remedy=f"Fields found: {found}.")


# ---- saved datasets


def _dataset_files(path: Path) -> list[Path]:
    """The folder itself where `datasets` is there to read it, else its arrow files in the order of the dataset."""
    if find_spec("datasets") is not None:
        return [path]
    if find_spec("pyarrow") is None:
        raise SourceError(
            "This folder was saved by `datasets`, and neither `datasets` nor `pyarrow` is installed to read it.",
            path=str(path),
            remedy="pip install pyarrow, or export the text as JSON Lines.",
        )
    return _arrow_files(path)


def _dataset(path: Path, field: str) -> Iterator[_Part]:
    """The rows of a folder that `datasets` saved, in the order of the dataset."""
    from datasets import load_from_disk  # type: ignore[import-not-found, unused-ignore]

    table: Any = load_from_disk(str(path))
    for number, row in enumerate(table, 1):
        yield _Part(_text_of(dict(row), field, str(path), None), number / len(table))


def _arrow_files(path: Path) -> list[Path]:
    """The arrow files in the order that state.json gives."""
    state = path / "state.json"
    if not state.is_file():
        return sorted(path.glob("*.arrow"))
    try:
        known = json.loads(state.read_text("utf-8"))
        if known.get("_indices_data_files"):
            fault = "The dataset is a selection of its rows, which only `datasets` can read."
            raise SourceError(fault, path=str(path), remedy="pip install datasets.")
        return [path / entry["filename"] for entry in known["_data_files"]]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise SourceError(f"state.json is not one of `datasets`: {error!r}.", path=str(state)) from None


def _arrow_rows(file: Path, field: str) -> Iterator[_Part]:
    import pyarrow  # type: ignore[import-not-found, unused-ignore]
    import pyarrow.ipc  # type: ignore[import-not-found, unused-ignore]

    try:
        with pyarrow.memory_map(str(file)) as source:
            size = max(1, source.size())
            for batch in pyarrow.ipc.open_stream(source):
                if field not in batch.schema.names:
                    found = ", ".join(batch.schema.names)
                    raise SourceError(f"There is no column '{field}'.", path=str(file), remedy=f"Columns found: {found}.")
                for text in batch.column(field).to_pylist():
                    yield _Part(_text_of({field: text}, field, str(file), None), source.tell() / size)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise SourceError(f"The arrow file cannot be read: {error}.", path=str(file)) from None
