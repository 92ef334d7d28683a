"""Models split over devices by accelerate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

from toys import MANY, model_of, run, same, snapshot, tokenizer_of  # noqa: E402

from padcheck.editing.digest import model_digest  # noqa: E402
from padcheck.editing.second_moments import estimate  # noqa: E402

LAYER_BY_LAYER = {
    "model.embed_tokens": "cpu",
    **{f"model.layers.{number}": "cpu" for number in range(4)},
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}


@pytest.mark.parametrize("method", ["ROME", "MEMIT", "PMET", "AlphaEdit"])
@pytest.mark.parametrize("parts", [{"model": "cpu", "lm_head": "cpu"}, LAYER_BY_LAYER], ids=["halves", "layers"])
def test_dispatched_with_hooks(parts: dict[str, str], method: str) -> None:
    model = accelerate.dispatch_model(model_of("llama"), parts, main_device="cpu", force_hooks=True)
    assert sum("forward" in module.__dict__ for module in model.modules()) >= len(parts)
    before, plain = snapshot(model), run("llama", method).updates
    for name, update in run("llama", method, model=model).updates.items():
        assert torch.equal(update, plain[name])
    assert same(before, snapshot(model))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch._C, "_acc"), reason="this torch cannot have a backend written in Python")
def test_two_devices() -> None:
    """The same, with a second device that is not the CPU: nothing of one may meet anything of the other."""
    script = Path(__file__).parent / "two_devices.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("is the same") == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("method", ["ROME", "R-ROME", "MEMIT", "EMMET", "PMET", "AlphaEdit"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_on_a_gpu(kind: str, method: str) -> None:
    model = model_of(kind, dtype=torch.float64)
    expected, digest = run(kind, method, model=model).updates, model_digest(model)
    model.cuda()
    assert model_digest(model) == digest
    before, result = snapshot(model), run(kind, method, model=model)
    assert same(before, snapshot(model))
    for name, update in result.updates.items():
        assert update.is_cuda
        assert float((update.cpu() - expected[name]).norm() / expected[name].norm()) < 1e-9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_second_moments_on_a_gpu() -> None:
    model, tokenizer, modules = model_of("llama"), tokenizer_of("llama"), ["model.layers.1.mlp.down_proj"]
    texts = [request["prompt"].format(request["subject"]) for request in MANY]
    expected = estimate(model, tokenizer, texts, modules)
    found = estimate(model.cuda(), tokenizer, texts, modules)
    assert found.key == expected.key
    for name, matrix in expected.matrices.items():
        assert float((found.matrices[name] - matrix).norm() / matrix.norm()) < 1e-5


@pytest.mark.parametrize("gpus", [True, False])
def test_ranks_speak_over_nccl_where_there_are_gpus(gpus: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from padcheck.editing import stats_command

    asked: list[Any] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: asked.append(device))
    monkeypatch.setattr(torch.distributed, "init_process_group", asked.append)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: asked.append("end"))
    with stats_command._ranks() as rank:
        assert rank == 1
    assert asked == ([1, "nccl", "end"] if gpus else ["gloo", "end"])
