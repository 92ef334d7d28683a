"""Keys and values at the lookups: forwards that stop at the last layer needed, and go on from there after a write.

By causality nothing after a lookup matters to it, so rows end there and every lookup stands in the last column.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from padcheck.editing.batches import aligned, column_budget, portions
from padcheck.editing.decoder import Cache, Decoder, Tap
from padcheck.editing.prefixes import split
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
                rows.append(Row(row.ids[: row.lookup + 1], row.lookup, row.head))
                self._owner.append(number)
                self._bare.append(place == 0)
        embeddings = decoder.model.get_input_embeddings()  # type: ignore[operator]
        per_column = 30 * int(embeddings.weight.shape[1]) * torch.finfo(decoder.dtype).bits // 8
        budget = column_budget(decoder.device, per_column, on_cpu=CPU_COLUMNS)
        self._portions = list(portions([len(row.ids) for row in rows], budget))
        aside = len(self._portions) > 1
        self._climbs = [_Climb(decoder, [rows[index] for index in portion], aside=aside) for portion in self._portions]

    @torch.no_grad()
    def keys(self, layer: int, module: nn.Module, *, outputs: bool = False) -> Tensor:
        """The inputs (or outputs) of `module`, in `layer`, at every row's lookup: [rows, d], request-major, in wide dtype.

        Layers must be walked upwards.
        """
        found: list[Tensor | None] = [None] * len(self._owner)
        for portion, climb in zip(self._portions, self._climbs, strict=True):
            keys = climb.to(layer, Tap(module, "output" if outputs else "input"))
            for index, key in zip(portion, keys, strict=True):
                found[index] = key
        return torch.stack([key for key in found if key is not None])

    @torch.no_grad()
    def values(self, layer: int, module: nn.Module | None = None) -> Tensor:
        """What the bare prompts now have at the lookup: `layer`'s output, or that of `module` in it; [facts, d], wide."""
        found: list[Tensor | None] = [None] * self._facts
        for portion, climb in zip(self._portions, self._climbs, strict=True):
            bare = [place for place, index in enumerate(portion) if self._bare[index]]
            if not bare:
                continue
            values = climb.look(layer, Tap(self.decoder.layers[layer] if module is None else module, "output"), bare)
            for place, value in zip(bare, values, strict=True):
                found[self._owner[portion[place]]] = value
        return torch.stack([value for value in found if value is not None])


class _Climb:
    """Some rows, each ending at its lookup, on their way up through the layers; what they begin with alike goes once.

    aside  whether to wait in the CPU's memory: the rows of thousands of facts would fill a GPU
    """

    def __init__(self, decoder: Decoder, rows: Sequence[Row], *, aside: bool = False) -> None:
        self._decoder, self._aside = decoder, aside
        self._parts = split(rows, decoder.device)
        self._own = aligned(rows, decoder.device).whole if self._parts is None else self._parts.own
        lookups = torch.tensor([row.lookup for row in rows], device=decoder.device)
        self._lookups = lookups - self._parts.cuts if self._parts else torch.full_like(lookups, self._own.ids.shape[1] - 1)
        self._at, self._device = 0, decoder.device
        self._hidden: tuple[Tensor | None, Tensor | None] = None, None

    def to(self, layer: int, tap: Tap) -> Tensor:
        """Go up to `layer`, stay there, and say what `tap` in it sees at the lookups: [B, d], wide."""
        entries = Tap(self._decoder.layers[layer], "input"), Tap(self._decoder.layers[layer], "input")
        seen = self._run(layer, tap, entries, None)
        kept = entries[0].seen, entries[1].take()
        self._device = kept[1].device
        self._hidden = (_moved(kept[0], torch.device("cpu")), kept[1].cpu()) if self._aside else kept
        self._at = layer
        return seen

    def look(self, layer: int, tap: Tap, places: Sequence[int]) -> Tensor:
        """What `tap` in `layer` sees at the lookups of the rows at `places`: [len(places), d], wide."""
        return self._run(layer, tap, None, torch.tensor(places, device=self._decoder.device))

    def _run(self, layer: int, tap: Tap, entries: tuple[Tap, Tap] | None, wanted: Tensor | None) -> Tensor:
        decoder, parts, own, lookups = self._decoder, self._parts, self._own, self._lookups
        of_heads, of_own = (_moved(hidden, self._device) for hidden in self._hidden)
        if wanted is not None:
            own, lookups, of_own = own.rows(wanted), lookups[wanted], _picked(of_own, wanted)
        cache: Cache | None = None
        if parts is not None:
            heads, whose = parts.heads, parts.whose
            if wanted is not None:
                used, whose = torch.unique(whose[wanted], return_inverse=True)
                heads, of_heads = heads.rows(used), _picked(of_heads, used)
            cache = Cache.empty()
            taps = [] if entries is None else [entries[0]]
            decoder.run(heads, cache=cache, start=self._at, hidden=of_heads, stop=layer + 1, taps=taps)
            cache = cache.rows(whose)
            cache.freeze(0)
        taps = [tap] if entries is None else [tap, entries[1]]
        decoder.run(own, cache=cache, start=self._at, hidden=of_own, stop=layer + 1, taps=taps)
        seen = tap.take()
        return seen[torch.arange(len(seen), device=seen.device), lookups.to(seen.device)].to(decoder.wide)


def _picked(hidden: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if hidden is None else hidden[rows.to(hidden.device)]


def _moved(hidden: Tensor | None, device: torch.device) -> Tensor | None:
    return None if hidden is None else hidden.to(device)


def averaged(keys: Tensor, groups: Groups) -> Tensor:
    """Keys [facts · templates, d] averaged inside each group of templates, then over the groups: [facts, d]."""
    sizes = [len(group) for group in groups]
    split = torch.split(keys.reshape(-1, sum(sizes), keys.shape[-1]), sizes, dim=1)
    return torch.stack([part.mean(1) for part in split]).mean(0)
