"""Findings: what padcheck says, independent of how it is shown.

A `Finding` is one statement about one place. It is immutable, so that every renderer sees the same thing, and it
carries its evidence, so that an error can be believed without running padcheck again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Literal

from padcheck.records import Record

Severity = Literal["error", "warning", "note"]
Confidence = Literal["high", "medium", "low"]
Grade = Literal["safe", "unsafe", "display"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""From the gravest to the mildest."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def at_least(severity: str, threshold: str) -> bool:
    """True if `severity` reaches `threshold` ("error", "warning", "note" or "never")."""
    names: tuple[str, ...] = SEVERITIES
    return threshold != "never" and names.index(severity) <= names.index(threshold)


class Place(Record):
    """Where something stands. Lines and columns are 1-based, in code points, the end is exclusive."""

    path: str | None = None
    line: int | None = None
    column: int | None = None
    end_line: int | None = None
    end_column: int | None = None
    cell: int | None = None

    def __str__(self) -> str:
        parts = [self.path or "<input>"]
        if self.cell is not None:
            parts.append(f"cell {self.cell}")
        if self.line is not None:
            parts.append(str(self.line))
            if self.column is not None:
                parts.append(str(self.column))
        return ":".join(parts)


NOWHERE = Place()


class RequestRef(Record):
    """The edit request that a finding is about: its 0-based index in the file and its own id, if it has one."""

    index: int
    case_id: str | int | None = None

    def __str__(self) -> str:
        return f"request {self.index}" if self.case_id is None else f"request {self.index} (case_id {self.case_id})"


class Related(Record):
    """A second place that a finding needs to be understood."""

    message: str
    place: Place


class TextEdit(Record):
    """Replace the text of `place` (an exact span) by `replacement`."""

    place: Place
    replacement: str


class Fix(Record):
    """A change that cures a finding.

    `safe` cannot change a result that was right; `unsafe` may; `display` is only shown. A fix without a grade is unsafe.
    """

    message: str
    edits: tuple[TextEdit, ...] = ()
    grade: Grade = "unsafe"


class Finding(Record):
    """One statement: the rule, what was seen, where, how sure, and what to do."""

    rule: str
    name: str
    severity: Severity
    message: str
    confidence: Confidence = "high"
    place: Place = NOWHERE
    request: RequestRef | None = None
    remedy: str | None = None
    message_zh: str | None = None
    related: tuple[Related, ...] = ()
    evidence: Mapping[str, Any] = _NOTHING
    fix: Fix | None = None
    suppressed: bool = False

    @property
    def fingerprint(self) -> str:
        """Stable over line moves: rule, file, request and the evidence's `key`, not the wording and not the line."""
        import hashlib  # late, with the library behind it: the text report shows no fingerprint
        import json

        identity = [
            self.rule,
            self.place.path,
            self.request.index if self.request else None,
            self.request.case_id if self.request else None,
            self.evidence.get("key", self.message),
        ]
        return hashlib.sha256(json.dumps(identity, default=str).encode()).hexdigest()[:16]

    @property
    def sort_key(self) -> tuple[int, str, int, int, str]:
        """Gravest first, then by place and rule."""
        place = self.place
        return (SEVERITIES.index(self.severity), place.path or "", place.line or 0, place.column or 0, self.rule)


class JobError(Record):
    """Part of the job that could not be done (exit code 2): one sentence, the place, the remedy."""

    message: str
    place: Place = NOWHERE
    remedy: str | None = None
    request: RequestRef | None = None


def relative_posix(path: PurePath | str, root: PurePath | str) -> str:
    """`path` as the JSON contract has it: POSIX, relative to `root` where it lies below it."""
    plain, below = os.fspath(path), os.fspath(root) + "/"
    if os.sep == "/" and plain.startswith(below) and "/." not in plain and "//" not in plain:
        return plain[len(below) :]
    try:
        relative = os.path.relpath(path, root)
    except ValueError:  # another drive on Windows
        return PurePath(path).as_posix()
    return PurePath(path if relative.startswith("..") else relative).as_posix()
