"""What a model says to one request: the new answer's probability, its paraphrases' and what unrelated prompts begin with.

Rows are padded on the right, where by causality no pad is ever seen. A probability is the geometric mean over the target's
tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from padcheck.editing.rows import Fact
from padcheck.sources.token_readers import TokenReader


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read once.

    Attributes:
        probability: of the target after the prompt.
        paraphrase: the same after the paraphrases, on average; None where the request has none.
        openings: the likeliest first token after each unrelated prompt.
    """

    probability: float
    paraphrase: float | None
    openings: tuple[int, ...]

    def locality(self, before: Reading) -> float | None:
        """The share of unrelated prompts that begin as before; None where the request has none."""
        if not self.openings:
            return None
        return sum(now == then for now, then in zip(self.openings, before.openings, strict=True)) / len(self.openings)


class Probe:
    """What is asked about one request. `pad`: any id that the model has."""

    def __init__(self, fact: Fact, reader: TokenReader, pad: int) -> None:
        extra = fact.request.extra
        self._target = fact.target
        asked = [fact.prompts[0].ids, *_ids(paraphrases_of(extra), reader)]
        self._labels = [len(ids) - 1 for ids in asked]
        unrelated = _ids(unrelated_of(extra), reader)
        rows = [*(ids + fact.target[:-1] for ids in asked), *unrelated]
        self._ends = [len(ids) - 1 for ids in unrelated]
        width = max(map(len, rows))
        self._rows = torch.tensor([list(row) + [pad] * (width - len(row)) for row in rows])
        self._mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])

    @torch.no_grad()
    def read(self, model: nn.Module) -> Reading:
        """Ask the model as it is now."""
        device = model.get_input_embeddings().weight.device  # type: ignore[operator]
        logits = model(input_ids=self._rows.to(device), attention_mask=self._mask.to(device), use_cache=False).logits
        found = []
        for row, first in enumerate(self._labels):
            scores = torch.log_softmax(logits[row, first : first + len(self._target)].double(), dim=-1)
            hits = scores[torch.arange(len(self._target)), torch.tensor(self._target)]
            found.append(float(hits.mean().exp()))
        openings = tuple(int(logits[len(found) + row, end].argmax()) for row, end in enumerate(self._ends))
        return Reading(found[0], sum(found[1:]) / len(found[1:]) if found[1:] else None, openings)


def paraphrases_of(extra: Mapping[str, Any]) -> list[str]:
    """Other ways of asking, as the public data sets name them."""
    return _texts(
        extra.get("paraphrases"), extra.get("paraphrase_prompts"), extra.get("rephrase_prompt"), extra.get("rephrase")
    )


def unrelated_of(extra: Mapping[str, Any]) -> list[str]:
    """Prompts that the edit must not touch, as the public data sets name them."""
    return _texts(extra.get("locality"), extra.get("neighborhood_prompts"), extra.get("locality_prompt"), extra.get("loc"))


def _texts(*values: Any) -> list[str]:
    """The prompts in texts, lists of them, records with a `prompt`, and EasyEdit's {"neighborhood": {"prompt": …}}."""
    found: list[str] = []
    for value in values:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, Mapping):
            found += _texts(value["prompt"]) if "prompt" in value else _texts(*value.values())
        elif isinstance(value, Sequence):
            found += _texts(*value)
    return list(dict.fromkeys(text for text in found if text.strip()))


def _ids(texts: Sequence[str], reader: TokenReader) -> list[tuple[int, ...]]:
    found = []
    for encoded in reader.encode_batch(texts) if texts else ():
        ids, special = list(encoded.ids), encoded.special_tokens_mask
        while ids and special[len(ids) - 1]:
            ids.pop()
        found.append(tuple(ids))
    return [ids for ids in found if ids]
