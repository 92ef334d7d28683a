"""`edit`, `stats` and `verify` from the command line: what is written, what is refused, and the exit codes."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from padcheck.cli import main
from padcheck.editing_commands import PROVENANCE
from tests.verifying.models import TEMPLATES, opened

Files = dict[str, Any]


@pytest.fixture
def files(tmp_path: Path, shipped: Path) -> Files:
    """Two requests, short hparams and templates; the common arguments of an edit."""
    folder = shipped / "llama-facts"
    requests = json.loads((folder / "facts.json").read_text("utf-8"))["requests"][:2]
    (tmp_path / "requests.json").write_text(json.dumps(requests), "utf-8")
    text = (folder / "hparams" / "rome.yaml").read_text("utf-8")
    text = re.sub(r"(?m)^v_num_grad_steps:.*$", "v_num_grad_steps: 3", text)
    (tmp_path / "rome.yaml").write_text(text, "utf-8")
    (tmp_path / "templates.txt").write_text("\n".join(TEMPLATES), "utf-8")
    arguments = [
        str(tmp_path / "rome.yaml"), "--model", str(folder), "--requests", str(tmp_path / "requests.json"), "--device", "cpu",
        "--context-templates", str(tmp_path / "templates.txt"),
    ]  # fmt: skip
    return {"arguments": arguments, "folder": folder, "out": tmp_path / "edited", "root": tmp_path}


def test_edit_saves_what_from_pretrained_opens(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = files["out"]
    assert main(["edit", *files["arguments"], "--out", str(out)]) == 0
    assert "rounding takes" in capsys.readouterr().out
    edited, before = AutoModelForCausalLM.from_pretrained(out), opened("llama-facts")[0]
    changed = [name for name, value in edited.state_dict().items() if not torch.equal(value, before.state_dict()[name])]
    provenance = json.loads((out / PROVENANCE).read_text("utf-8"))
    assert changed == list(provenance["updates"]) == ["model.layers.0.mlp.down_proj.weight"]
    assert [one["case_id"] for one in provenance["requests"]] == [0, 1]
    assert provenance["padding_side"].startswith("irrelevant")
    assert provenance["versions"]["torch"] == torch.__version__
    tokenizer, same = AutoTokenizer.from_pretrained(out), opened("llama-facts")[1]
    assert tokenizer("The flag of Paris is")["input_ids"] == same("The flag of Paris is")["input_ids"]
    assert (out / "tokenizer.json").read_bytes() == (files["folder"] / "tokenizer.json").read_bytes()


def test_dry_run_writes_nothing(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edit", *files["arguments"], "--out", str(files["out"]), "--dry-run"]) == 0
    assert "Nothing is written" in capsys.readouterr().out
    assert not files["out"].exists()


def test_edit_never_writes_over_anything(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edit", *files["arguments"]]) == 2
    assert main(["edit", *files["arguments"], "--out", str(files["folder"])]) == 2
    assert main(["edit", *files["arguments"], "--out", str(files["folder"] / "inside")]) == 2
    assert main(["edit", *files["arguments"], "--out", str(files["folder"].parent)]) == 2
    files["out"].mkdir()
    (files["out"] / "mine.txt").write_text("mine", "utf-8")
    assert main(["edit", *files["arguments"], "--out", str(files["out"])]) == 2
    assert capsys.readouterr().err.count("padcheck edit:") == 5
    assert [path.name for path in files["out"].iterdir()] == ["mine.txt"]


def test_memit_without_second_moments_is_refused(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edit", *files["arguments"], "--method", "MEMIT", "--dry-run"]) == 2
    assert "MEMIT" in capsys.readouterr().err


def test_stats_and_the_edit_that_reads_them(files: Files, shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memit, moments = str(files["folder"] / "hparams" / "memit.yaml"), files["root"] / "moments.safetensors"
    corpus = ["--corpus", str(shipped / "corpus.txt"), "--max-tokens", "3000", "--device", "cpu"]
    assert main(["stats", memit, "--model", str(files["folder"]), "--out", str(moments), *corpus]) == 0
    assert "3 modules" in capsys.readouterr().out
    arguments = [memit, *files["arguments"][1:], "--dry-run", "--covariance", str(moments)]
    assert main(["edit", *arguments]) == 0
    other = [*arguments[:1], "--model", str(shipped / "gpt2-facts"), *arguments[3:]]
    assert main(["edit", *other]) == 2
    assert "model" in capsys.readouterr().err


def test_verify(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", *files["arguments"], "--limit", "1", "--attention", "eager", "--output-format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["command"], report["attention"], len(report["requests"])) == ("verify", "eager", 1)
    assert main(["verify", *files["arguments"], "--limit", "1"]) == 0
    assert "left, as the editor does it" in capsys.readouterr().out


def test_what_cannot_be_read_is_a_2(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    absent, arguments = str(files["root"] / "absent"), files["arguments"]
    assert main(["verify", absent, *arguments[1:]]) == 2
    assert main(["verify", *arguments[:2], absent, *arguments[3:]]) == 2
    assert main(["verify", *arguments[:4], absent, *arguments[5:]]) == 2
    assert main(["verify", *arguments, "--covariance", absent]) == 2
    assert main(["verify", *arguments, "--method", "ROMEO"]) == 2
    (files["root"] / "requests.json").write_text('[{"prompt": "{} is", "target_new": "red"}]', "utf-8")
    assert main(["verify", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("padcheck verify:") == 6
    assert "did you mean ROME?" in said
    assert "request 0" in said


def test_without_torch_one_sentence(
    files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else real(name, *rest))
    assert main(["verify", *files["arguments"]]) == 2
    assert (
        capsys.readouterr().err.strip()
        == "padcheck verify: this command runs a model and needs torch: install padcheck[edit]."
    )
