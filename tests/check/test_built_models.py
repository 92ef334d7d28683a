"""`check --model DIR` with torch at hand: module names are those of the model that transformers builds, without weights."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from padcheck.checks.hparams import _asked_for
from padcheck.checks.hparams.models import built, from_config
from padcheck.sources import meta_model

from .conftest import LLAMA, MEMIT, Write, run, said

LARGE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64,
    "num_key_value_heads": 8, "num_hidden_layers": 80, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
"""The shape of a model of 70 thousand million parameters."""
GOOD = {**MEMIT, **LLAMA, "model_name": "./models/llama-mine", "v_loss_layer": 79}


@pytest.fixture(autouse=True)
def _needs_torch() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    _asked_for.cache_clear()


def folder(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "model"
    path.mkdir(exist_ok=True)
    config = {key: value for key, value in {**LARGE, **changes}.items() if value is not None}
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    return path


def test_a_large_model_in_seconds(write: Write, tmp_path: Path) -> None:
    model = folder(tmp_path)
    started = time.process_time()
    report = run(write({**GOOD, "rewrite_module_tmp": "model.layers.{}.mlp.down_projection"}), model=model)
    assert time.process_time() - started < 10
    (finding,) = [each for each in report.findings if each.severity == "error"]
    assert (finding.rule, finding.confidence) == ("HPR116", "high")
    assert "model.layers.4.mlp.down_projection" in finding.message
    assert finding.fix is not None
    assert finding.fix.edits[0].replacement.strip('"') == "model.layers.{}.mlp.down_proj"
    assert not said(run(write(GOOD), model=model), "error")


def test_names_are_those_of_a_model_with_weights(tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 32,
    }
    path = folder(tmp_path, num_hidden_layers=3, tie_word_embeddings=True, **small)
    real = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
    names = meta_model.module_names(path)
    assert names is not None
    assert names.modules == {name for name, _ in real.named_modules()}
    assert names.parameters == {name for name, _ in real.named_parameters()}
    assert "lm_head.weight" not in names.parameters
    assert (names.embed, names.head) == ("model.embed_tokens", "lm_head")
    assert all(parameter.device == torch.device("cpu") for parameter in real.parameters())  # nothing is left on meta
    model = built(path)
    assert model is not None
    assert (model.tied, model.layers) == (True, 3)
    assert model.architecture is not None
    assert (model.architecture["block"], model.architecture["norm"]) == ("model.layers.{}", "model.norm")


def test_a_model_that_no_profile_knows(write: Write, tmp_path: Path) -> None:
    path = folder(
        tmp_path, model_type="stablelm", architectures=None, hidden_size=64, intermediate_size=128, num_attention_heads=4,
        num_key_value_heads=4, num_hidden_layers=6, vocab_size=100,
    )  # fmt: skip
    assert from_config(path).architecture is None  # type: ignore[union-attr]
    values = {**GOOD, "v_loss_layer": 5, "layers": [2, 3]}
    assert not said(run(write(values), model=path), "error")
    assert said(run(write({**values, "ln_f_module": "model.final_norm"}), model=path), "error") == {"HPR116"}


def test_a_tied_head_is_seen(write: Write, tmp_path: Path) -> None:
    assert said(run(write(GOOD), model=folder(tmp_path, tie_word_embeddings=True)), "error") == {"HPR115"}


def test_code_in_the_folder_is_never_run(write: Write, tmp_path: Path) -> None:
    path = folder(tmp_path, model_type="ours", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})
    (path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert meta_model.module_names(path) is None
    run(write(GOOD), model=path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("model_type", ["llama", "unheard-of"])
def test_without_torch_the_profiles_answer(
    model_type: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta_model.importlib.util, "find_spec", lambda name: None)
    report = run(write({**GOOD, "ln_f_module": "x.y"}), model=folder(tmp_path, model_type=model_type))
    assert said(report, "error") == ({"HPR116"} if model_type == "llama" else set())


@pytest.mark.slow
def test_nobody_who_does_not_ask_pays(write: Write, tmp_path: Path) -> None:
    """A config.json that `model_name` leads to is read; torch stays out."""
    path = write({**GOOD, "model_name": str(folder(tmp_path))})
    program = "import sys; from padcheck.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, "check", "--isolated", "--no-cache", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"
