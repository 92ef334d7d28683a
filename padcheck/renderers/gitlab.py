"""GitLab's code quality report: a JSON list that a merge request shows as a widget."""

from __future__ import annotations

import hashlib
from typing import Any

from padcheck.diagnostics import Place
from padcheck.renderers.json_ import dumps
from padcheck.reports import Report

_SEVERITIES = {"error": "major", "warning": "minor", "note": "info"}


def render(report: Report) -> str:
    """What could not be done, then the findings that are not suppressed."""
    issues: list[dict[str, Any]] = []
    seen: set[str] = set()

    def add(check: str, severity: str, message: str, place: Place, fingerprint: str) -> None:
        while fingerprint in seen:  # GitLab drops an issue whose fingerprint it has seen
            fingerprint = hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
        seen.add(fingerprint)
        issues.append(
            {
                "check_name": check,
                "description": message,
                "severity": severity,
                "fingerprint": fingerprint,
                "location": {"path": place.path or ".", "lines": _lines(place)},
            }
        )

    for error in report.errors:
        about = f"{error.request}: " if error.request else ""
        identity = f"{error.place}\n{about}{error.message}".encode(errors="backslashreplace")
        add("padcheck", "critical", about + error.message, error.place, hashlib.sha256(identity).hexdigest()[:16])
    for finding in sorted(report.visible(), key=lambda finding: finding.sort_key):
        about = f"{finding.request}: " if finding.request else ""
        message = f"{finding.rule} {finding.name}: {about}{finding.message}"
        add(finding.rule, _SEVERITIES[finding.severity], message, finding.place, finding.fingerprint)
    return dumps(issues)


def _lines(place: Place) -> dict[str, int]:
    """A report without a line is refused, so a finding about a whole file (or a notebook's cell) stands on line 1."""
    if place.line is None or place.cell is not None:
        return {"begin": 1}
    return {"begin": place.line} | ({} if place.end_line is None else {"end": place.end_line})
