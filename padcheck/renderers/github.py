"""GitHub Actions' workflow commands: every finding becomes an annotation of the changed file."""

from __future__ import annotations

from padcheck.diagnostics import Place, RequestRef
from padcheck.renderers import wording
from padcheck.renderers.width import escape
from padcheck.reports import Report

_LEVELS = {"error": "error", "warning": "warning", "note": "notice"}


def render(report: Report) -> str:
    """One command per line: what could not be done, then the findings that are not suppressed."""
    lines = [
        _command("error", "padcheck", error.place, error.request, error.message, error.remedy) for error in report.errors
    ]
    for finding in sorted(report.visible(), key=lambda finding: finding.sort_key):
        title = f"{finding.rule} {finding.name}"
        remedy = wording.remedy(finding)
        lines.append(_command(_LEVELS[finding.severity], title, finding.place, finding.request, finding.message, remedy))
    return "".join(f"{line}\n" for line in lines)


def _command(level: str, title: str, place: Place, request: RequestRef | None, message: str, remedy: str | None) -> str:
    about = "" if request is None else f"{request}: "
    if place.cell is not None:
        about = f"cell {place.cell}{'' if place.line is None else f' line {place.line}'}: {about}"
    text = about + message + (f"\n{remedy}" if remedy else "")
    properties = {"title": title} if place.path is None else {"file": place.path, **_span(place), "title": title}
    listed = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items())
    return f"::{level} {listed}::{_data(text)}"


def _span(place: Place) -> dict[str, int]:
    """Lines and columns as GitHub takes them: columns only within one line, none for a notebook's cell."""
    if place.line is None or place.cell is not None:
        return {}
    span = {"line": place.line, "endLine": place.end_line}
    if place.end_line in (None, place.line):
        span |= {"col": place.column, "endColumn": place.end_column}
    return {name: value for name, value in span.items() if value is not None}


def _data(text: str) -> str:
    """The message of a command: line breaks and percent signs encoded, all else that a log would obey made visible."""
    lines = (escape(line) for line in text.replace("\r\n", "\n").split("\n"))
    return "%0A".join(line.replace("%", "%25") for line in lines)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
