"""Fine-tune a model on prompts and answers; only the answers are trained. The probe looks at the labels first."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probe import IGNORED, LabelProbe
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments


class AnswersOnly:
    """Collates rows with `prompt` and `answer`; the labels of all other tokens are left out of the loss.

    A token is the answer's if it stands behind the prompt's characters, whichever side is padded.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[dict[str, str]]) -> Any:
        texts = [row["prompt"] + row["answer"] for row in rows]
        batch = self.tokenizer(texts, padding=True, return_offsets_mapping=True, return_tensors="pt")
        offsets = batch.pop("offset_mapping")  # [B, T, 2]; (0, 0) for special tokens
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
        for row, spans, its_labels in zip(rows, offsets, labels, strict=True):
            its_labels[spans[:, 1] <= len(row["prompt"])] = IGNORED
        return {**batch, "labels": labels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="JSON Lines with prompt and answer")
    parser.add_argument("--out", required=True)
    parser.add_argument("--padding-side", choices=["left", "right"], default="right")
    parser.add_argument("--max-steps", type=int, default=100)
    options = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(options.model)
    tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side=options.padding_side)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = [json.loads(line) for line in Path(options.data).read_text("utf-8").splitlines()]
    collator = AnswersOnly(tokenizer)
    settings = TrainingArguments(
        output_dir=options.out,
        max_steps=options.max_steps,
        per_device_train_batch_size=2,
        remove_unused_columns=False,
        report_to=[],
        save_strategy="no",
    )
    trainer = Trainer(
        model=model,
        args=settings,
        train_dataset=rows,
        data_collator=collator,
        callbacks=[LabelProbe(tokenizer, collator, rows[:12])],
    )
    print(f"loss {trainer.train().training_loss:.3f}")
    model.save_pretrained(options.out)


if __name__ == "__main__":
    main()
