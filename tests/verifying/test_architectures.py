"""Verification on every architecture that edits know, on small random models: corrected is right, or the
method is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from padcheck.editing import load_hparams
from padcheck.editing.errors import ArchitectureError
from padcheck.editing.rows import requests_of
from padcheck.verifying.comparing import compare
from padcheck.verifying.outcomes import CORRECTED, LEFT, PARTS, RIGHT, Comparison

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "editing"))

import toys


@pytest.mark.parametrize("method", ["ROME", "MEMIT"])
@pytest.mark.parametrize("kind", toys.ARCHITECTURES)
def test_corrected_is_right(kind: str, method: str) -> None:
    """The right edit goes another way (aligned columns, a cached prefix), so that this compares two computations."""
    model, tokenizer = toys.model_of(kind), toys.tokenizer_of(kind)
    hparams = toys.hparams_of(kind, method, v_num_grad_steps=3, v_lr=0.1)

    def run() -> Comparison:
        return compare(
            model, tokenizer, requests_of(toys.REQUESTS[:1]), load_hparams(hparams),
            covariance=toys.covariance_of(model, hparams), context_templates=toys.TEMPLATES[:3],
        )  # fmt: skip

    if kind == "gemma2" and method == "MEMIT":
        with pytest.raises(ArchitectureError, match="a norm stands after it"):
            run()
        return
    (one,) = run().compared
    right, left, corrected = (one.outcomes[way] for way in (RIGHT, LEFT, CORRECTED))
    assert corrected.reason is None
    for part in PARTS:
        assert corrected.steps(part) == pytest.approx(right.steps(part), rel=2e-3, abs=1e-6)
    assert corrected.probability == pytest.approx(right.probability, rel=1e-2)
    off, lost = (
        max(abs(a - b) for a, b in zip(way.steps("loss"), right.steps("loss"), strict=True)) for way in (corrected, left)
    )
    assert left.reason is not None or lost > 1000 * off
