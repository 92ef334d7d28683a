"""Documents to take statistics on: text files, JSON Lines, and folders that `datasets` saved.

What a document is: in a text file, a paragraph (blank lines separate them; its own lines are joined by spaces); in JSON
Lines, one line; in a saved dataset, one row. JSON Lines and datasets are read at their field `text` unless told otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from padcheck.resources import shipped_dir
from padcheck.sources.reading import SourceError, decoded, open_source, pieces

JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
TEXT = (".txt", ".txt.gz", ".text", ".md")


@dataclass(frozen=True, slots=True)
class Corpus:
    """The documents of some files and folders, in a fixed order. It can be walked more than once.

    paths   files, folders of text and JSON Lines files (read in the order of their names), folders saved by `datasets`
    field   where JSON Lines and datasets have their text
    split   which split of a saved `DatasetDict`
    """

    paths: tuple[Path, ...]
    field: str = "text"
    split: str = "train"

    def __post_init__(self) -> None:
        for path in self.paths:
            if not path.exists():
                raise SourceError("The corpus does not exist.", path=str(path), remedy="Check the path.")

    def __iter__(self) -> Iterator[str]:
        """The documents that hold more than spaces. Raises SourceError at what cannot be read."""
        for path in self.paths:
            for document in self._of(path):
                if not document.isspace() and document:
                    yield document

    def _of(self, path: Path) -> Iterator[str]:
        if path.is_file():
            return _json_lines(path, self.field) if path.name.lower().endswith(JSON_LINES) else _paragraphs(path)
        if (path / "dataset_dict.json").is_file():
            return self._split(path)
        if (path / "state.json").is_file() or (path / "dataset_info.json").is_file():
            return _dataset(path, self.field)
        return self._folder(path)

    def _split(self, path: Path) -> Iterator[str]:
        if not (path / self.split).is_dir():
            there = ", ".join(sorted(child.name for child in path.iterdir() if child.is_dir()))
            raise SourceError(f"The dataset has no split '{self.split}'.", path=str(path), remedy=f"It has: {there}.")
        return _dataset(path / self.split, self.field)

    def _folder(self, path: Path) -> Iterator[str]:
        files = sorted(file for file in path.rglob("*") if file.name.lower().endswith((*JSON_LINES, *TEXT)))
        if not files:
            raise SourceError(
                "The folder holds no text, no JSON Lines and no saved dataset.",
                path=str(path),
                remedy=f"Text ends in {', '.join(TEXT)}, JSON Lines in {', '.join(JSON_LINES)}.",
            )
        for file in files:
            yield from self._of(file)


def open_corpus(paths: Sequence[str | Path], *, field: str = "text", split: str = "train") -> Corpus:
    """The documents below `paths`; see `Corpus`. Raises SourceError for a path that does not exist."""
    return Corpus(tuple(Path(path) for path in paths), field, split)


def embedded_corpus() -> Corpus:
    """The small corpus that padcheck ships: enough for an estimate that is called one, not for a published number."""
    return Corpus((shipped_dir() / "corpus",))


def _lines(path: Path) -> Iterator[str]:
    with open_source(path) as binary:
        kept = ""
        for part in decoded(pieces(binary), str(path)):
            *whole, kept = (kept + part).split("\n")
            yield from whole
        yield kept


def _paragraphs(path: Path) -> Iterator[str]:
    lines: list[str] = []
    for line in _lines(path):
        if line.strip():
            lines.append(line.strip())
        elif lines:
            yield " ".join(lines)
            lines = []
    if lines:
        yield " ".join(lines)


def _json_lines(path: Path, field: str) -> Iterator[str]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            fault = f"This line is not JSON: {error.msg}."
            raise SourceError(fault, path=str(path), line=number, column=error.colno) from None
        yield _text_of(record, field, str(path), number)


def _text_of(record: Any, field: str, path: str, line: int | None) -> str:
    text = record.get(field) if isinstance(record, dict) else record
    if isinstance(text, str):
        return text
    if not isinstance(record, dict):
        raise SourceError("This line is neither a text nor an object with one.", path=path, line=line)
    found = ", ".join(re.sub(r"\s", " ", str(key)) for key in record)
    raise SourceError(f"There is no text at '{field}'.", path=path, line=line, remedy=f"Fields found: {found}.")


def _dataset(path: Path, field: str) -> Iterator[str]:
    """The rows of a folder that `datasets` saved, in the order of the dataset."""
    if find_spec("datasets") is not None:
        from datasets import load_from_disk  # type: ignore[import-not-found, unused-ignore]

        table: Iterable[Any] = load_from_disk(str(path))
        for row in table:
            yield _text_of(dict(row), field, str(path), None)
        return
    if find_spec("pyarrow") is None:
        raise SourceError(
            "This folder was saved by `datasets`, and neither `datasets` nor `pyarrow` is installed to read it.",
            path=str(path),
            remedy="pip install pyarrow, or export the text as JSON Lines.",
        )
    for file in _arrow_files(path):
        yield from _arrow_rows(file, field)


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


def _arrow_rows(file: Path, field: str) -> Iterator[str]:
    import pyarrow  # type: ignore[import-not-found, unused-ignore]
    import pyarrow.ipc  # type: ignore[import-not-found, unused-ignore]

    try:
        with pyarrow.memory_map(str(file)) as source:
            for batch in pyarrow.ipc.open_stream(source):
                if field not in batch.schema.names:
                    found = ", ".join(batch.schema.names)
                    raise SourceError(f"There is no column '{field}'.", path=str(file), remedy=f"Columns found: {found}.")
                for text in batch.column(field).to_pylist():
                    yield _text_of({field: text}, field, str(file), None)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise SourceError(f"The arrow file cannot be read: {error}.", path=str(file)) from None
