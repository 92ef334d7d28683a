"""`edit`, `stats` and `verify` from the command line: what is written, what is refused, and the exit codes."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from padcheck import demonstrating
from padcheck.cli import main
from padcheck.editing.places import PROVENANCE
from padcheck.resources import install
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
    assert f"{install('edit')}, and run padcheck demo again" in shown.out.splitlines()[-2]
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


# ---- What is found before the work, and what cannot be opened


@pytest.fixture
def folder(files: Files, tmp_path: Path) -> Path:
    """A copy of the model, to be spoilt; the arguments name it."""
    copy = tmp_path / "copy"
    shutil.copytree(files["folder"], copy, ignore=shutil.ignore_patterns("hparams", "facts.json"))
    files["arguments"][files["arguments"].index("--model") + 1] = str(copy)
    return copy


def _drop(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def _config(folder: Path, **values: Any) -> None:
    known = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(known | values), "utf-8")


SPOILT = {
    "no tokenizer": (lambda folder: _drop(folder, "tokenizer.json", "tokenizer_config.json"), "holds no tokenizer"),
    "a pointer": (lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs"), "cannot be opened"),
    "cut off": (lambda folder: (folder / "model.safetensors").write_bytes(b"\x10"), "cannot be opened"),
    "more layers": (lambda folder: _config(folder, num_hidden_layers=8), "Its files lack 18 weights"),
    "gptq": (lambda folder: _config(folder, quantization_config={"quant_method": "gptq", "bits": 4}), "cannot be opened"),
}


@pytest.mark.parametrize("command", ["edit", "verify", "stats"])
@pytest.mark.parametrize("spoilt", SPOILT)
def test_folders_that_hold_no_whole_model(
    files: Files, folder: Path, command: str, spoilt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, says = SPOILT[spoilt]
    spoil(folder)
    out = ["--out", str(files["out"])]
    arguments = [*files["arguments"], *(out if command == "edit" else [])]
    if command == "stats":
        (files["root"] / "corpus.txt").write_text("The old map shows the road.")
        arguments = [files["arguments"][0], "--model", str(folder), "--corpus", str(files["root"] / "corpus.txt"), *out]
    assert main([command, *arguments]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert "Traceback" not in said.err
    assert not files["out"].exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="here the device exists")
@pytest.mark.parametrize("device", ["cuda", "nothing"])
def test_devices_that_are_not_there(files: Files, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*files["arguments"], "--device", device]
    for command in (["verify", *arguments], ["edit", *arguments, "--dry-run"]):
        assert main(command) == 2
        assert "The model cannot be opened" in capsys.readouterr().err


def test_places_that_cannot_be_written_are_found_before_the_work(
    files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("padcheck.editing.opening.open_model", lambda *a, **k: pytest.fail("the work has begun"))
    (files["root"] / "file").write_text("")
    (files["root"] / "dangling").symlink_to(files["root"] / "nowhere")
    for place in ("file/x", "file", "dangling"):
        assert main(["edit", *files["arguments"], "--out", str(files["root"] / place)]) == 2
        assert place.split("/")[0] in capsys.readouterr().err
    for place, says in (("file/x.html", "cannot be written"), (".", "is a folder")):
        assert main(["verify", *files["arguments"], "--html", str(files["root"] / place)]) == 2
        assert says in capsys.readouterr().err


def test_a_seed_that_no_generator_takes(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edit", *files["arguments"], "--dry-run", "--seed", "9" * 25]) == 2
    assert "--seed" in capsys.readouterr().err


def test_edit_says_what_it_runs(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edit", *files["arguments"], "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("ROME, layer 1, subject_last, 4 context templates\n")


# ---- Where padding is not to blame


def test_a_model_that_answers_nan_is_named(files: Files, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][5, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert main(["verify", *files["arguments"], "--limit", "1", "--output-format", "json"]) == 2
    said = capsys.readouterr()
    assert "before any edit" in said.err or "not finite" in said.err
    assert not said.out


def test_hparams_that_no_side_can_edit_with(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    hparams = files["root"] / "rome.yaml"
    hparams.write_text(re.sub(r"(?m)^kl_factor:.*$", "kl_factor: .inf", hparams.read_text("utf-8")), "utf-8")
    assert main(["verify", *files["arguments"], "--limit", "1"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "The edit itself cannot be made here, whatever the padding" in said
    assert "Left padding breaks" not in said


def test_moments_of_the_model_before_the_edit(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Edits in a row keep the second moments of the model that they began with; those of a stranger are refused."""
    folder, (_, *rest) = files["folder"], files["arguments"]
    text = (folder / "hparams" / "memit.yaml").read_text("utf-8")
    memit = tmp_path / "memit.yaml"
    memit.write_text(re.sub(r"(?m)^v_num_grad_steps:.*$", "v_num_grad_steps: 2", text), "utf-8")
    (tmp_path / "corpus.txt").write_text("\n\n".join(f"The old map shows road {at} to the river." for at in range(400)))
    moments, first, second = tmp_path / "moments", tmp_path / "first", tmp_path / "second"
    common = [str(memit), "--model", str(folder), "--device", "cpu"]
    assert main(["stats", *common, "--corpus", str(tmp_path / "corpus.txt"), "--out", str(moments)]) == 0
    arguments = [str(memit), *rest, "--covariance", str(moments)]
    assert main(["edit", *arguments, "--out", str(first)]) == 0
    capsys.readouterr()
    again = [str(first) if one == str(folder) else one for one in arguments]
    assert main(["edit", *again, "--out", str(second)]) == 0
    assert "of the model before the edits that padcheck-edit.json tells of" in capsys.readouterr().out
    lineage = json.loads((second / PROVENANCE).read_text("utf-8"))["lineage"]
    assert lineage[0] == json.loads((first / PROVENANCE).read_text("utf-8"))["lineage"][0]
    assert len(lineage) == 2
    (first / PROVENANCE).unlink()
    assert main(["edit", *again, "--dry-run"]) == 2
    assert "is not for this run: its model is" in capsys.readouterr().err
