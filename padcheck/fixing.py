"""Writing fixes: by exact span, so that comments and layout stay; a file is changed in one step or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from padcheck.diagnostics import Finding, TextEdit

if TYPE_CHECKING:
    from padcheck.checks.code.notebooks import Cell

ROUNDS = 10
"""How often a file is fixed and read again before padcheck stops: a fix may uncover another finding."""


def applicable(findings: Iterable[Finding], *, unsafe: bool) -> list[Finding]:
    """The findings whose fix may be written: safe ones, and with `unsafe` those of that grade."""
    grades = {"safe", "unsafe"} if unsafe else {"safe"}
    return [
        finding
        for finding in findings
        if finding.fix is not None and finding.fix.edits and finding.fix.grade in grades and not finding.suppressed
    ]


def apply_fixes(text: str, findings: Sequence[Finding]) -> tuple[str, list[Finding]]:
    """`text` with the fixes of `findings`, and those whose fix went in.

    The edits of one fix belong together. Of two fixes that touch the same text the first one wins; the other comes next round.
    """
    starts = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
    taken: list[tuple[int, int]] = []
    chosen: list[tuple[int, int, str]] = []
    fixed = []
    for finding in sorted(findings, key=lambda item: (item.place.line or 0, item.place.column or 0, item.rule)):
        assert finding.fix is not None
        spans = [
            (*span, edit.replacement) for edit in finding.fix.edits if (span := _span(edit, starts, len(text))) is not None
        ]
        if len(spans) != len(finding.fix.edits):
            continue
        if any((start < end_ and start_ < end) or start == start_ for start, end, _ in spans for start_, end_ in taken):
            continue
        taken += [(start, end) for start, end, _ in spans]
        chosen += spans
        fixed.append(finding)
    for start, end, replacement in sorted(chosen, reverse=True):
        text = text[:start] + replacement + text[end:]
    return text, fixed


def apply_notebook_fixes(text: str, findings: Sequence[Finding]) -> tuple[str, list[Finding]]:
    """The same for a notebook, cell by cell. A fix that would change a magic or a shell command is left out."""
    from padcheck.checks.code.notebooks import cells, with_cells

    changed: dict[int, str] = {}
    fixed: list[Finding] = []
    for cell in cells(text):
        own = [finding for finding in findings if finding.place.cell == cell.number and _leaves_magics(finding, cell)]
        new, done = apply_fixes(cell.raw, own) if own else (cell.raw, [])
        if done:
            changed[cell.number] = new
            fixed += done
    return (with_cells(text, changed), fixed) if changed else (text, [])


def _leaves_magics(finding: Finding, cell: Cell) -> bool:
    """Whether each edit touches lines of Python only, or indents."""
    written, python = cell.raw.split("\n"), cell.text.split("\n")
    magics = {number for number, (one, other) in enumerate(zip(written, python, strict=False), 1) if one != other}
    if len(written) != len(python):  # the whole cell is another language
        return False
    assert finding.fix is not None
    return all(
        edit.place.cell == cell.number
        and (
            (edit.place.column == edit.place.end_column == 1 and edit.place.line == edit.place.end_line)
            or magics.isdisjoint(range(edit.place.line or 0, (edit.place.end_line or 0) + 1))
        )
        for edit in finding.fix.edits
    )


def _span(edit: TextEdit, starts: Sequence[int], length: int) -> tuple[int, int] | None:
    """Offsets of an edit; None where it points outside the text."""
    place = edit.place
    if place.line is None or place.column is None or place.end_line is None or place.end_column is None:
        return None
    if not (1 <= place.line <= len(starts) and 1 <= place.end_line <= len(starts)):
        return None
    start, end = starts[place.line - 1] + place.column - 1, starts[place.end_line - 1] + place.end_column - 1
    return (start, end) if 0 <= start <= end <= length else None


def read_exactly(path: Path) -> str:
    """The file's text with its own line ends; a byte order mark stays where it is."""
    return path.read_bytes().decode("utf-8")


def write_exactly(path: Path, text: str) -> None:
    """Replace the file in one step, with the permissions it had. A link's target is written, not the link."""
    import tempfile

    target = path.resolve()
    mode = stat.S_IMODE(target.stat().st_mode)
    handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=".padcheck-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
        os.chmod(scratch, mode)
        os.replace(scratch, target)
    except BaseException:
        os.unlink(scratch)
        raise


def unified(old: str, new: str, path: str) -> str:
    """What --diff shows."""
    import difflib

    lines = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), path, path)
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)
