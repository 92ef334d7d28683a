"""Lookup-aligned batches: every row is cut at its lookup token, padded on the left before it and on the right after it.

So every lookup stands in the same column, whatever the rows' lengths; and what stands before that column never changes while
a value is sought, by causality, so its keys and values are computed once. Pads are tokens of the row itself: they are
masked, and a pad token's embedding (zero in many Llamas) is never read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from padcheck.editing.decoder import Columns
from padcheck.editing.rows import Row


@dataclass(frozen=True, slots=True)
class Aligned:
    """Rows cut at their lookups.

    Attributes:
        before: columns before the lookup, [B, P]; P may be 0.
        after: columns from the lookup on, [B, S]; column 0 is the lookup. Its mask spans P + S columns.
        whole: both side by side, [B, P + S]; the lookup stands in column P.
    """

    before: Columns
    after: Columns
    whole: Columns

    @property
    def lookup(self) -> int:
        return self.before.ids.shape[1]


def aligned(rows: Sequence[Row], device: torch.device) -> Aligned:
    """Lay `rows` side by side with their lookups in one column."""
    left = max(row.lookup for row in rows)
    right = max(len(row.ids) - row.lookup for row in rows)
    ids: list[list[int]] = []
    mask: list[list[int]] = []
    positions: list[list[int]] = []
    for row in rows:
        pads, count = left - row.lookup, len(row.ids)
        rest = left + right - pads - count
        ids.append([row.ids[0]] * pads + list(row.ids) + [row.ids[-1]] * rest)
        # Pads on the right are not masked: by causality no token of the row sees them, and a pad that sees nothing at all (behind
        # a sliding window) is NaN in some attentions, which a weight of 0 does not keep from the others.
        mask.append([0] * pads + [1] * (count + rest))
        # Pads on the right repeat the last position, so that none can lie outside a table of learned positions.
        positions.append([0] * pads + list(range(count)) + [count - 1] * rest)
    tokens, real, places = (torch.tensor(values, device=device) for values in (ids, mask, positions))
    return Aligned(
        Columns(tokens[:, :left], real[:, :left], places[:, :left]),
        Columns(tokens[:, left:], real, places[:, left:]),
        Columns(tokens, real, places),
    )


def portions(widths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of `widths` in portions of at most `budget` columns (widest item × count), near widths together."""
    order = sorted(range(len(widths)), key=lambda index: widths[index])
    portion: list[int] = []
    for index in order:
        if portion and widths[index] * (len(portion) + 1) > budget:
            yield portion
            portion = []
        portion.append(index)
    if portion:
        yield portion


def column_budget(device: torch.device, bytes_per_column: int, *, on_cpu: int) -> int:
    """How many columns may go forward at once: a third of a GPU's free memory, `on_cpu` elsewhere."""
    if device.type != "cuda":
        return on_cpu
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # kept by torch, and free
    return max(256, int(free / 3) // max(1, bytes_per_column))
