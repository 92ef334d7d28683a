"""`edit`, `stats` and `verify` from the command line: what is written, what is refused, and the exit codes."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from padcheck import demonstrating
from padcheck.cli import main
from padcheck.editing_commands import PROVENANCE
from tests.verifying.models import TEMPLATES, opened, valid

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
    assert changed == list(provenance["updates"]) == ["model.layers.1.mlp.down_proj.weight"]
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
    page = files["root"] / "page.html"
    arguments = [*files["arguments"], "--limit", "1"]
    assert main(["verify", *arguments, "--attention", "eager", "--output-format", "json", "--html", str(page)]) == 0
    report = json.loads(capsys.readouterr().out)
    valid(report)
    assert (report["command"], report["attention"], len(report["requests"])) == ("verify", "eager", 1)
    assert page.read_text("utf-8").lstrip().startswith("<!DOCTYPE html>")
    assert main(["verify", *arguments]) == 0
    assert "left, as the editor does it" in capsys.readouterr().out


def test_verify_ends_with_1_where_padding_does_not_explain_it(
    files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from padcheck.verifying import comparing

    monkeypatch.setitem(comparing.WAYS, comparing.CORRECTED, comparing.Way())  # as if the correction corrected nothing
    hparams = files["root"] / "rome.yaml"
    hparams.write_text(hparams.read_text("utf-8").replace("v_num_grad_steps: 3", "v_num_grad_steps: 8"), "utf-8")
    requests = json.loads((files["root"] / "requests.json").read_text("utf-8"))
    (files["root"] / "requests.json").write_text(json.dumps(requests[1:]), "utf-8")
    assert main(["verify", *files["arguments"], "--limit", "1"]) == 1
    said = capsys.readouterr()
    assert "so padding does not explain it all" in said.err
    assert "so padding does not explain it all" in " ".join(said.out.split())


@pytest.mark.parametrize("method", ["R-ROME", "MEMIT", "EMMET", "PMET", "AlphaEdit"])
def test_verify_knows_every_method_that_edit_knows(files: Files, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (files["folder"] / "hparams" / f"{method.lower()}.yaml").read_text("utf-8")
    text = re.sub(r"(?m)^nullspace_threshold:.*$", "nullspace_threshold: 0.5", text)  # the estimate is on another corpus
    path = files["root"] / "other.yaml"
    path.write_text(re.sub(r"(?m)^v_num_grad_steps:.*$", "v_num_grad_steps: 1", text), "utf-8")
    assert main(["verify", str(path), *files["arguments"][1:], "--limit", "1", "--output-format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    valid(report)
    assert report["method"] == method
    assert len(report["notes"]) == (method != "R-ROME")


@pytest.mark.slow
def test_the_demo_ends_with_edits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demonstrating, "_EDITS", 1)
    before = torch.get_num_threads()
    assert main(["demo"]) == 0
    shown = capsys.readouterr()
    assert "ROME, 1 request, 21 context templates" in shown.out
    assert "The corrected edit is the right one" in " ".join(shown.out.split())
    assert "padcheck[edit]" not in shown.out
    assert shown.err == ""
    assert torch.get_num_threads() == before


def test_the_demo_without_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demonstrating, "find_spec", lambda name: None)
    assert main(["demo"]) == 0
    shown = capsys.readouterr()
    assert "pip install 'padcheck[edit]'" in shown.out.splitlines()[-2]
    assert "context templates, sdpa" not in shown.out


def test_what_cannot_be_read_is_a_2(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    absent, arguments = str(files["root"] / "absent"), files["arguments"]
    assert main(["verify", absent, *arguments[1:]]) == 2
    assert main(["verify", *arguments[:2], absent, *arguments[3:]]) == 2
    assert main(["verify", *arguments[:4], absent, *arguments[5:]]) == 2
    assert main(["verify", *arguments, "--covariance", absent]) == 2
    assert main(["verify", *arguments, "--method", "ROMEO"]) == 2
    assert main(["verify", *arguments, "--html", str(files["root"] / "absent" / "page.html")]) == 2
    assert main(["verify", *arguments, "--html", str(files["root"])]) == 2
    (files["root"] / "requests.json").write_text('[{"prompt": "{} is", "target_new": "red"}]', "utf-8")
    assert main(["verify", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("padcheck verify:") == 8
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
