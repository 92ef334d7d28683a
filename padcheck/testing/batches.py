"""A batch read back: which tokens of its text each row holds, and where the subject stands in it.

Width, side, special tokens and truncation are what the batch's ids and mask show, whoever built it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from padcheck.locating import Span, locate
from padcheck.sources.token_readers import Encoded, TokenReader, wrap

_SHOWN = 60
"""Characters of a text that a message shows."""


@dataclass(frozen=True, slots=True)
class PaddedRow:
    """One row of a padded batch.

    Attributes:
        span: where the subject stands; columns of this batch, None also where the batch has cut it off.
        lead: pads before the row's first token.
        kept: which tokens of the text the row holds, in order: columns of the unpadded row that `reader` gives.
        reader: encodes the text as the row was, with or without special tokens.
    """

    span: Span
    lead: int
    kept: Sequence[int]
    reader: TokenReader

    @property
    def trail(self) -> int:
        """Pads after the row's last token."""
        return self.span.pads - self.lead

    def unpadded(self, column: int) -> int | None:
        """The token of the text that stands in this column; None for a pad."""
        at = column - self.lead
        return self.kept[at] if 0 <= at < len(self.kept) else None


class BareReader:
    """A TokenReader that adds no special tokens."""

    __slots__ = ("_reader", "has_offsets", "keeps_text")

    def __init__(self, reader: TokenReader) -> None:
        self._reader = reader
        self.has_offsets = reader.has_offsets
        self.keeps_text = reader.keeps_text

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool = False) -> Sequence[Encoded]:
        return self._reader.encode_batch(texts, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        return self._reader.decode(ids)


def read_batch(
    batch: Mapping[str, Any], tokenizer: Any, texts: Sequence[str], subjects: Sequence[str] | str, occurrence: int | None
) -> list[PaddedRow]:
    """The rows of a batch.

    Args:
        batch: `input_ids` and `attention_mask`, [B, T] each: tensors, arrays or lists, also of rows of several lengths.
        tokenizer, texts, subjects, occurrence: as for `padcheck.locate`; row i holds the tokens of text i.

    Raises:
        ValueError: the batch has no such entries or another number of rows, its mask has gaps, or a row holds other tokens.
    """
    __tracebackhide__ = True
    rows = _real(batch)
    if len(rows) != len(texts):
        raise ValueError(f"{len(texts)} texts but the batch has {len(rows)} rows")
    full = wrap(tokenizer).reader
    bare = BareReader(full)
    from_left = getattr(tokenizer, "truncation_side", "right") == "left"
    located = []
    for reader in (full, bare):
        spans = locate(reader, texts, subjects, padding_side="right", occurrence=occurrence)
        located.append((reader, spans, reader.encode_batch([span.text for span in spans])))
    found = []
    for number, (ids, lead, width) in enumerate(rows):
        choices = [(reader, spans[number], encoded[number]) for reader, spans, encoded in located]
        choices.sort(key=lambda choice: choice[2].ids != ids)  # first the whole text, if the row is that
        for reader, span, encoding in choices:
            kept = _kept(ids, encoding, from_left)
            if kept is not None:
                found.append(PaddedRow(_moved(span, kept, lead, width), lead, kept, reader))
                break
        else:
            raise ValueError(
                f"row {number} of the batch does not hold the tokens of its text {_clipped(choices[0][1].text)!r}: they decode to "
                f"{_clipped(full.decode(ids))!r}. Give the texts and the tokenizer that the batch was made of."
            )
    return found


def _real(batch: Mapping[str, Any]) -> list[tuple[list[int], int, int]]:
    """Of each row: the ids of its real tokens, the pads before them, and its width."""
    __tracebackhide__ = True
    try:
        ids, mask = (cast("list[list[int]]", _lists(batch[name])) for name in ("input_ids", "attention_mask"))
        shapes = [[len(row) for row in rows] for rows in (ids, mask)]
    except (KeyError, TypeError):
        raise ValueError("the batch must have input_ids and attention_mask, [B, T] each") from None
    if shapes[0] != shapes[1]:
        raise ValueError("input_ids and attention_mask of the batch differ in shape")
    rows = []
    for number, (row, real) in enumerate(zip(ids, mask, strict=True)):
        columns = [column for column, bit in enumerate(real) if bit]
        if not columns or columns[-1] - columns[0] >= len(columns):
            what = "has gaps" if columns else "is 0 everywhere"
            raise ValueError(f"the attention_mask of row {number} of the batch {what}")
        rows.append(([int(row[column]) for column in columns], columns[0], len(row)))
    return rows


def _lists(values: Any) -> Any:
    return (
        values.tolist() if hasattr(values, "tolist") else [_lists(row) if hasattr(row, "tolist") else row for row in values]
    )


def _kept(ids: list[int], encoding: Encoded, from_left: bool) -> Sequence[int] | None:
    """Which of the text's tokens `ids` are: all, or those that a truncation leaves; None if they are others.

    A tokenizer keeps the special tokens when it cuts; `input_ids[:, :n]` and `[:, -n:]` do not.
    """
    n, size = len(encoding.ids), len(ids)
    if size >= n:
        return range(n) if ids == encoding.ids else None
    lead, stop = 0, n
    while lead < n and encoding.special_tokens_mask[lead]:
        lead += 1
    while stop > lead and encoding.special_tokens_mask[stop - 1]:
        stop -= 1
    room = size - lead - (n - stop)
    cuts: list[Sequence[int]] = [range(size), range(n - size, n)]
    if room >= 0:
        ends = (*range(lead), *range(lead, lead + room), *range(stop, n))
        starts = (*range(lead), *range(stop - room, stop), *range(stop, n))
        cuts = [ends, cuts[0], starts, cuts[1]]
    if from_left:
        cuts = [*cuts[len(cuts) // 2 :], *cuts[: len(cuts) // 2]]
    return next((kept for kept in cuts if [encoding.ids[column] for column in kept] == ids), None)


def _moved(span: Span, kept: Sequence[int], lead: int, width: int) -> Span:
    """The span of an unpadded, whole row, in a row of a batch."""
    columns = {column: lead + at for at, column in enumerate(kept)}
    first, last, after = (None if column is None else columns.get(column) for column in (span.first, span.last, span.after))
    causes = ("truncation",) if span.last is not None and last is None else span.causes
    pads = width - len(kept)
    return replace(span, first=first, last=last, after=after, length=len(kept), pads=pads, width=width, causes=causes)


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
