"""The shipped models, opened once, what is edited in them, and a few context templates of unlike lengths."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import padcheck
from padcheck.editing.hparams import EditHparams, load_hparams
from padcheck.sources.requests import Request, read_requests
from padcheck.verifying.outcomes import Comparison

MODELS = Path(__file__).resolve().parents[2] / "fixtures" / "shipped" / "models"
NAMES = ("llama-facts", "gpt2-facts")
TEMPLATES = (
    "{}",
    "The old map shows the road. {}",
    "Because the baker opens the door in the morning, the miller sings. {}",
    "In spring. {}",
)


@cache
def opened(name: str, attention: str = "sdpa") -> tuple[Any, Any]:
    """Model and tokenizer of a shipped folder; tests leave them as they are."""
    from padcheck.editing.opening import open_model

    return open_model(MODELS / name, device="cpu", attention=attention)


def requests(name: str, count: int) -> list[Request]:
    """The first requests of a shipped folder."""
    return [one for one in read_requests(MODELS / name / "facts.json") if isinstance(one, Request)][:count]


def hparams(name: str, method: str = "ROME", **changes: Any) -> EditHparams:
    """The shipped hparams of a method."""
    return replace(load_hparams(MODELS / name / "hparams" / f"{method.lower()}.yaml"), **changes)


@cache
def moments(name: str) -> Any:
    """Second moments for the MEMIT family's layers, on a part of the corpus."""
    from padcheck.editing.corpus import open_corpus
    from padcheck.editing.opening import modules_of
    from padcheck.editing.second_moments import estimate

    model, tokenizer = opened(name)
    corpus = open_corpus([MODELS / "corpus.txt"])
    return estimate(model, tokenizer, corpus, modules_of(hparams(name, "MEMIT")), max_tokens=4000).matrices


@cache
def rome(name: str, attention: str) -> Comparison:
    """Three requests, compared over a few steps."""
    from padcheck.verifying.comparing import compare

    model, tokenizer = opened(name, attention)
    return compare(model, tokenizer, requests(name, 3), hparams(name, v_num_grad_steps=12), context_templates=TEMPLATES[:3])


def valid(document: Any) -> None:
    """Assert that it is what the published schema describes."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(padcheck.__file__).parent / "schemas" / "verify.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert not [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]
