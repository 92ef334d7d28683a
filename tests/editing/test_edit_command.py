"""`padcheck edit` in every dtype: what it says of rounding, what it saves, and what it refuses to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
import yaml  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from toys import MANY, TEMPLATES, covariance_of, hparams_of, model_of, tokenizer_of  # noqa: E402

from padcheck.cli import main  # noqa: E402
from padcheck.editing import edit  # noqa: E402
from padcheck.editing.digest import model_digest  # noqa: E402
from padcheck.editing.places import PROVENANCE  # noqa: E402
from padcheck.editing.second_moments import Moments, MomentsKey, save  # noqa: E402

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


class Job:
    """A saved toy, and the arguments of an edit of it."""

    def __init__(self, folder: Path, method: str, dtype: Any, **changes: Any) -> None:
        self.source, self.out = folder / "model", folder / "edited"
        model_of("llama", dtype=dtype).save_pretrained(self.source)
        # As it is opened: `model.to(dtype)` rounds the rotary frequencies too, and a saved model has them anew.
        self.model = transformers.AutoModelForCausalLM.from_pretrained(self.source, dtype="auto")
        self.tokenizer = tokenizer_of("llama")
        self.tokenizer.save_pretrained(self.source)
        self.hparams = hparams_of("llama", method, **{"v_num_grad_steps": 4, **changes})
        (folder / "hparams.yaml").write_text(yaml.safe_dump(self.hparams))
        (folder / "requests.json").write_text(json.dumps(MANY[:2]))
        (folder / "templates.txt").write_text("\n".join(TEMPLATES))
        self.moments = covariance_of(self.model, self.hparams)
        self.save_moments(folder / "moments", self.model)
        self.arguments = [
            "edit", str(folder / "hparams.yaml"), "--model", str(self.source), "--requests", str(folder / "requests.json"),
            "--context-templates", str(folder / "templates.txt"), "--covariance", str(folder / "moments"), "--device", "cpu",
        ]  # fmt: skip
        self.files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    def save_moments(self, path: Path, model: Any) -> None:
        key = MomentsKey(model_digest(model), tuple(self.moments), "none", 1, 1, "float32", 1, "$A")
        save(Moments(key, self.moments), path)

    def untouched(self) -> bool:
        return all(path.read_bytes() == content for path, content in self.files.items())


@pytest.mark.parametrize("method", ["ROME", "MEMIT"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_saved_as_it_was_worked_out(dtype: Any, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(tmp_path, method, dtype)
    assert main([*job.arguments, "--out", str(job.out)]) == 0
    said = capsys.readouterr().out
    result = edit(job.model, job.tokenizer, MANY[:2], job.hparams, context_templates=TEMPLATES, covariance=job.moments)
    provenance = json.loads((job.out / PROVENANCE).read_text("utf-8"))
    reloaded = transformers.AutoModelForCausalLM.from_pretrained(job.out, dtype="auto")
    assert reloaded.dtype == dtype
    with result.applied(job.model) as edited:
        for name, value in edited.state_dict().items():
            assert torch.equal(value, reloaded.state_dict()[name]), name
        assert provenance["fingerprint"] == model_digest(edited)
    before, after = load_file(job.source / "model.safetensors"), load_file(job.out / "model.safetensors")
    assert [name for name in before if not torch.equal(before[name], after[name])] == sorted(provenance["updates"])
    for name, update in result.updates.items():
        lost = float((after[name].double() - before[name].double() - update.double()).norm() / update.double().norm())
        assert provenance["updates"][name]["lost_to_rounding"] == pytest.approx(lost, rel=1e-6)
        assert f"rounding takes {lost:.2g} of it" in said
        assert (lost > 1e-4) == (dtype != torch.float32)
    assert job.untouched()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dry_run_writes_nothing(dtype: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(tmp_path, "MEMIT", dtype)
    assert main([*job.arguments, "--out", str(job.out), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "rounding takes" in said
    assert "Nothing is written" in said
    assert job.untouched()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(job.files)


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_an_update_that_rounding_takes_is_said_aloud(dtype: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = Job(tmp_path, "MEMIT", dtype, mom2_update_weight=1e7)
    with pytest.warns(RuntimeWarning, match="edit the model in float32"):
        assert main([*job.arguments, "--dry-run"]) == 0


def test_the_source_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(tmp_path, "ROME", torch.bfloat16)
    link = tmp_path / "link"
    link.symlink_to(job.source, target_is_directory=True)
    for out in (job.source, job.source / "deeper", tmp_path, link, job.source / ".." / "model"):
        assert main([*job.arguments, "--out", str(out)]) == 2
        assert "never written over" in capsys.readouterr().err
    assert job.untouched()


def test_refusals_leave_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(tmp_path, "MEMIT", torch.float32)
    job.save_moments(tmp_path / "others", model_of("llama", seed=1))
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    told = {
        "its model is": [*job.arguments, "--covariance", str(tmp_path / "others")],
        "AlphaEdit needs": [*job.arguments, "--method", "AlphaEdit"],
    }
    for says, arguments in told.items():
        assert main([*arguments, "--out", str(job.out)]) == 2
        assert says in capsys.readouterr().err.partition("padcheck edit: ")[2]
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == files
