"""A left-padded edit here is the one that EasyEdit makes under left padding, whose results are kept as numbers: every 401st
entry and the norm of each update, or null where it wrote NaN.

Its functions were run unmodified (commit 14cea82, `golden/make.py`) on the shipped models in float32, with
`padding_side = "left"`, and with the templates and second moments below put into their caches. PMET puts no space before a
Llama's target, so it was given one.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from padcheck.editing.architecture import Architecture
from padcheck.editing.errors import ObjectiveError
from padcheck.editing.hparams import load_hparams
from padcheck.editing.restoring import borrowed
from padcheck.editing.rows import facts_of, grouped
from padcheck.editing.session import Session
from padcheck.editing.state import EditState
from padcheck.sources.hparams import read_hparams
from padcheck.sources.token_readers import wrap
from padcheck.verifying.literal import Literal, Way
from tests.verifying.models import MODELS, NAMES, TEMPLATES, opened, requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "editing"))

import toys

METHODS = ["ROME", "R-ROME", "MEMIT", "EMMET", "PMET", "AlphaEdit"]
EVERY = 401
SETTINGS = {
    "v_num_grad_steps": 6, "v_lr": 0.5, "clamp_norm_factor": 4, "mom2_update_weight": 3, "emmet_lambda": 0.1,
    "nullspace_threshold": 0.5,
}  # fmt: skip


@cache
def golden() -> dict[str, dict[str, Any]]:
    return dict(json.loads((Path(__file__).parent / "golden" / "easyedit_left.json").read_text("utf-8")))


def hparams_for(name: str, method: str) -> dict[str, Any]:
    values = dict(read_hparams(MODELS / name / "hparams" / f"{method.lower()}.yaml").values)
    values |= {key: value for key, value in SETTINGS.items() if key in values}
    return values | ({"layers": [1]} if "ROME" in method else {})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", NAMES)
def test_left_is_what_easyedit_does_under_left_padding(name: str, attention: str, method: str) -> None:
    if (name, attention) == ("gpt2-facts", "eager") and transformers.__version__.startswith("4."):
        pytest.skip("the numbers are of transformers 5: under 4, EasyEdit too makes another edit of eager GPT-2's left pads")
    model, tokenizer = opened(name, attention)
    values = hparams_for(name, method)
    hparams, reader, groups = load_hparams(values), wrap(tokenizer).reader, grouped(TEMPLATES[:3])
    (fact,), _ = facts_of(requests(name, 3)[2:], reader, groups, hparams.fact_token)
    moments = {} if "ROME" in method else toys.covariance_of(model, values)
    kept = golden()[f"{name} {attention} {method}"]
    with borrowed(model, tokenizer), torch.no_grad():
        architecture = Architecture(model, hparams)
        session = Session(
            architecture, hparams, [fact], groups, moments, None, EditState(hparams.method, ()), [], traces=[[]]
        )
        literal = Literal(session, reader, tokenizer.pad_token_id, Way())
        try:
            if None in kept.values():
                with pytest.raises(ObjectiveError, match="writes NaN into the weights"):
                    literal.rewrite()
                return
            literal.rewrite()
        finally:
            session.ledger.restore()
    for parameter, theirs in kept.items():
        update = session.ledger.updates[parameter]
        entries = torch.tensor(theirs[f"every{EVERY}"])
        assert float(torch.nn.functional.cosine_similarity(update.flatten()[::EVERY], entries, 0)) >= 0.9999
        assert float(update.norm()) == pytest.approx(theirs["norm"], rel=1e-3)
