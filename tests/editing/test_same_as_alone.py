"""Padding cannot matter: every update equals a literal reference that forwards each row alone and unpadded."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from literal import Literal  # noqa: E402
from toys import ARCHITECTURES, REQUESTS, TEMPLATES, covariance_of, hparams_of, model_of, tokenizer_of  # noqa: E402

from padcheck.editing import edit  # noqa: E402

GROUPS = [TEMPLATES[:1], TEMPLATES[1:]]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def compare(kind: str, hparams: dict[str, Any], count: int, dtype: Any, side: str = "left", **changes: Any) -> None:
    model, tokenizer = model_of(kind, dtype=dtype, **changes), tokenizer_of(kind)
    tokenizer.padding_side = side
    moments = covariance_of(model, hparams)
    requests = REQUESTS[:count]
    ours = edit(model, tokenizer, requests, hparams, context_templates=GROUPS, covariance=moments)
    theirs = Literal(model, tokenizer, hparams, GROUPS, moments).run(requests)
    assert ours.updates.keys() == theirs.keys()
    for name, update in ours.updates.items():
        assert update.dtype == dtype
        assert theirs[name].norm() > 0
        difference = float((update - theirs[name]).norm() / theirs[name].norm())
        # GPT-J, Bloom and every eager attention make their softmax in float32, whatever the weights are.
        eager = kind in ("gptj", "bloom", "gemma2") or changes.get("attn_implementation") == "eager"
        assert difference <= (1e-6 if eager else TOLERANCE[dtype]), (name, difference)


@pytest.mark.parametrize("fact_token", ["subject_last", "subject_first", "subject_first_after_last", "last"])
@pytest.mark.parametrize("method", ["ROME", "R-ROME", "MEMIT", "EMMET", "PMET", "AlphaEdit"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_every_method_and_fact_token(kind: str, method: str, fact_token: str) -> None:
    count = 1 if method in ("ROME", "R-ROME") else 3
    compare(kind, hparams_of(kind, method, fact_token=fact_token), count, torch.float64)


@pytest.mark.parametrize("method", ["ROME", "R-ROME", "MEMIT", "EMMET", "PMET", "AlphaEdit"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_in_float32(kind: str, method: str) -> None:
    compare(kind, hparams_of(kind, method), 1 if method in ("ROME", "R-ROME") else 3, torch.float32)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_rome_in_every_architecture(kind: str) -> None:
    compare(kind, hparams_of(kind, "ROME"), 1, torch.float64)


@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind not in ("gemma2", "granite")])
def test_memit_in_every_architecture(kind: str) -> None:
    compare(kind, hparams_of(kind, "MEMIT"), 3, torch.float64)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral"])
def test_with_both_attentions(kind: str, attention: str) -> None:
    compare(kind, hparams_of(kind, "MEMIT"), 3, torch.float64, attn_implementation=attention)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("kind", "epsilon"), [("gpt2", "layer_norm_epsilon"), ("llama", "rms_norm_eps")])
def test_norms_without_an_epsilon(kind: str, epsilon: str, attention: str) -> None:
    """Of hidden states that are all alike such a norm makes NaN: nothing that stands at a pad may be like that."""
    compare(kind, hparams_of(kind, "MEMIT"), 3, torch.float32, attn_implementation=attention, **{epsilon: 0.0})


@pytest.mark.parametrize("layers", [[0], [3], [0, 1, 2, 3]])
def test_at_the_ends_of_the_stack(layers: list[int]) -> None:
    for kind in ("gpt2", "llama"):
        compare(kind, hparams_of(kind, "MEMIT", layers=layers, fact_token="last"), 2, torch.float64)
        compare(kind, hparams_of(kind, "ROME", layers=layers[-1:], fact_token="last"), 1, torch.float64)


@pytest.mark.parametrize(
    "changes", [{"enable_prompt_keys": True, "enable_random_prefix_keys": False}, {"original_implementation": True}, {}]
)
def test_all_modes_of_r_rome(changes: dict[str, bool]) -> None:
    compare("llama", hparams_of("llama", "R-ROME", **changes), 1, torch.float64)


def test_several_facts_by_rome_one_after_another() -> None:
    compare("gpt2", hparams_of("gpt2", "ROME", mom2_adjustment=False), 3, torch.float64)
