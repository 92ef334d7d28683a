"""An edit that ends in NaN is shown as what it is, with the cause, and costs the report of the others nothing."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from padcheck.renderers.verification import html, json_, text
from padcheck.verifying.comparing import compare
from padcheck.verifying.diagnosing import Start, cause
from padcheck.verifying.outcomes import CORRECTED, LEFT, RIGHT, Comparison
from tests.verifying.models import TEMPLATES, hparams, moments, opened, requests, valid


def without_pad_embedding() -> tuple[Any, Any]:
    """The Llama-like model as transformers makes it where the config names a pad token: that row is zero."""
    model, tokenizer = copy.deepcopy(opened("llama-facts")[0]), opened("llama-facts")[1]
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.pad_token_id] = 0
    return model, tokenizer


def compared(model: Any, tokenizer: Any, method: str = "ROME") -> Comparison:
    wanted = hparams("llama-facts", method, v_num_grad_steps=2)
    return compare(
        model, tokenizer, requests("llama-facts", 1), wanted, covariance=moments("llama-facts"), context_templates=TEMPLATES
    )


def test_a_zero_pad_embedding_is_named() -> None:
    """Under sdpa the editor's lookup then is exactly zero, and its weight decay 0/0."""
    comparison = compared(*without_pad_embedding())
    left = comparison.compared[0].outcomes[LEFT]
    assert left.reading is None
    assert left.reason is not None
    assert left.reason.startswith("the pad token's embedding is zero, so the output of model.layers.1.mlp.down_proj")
    assert "0/0" in left.reason
    assert left.trace[0]["nll"] > 0, "the loss itself was computed, as the editor does"
    assert left.trace[0]["weight_decay"] != left.trace[0]["weight_decay"]
    assert comparison.worst_correction() == pytest.approx(0, abs=1e-4)
    shown = text.render(comparison)
    assert "1 of 1 not finite" in shown
    assert "×" in shown
    for report in (" ".join(shown.split()), html.render(comparison).replace("&#x27;", "'")):
        assert "the pad token's embedding is zero" in report
        assert "Left padding breaks the edit" in report
    document = json_.document(comparison)
    valid(document)
    assert document["summary"]["not_finite"] == {
        RIGHT: 0, LEFT: 1, CORRECTED: 0, "indices": 0, "positions": 1, "mask": 1,
    }  # fmt: skip
    assert document["requests"][0]["edits"][LEFT]["steps"][0]["weight_decay"] is None


def test_an_ordinary_pad_breaks_pmet_too() -> None:
    """It divides by the attention's output as well, which sdpa makes zero for a pad that attends to nothing."""
    comparison = compared(*opened("llama-facts"), method="PMET")
    left, right = (comparison.compared[0].outcomes[way] for way in (LEFT, RIGHT))
    assert right.reading is not None
    assert (left.reason or "").startswith(
        "a masked pad attends to nothing, so the output of model.layers.2.self_attn.o_proj"
    )
    assert compared(*opened("llama-facts", "eager"), method="PMET").failed(LEFT) == 0


def test_a_softmax_over_nothing_is_named() -> None:
    """An attention that masks with -inf: the right edit lives, every padded one does not."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def bare(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **_: Any) -> Any:
        key, value = (states.repeat_interleave(module.num_key_value_groups, dim=1) for states in (key, value))
        scores = query @ key.transpose(2, 3) * scaling
        if attention_mask is None:
            attention_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(scores.shape[-1] - scores.shape[-2])
        weights = scores.masked_fill(~attention_mask, -torch.inf).softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    ALL_ATTENTION_FUNCTIONS.register("bare", bare)
    ALL_MASK_ATTENTION_FUNCTIONS.register("bare", sdpa_mask)
    model = copy.deepcopy(opened("llama-facts")[0])
    model.set_attn_implementation("bare")
    comparison = compared(model, opened("llama-facts")[1])
    outcomes = comparison.compared[0].outcomes
    assert outcomes[RIGHT].reading is not None
    for way in (LEFT, CORRECTED):
        reason = outcomes[way].reason or ""
        assert "model.layers.0.self_attn (LlamaAttention) makes NaN of a softmax over nothing" in reason
    assert not comparison.explained
    assert "The corrected edit could not be made for 1 request: nothing is proved there." in " ".join(
        text.render(comparison).split()
    )


def test_a_norm_of_a_zero_vector_is_named() -> None:
    model, tokenizer = without_pad_embedding()
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 0.0
    ids = torch.tensor([[tokenizer.pad_token_id] * 2 + [40, 41, 42], [43, 44, 45, 46, 47]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1] * 5])
    start = Start(ids, mask, 0, (model.model.layers[0].mlp.down_proj,), (float("nan"),))
    nan = {"loss": float("nan"), "nll": float("nan"), "kl": 0.0, "weight_decay": 0.0, "probability": 0.0}
    said = cause(SimpleNamespace(model=model), lambda: model(ids, attention_mask=mask), start, [nan])  # type: ignore[arg-type]
    assert said.startswith("the pad token's embedding is zero, and model.layers.0.input_layernorm (LlamaRMSNorm, with an ")
    assert "epsilon of 0) divides a zero vector by its length: NaN at every pad" in said


def test_what_has_no_such_cause_is_told_as_it_is() -> None:
    """An edit that runs away: the part of the loss, and the step."""
    model, _ = opened("gpt2-facts")
    ids = torch.tensor([[40, 41, 42]])
    start = Start(ids, torch.ones_like(ids), 0, (model.transformer.h[0],), (1.0,))
    fine = {"loss": 1.0, "nll": 1.0, "kl": 0.0, "weight_decay": 0.0, "probability": 0.3}
    wild = {"loss": float("inf"), "nll": 3.0, "kl": float("inf"), "weight_decay": 0.0, "probability": 0.3}
    said = cause(SimpleNamespace(model=model), lambda: model(ids), start, [fine, wild])  # type: ignore[arg-type]
    assert said.startswith("the kl is not finite at step 1 (inf)")


def test_a_right_edit_that_fails_is_an_outcome_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    from padcheck.editing.errors import ObjectiveError
    from padcheck.verifying import comparing

    model, tokenizer = opened("llama-facts")
    real = comparing.edit

    def failing(*arguments: Any, **options: Any) -> Any:
        if arguments[2][0].index == 0:
            raise ObjectiveError("request 0: made to fail")
        return real(*arguments, **options)

    monkeypatch.setattr(comparing, "edit", failing)
    comparison = compare(
        model, tokenizer, requests("llama-facts", 2), hparams("llama-facts", v_num_grad_steps=2), context_templates=TEMPLATES,
        ablate=False,
    )  # fmt: skip
    assert [one.outcomes[RIGHT].reason for one in comparison.compared] == ["request 0: made to fail", None]
    assert not comparison.explained
    assert "The right edit itself could not be made for 1 request: nothing is proved there." in " ".join(
        text.render(comparison).split()
    )
