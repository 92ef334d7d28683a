"""Where second moments are looked for: where `padcheck stats` writes them unless told, and in the frameworks' own caches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
import numpy  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from test_edit_command import Job  # noqa: E402

from padcheck.cli import main  # noqa: E402
from padcheck.editing.places import PROVENANCE  # noqa: E402
from padcheck.editing.stats_files import own_file  # noqa: E402


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A MEMIT job without --covariance, in its own folder (`stats_dir` is ./stats)."""
    monkeypatch.chdir(tmp_path)
    made = Job(tmp_path, "MEMIT", torch.float32)
    at = made.arguments.index("--covariance")
    del made.arguments[at : at + 2]
    return made


def cached(job: Job, folder: Path, *, samples: str = "_100") -> dict[str, Path]:
    """Caches as the frameworks write them: Σ k kᵀ and the count of tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for number, (module, moment) in enumerate(job.moments.items(), 7):
        files[module] = folder / f"{module}_float32_mom2{samples}.npz"
        arrays: dict[str, Any] = {
            "mom2.mom2": (moment * number).numpy(),
            "mom2.count": number,
            "mom2.constructor": "x",
            "sample_size": 100,
        }
        numpy.savez(files[module], **arrays)
    return files


def test_stats_writes_where_edit_looks(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("\n\n".join(f"The old map {name} shows road {at}." for at in range(150)))
    common = [job.arguments[1], "--model", str(job.source), "--device", "cpu"]
    assert main(["edit", *job.arguments[1:], "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "MEMIT needs second moments: `padcheck stats` writes them to stats/model/second_moments.mlp.down_proj.1-2" in said
    assert main(["stats", *common, "--corpus", "a.txt", "b.txt", "--max-documents", "300"]) == 0
    own = Path("stats/model/second_moments.mlp.down_proj.1-2.safetensors")
    assert f"{own}: 2 modules" in capsys.readouterr().out
    assert len(load_file(own)) == 2
    assert main([*job.arguments, "--out", str(job.out)]) == 0
    assert f"note: second moments are those in {own}" in capsys.readouterr().out
    assert json.loads((job.out / PROVENANCE).read_text("utf-8"))["covariance"]["documents"] == 300
    other = tmp_path / "elsewhere" / "model"  # the same name, another content
    other.mkdir(parents=True)
    for file in job.source.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    job.model.get_parameter("model.norm.weight").data += 1
    job.model.save_pretrained(other)
    arguments = [str(other) if one == str(job.source) else one for one in job.arguments]
    assert main([*arguments, "--dry-run"]) == 2
    assert f"{own} is not for this run: its model is" in capsys.readouterr().err


def test_the_frameworks_own_caches(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    cached(job, Path("stats/model/wikipedia_stats"))
    assert main([*job.arguments, "--dry-run"]) == 2
    assert "--covariance stats/model takes the framework's own caches" in capsys.readouterr().err
    assert main([*job.arguments, "--covariance", "stats/model", "--out", str(job.out)]) == 0
    assert "nothing proves that they are this model's" in capsys.readouterr().out
    plain = job.out.with_name("plain")
    assert main([*job.arguments, "--covariance", "moments", "--out", str(plain)]) == 0
    ours, theirs = load_file(plain / "model.safetensors"), load_file(job.out / "model.safetensors")
    for name in (f"{module}.weight" for module in job.moments):
        before = job.model.get_parameter(name).detach()
        assert float((ours[name] - theirs[name]).norm()) <= 1e-4 * float((ours[name] - before).norm())
    known = json.loads((job.out / PROVENANCE).read_text("utf-8"))["covariance"]
    assert sorted(known["files"]) == sorted(job.moments)


BROKEN: dict[str, tuple[Callable[[Job, dict[str, Path]], object], str]] = {
    "one is missing": (lambda job, files: files[next(iter(files))].unlink(), "holds no file of second moments for model.layers.1"),
    "two sizes": (lambda job, files: cached(job, next(iter(files.values())).parent, samples="_999"), "holds 2 files"),
    "cut off": (lambda job, files: next(iter(files.values())).write_bytes(b"PK\x03\x04"), "no second moments that can be read"),
    "other arrays": (lambda job, files: numpy.savez(next(iter(files.values())), a=numpy.ones(3)), "no second moments that can be read"),
    "no tokens": (
        lambda job, files: numpy.savez(next(iter(files.values())), **{"mom2.mom2": numpy.ones((2, 2)), "mom2.count": 0}),
        "counts 0 tokens",
    ),
    "another shape": (
        lambda job, files: numpy.savez(next(iter(files.values())), **{"mom2.mom2": numpy.ones((2, 2)), "mom2.count": 9}),
        "model.layers.1.mlp.down_proj",
    ),
    "none at all": (lambda job, files: [file.unlink() for file in files.values()], "holds no second moments of"),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_caches_that_are_not_what_they_should_be(job: Job, broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, message = BROKEN[broken]
    spoil(job, cached(job, Path("stats/model/wikipedia_stats")))
    assert main([*job.arguments, "--covariance", "stats", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_names() -> None:
    model = Path("models/gpt2-xl")
    one = own_file("data/stats", model, ["transformer.h.{}.mlp.c_proj"], [13, 14])
    two = own_file("data/stats", model, ["transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp.c_proj"], [3])
    assert one == Path("data/stats/gpt2-xl/second_moments.mlp.c_proj.13-14.safetensors")
    assert two == Path("data/stats/gpt2-xl/second_moments.attn.c_proj+mlp.c_proj.3.safetensors")
