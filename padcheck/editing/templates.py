"""Context templates sampled from the model: short texts before the prompt, so that a key does not hang on one context.

Each is a word, continued by the model with full attention over everything before (the published sampler sees the last column
only under some versions of transformers), then ". {}". One seeded generator decides; no global random state is touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from padcheck.editing.batches import aligned
from padcheck.editing.decoder import Cache, Columns, Decoder
from padcheck.editing.rows import Groups, Row
from padcheck.sources.token_readers import TokenReader

STARTS = ("The", "Therefore", "Because", "I", "You")
_LIKELIEST = 5
MEMIT_LENGTHS = ((10, 5),)
"""(tokens, count) of the MEMIT family's templates; ROME's stand in its hparams."""


def sampled(
    decoder: Decoder, reader: TokenReader, lengths: Sequence[tuple[int, int]], seed: int, special: frozenset[int]
) -> Groups:
    """The bare `{}`, then a group of `count` templates for each (tokens in all, count) of `lengths`.

    special  ids never to be drawn (end of text and the like)
    """
    generator = torch.Generator().manual_seed(seed)
    groups: list[tuple[str, ...]] = [("{}",)]
    for length, count in lengths:
        each = max(1, count // len(STARTS))
        starts = [start for start in STARTS for _ in range(each)]
        groups.append(tuple(_template(text) for text in _continued(decoder, reader, starts, length, generator, special)))
    return tuple(groups)


def _template(text: str) -> str:
    return " ".join(text.replace("{", " ").replace("}", " ").split()) + ". {}"


@torch.no_grad()
def _continued(
    decoder: Decoder,
    reader: TokenReader,
    starts: Sequence[str],
    length: int,
    generator: torch.Generator,
    special: frozenset[int],
) -> list[str]:
    encoded = reader.encode_batch(starts)
    content = [[token for token, mark in zip(one.ids, one.special_tokens_mask, strict=True) if not mark] for one in encoded]
    rows = []
    for one in encoded:
        ids = list(one.ids)
        while len(ids) > 1 and one.special_tokens_mask[len(ids) - 1]:
            ids.pop()
        rows.append(Row(tuple(ids), len(ids) - 1))
    columns = aligned(rows, decoder.device).whole  # every start ends in the last column
    cache = Cache.empty()
    every = torch.arange(len(rows))
    forbidden = torch.tensor(sorted(special), dtype=torch.long)
    for _ in range(max(1, length - max(len(row.ids) for row in rows))):
        last = torch.full_like(every, columns.ids.shape[1] - 1)
        logits = decoder.run(columns, cache=cache, wanted=(every, last)).double().cpu()
        logits[:, forbidden[forbidden < logits.shape[1]]] = -torch.inf
        best, likeliest = logits.topk(min(_LIKELIEST, logits.shape[1]), dim=1)
        drawn = likeliest.gather(1, torch.multinomial(torch.softmax(best, dim=1), 1, generator=generator))
        for tokens, token in zip(content, drawn[:, 0].tolist(), strict=True):
            tokens.append(token)
        step = drawn.to(columns.ids.device)
        columns = Columns(step, torch.cat([columns.mask, torch.ones_like(step)], 1), columns.positions[:, -1:] + 1)
    return [reader.decode(tokens) for tokens in content]
