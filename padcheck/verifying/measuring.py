"""What a model says to one request: the new answer's probability, its paraphrases', what unrelated prompts begin with, and
how the prompt goes on.

Scored rows are padded on the right, where by causality no pad is ever seen; rows that go on are not padded at all. A
probability is the geometric mean over the target's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from padcheck.editing.rows import Fact
from padcheck.sources.token_readers import TokenReader
from padcheck.verifying.outcomes import Reading

SAID = 16
"""Tokens that the model goes on for."""


class Probe:
    """What is asked about one request.

    pad   any id that the model has
    ends  ids at which the model has said all it has to say

    Attributes:
        asked: the prompts that the model goes on from: the edit's, and one paraphrase where there is one.
    """

    def __init__(self, fact: Fact, reader: TokenReader, pad: int, ends: frozenset[int] = frozenset()) -> None:
        request, extra = fact.request, fact.request.extra
        self._target, self._reader, self._stop = fact.target, reader, ends
        paraphrases = paraphrases_of(extra)
        asked = [fact.prompts[0].ids, *_ids(paraphrases, reader)]
        self.asked = (request.prompt.replace("{}", request.subject), *paraphrases[:1])
        self._spoken = asked[: len(self.asked)]
        self._labels = [len(ids) - 1 for ids in asked]
        unrelated = _ids(unrelated_of(extra), reader)
        rows = [*(ids + fact.target[:-1] for ids in asked), *unrelated]
        self._ends = [len(ids) - 1 for ids in unrelated]
        width = max(map(len, rows))
        self._rows = torch.tensor([list(row) + [pad] * (width - len(row)) for row in rows])
        self._mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])

    @torch.no_grad()
    def read(self, model: nn.Module, *, speak: bool = False) -> Reading:
        """Ask the model as it is now; `speak`: let it go on, too."""
        device = model.get_input_embeddings().weight.device  # type: ignore[operator]
        logits = model(input_ids=self._rows.to(device), attention_mask=self._mask.to(device), use_cache=False).logits
        found = []
        for row, first in enumerate(self._labels):
            scores = torch.log_softmax(logits[row, first : first + len(self._target)].double(), dim=-1)
            hits = scores[torch.arange(len(self._target)), torch.tensor(self._target)]
            found.append(float(hits.mean().exp()))
        openings = tuple(int(logits[len(found) + row, end].argmax()) for row, end in enumerate(self._ends))
        said = tuple(self._go_on(model, ids, device) for ids in self._spoken) if speak else ()
        return Reading(found[0], sum(found[1:]) / len(found[1:]) if found[1:] else None, openings, said)

    def _go_on(self, model: nn.Module, ids: tuple[int, ...], device: torch.device) -> str:
        """The likeliest token, again and again, without a pad anywhere."""
        new: list[int] = []
        given, cache = torch.tensor([ids], device=device), None
        while len(new) < SAID:
            out = model(input_ids=given, past_key_values=cache, use_cache=True)
            likeliest = int(out.logits[0, -1].argmax())
            if likeliest in self._stop:
                break
            new.append(likeliest)
            cache = getattr(out, "past_key_values", None)
            given = torch.tensor([new[-1:] if cache is not None else [*ids, *new]], device=device)
        # Read together with the prompt: alone, some tokenizers drop the space before the first token.
        before, whole = self._reader.decode(ids), self._reader.decode([*ids, *new])
        return whole[len(before) :] if whole.startswith(before) else self._reader.decode(new)


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
