"""What `check` says of a training method's batches without a tokenizer is what `preflight` finds on two uneven requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from padcheck.checks.hparams.frameworks import framework
from tests.running import TOKENIZERS, preflight, request, write_hparams, write_requests

from .conftest import Write, run

UNEVEN = [
    request("The mother tongue of Danielle Darrieux is", "Danielle Darrieux", "English"),
    request("Toko Yasuda, the", "Toko Yasuda", "piano and guitar"),
]
METHODS = {name: facts["uneven"] for name, facts in framework("easyedit")["methods"].items() if facts["uneven"]}


def test_there_are_such_methods() -> None:
    assert METHODS.keys() == {"FT", "LoRA", "MEND", "MALMEN", "ULTRAEDIT", "UltraEdit", "FT_uns", "LoRA_uns"}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("method", METHODS)
def test_the_same_sides_as_row_by_row(method: str, side: str, tmp_path: Path) -> None:
    hparams = write_hparams(tmp_path, method, batch_size=4, objective_optimization="target_new")
    ran = preflight(
        hparams,
        write_requests(tmp_path, UNEVEN),
        TOKENIZERS / "gpt2-shape",
        "--passed-in",
        "--run",
        "batch",
        "--padding-side",
        side,
    )
    wrong = any(each["severity"] == "error" for each in ran.json["findings"])
    assert wrong == (side not in METHODS[method]["sides"])


FT: dict[str, Any] = {
    "alg_name": "FT", "model_name": "./models/gpt2-xl", "layers": [0], "num_steps": 25, "lr": 5e-4, "weight_decay": 0, "kl_factor": 0,
    "norm_constraint": False, "objective_optimization": "target_new", "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj", "device": 0,
    "layer_module_tmp": "transformer.h.{}", "mlp_module_tmp": "transformer.h.{}.mlp", "attn_module_tmp": "transformer.h.{}.attn",
    "ln_f_module": "transformer.ln_f", "lm_head_module": "transformer.wte",
}  # fmt: skip


@pytest.mark.parametrize(("method", "size", "rule"), [("FT", 8, None), ("MEND", 8, "PAD105"), ("MEND", 1, None)])
def test_what_is_said(method: str, size: int, rule: str | None, write: Write) -> None:
    """EasyEdit pads FT on the left, which it needs; for MEND no side is right."""
    found = [
        each
        for each in run(write({**FT, "alg_name": method, "batch_size": size})).findings
        if each.rule in {"PAD105", "HPR135"}
    ]
    assert [each.rule for each in found] == ([rule] if rule else [])
    assert all(each.severity == "warning" for each in found)
