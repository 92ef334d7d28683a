"""`no_drift`: are these the columns of the subjects' last tokens?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from padcheck.locating import Span, locate
from padcheck.positions.drift import Cause
from padcheck.reports import RowView, TokenCell
from padcheck.sources.token_readers import Side, Wrapped, wrap

SHOWN = 8
"""Rows that a failure shows."""


def no_drift(
    tokenizer: Any,
    texts: Sequence[str],
    subjects: Sequence[str] | str,
    indices: Iterable[Any],
    *,
    padding_side: Side | None = None,
    occurrence: int | None = None,
) -> None:
    """Assert that each index is the column of its subject's last token in the padded batch of the texts.

    Args:
        tokenizer, texts, subjects, padding_side, occurrence: as for `padcheck.locate`.
        indices: [B] integers, one for each text, counted as the batch is indexed: from 0, or from its end if negative.

    Raises:
        AssertionError: an index is another column, or a subject is not in its text; with the tokens of the rows that are wrong.
        ValueError: texts, subjects and indices differ in number.
    """
    __tracebackhide__ = True
    wrapped = wrap(tokenizer)
    side = padding_side or wrapped.padding_side
    spans = locate(tokenizer, texts, subjects, padding_side=side, occurrence=occurrence)
    given = [int(index) for index in indices]
    if len(given) != len(spans):
        raise ValueError(f"{len(spans)} texts but {len(given)} indices")
    columns = [index + span.width if index < 0 else index for index, span in zip(given, spans, strict=True)]
    wrong = [row for row, (column, span) in enumerate(zip(columns, spans, strict=True)) if column != span.last]
    if not wrong:
        return
    encoded = wrapped.reader.encode_batch([spans[row].text for row in wrong[:SHOWN]])
    views = [
        _view(row, columns[row], spans[row], tokens.tokens, tokens.special_tokens_mask, side == "left", wrapped)
        for row, tokens in zip(wrong, encoded, strict=False)
    ]
    raise AssertionError(_message(wrong, len(spans), side, views))


def _message(wrong: Sequence[int], rows: int, side: Side | None, views: Sequence[RowView]) -> str:
    from padcheck.checks.drift_rules import pages
    from padcheck.renderers.text import render_rows

    head = f"{len(wrong)} of {rows} indices are not their subject's last token ({side} padding)"
    more = "" if len(wrong) <= SHOWN else f"\n{len(wrong) - SHOWN} more rows are wrong."
    causes = pages(("lookup", cast(Cause, view.cause)) for view in views if view.cause)
    return f"{head}\n\n{render_rows(views)}{more}" + (f"\n{causes}" if causes else "")


def _view(
    row: int, column: int, span: Span, tokens: Sequence[str], special: Sequence[int], left: bool, wrapped: Wrapped
) -> RowView:
    lead = span.pads if left else 0
    cells = [
        TokenCell(at, tokens[at - lead], special=bool(special[at - lead]))
        if lead <= at < lead + span.length
        else TokenCell(at, "<pad>", pad=True)
        for at in range(span.width)
    ]
    drift = None if span.last is None else column - span.last
    causes = [cause for cause in span.causes if cause not in ("occurrence", "shared")] if column == span.naive else []
    if not causes and "occurrence" in span.causes and _on_another_mention(wrapped, span, column - lead):
        causes = ["occurrence"]
    if span.last is None:
        note = f"the subject {span.subject!r} is not in the text" if span.start is None else "its tokens cannot be told"
    else:
        note = None
    return RowView(
        request=row,
        case_id=None,
        batch="batch",
        row=row,
        kind="lookup",
        editor=column,
        truth=span.last,
        drift=drift,
        cause=causes[0] if causes else "pads" if left and span.pads and drift == -span.pads else None,
        oracle=span.oracle,
        width=span.width,
        pads=span.pads,
        text=span.text,
        cells=tuple(cells),
        note=note,
    )


def _on_another_mention(wrapped: Wrapped, span: Span, column: int) -> bool:
    """Whether this column of the unpadded row is the last token of another mention of the subject."""
    times = sum(span.text.startswith(span.subject, at) for at in range(len(span.text)))
    others = (locate(wrapped.reader, [span.text], span.subject, padding_side="right", occurrence=at) for at in range(times))
    return any(other.start != span.start and other.last == column for (other,) in others)
