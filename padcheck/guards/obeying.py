"""`<requests>.padcheck.json` inside a run: the side and the columns that `padcheck preflight --fix` wrote, and no others.

Requests are matched by a digest of prompt, subject and target, rows by a digest of their text. What the file says nothing
about must be right as it is; only where it was written without the templates of the run (`"templates": "stand-in"`), rows of
sampled templates are corrected as policy "correct" does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from padcheck.correcting import VERSION, digest, request_digest
from padcheck.guards.errors import DriftError
from padcheck.guards.readings import Pair
from padcheck.guards.requests import target_text
from padcheck.positions.drift import Reading
from padcheck.positions.editors import Side
from padcheck.sources.reading import SourceError
from padcheck.sources.requests import Request

_REMEDY = "Write it anew with padcheck preflight --fix."
_HEAD_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "version": int, "tool": dict, "framework": str, "method": str, "fact_token": str, "run": str, "padding_side": str,
    "requests_path": str, "templates": str, "requests": list, "corrections": list,
}  # fmt: skip
_ENTRY_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "request": int, "case_id": (str, int, type(None)), "batch": str, "row": (int, type(None)), "kind": str,
}  # fmt: skip
_COLUMN_KEYS: Mapping[str, type | tuple[type, ...]] = {**_ENTRY_KEYS, "text": str, "width": int, "from": int, "to": int}
_TEXT_KEYS: Mapping[str, type | tuple[type, ...]] = {**_ENTRY_KEYS, "from": str, "to": str}
_KEYS_OF_ROWS = ("key", "value", "current")
"""Kinds of one position, the key's: which of them a row is read for does not change its column."""


class Corrections:
    """A corrections file that was read and understood."""

    def __init__(self, data: Mapping[str, Any], shown: str) -> None:
        self.shown = shown
        self.framework: str = data["framework"]
        self.method: str = data["method"]
        self.fact_token: str = data["fact_token"]
        self.side: Side = data["padding_side"]
        self.stand_in: bool = data["templates"] == "stand-in"
        self._requests = frozenset(data["requests"])
        self._index = {mark: index for index, mark in enumerate(data["requests"]) if mark is not None}
        self._columns: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._heads: dict[int, Mapping[str, Any]] = {}
        for entry in data["corrections"]:
            if entry["kind"] == "head":
                self._heads[entry["request"]] = entry
            else:
                self._columns[entry["text"], _kind(entry["kind"])] = entry

    def begin(self, framework: str, method: str, fact_token: str, requests: Sequence[Mapping[str, Any]]) -> None:
        """An edit begins. Raises DriftError where it is not the one that the file was written for."""
        said = {"framework": self.framework, "method": self.method, "fact_token": self.fact_token}
        for name, value in (("framework", framework), ("method", method), ("fact_token", fact_token)):
            if said[name] != value:
                raise DriftError(
                    f"{self.shown} was written for the {name} {said[name]!r}, and this run has {value!r}. {_REMEDY}"
                )
        for request in requests:
            prompt, subject = str(request.get("prompt", "")), str(request.get("subject", ""))
            if request_digest(prompt, subject, target_text(request)) not in self._requests:
                raise self._unknown(prompt.replace("{}", subject), target_text(request))

    def head(self, request: Request, decoded: str) -> str:
        """The text that stands for the target in this request's rows."""
        index = self._request(request)
        entry = self._heads.get(index)
        if entry is None:
            return decoded
        if entry["from"] != decoded:
            raise DriftError(
                f"{self.shown}, request {index}: the target's head was decoded to {entry['from']!r} when the file was written, and now "
                f"it is {decoded!r}: another tokenizer, or another generation of the library. {_REMEDY}"
            )
        return str(entry["to"])

    def check(self, pairs: Sequence[Pair], where: str) -> None:
        """Raises DriftError where what happens is not what the file says."""
        for pair in pairs:
            asked, used = pair.asked, pair.used
            if asked is None or used is None:
                continue
            entry = self._columns.get((digest(asked.row.measured.text), _kind(asked.kind)))
            if entry is not None:
                self._agree(entry, asked, used, where)
            elif asked.kind != "label" and _moved(asked, used) and not (self.stand_in and _templated(asked)):
                raise DriftError(
                    f"{where}: {self.shown} has no correction for the row {asked.row.measured.text!r} ({asked.kind}), and the editor's "
                    f"column {asked.editor} is not the true one. It was written for other requests or other templates. {_REMEDY}"
                )

    def _agree(self, entry: Mapping[str, Any], asked: Reading, given: Reading, where: str) -> None:
        counted = asked.editor
        place = f"{where}: {self.shown}, request {entry['request']}, {entry['batch']} row {entry['row']} ({entry['kind']})"
        if counted is not None and not _same(counted, given.width, entry["from"], entry["width"]):
            raise DriftError(
                f"{place}: the editor's column was {entry['from']} when the file was written, and now it is {counted}. {_REMEDY}"
            )
        if given.truth is not None and not _same(given.truth, given.width, entry["to"], entry["width"]):
            raise DriftError(
                f"{place}: the column to use is {entry['to']} by the file, and the token that is meant stands in {given.truth}. {_REMEDY}"
            )

    def _request(self, request: Request) -> int:
        mark = request_digest(request.prompt, request.subject, request.target_new)
        if mark not in self._index:
            raise self._unknown(request.prompt.replace("{}", request.subject), request.target_new)
        return self._index[mark]

    def _unknown(self, prompt: str, target: str) -> DriftError:
        return DriftError(
            f"{self.shown} does not hold the request {prompt!r} -> {target.strip()!r}: it was written for other requests. {_REMEDY}"
        )


def read_corrections(path: str | Path) -> Corrections:
    """A corrections file.

    Raises:
        SourceError: it cannot be read, or is not what `padcheck/schemas/corrections.schema.json` describes.
    """
    shown = Path(path).as_posix()
    try:
        data = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise SourceError(
            f"the corrections cannot be read: {error.strerror}", path=shown, remedy="Check the path."
        ) from None
    except ValueError as error:
        raise SourceError(f"the corrections are no JSON: {error}", path=shown, remedy=_REMEDY) from None
    _shape(data, shown)
    return Corrections(data, shown)


def _shape(data: Any, shown: str) -> None:
    _object(data, _HEAD_KEYS, shown, "the file")
    if data["version"] != VERSION:
        raise SourceError(
            f"the corrections are of version {data['version']}, and this padcheck reads version {VERSION}",
            path=shown, remedy=_REMEDY,
        )  # fmt: skip
    for key, choices in (("padding_side", ("left", "right")), ("templates", ("given", "stand-in"))):
        if data[key] not in choices:
            raise _bad(shown, f"{key} is {data[key]!r}, not one of {', '.join(choices)}")
    if not all(mark is None or isinstance(mark, str) for mark in data["requests"]):
        raise _bad(shown, "requests holds something else than digests")
    for number, entry in enumerate(data["corrections"]):
        place = f"corrections[{number}]"
        if not isinstance(entry, dict):
            raise _bad(shown, f"{place} is no object")
        _object(entry, _TEXT_KEYS if entry.get("kind") == "head" else _COLUMN_KEYS, shown, place)
        if not 0 <= entry["request"] < len(data["requests"]):
            raise _bad(shown, f"{place} names request {entry['request']} of {len(data['requests'])}")


def _object(value: Any, keys: Mapping[str, type | tuple[type, ...]], shown: str, place: str) -> None:
    if not isinstance(value, dict):
        raise _bad(shown, f"{place} is no object")
    missing = [key for key in keys if key not in value]
    unknown = [key for key in value if key not in keys]
    if missing or unknown:
        raise _bad(shown, f"{place} lacks {', '.join(missing)}" if missing else f"{place} has an unknown key {unknown[0]}")
    for key, kind in keys.items():
        if not isinstance(value[key], kind) or isinstance(value[key], bool):
            raise _bad(shown, f"{place}.{key} is of the wrong type")


def _bad(shown: str, what: str) -> SourceError:
    return SourceError(f"these are no corrections that padcheck wrote: {what}", path=shown, remedy=_REMEDY)


def _templated(reading: Reading) -> bool:
    """Whether a context template stands before the row's prompt."""
    request = reading.row.prepared.request
    return not reading.row.is_kl and not reading.row.measured.text.startswith(request.prompt.replace("{}", request.subject))


def _moved(asked: Reading, used: Reading) -> bool:
    """Whether the editor's own column is wrong in the batch as it is padded now."""
    return asked.editor is not None and used.truth is not None and asked.editor != used.truth


def _kind(kind: str) -> str:
    return "key" if kind in _KEYS_OF_ROWS else kind


def _same(column: int, width: int, said: int, said_width: int) -> bool:
    """Whether two columns are the same place: from the row's start, or from its end, where the batch has another width."""
    return column == said or width - column == said_width - said
