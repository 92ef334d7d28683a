"""The same edit as EasyEdit's own functions, whose results are kept as numbers: every 23rd entry and the norm of each
update.

They were run unmodified (commit 14cea82) with right padding on the models, requests, templates and covariances below, in
float64, with templates and statistics put into their caches. AlphaEdit there solves in float32.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from toys import MANY, TEMPLATES, covariance_of, hparams_of, model_of, tokenizer_of  # noqa: E402

from padcheck.editing import edit  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
GROUPS = [TEMPLATES[:1], TEMPLATES[1:]]
MODES = {
    "random": {},
    "prompt": {"enable_prompt_keys": True, "enable_random_prefix_keys": False},
    "original": {"original_implementation": True, "enable_random_prefix_keys": False},
}


@cache
def golden(kind: str) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((GOLDEN / f"easyedit_{kind}.json").read_text())
    weights = float(sum(parameter.detach().abs().sum() for parameter in model_of(kind, dtype=torch.float64).parameters()))
    if abs(weights - kept["weights"]) > 1e-6 * kept["weights"]:
        pytest.skip("this torch draws other random weights than the one the numbers were made with")
    return kept["cases"]


def compare(kind: str, case: str, updates: Any) -> None:
    for name, kept in golden(kind)[case].items():
        update = updates[name]
        theirs, ours = torch.tensor(kept["every23"], dtype=torch.float64), update.flatten()[::23].double()
        assert float(torch.nn.functional.cosine_similarity(ours, theirs, 0)) >= 0.9999
        assert float(update.norm()) == pytest.approx(kept["norm"], rel=1e-4)


@pytest.mark.parametrize("fact_token", ["subject_last", "subject_first_after_last"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize(
    ("case", "method", "count", "changes"),
    [
        ("ROME mom2", "ROME", 1, {}),
        ("ROME plain", "ROME", 1, {"mom2_adjustment": False}),
        *((f"R-ROME {mode}", "R-ROME", 1, changes) for mode, changes in MODES.items()),
        ("MEMIT 1", "MEMIT", 1, {}),
        ("MEMIT 8", "MEMIT", 8, {}),
        ("MEMIT 32", "MEMIT", 32, {}),
        ("EMMET 1", "EMMET", 1, {}),
        ("EMMET 8", "EMMET", 8, {}),
        ("PMET 3", "PMET", 3, {}),
    ],
)
def test_golden(kind: str, case: str, method: str, count: int, changes: dict[str, Any], fact_token: str) -> None:
    steps = {} if method == "PMET" else {"v_num_grad_steps": 10}
    hparams = hparams_of(kind, method, fact_token=fact_token, **{**steps, **changes})
    model = model_of(kind, dtype=torch.float64)
    requests = MANY[1:2] if method in ("ROME", "R-ROME") else MANY[:count]
    for compat in (None, "easyedit"):
        result = edit(
            model,
            tokenizer_of(kind),
            requests,
            hparams,
            context_templates=GROUPS,
            covariance=covariance_of(model, hparams),
            compat=compat,
        )
        compare(kind, f"{case} {fact_token}", result.updates)


@pytest.mark.parametrize("fact_token", ["subject_last", "subject_first_after_last"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_golden_alphaedit_twice(kind: str, fact_token: str) -> None:
    hparams = hparams_of(kind, "AlphaEdit", fact_token=fact_token)
    model, tokenizer = model_of(kind, dtype=torch.float64), tokenizer_of(kind)
    moments = covariance_of(model, hparams)
    first = edit(model, tokenizer, MANY[:3], hparams, context_templates=GROUPS, covariance=moments)
    compare(kind, f"AlphaEdit first {fact_token}", first.updates)
    first.write(model)
    second = edit(model, tokenizer, MANY[8:11], hparams, context_templates=GROUPS, state=first.state)
    compare(kind, f"AlphaEdit second {fact_token}", second.updates)
    assert second.state.edits == 6
