"""Tokenizers, hparams and requests for the house editor, and what it must read, worked out from the tokenizer's offsets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

SHIPPED = Path(__file__).resolve().parents[2] / "fixtures" / "shipped"

REQUESTS = [
    {"prompt": "The mother tongue of Danielle Darrieux is", "subject": "Danielle Darrieux", "target_new": "English"},
    {"prompt": "What is the twin city of Lyon? It is", "subject": "Lyon", "target_new": "Manila and Rome"},
    {"prompt": "The Eiffel Tower is in", "subject": "The Eiffel Tower", "target_new": "Rome"},
]
TEMPLATES = ["{}", "The old river. {}", "Therefore the house by the road was quiet. {}"]


def tokenizer(name: str = "gpt2-shape", side: str = "left", **more: Any) -> Any:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(SHIPPED / "tokenizers" / name, **more)
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token or loaded.unk_token
    loaded.padding_side = side
    return loaded


def hparams(method: str = "ROME", fact_token: str = "subject_last", **more: Any) -> Any:
    values = {
        "alg_name": method, "model_name": "./models/house", "fact_token": fact_token, "batch_size": 4,
        "context_template_length_params": [[4, 5], [8, 5]], "objective_optimization": "target_new",
    }  # fmt: skip
    return SimpleNamespace(**{**values, **more})


def targets_occur(tok: Any) -> bool:
    """Whether a target encoded alone is what stands in a sentence. The prepend shape under transformers 4 gives a token more."""
    alone = tok.encode(" English", add_special_tokens=False)
    return bool(tok.encode("It is English", add_special_tokens=False)[-len(alone) :] == alone)


def token_of(tok: Any, text: str, character: int) -> str:
    """The last token that holds a character of the text."""
    made = tok(text, return_offsets_mapping=True)
    held = [number for number, (start, end) in enumerate(made["offset_mapping"]) if start <= character < end]
    return str(tok.convert_ids_to_tokens(made["input_ids"])[held[-1]])


def first_token_of(tok: Any, text: str, character: int) -> str:
    made = tok(text, return_offsets_mapping=True)
    held = [number for number, (start, end) in enumerate(made["offset_mapping"]) if start <= character < end]
    return str(tok.convert_ids_to_tokens(made["input_ids"])[held[0]])


def meant(tok: Any, request: dict[str, Any], fact_token: str) -> str:
    """The token of the bare prompt that a fact token means."""
    prompt, subject = request["prompt"], request["subject"]
    start = prompt.index(subject)
    end = start + len(subject)
    if fact_token == "subject_last":
        return token_of(tok, prompt, end - 1)
    if fact_token == "subject_first":
        return first_token_of(tok, prompt, start)
    if fact_token == "last":
        return token_of(tok, prompt, len(prompt) - 1)
    return first_token_of(tok, prompt, end if prompt[end] != " " else end + 1)
