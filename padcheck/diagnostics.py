"""Findings: what padcheck says, independent of how it is shown.

A `Finding` is one statement about one place. It is immutable, so that every renderer sees the same thing, and it
carries its evidence, so that an error can be believed without running padcheck again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Literal

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


@dataclass(frozen=True, slots=True)
class Place:
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


@dataclass(frozen=True, slots=True)
class RequestRef:
    """The edit request that a finding is about: its 0-based index in the file and its own id, if it has one."""

    index: int
    case_id: str | int | None = None

    def __str__(self) -> str:
        return f"request {self.index}" if self.case_id is None else f"request {self.index} (case_id {self.case_id})"


@dataclass(frozen=True, slots=True)
class Related:
    """A second place that a finding needs to be understood."""

    message: str
    place: Place


@dataclass(frozen=True, slots=True)
class TextEdit:
    """Replace the text of `place` (an exact span) by `replacement`."""

    place: Place
    replacement: str


@dataclass(frozen=True, slots=True)
class Fix:
    """A change that cures a finding.

    `safe` cannot change a result that was right; `unsafe` may; `display` is only shown. A fix without a grade is unsafe.
    """

    message: str
    edits: tuple[TextEdit, ...] = ()
    grade: Grade = "unsafe"


@dataclass(frozen=True, slots=True)
class Finding:
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
    evidence: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    fix: Fix | None = None
    suppressed: bool = False

    @property
    def fingerprint(self) -> str:
        """Stable over line moves: rule, file, request and the evidence's `key`, not the wording and not the line."""
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


@dataclass(frozen=True, slots=True)
class JobError:
    """Part of the job that could not be done (exit code 2): one sentence, the place, the remedy."""

    message: str
    place: Place = NOWHERE
    remedy: str | None = None
    request: RequestRef | None = None


def relative_posix(path: PurePath | str, root: PurePath | str) -> str:
    """`path` as the JSON contract has it: POSIX, relative to `root` where it lies below it."""
    from os.path import relpath

    try:
        relative = relpath(path, root)
    except ValueError:  # another drive on Windows
        return PurePath(path).as_posix()
    return PurePath(path if relative.startswith("..") else relative).as_posix()
