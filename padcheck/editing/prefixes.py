"""What several rows begin with alike goes forward once: a context template and the prompt's words before the subject.

Such a beginning is a row of its own, its end in the last column; what is left of each row follows it, its start in column 0.
So a row's real tokens stand side by side, as sliding windows and ALiBi ask for, and causality gives every one of them the
hidden states that it has in the whole row.

Shapes: B rows, H distinct beginnings of C columns at most, T columns at most of what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from padcheck.editing.decoder import Cache, Columns, Decoder
from padcheck.editing.rows import Row

_WORTH = 0.75
"""A part of the columns that must remain at most, for two passes instead of one."""


@dataclass(frozen=True, slots=True)
class Split:
    """Rows cut behind their beginnings.

    Attributes:
        heads: the distinct beginnings, [H, C].
        whose: which of them a row has, [B].
        own: what is left of the rows, [B, T]; its mask spans C + T columns.
        cuts: how many tokens of a row are its beginning, [B].
    """

    heads: Columns
    whose: Tensor
    own: Columns
    cuts: Tensor

    def column(self, place: Tensor) -> Tensor:
        """Where the token at `place` [B, …] of each row stands among the C + T columns."""
        width, cuts = self.heads.ids.shape[1], self.cuts.reshape(-1, *[1] * (place.ndim - 1))
        return place - cuts + width


def split(rows: Sequence[Row], device: torch.device) -> Split | None:
    """Cut `rows` behind their beginnings; None where that would not send far fewer columns forward."""
    known: dict[tuple[int, ...], int] = {}
    whose = [known.setdefault(row.ids[: row.head], len(known)) for row in rows]
    width, left = max(map(len, known)), max(len(row.ids) - row.head for row in rows)
    if not width or not left:
        return None
    if len(known) * width + len(rows) * left > _WORTH * len(rows) * max(len(row.ids) for row in rows):
        return None
    pads = [width - len(head) for head in known]
    first = rows[0].ids[0]
    rest = [left - len(row.ids) + row.head for row in rows]
    heads = [[first] * pad + list(head) for pad, head in zip(pads, known, strict=True)]
    own = [[*row.ids[row.head :], *[row.ids[-1]] * pad] for pad, row in zip(rest, rows, strict=True)]
    before = [[0] * pad + [1] * (width - pad) for pad in pads]
    mask = [before[head] + [1] * left for head in whose]
    positions = [[0] * pad + list(range(width - pad)) for pad in pads]
    later = [[min(row.head + step, len(row.ids) - 1) for step in range(left)] for row in rows]

    def tensor(values: list[list[int]]) -> Tensor:
        return torch.tensor(values, device=device)

    return Split(
        Columns(tensor(heads), tensor(before), tensor(positions)),
        torch.tensor(whose, device=device),
        Columns(tensor(own), tensor(mask), tensor(later)),
        torch.tensor([row.head for row in rows], device=device),
    )


def prefilled(decoder: Decoder, rows: Sequence[Row], before: Columns) -> Cache:
    """Keys and values of the columns before the lookups of `rows`, which are `before` when laid side by side."""
    parts = split([Row(row.ids[: row.lookup], row.lookup, min(row.head, row.lookup)) for row in rows], decoder.device)
    cache = Cache.empty()
    if parts is None:
        decoder.run(before, cache=cache)
        return cache
    decoder.run(parts.heads, cache=cache)
    cache = cache.rows(parts.whose)
    decoder.run(parts.own, cache=cache)
    width = before.ids.shape[1]
    lookups = torch.tensor([row.lookup for row in rows], device=decoder.device)
    place = torch.arange(width, device=decoder.device)[None] - (width - lookups)[:, None]
    return cache.columns(parts.column(place).clamp_min(0))
