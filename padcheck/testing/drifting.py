"""`no_drift`: are these the columns of the subjects' last tokens?"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from itertools import starmap
from typing import Any, cast

from padcheck.locating import Span, locate
from padcheck.positions.drift import Cause
from padcheck.reports import RowView, TokenCell
from padcheck.sources.token_readers import Side, wrap
from padcheck.testing.batches import BareReader, PaddedRow, read_batch

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
    batch: Mapping[str, Any] | None = None,
) -> None:
    """Assert that each index is the column of its subject's last token in the padded batch of the texts.

    Without `batch` this is what `tokenizer(texts, padding=True)` makes: the longest row has no pads, and special tokens are added.

    Args:
        tokenizer, texts, subjects, padding_side, occurrence: as for `padcheck.locate`.
        indices: [B] integers, one for each text, counted as the batch is indexed: from 0, or from its end if negative.
        batch: the batch itself, for one that was made in another way (`pad_to_multiple_of`, `padding="max_length"`, `truncation`,
            `add_special_tokens=False`): `input_ids` and `attention_mask`, [B, T] each, as tensors, arrays or lists. Its width,
            side, special tokens and truncation count.

    Raises:
        AssertionError: an index is another column, or a subject is not in its row; with the tokens of the rows that are wrong.
        ValueError: texts, subjects, indices and the batch's rows differ in number, an index is no integer, `batch` and
            `padding_side` are both given, or a row of the batch does not hold the tokens of its text.
    """
    __tracebackhide__ = True
    texts, given = list(texts), list(starmap(_integer, enumerate(indices)))
    if batch is None:
        side = padding_side or wrap(tokenizer).padding_side
        rows = _as_padded(tokenizer, locate(tokenizer, texts, subjects, padding_side=side, occurrence=occurrence), side)
        how = str(side)
    elif padding_side is not None:
        raise ValueError("give batch or padding_side, not both: the batch shows its side")
    else:
        rows = read_batch(batch, tokenizer, texts, subjects, occurrence)
        sides = [
            name for name, padded in (("left", "lead"), ("right", "trail")) if any(getattr(row, padded) for row in rows)
        ]
        how = " and ".join(sides) or "no"
    if len(given) != len(rows):
        raise ValueError(f"{len(rows)} texts but {len(given)} indices")
    columns = [index + row.span.width if index < 0 else index for index, row in zip(given, rows, strict=True)]
    wrong = [number for number, (column, row) in enumerate(zip(columns, rows, strict=True)) if column != row.span.last]
    if not wrong:
        return
    views = [_view(number, columns[number], rows[number]) for number in wrong[:SHOWN]]
    message = _message(wrong, len(rows), how, views)
    if batch is None:
        message += _other_batch(tokenizer, texts, subjects, occurrence, given, left=how == "left")
    raise AssertionError(message)


def _integer(row: int, value: Any) -> int:
    __tracebackhide__ = True
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"index {row} is {value!r}, which is no integer") from None


def _as_padded(tokenizer: Any, spans: Sequence[Span], side: Side | None) -> list[PaddedRow]:
    """The rows of the batch that `locate` speaks of."""
    reader = wrap(tokenizer).reader
    return [PaddedRow(span, span.pads if side == "left" else 0, range(span.length), reader) for span in spans]


def _message(wrong: Sequence[int], rows: int, how: str, views: Sequence[RowView]) -> str:
    from padcheck.checks.drift_rules import pages
    from padcheck.renderers.text import render_rows

    head = f"{len(wrong)} of {rows} indices are not their subject's last token ({how} padding)"
    more = "" if len(wrong) <= SHOWN else f"\n{len(wrong) - SHOWN} more rows are wrong."
    causes = pages(("lookup", cast(Cause, view.cause)) for view in views if view.cause)
    return f"{head}\n\n{render_rows(views)}{more}" + (f"\n{causes}" if causes else "")


def _other_batch(
    tokenizer: Any,
    texts: Sequence[str],
    subjects: Sequence[str] | str,
    occurrence: int | None,
    given: Sequence[int],
    *,
    left: bool,
) -> str:
    """How the batch would have to be made for all indices to be right, and what to do if it was; empty if no way is known."""
    reader = wrap(tokenizer).reader
    for special, each in (True, reader), (False, BareReader(reader)):
        spans = locate(each, texts, subjects, padding_side="right", occurrence=occurrence)
        least = max(span.length for span in spans)
        widths = [least]
        if special:  # in a wider batch, pads on the left stand where special tokens would: one answer is enough
            widths += filter(None, (_width(index, span, left) for index, span in zip(given, spans, strict=True)))
        for width in dict.fromkeys(widths):
            if special and 0 <= width - least < 2 and width % 8:
                continue  # a neighbouring column is a mistake, rather than a batch with one more pad
            columns = [index + width if index < 0 else index for index in given]
            if columns == [_column(span, width, left) for span in spans]:
                kind = f"of {width} columns" if special else "without special tokens"
                return f"\nThey are right for a batch {kind}. If yours is one, give it: no_drift(..., batch=batch)."
    return ""


def _width(index: int, span: Span, left: bool) -> int | None:
    """How wide the batch must be for this index to be right; None where that does not depend on the width, or none makes it."""
    if span.last is None or left == (index < 0):
        return None
    width = span.length + index - span.last if left else span.last - index
    return width if width > span.last else None


def _column(span: Span, width: int, left: bool) -> int | None:
    """The column of an unpadded row's subject in a batch of that width; None where that cuts the subject off."""
    if span.last is None or span.last >= width:
        return None
    return span.last + (max(0, width - span.length) if left else 0)


def _view(number: int, column: int, row: PaddedRow) -> RowView:
    span = row.span
    (encoded,) = row.reader.encode_batch([span.text])
    cells = [
        TokenCell(column, "<pad>", pad=True)
        if at is None
        else TokenCell(column, encoded.tokens[at], special=bool(encoded.special_tokens_mask[at]))
        for column in range(span.width)
        for at in [row.unpadded(column)]
    ]
    drift = None if span.last is None else column - span.last
    causes = [cause for cause in span.causes if cause not in ("occurrence", "shared")] if column == span.naive else []
    if not causes and "occurrence" in span.causes and _on_another_mention(row, row.unpadded(column)):
        causes = ["occurrence"]
    note = None
    if "truncation" in span.causes and span.last is None:
        note, causes = f"the batch cuts the subject {span.subject!r} off", ["truncation"]
    elif span.last is None:
        note = f"the subject {span.subject!r} is not in the text" if "absent" in span.causes else "its tokens cannot be told"
    return RowView(
        request=number,
        case_id=None,
        batch="batch",
        row=number,
        kind="lookup",
        editor=column,
        truth=span.last,
        drift=drift,
        cause=causes[0] if causes else "pads" if row.lead and drift == -row.lead else None,
        oracle=span.oracle,
        width=span.width,
        pads=span.pads,
        text=span.text,
        cells=tuple(cells),
        note=note,
    )


def _on_another_mention(row: PaddedRow, column: int | None) -> bool:
    """Whether this column of the unpadded row is the last token of another mention of the subject."""
    span = row.span
    times = sum(span.text.startswith(span.subject, at) for at in range(len(span.text)))
    others = (locate(row.reader, [span.text], span.subject, padding_side="right", occurrence=at) for at in range(times))
    return column is not None and any(other.start != span.start and other.last == column for (other,) in others)
