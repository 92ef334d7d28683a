"""Requests without a planned run: what breaks them in every editor. The rest depends on the method; `preflight` knows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from padcheck.checks.request_rules import RequestContext, stopped
from padcheck.diagnostics import Finding
from padcheck.positions.editors import load_editor
from padcheck.positions.filling import Stop, fill
from padcheck.sources.requests import Request, read_requests

SHOWN = 20
"""Findings of one rule in one file; the rest is counted in the last of them."""
_EVERYWHERE = frozenset({"REQ101", "REQ106"})
"""Stops that no locating editor survives; the others depend on how the method replaces the subject."""


def check_requests(path: Path, shown: str, enabled: frozenset[str]) -> Iterator[Finding]:
    """Findings about the requests of a file, read as they stream. Raises SourceError where the file cannot be read."""
    method = load_editor("easyedit").methods["MEMIT"]
    context = RequestContext(shown, method)
    counts: dict[str, int] = {}
    for record in read_requests(path):
        if not isinstance(record, Request):
            continue
        stop = fill(record, method)
        if not isinstance(stop, Stop) or stop.rule not in enabled:
            continue
        counts[stop.rule] = counts.get(stop.rule, 0) + 1
        if counts[stop.rule] <= SHOWN:
            found = stopped(stop, record, context)
            yield found if stop.rule in _EVERYWHERE else found.replace(severity="warning")
