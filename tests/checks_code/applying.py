"""Applies the edits of fixes to a text, as the engine does: exact spans, the first of two that overlap wins."""

from __future__ import annotations

import re
from collections.abc import Iterable

from padcheck.diagnostics import Finding, TextEdit

_LINE_BREAK = re.compile(r"\r\n|\r|\n")


def apply_edits(text: str, edits: Iterable[TextEdit]) -> str:
    bom = text[:1] if text.startswith("\ufeff") else ""
    text = text[len(bom) :]
    starts = [0, *(found.end() for found in _LINE_BREAK.finditer(text))]

    def offset(line: int | None, column: int | None) -> int:
        assert line is not None
        assert column is not None
        return starts[line - 1] + column - 1

    spans = [
        (offset(e.place.line, e.place.column), offset(e.place.end_line, e.place.end_column), e.replacement) for e in edits
    ]
    pieces, done = [], 0
    for start, end, replacement in sorted(spans, key=lambda span: span[:2]):
        assert start >= done, "edits overlap"
        pieces += [text[done:start], replacement]
        done = end
    return bom + "".join([*pieces, text[done:]])


def fixed(text: str, findings: Iterable[Finding], *grades: str) -> str:
    """`text` after the first fix of one of the grades."""
    for finding in findings:
        if finding.fix is not None and finding.fix.grade in grades:
            return apply_edits(text, finding.fix.edits)
    return text
