"""A callback for transformers' Trainer: are the labels on the tokens of the answers? Asked before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from transformers import TrainerCallback

from padcheck import locate

IGNORED = -100


class LabelsAreElsewhere(ValueError):
    """The collator labels other tokens than those of the answers."""


class LabelProbe(TrainerCallback):
    """Stops the training, before it starts, if a row's labels are not on its answer.

    Args:
        tokenizer: a tokenizer of transformers.
        collator: makes a batch with `input_ids`, `attention_mask` and `labels`, [B, T] each.
        examples: rows of the training data with texts `prompt` and `answer`, of different lengths; a dozen is enough.
    """

    def __init__(self, tokenizer: Any, collator: Callable[[Sequence[Any]], Any], examples: Sequence[Any]) -> None:
        self.tokenizer, self.collator, self.examples = tokenizer, collator, list(examples)

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        batch = self.collator(self.examples)
        texts = [example["prompt"] + example["answer"] for example in self.examples]
        answers = [example["answer"] for example in self.examples]
        side = "left" if not batch["attention_mask"][:, 0].all() else "right"
        wrong = []
        for row, span in enumerate(locate(self.tokenizer, texts, answers, padding_side=side)):
            labelled = self.words(batch, row, (batch["labels"][row] != IGNORED).nonzero().flatten().tolist())
            expected = self.words(batch, row, range(span.first, span.last + 1))
            # An end-of-text token behind the answer may be trained too.
            if labelled[: len(expected)] != expected or len(labelled) > len(expected) + 1:
                wrong.append(
                    f"  row {row}: {self.shown(batch, row, labelled)} instead of {self.shown(batch, row, expected)}"
                )
        if wrong:
            raise LabelsAreElsewhere("\n".join([f"labels are on other tokens than the answers ({side} padding):", *wrong]))

    def words(self, batch: Any, row: int, columns: Iterable[int]) -> list[int]:
        """The columns without those of mere spaces, which belong to the prompt as well as to the answer."""
        return [column for column in columns if self.tokenizer.decode(batch["input_ids"][row][column]).strip()]

    def shown(self, batch: Any, row: int, columns: Sequence[int]) -> str:
        text = self.tokenizer.decode(batch["input_ids"][row][list(columns)])
        return f"{text!r} (columns {columns[0]} to {columns[-1]})" if columns else "nothing"
