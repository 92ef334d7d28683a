"""The same edit as EasyEdit's own functions, whose results are kept as numbers: some entries and the norm of each update.

`golden/make.py` runs them unmodified on the models, requests, templates and covariances below, and makes the files anew.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from toys import GROUPS, MANY, covariance_of, hparams_of, model_of, tokenizer_of  # noqa: E402

from padcheck.editing import edit  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
EVERY = 23
"""Of the entries of an update, every 23rd is kept."""
KINDS = ("gpt2", "llama")
FACT_TOKENS = ("subject_last", "subject_first_after_last")
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "ROME mom2": ("ROME", 1, {}),
    "ROME plain": ("ROME", 1, {"mom2_adjustment": False}),
    "R-ROME random": ("R-ROME", 1, {}),
    "R-ROME prompt": ("R-ROME", 1, {"enable_prompt_keys": True, "enable_random_prefix_keys": False}),
    "R-ROME original": ("R-ROME", 1, {"original_implementation": True, "enable_random_prefix_keys": False}),
    "MEMIT 1": ("MEMIT", 1, {}),
    "MEMIT 8": ("MEMIT", 8, {}),
    "MEMIT 32": ("MEMIT", 32, {}),
    "EMMET 1": ("EMMET", 1, {}),
    "EMMET 8": ("EMMET", 8, {}),
    "PMET 3": ("PMET", 3, {}),
}
"""Name → method, count of facts, changes to the hparams."""
FIRST, SECOND = MANY[:3], MANY[8:11]
"""AlphaEdit's two edits in a row."""


def requests_for(method: str, count: int) -> list[dict[str, str]]:
    return MANY[1:2] if method in ("ROME", "R-ROME") else MANY[:count]


def hparams_for(kind: str, method: str, fact_token: str, changes: dict[str, Any]) -> dict[str, Any]:
    steps = {} if method == "PMET" else {"v_num_grad_steps": 10}
    return hparams_of(kind, method, fact_token=fact_token, **{**steps, **changes})


def weight_of(model: Any) -> float:
    """By which a toy is known."""
    return float(sum(parameter.detach().abs().sum() for parameter in model.parameters()))


@cache
def golden(kind: str) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((GOLDEN / f"easyedit_{kind}.json").read_text())
    weights = weight_of(model_of(kind, dtype=torch.float64))
    if abs(weights - kept["weights"]) > 1e-6 * kept["weights"]:
        pytest.skip("this torch draws other random weights than the one the numbers were made with")
    return kept["cases"]


def compare(kind: str, case: str, updates: Any) -> None:
    for name, kept in golden(kind)[case].items():
        update = updates[name]
        theirs, ours = torch.tensor(kept[f"every{EVERY}"], dtype=torch.float64), update.flatten()[::EVERY].double()
        assert float(torch.nn.functional.cosine_similarity(ours, theirs, 0)) >= 0.9999
        assert float(update.norm()) == pytest.approx(kept["norm"], rel=1e-4)


@pytest.mark.parametrize("fact_token", FACT_TOKENS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_golden(kind: str, case: str, fact_token: str) -> None:
    method, count, changes = CASES[case]
    hparams = hparams_for(kind, method, fact_token, changes)
    model = model_of(kind, dtype=torch.float64)
    for compat in (None, "easyedit"):
        result = edit(
            model,
            tokenizer_of(kind),
            requests_for(method, count),
            hparams,
            context_templates=GROUPS,
            covariance=covariance_of(model, hparams),
            compat=compat,
        )
        compare(kind, f"{case} {fact_token}", result.updates)


@pytest.mark.parametrize("fact_token", FACT_TOKENS)
@pytest.mark.parametrize("kind", KINDS)
def test_golden_alphaedit_twice(kind: str, fact_token: str) -> None:
    hparams = hparams_of(kind, "AlphaEdit", fact_token=fact_token)
    model, tokenizer = model_of(kind, dtype=torch.float64), tokenizer_of(kind)
    moments = covariance_of(model, hparams)
    first = edit(model, tokenizer, FIRST, hparams, context_templates=GROUPS, covariance=moments)
    compare(kind, f"AlphaEdit first {fact_token}", first.updates)
    first.write(model)
    second = edit(model, tokenizer, SECOND, hparams, context_templates=GROUPS, state=first.state)
    compare(kind, f"AlphaEdit second {fact_token}", second.updates)
    assert second.state.edits == 6
