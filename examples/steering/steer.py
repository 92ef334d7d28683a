"""Learn a vector that changes what a model says about a subject, and generate with it, in one left-padded batch."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from padcheck import locate


def columns_of(tokenizer: Any, texts: Sequence[str], subject: str) -> list[int]:
    """The column of the subject's last token in each row of the padded batch: [B]."""
    columns = [span.last for span in locate(tokenizer, texts, subject)]
    if None in columns:
        raise SystemExit(f"{subject!r} is not in {texts[columns.index(None)]!r}")
    return columns


@contextmanager
def steering(model: Any, layer: int, columns: Sequence[int], vector: torch.Tensor) -> Iterator[None]:
    """Add `vector`: [d] to the output of a layer at one column of each row."""
    blocks = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))

    def add(module: Any, inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output  # [B, T, d]; T = 1 while generating with a cache
        if hidden.shape[1] <= max(columns):
            return output
        hidden = hidden.clone()
        hidden[range(len(columns)), list(columns)] += vector
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = blocks[layer].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def logits_of(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[B, T, vocabulary]. Positions are counted from each row's first token: a model that learns them must not see the pads."""
    return model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)).logits


def log_likelihood(model: Any, batch: Any, answer: torch.Tensor) -> torch.Tensor:
    """Log-probability of the answer: [n] after each row of a left-padded batch: [B]."""
    answers = answer.expand(len(batch["input_ids"]), -1)
    ids = torch.cat([batch["input_ids"], answers], dim=1)
    mask = torch.cat([batch["attention_mask"], torch.ones_like(answers)], dim=1)
    scores = logits_of(model, ids, mask)[:, -len(answer) - 1 : -1].log_softmax(-1)
    return scores.gather(-1, answers[..., None]).squeeze(-1).sum(-1)


def learn(
    model: Any, tokenizer: Any, texts: Sequence[str], subject: str, target: str, *, layer: int, steps: int = 25
) -> torch.Tensor:
    """The vector: [d] under which every text is followed by the target."""
    batch = tokenizer(list(texts), padding=True, return_tensors="pt")
    columns = columns_of(tokenizer, texts, subject)
    answer = tokenizer(f" {target}", add_special_tokens=False, return_tensors="pt")["input_ids"][0]
    vector = torch.zeros(model.get_input_embeddings().weight.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([vector], lr=0.5)
    for _ in range(steps):
        with steering(model, layer, columns, vector):
            loss = -log_likelihood(model, batch, answer).mean()
        (vector.grad,) = torch.autograd.grad(loss, [vector])
        optimizer.step()
    return vector.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--subject", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--prompt", required=True, action="append", help="a text with {} for the subject; several")
    parser.add_argument("--layer", type=int, default=0)
    options = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(options.model)
    tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    texts = [prompt.replace("{}", options.subject) for prompt in options.prompt]
    vector = learn(model, tokenizer, texts, options.subject, options.target, layer=options.layer)

    batch = tokenizer(texts, padding=True, return_tensors="pt")
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
    plain = model.generate(**batch, **settings)
    with steering(model, options.layer, columns_of(tokenizer, texts, options.subject), vector):
        steered = model.generate(**batch, **settings)
    width = batch["input_ids"].shape[1]
    for text, before, after in zip(texts, plain, steered, strict=True):
        print(f"{text}\n  before:{tokenizer.decode(before[width:])}\n  after: {tokenizer.decode(after[width:])}")


if __name__ == "__main__":
    main()
