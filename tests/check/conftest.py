"""Helpers for the tests of `padcheck check`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from padcheck.checking import CheckReport, Options, check

ROME: dict[str, Any] = {
    "alg_name": "ROME",
    "model_name": "./models/gpt2-xl",
    "stats_dir": "./data/stats",
    "device": 0,
    "layers": [17],
    "fact_token": "subject_last",
    "v_num_grad_steps": 20,
    "v_lr": 0.5,
    "v_loss_layer": 47,
    "v_weight_decay": 0.5,
    "clamp_norm_factor": 4,
    "kl_factor": 0.0625,
    "mom2_adjustment": False,
    "context_template_length_params": [[5, 10], [10, 10]],
    "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj",
    "layer_module_tmp": "transformer.h.{}",
    "mlp_module_tmp": "transformer.h.{}.mlp",
    "attn_module_tmp": "transformer.h.{}.attn",
    "ln_f_module": "transformer.ln_f",
    "lm_head_module": "transformer.wte",
    "mom2_dataset": "wikipedia",
    "mom2_n_samples": 100000,
    "mom2_dtype": "float32",
}
"""Hparams of ROME without an error or a warning."""

MEMIT: dict[str, Any] = {
    **{key: value for key, value in ROME.items() if key != "context_template_length_params"},
    "alg_name": "MEMIT",
    "layers": [13, 14, 15, 16, 17],
    "layer_selection": "all",
    "mom2_adjustment": True,
    "mom2_update_weight": 20000,
}
"""Hparams of MEMIT without an error or a warning."""

LLAMA: dict[str, Any] = {
    "model_name": "./models/llama-2-7b",
    "layers": [4, 5, 6, 7, 8],
    "v_loss_layer": 31,
    "rewrite_module_tmp": "model.layers.{}.mlp.down_proj",
    "layer_module_tmp": "model.layers.{}",
    "mlp_module_tmp": "model.layers.{}.mlp",
    "attn_module_tmp": "model.layers.{}.self_attn",
    "ln_f_module": "model.norm",
    "lm_head_module": "lm_head",
}
"""What Llama-2-7B needs in place of GPT-2's."""


def yaml_of(values: dict[str, Any]) -> str:
    """One key a line; JSON's scalars and lists are YAML."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes `values` (or a text) to `hparams/<METHOD>/<model>.yaml` below an empty folder and returns the path."""

    def make(values: dict[str, Any] | str, name: str | None = None) -> Path:
        if name is None:
            assert isinstance(values, dict)
            name = f"hparams/{values['alg_name']}/{str(values.get('model_name', 'x')).rpartition('/')[2]}.yaml"
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            values if isinstance(values, str) else json.dumps(values) if name.endswith(".json") else yaml_of(values), "utf-8"
        )
        return path

    return make


def run(*paths: Path, **options: Any) -> CheckReport:
    """`check` without cache and configuration."""
    settings = {"isolated": True, **options.pop("settings", {})}
    return check(list(paths), Options(cache=False, settings=settings, **options))


def said(report: CheckReport, *severities: str) -> set[str]:
    """The ids of what is reported at these severities (default: errors and warnings)."""
    return {finding.rule for finding in report.visible() if finding.severity in (severities or ("error", "warning"))}
