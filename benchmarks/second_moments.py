"""Second moments of five layers: one truncated pass for all, against one pass for each layer over padded batches.

The other way is what the public editors do, written here anew: 100 documents at a time, sorted by length, padded on the
right to the longest of a batch, the forward pass stopped at the layer, the whole K Kᵀ added up. Both sides see the same
documents and the same tokens per batch; both results are compared. One thread, CPU time, medians.

    python benchmarks/second_moments.py [--layers 3 4 5 6 7] [--tokens 8192] [--repeats 5] [--save FILE.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from padcheck.editing.corpus import embedded_corpus
from padcheck.editing.second_moments import estimate
from padcheck.resources import shipped_dir

BATCH_TOKENS = 3072  # three times the model's positions, as the public editors have it


def documents(tokenizer: Any, tokens: int) -> list[str]:
    """Paragraphs of the embedded corpus, 1 to 12 together, until they have so many tokens: lengths vary as in the wild."""
    paragraphs, found, at, count = list(embedded_corpus()), list[str](), 0, 0
    while count < tokens:
        size = (1, 2, 3, 5, 8, 12)[len(found) % 6]
        found.append(" ".join(paragraphs[(at + i) % len(paragraphs)] for i in range(size)))
        at += size
        count += len(tokenizer(found[-1], truncation=True, max_length=1024)["input_ids"])
    return found


class Stop(Exception):
    """The layer has been seen."""


def one_layer(model: Any, tokenizer: Any, texts: Sequence[str], module: str) -> Tensor:
    """E[k kᵀ] of one module, by a pass of its own."""
    seen: list[Tensor] = []

    def look(_: Any, args: tuple[Tensor, ...]) -> None:
        seen[:] = args[:1]
        raise Stop

    rows = [tokenizer(text, truncation=True, max_length=1024)["input_ids"] for text in texts]
    total, count = torch.zeros(()), 0
    hook = model.get_submodule(module).register_forward_pre_hook(look)
    try:
        for batch in padded_batches(rows):
            width = max(map(len, batch))
            ids = torch.tensor([row + [0] * (width - len(row)) for row in batch])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch])
            try:
                model(input_ids=ids, attention_mask=mask)
            except Stop:
                keys = seen[0].reshape(-1, seen[0].shape[-1])[mask.flatten().bool()]
                total = total + keys.T @ keys
                count += len(keys)
    finally:
        hook.remove()
    return total / count


def padded_batches(rows: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """Batches of at most `BATCH_TOKENS` tokens, pads included, out of 100 rows at a time sorted by length."""
    for start in range(0, len(rows), 100):
        batch: list[list[int]] = []
        for row in sorted(rows[start : start + 100], key=len, reverse=True):
            if batch and len(batch[0]) * (len(batch) + 1) > BATCH_TOKENS:
                yield batch
                batch = []
            batch.append(row)
        yield batch


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds and result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and save the numbers where asked; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[3, 4, 5, 6, 7])
    parser.add_argument("--tokens", type=int, default=8192, help="of the corpus (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval()  # 12 layers, 768 wide, 50 257 words
    tokenizer = AutoTokenizer.from_pretrained(shipped_dir() / "tokenizers" / "gpt2-shape")
    texts = documents(tokenizer, options.tokens)
    modules = [f"transformer.h.{layer}.mlp.c_proj" for layer in options.layers]
    forward = [len(tokenizer(text, truncation=True, max_length=1024)["input_ids"]) for text in texts]

    def separately() -> dict[str, Tensor]:
        with torch.no_grad():
            return {module: one_layer(model, tokenizer, texts, module) for module in modules}

    def together() -> Any:
        return estimate(model, tokenizer, texts, modules, batch_tokens=BATCH_TOKENS)

    times: dict[str, list[float]] = {"one pass for each layer": [], "one pass": []}
    for _ in range(options.repeats):
        seconds, expected = timed(separately)
        times["one pass for each layer"].append(seconds)
        seconds, found = timed(together)
        times["one pass"].append(seconds)
    off = max(float((found.matrices[m] - expected[m]).norm() / expected[m].norm()) for m in modules)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["one pass for each layer"] / medians["one pass"]

    print(f"{len(texts)} documents, {sum(forward):,} tokens, layers {options.layers}, 12 x 768, one thread, {found.layout}")
    for name, values in times.items():
        print(f"{name:26} {medians[name]:8.2f} CPU s  (of {len(values)}: {min(values):.2f} to {max(values):.2f})")
    print(f"ratio {ratio:.2f}; results differ by {off:.1e} of their norm")
    if options.save:
        record = {
            "documents": len(texts),
            "tokens": sum(forward),
            "layers": options.layers,
            "cpu_seconds": times,
            "medians": medians,
            "ratio": ratio,
            "difference": off,
            "torch": torch.__version__,
            "machine": platform.machine(),
        }
        options.save.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
