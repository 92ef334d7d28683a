"""The update itself, on a shipped model: left padding under a guard gives that of right padding, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import padcheck  # noqa: E402
from tests.guarding.foreign.tensors.models.memit.compute_z import compute_z  # noqa: E402
from tests.guarding.kit import hparams  # noqa: E402

MODELS = Path(__file__).resolve().parents[2] / "fixtures" / "shipped" / "models"
TEMPLATES = [["{}"], ["The old river. {}", "Therefore the house by the road was quiet. {}"]]


@pytest.mark.parametrize("fact_token", ["subject_last", "subject_first", "last"])
@pytest.mark.parametrize("kind", ["llama-facts", "gpt2-facts"])
def test_the_update_of_right_padding_to_the_last_bit(kind: str, fact_token: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tok = AutoTokenizer.from_pretrained(MODELS / kind)
    model = AutoModelForCausalLM.from_pretrained(MODELS / kind).eval()
    fact = json.loads((MODELS / kind / "facts.json").read_text("utf-8"))["requests"][0]
    request = {
        "prompt": fact["prompt"].replace(fact["subject"], "{}"), "subject": fact["subject"], "target_new": " " + fact["target_new"],
    }  # fmt: skip

    def update(side: str, *, guarded: bool) -> Any:
        tok.padding_side = side
        if not guarded:
            return compute_z(model, tok, request, hparams(fact_token=fact_token), TEMPLATES)
        with padcheck.guard(tok, model=model):
            return compute_z(model, tok, request, hparams(fact_token=fact_token), TEMPLATES)

    before = [parameter.requires_grad for parameter in model.parameters()]
    corrected = update("left", guarded=True)
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    assert torch.equal(corrected, update("right", guarded=True))
    assert not torch.equal(corrected, update("left", guarded=False))
    plain = update("right", guarded=False)
    assert torch.equal(corrected, plain) is (fact_token == "subject_last"), "no side is right for the others"
