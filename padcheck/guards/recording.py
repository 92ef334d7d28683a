"""What a guard saw and did, as the run report tells it (`schemas/guard.schema.json`)."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from padcheck.guards.matching import Place
from padcheck.guards.readings import Pair
from padcheck.positions.drift import Reading
from padcheck.positions.editors import Side
from padcheck.sources.requests import Request

VERSION = 1
_SHOWN_REQUESTS = 1000


@dataclass(slots=True)
class _Counts:
    checked: int = 0
    unknown: int = 0
    drifting: int = 0
    corrected: int = 0
    by_cause: Counter[str] = field(default_factory=Counter)

    def add(self, pair: Pair) -> None:
        self.checked += 1
        if not pair.known:
            self.unknown += 1
        elif pair.asked is not None and pair.asked.causes:
            self.drifting += 1
            self.corrected += pair.used is not None and not pair.used.causes
            self.by_cause[pair.asked.causes[0]] += 1

    def merge(self, other: _Counts) -> None:
        self.checked += other.checked
        self.unknown += other.unknown
        self.drifting += other.drifting
        self.corrected += other.corrected
        self.by_cause += other.by_cause

    def as_dict(self) -> dict[str, Any]:
        return {
            "checked": self.checked, "unknown": self.unknown, "drifting": self.drifting, "corrected": self.corrected,
            "by_cause": dict(self.by_cause),
        }  # fmt: skip


@dataclass(slots=True)
class _SiteCounts(_Counts):
    calls: int = 0
    sides: Counter[tuple[Side, Side]] = field(default_factory=Counter)


@dataclass(slots=True)
class Record:
    """Counts by call site and by request, and everything that could not be watched."""

    sites: dict[str, tuple[Place | None, _SiteCounts]] = field(default_factory=dict)
    requests: dict[int, tuple[Request, dict[str, _Counts]]] = field(default_factory=dict)
    padded_calls: int = 0
    unwatched: Counter[str] = field(default_factory=Counter)
    strangers: set[str] = field(default_factory=set)
    """Functions that count columns and were called with another tokenizer than the guarded one."""
    elsewhere: Counter[str] = field(default_factory=Counter)
    """Functions that padded batches in a thread or task which has entered no guard of the tokenizer."""
    unchecked: bool = False
    """Whether columns were counted that could not be compared with a batch."""
    methods: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def site(self, name: str, place: Place | None = None) -> _SiteCounts:
        if name not in self.sites:
            self.sites[name] = place, _SiteCounts()
        return self.sites[name][1]

    def called(self, name: str, place: Place | None, asked: Side, used: Side) -> None:
        """A batch was built at a site."""
        counts = self.site(name, place)
        counts.calls += 1
        counts.sides[asked, used] += 1

    def position(self, name: str, place: Place | None, pair: Pair) -> None:
        """A position was looked at."""
        self.site(name, place).add(pair)
        if pair.request.index < 0:
            return
        index = pair.request.index
        if index not in self.requests:
            self.requests[index] = pair.request, {}
        by_site = self.requests[index][1]
        if name not in by_site:
            by_site[name] = _Counts()
        by_site[name].add(pair)

    def planned(self, place: Place, drifting: Sequence[Reading], checked: int) -> None:
        """Positions of a method whose side was turned, so that none of them drifts."""
        counts = self.site(place.name, place)
        counts.checked += checked
        counts.drifting += len(drifting)
        counts.corrected += len(drifting)
        counts.by_cause += Counter(reading.causes[0] for reading in drifting)

    def merge(self, other: Record) -> None:
        """What an inner guard saw. What happened `elsewhere` both were told of."""
        for name, (place, counts) in other.sites.items():
            own = self.site(name, place)
            own.merge(counts)
            own.calls += counts.calls
            own.sides += counts.sides
        for index, (request, by_site) in other.requests.items():
            mine = self.requests.setdefault(index, (request, {}))[1]
            for name, part in by_site.items():
                mine.setdefault(name, _Counts()).merge(part)
        self.padded_calls += other.padded_calls
        self.unwatched += other.unwatched
        self.strangers |= other.strangers
        self.methods += [method for method in other.methods if method not in self.methods]
        self.notes += [note for note in other.notes if note not in self.notes]

    @property
    def drifting(self) -> int:
        return sum(counts.drifting for _, counts in self.sites.values())

    @property
    def corrected(self) -> int:
        return sum(counts.corrected for _, counts in self.sites.values())

    @property
    def unknown(self) -> int:
        return sum(counts.unknown for _, counts in self.sites.values())

    def outcome(self) -> str:
        """right: watched, nothing drifted; corrected: all that drifted was; drift: not all; unwatched: not all could be watched."""
        if self.strangers or (self.padded_calls and not self.sites):
            return "unwatched"
        if self.drifting != self.corrected:
            return "drift"
        if self.elsewhere or self.unchecked:
            return "unwatched"
        return "corrected" if self.drifting else "right"

    def as_dict(self) -> dict[str, Any]:
        """The parts of the report that count."""
        drifting = [
            (request, by_site) for request, by_site in self.requests.values() if any(c.drifting for c in by_site.values())
        ]
        return {
            "outcome": self.outcome(),
            "methods": list(self.methods),
            "positions": self._total().as_dict(),
            "sites": [_site(name, place, counts) for name, (place, counts) in self.sites.items()],
            "requests": {
                "seen": len(self.requests),
                "drifting": len(drifting),
                "first": [_request(request, by_site) for request, by_site in drifting[:_SHOWN_REQUESTS]],
            },
            "unwatched": [{"function": name, "calls": calls} for name, calls in self.unwatched.most_common()],
            "notes": list(self.notes),
        }

    def _total(self) -> _Counts:
        total = _Counts()
        for _, counts in self.sites.values():
            total.merge(counts)
        return total


def _site(name: str, place: Place | None, counts: _SiteCounts) -> dict[str, Any]:
    site = place.site if place is not None else None
    return {
        "function": name,
        "framework": place.editor.id if place is not None else None,
        "kind": site.kind if site is not None else "checked_index",
        "source": site.source if site is not None else None,
        "calls": counts.calls,
        "padding_side": [
            {"asked": asked, "used": used, "calls": calls, "because": _because(place, asked, used)}
            for (asked, used), calls in counts.sides.items()
        ],
        "positions": counts.as_dict(),
    }


def _because(place: Place | None, asked: Side, used: Side) -> str:
    if asked == used:
        return "the tokenizer (or the call) says so"
    if place is None:
        return "the function that is marked with checked_index counts columns that need it"
    return f"columns are counted there that need {used} padding ({place.site.source})"


def _request(request: Request, by_site: Mapping[str, _Counts]) -> dict[str, Any]:
    return {
        "request": request.index,
        "case_id": request.case_id,
        "prompt": request.prompt,
        "subject": request.subject,
        "sites": {name: counts.as_dict() for name, counts in by_site.items() if counts.drifting},
    }


def tool() -> dict[str, str]:
    from padcheck import __version__

    return {"name": "padcheck", "version": __version__}


def versions() -> dict[str, str | None]:
    """Python, padcheck and the libraries that decide what a token is. Nothing is imported for it."""
    from padcheck import __version__

    found: dict[str, str | None] = {"python": platform.python_version(), "padcheck": __version__}
    for name in ("transformers", "tokenizers", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
