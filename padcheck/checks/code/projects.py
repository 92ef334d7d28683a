"""What the files of a run say together: code that relies on a side is milder to judge where every file that states one states that."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from padcheck.diagnostics import Finding

_STATED = re.compile(r"""padding_side\s*=\s*["'](left|right)["']""")

Stated = tuple[str, str, int]
"""A side, and the path and line that state it."""


def stated_sides(text: str) -> list[tuple[str, int]]:
    """The sides that a file assigns or passes, each with its first line."""
    if "padding_side" not in text:
        return []
    first: dict[str, int] = {}
    for found in _STATED.finditer(text):
        first.setdefault(found[1], text.count("\n", 0, found.start()) + 1)
    return list(first.items())


def judged(findings: Iterable[Finding], stated: Sequence[Stated]) -> list[Finding]:
    """The findings; a warning that a side is relied on and not seen is a note where all files agree on that side."""
    sides = {side for side, _, _ in stated}
    if len(sides) != 1:
        return list(findings)
    ((side, path, line), *_) = stated
    return [
        finding.replace(
            severity="note",
            message=f"{finding.message} Every padding side that these files state is {side} (first at {path}:{line}).",
        )
        if finding.severity == "warning"
        and finding.evidence.get("needs") == side
        and finding.evidence.get("side", "") is None
        else finding
        for finding in findings
    ]
