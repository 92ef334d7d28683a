"""Keys and values at the lookups: forwards that stop at the last layer needed, and go on from there after a write.

By causality nothing after a lookup matters to it, so rows end there and every lookup stands in the last column.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from padcheck.editing.batches import aligned, column_budget, portions
from padcheck.editing.decoder import Columns, Decoder, Tap
from padcheck.editing.rows import Fact, Groups, Row

CPU_COLUMNS = 2048


class Walk:
    """All template rows of some facts, walked up the layers while the weights below them are being rewritten.

    Each write ends what was computed above it: only the input of the layer walked to is kept, for all columns, and
    everything from that layer on is computed anew, with whatever weights the model has by then.
    """

    def __init__(self, decoder: Decoder, facts: Sequence[Fact]) -> None:
        self.decoder = decoder
        self._facts = len(facts)
        rows: list[Row] = []
        self._owner: list[int] = []
        self._bare: list[bool] = []
        for number, fact in enumerate(facts):
            for place, row in enumerate(fact.prompts):
                rows.append(Row(row.ids[: row.lookup + 1], row.lookup))
                self._owner.append(number)
                self._bare.append(place == 0)
        embeddings = decoder.model.get_input_embeddings()  # type: ignore[operator]
        per_column = 30 * int(embeddings.weight.shape[1]) * torch.finfo(decoder.dtype).bits // 8
        budget = column_budget(decoder.device, per_column, on_cpu=CPU_COLUMNS)
        self._portions = list(portions([len(row.ids) for row in rows], budget))
        self._columns = [aligned([rows[index] for index in portion], decoder.device).whole for portion in self._portions]
        self._hidden: list[Tensor | None] = [None] * len(self._portions)
        self._at = 0

    @torch.no_grad()
    def keys(self, layer: int, module: nn.Module, *, outputs: bool = False) -> Tensor:
        """The inputs (or outputs) of `module`, in `layer`, at every row's lookup: [rows, d], request-major, in wide dtype.

        Layers must be walked upwards.
        """
        found: list[Tensor | None] = [None] * len(self._owner)
        decoder = self.decoder
        for number, portion in enumerate(self._portions):
            tap, entry = Tap(module, "output" if outputs else "input"), Tap(decoder.layers[layer], "input")
            decoder.run(
                self._columns[number], start=self._at, hidden=self._hidden[number], stop=layer + 1, taps=[tap, entry]
            )
            self._hidden[number] = entry.take()
            for index, key in zip(portion, tap.take()[:, -1].to(decoder.wide), strict=True):
                found[index] = key
        self._at = layer
        return torch.stack([key for key in found if key is not None])

    @torch.no_grad()
    def values(self, layer: int, module: nn.Module | None = None) -> Tensor:
        """What the bare prompts now have at the lookup: `layer`'s output, or that of `module` in it; [facts, d], wide."""
        found: list[Tensor | None] = [None] * self._facts
        decoder = self.decoder
        for number, portion in enumerate(self._portions):
            bare = [place for place, index in enumerate(portion) if self._bare[index]]
            if not bare:
                continue
            rows = torch.tensor(bare, device=decoder.device)
            hidden = self._hidden[number]
            hidden = None if hidden is None else hidden[rows.to(hidden.device)]
            tap = Tap(decoder.layers[layer] if module is None else module, "output")
            columns: Columns = self._columns[number].rows(rows)
            decoder.run(columns, start=self._at, hidden=hidden, stop=layer + 1, taps=[tap])
            for place, value in zip(bare, tap.take()[:, -1].to(decoder.wide), strict=True):
                found[self._owner[portion[place]]] = value
        return torch.stack([value for value in found if value is not None])


def averaged(keys: Tensor, groups: Groups) -> Tensor:
    """Keys [facts · templates, d] averaged inside each group of templates, then over the groups: [facts, d]."""
    sizes = [len(group) for group in groups]
    split = torch.split(keys.reshape(-1, sum(sizes), keys.shape[-1]), sizes, dim=1)
    return torch.stack([part.mean(1) for part in split]).mean(0)
