"""One line per finding, as compilers write them: `path:line:column: error PAD101 [name] message`."""

from __future__ import annotations

from padcheck.diagnostics import SEVERITIES
from padcheck.renderers.ansi import painter
from padcheck.renderers.width import escape
from padcheck.reports import Report

_STYLES = dict(zip(SEVERITIES, ("red", "yellow", "cyan"), strict=True))


def render(report: Report, *, color: bool = False) -> str:
    """A line for what could not be done, then a line for each finding that is not suppressed; nothing for none."""
    paint = painter(color)
    lines = []
    for error in report.errors:
        about = f"{error.request}: " if error.request else ""
        lines.append(
            f"{paint(escape(str(error.place)), 'bold')}: {paint('fatal', 'bold', 'red')} {escape(about + error.message)}"
        )
    for finding in sorted(report.visible(), key=lambda finding: finding.sort_key[1:]):
        about = f"{finding.request}: " if finding.request else ""
        lines.append(
            f"{paint(escape(str(finding.place)), 'bold')}: {paint(finding.severity, 'bold', _STYLES[finding.severity])} "
            f"{paint(finding.rule, 'bold')} [{finding.name}] {escape(about + finding.message)}"
        )
    return "".join(f"{line}\n" for line in lines)
