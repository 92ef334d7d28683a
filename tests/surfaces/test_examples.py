"""The examples: every command of their READMEs runs, on shipped models and tokenizers, and each shows what it says it shows."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from padcheck.testing import assert_same_everywhere
from tests.running import ROOT, SHIPPED, TOKENIZERS, run

from .conftest import Script

EXAMPLES = ROOT / "examples"
MODELS = SHIPPED / "models"
FOLDERS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())


def commands_of(name: str) -> list[str]:
    """The commands in an example's README."""
    blocks = re.findall(r"```console\n(.*?)```", (EXAMPLES / name / "README.md").read_text("utf-8"), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture
def copied(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an example, beside it what its commands call the model or the tokenizer."""
    name = request.param
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
    if name == "easyedit":
        shutil.copytree(TOKENIZERS / "llama3-shape", folder / "tokenizers" / "llama-2-7b")
    elif name == "memit":
        shutil.copytree(TOKENIZERS / "gpt2-shape", folder / "gpt2-xl")
    else:
        shutil.copytree(MODELS / "gpt2-facts", folder / "gpt2")
    return folder


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("copied", [name], indirect=True)


def module(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script of an example as a module."""
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.delitem(sys.modules, path.stem, raising=False)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, loaded)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_list_is_complete() -> None:
    text = (EXAMPLES / "README.md").read_text("utf-8")
    assert sorted(re.findall(r"^\| \[`(\w+)`\]\(\1\)", text, re.MULTILINE)) == FOLDERS
    assert all(commands_of(name) for name in FOLDERS)


def test_padcheck_finds_nothing_in_them() -> None:
    report = run("check", EXAMPLES, "--fail-on", "warning", "--no-cache", "--output-format", "json").json
    wrong = [finding for finding in report["findings"] if finding["severity"] in {"error", "warning"}]
    assert not wrong
    assert report["errors"] == []


# --- EasyEdit and memit -----------------------------------------------------------------------------------------------------


@of("easyedit")
def test_easyedit(copied: Path, script: Script) -> None:
    """The workflow passes; with a method that EasyEdit pads on the left it fails, and says at which requests."""
    workflow = yaml.safe_load((copied / "preflight.yml").read_text("utf-8"))
    steps = [step["run"] for step in workflow["jobs"]["preflight"]["steps"] if "run" in step]
    assert steps[0] == "pip install padcheck"
    for step in steps[1:]:
        done = script(step, copied)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "::error" not in done.stdout
    for command in commands_of("easyedit"):
        assert script(command, copied).returncode == 0
        plain = [word for word in shlex.split(command) if not word.startswith("--output")]
        assert any(shlex.split(step)[: len(plain)] == plain for step in steps[1:])  # the README's are the workflow's

    shutil.copy(SHIPPED / "demo" / "hparams-pmet.yaml", copied / "hparams" / "ROME" / "llama-2-7b.yaml")
    failed = [script(step, copied) for step in steps[1:]]
    assert [done.returncode for done in failed] == [1, 1]
    assert re.search(r"^::error file=hparams/ROME/llama-2-7b\.yaml,line=3,.*HPR135", failed[0].stdout, re.MULTILINE)
    assert re.search(r"^::error .*title=PAD101 .*::request \d", failed[1].stdout, re.MULTILINE)


def test_the_workflow_is_valid() -> None:
    pytest.importorskip("check_jsonschema")
    from check_jsonschema import main

    with pytest.raises(SystemExit) as ended:
        main(["--builtin-schema", "vendor.github-workflows", str(EXAMPLES / "easyedit" / "preflight.yml")])
    assert not ended.value.code


@of("memit")
def test_memit(copied: Path, script: Script) -> None:
    right, left = commands_of("memit")
    done = script(right, copied)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("PASS")
    done = script(f"{left} --output-format json", copied)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["requests"]["drifting_ids"] == [0, 1, 2]
    assert set(report["rows"]["by_cause"]) == {"pads"}


# --- Steering ---------------------------------------------------------------------------------------------------------------


def naive_columns(tokenizer: Any, texts: Sequence[str], subject: str) -> list[int]:
    """As it is usually done: counted on the unpadded text."""
    return [len(tokenizer(text[: text.rindex(subject) + len(subject)])["input_ids"]) - 1 for text in texts]


@pytest.mark.parametrize("name", ["llama-facts", "gpt2-facts"])
def test_steering(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Located columns change the answer, also to questions that the vector was not learned on; naive ones do not."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    steer = module(EXAMPLES / "steering" / "steer.py", monkeypatch)
    folder = MODELS / name
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    facts = json.loads((folder / "facts.json").read_text("utf-8"))
    request = facts["requests"][1]
    subject, target = request["subject"], request["target_new"]
    first, second, held_out = (template.format(subject) for template in facts["relations"][request["relation"]]["templates"])
    before = ["", "The sun rose over the hills. ", "Many years later, "]
    texts = [f"{start}{text}" for start in before for text in (first, second)]
    asked = [f"{start}{held_out}" for start in [*before, "It was a long winter and then the ships came. "]]
    answer = tokenizer(f" {target}", add_special_tokens=False, return_tensors="pt")["input_ids"][0]
    batch = tokenizer(asked, padding=True, return_tensors="pt")

    def probabilities() -> Any:
        vector = steer.learn(model, tokenizer, texts, subject, target, layer=0)
        with torch.no_grad(), steer.steering(model, 0, steer.columns_of(tokenizer, asked, subject), vector):
            return steer.log_likelihood(model, batch, answer).exp()

    located = probabilities()
    monkeypatch.setattr(steer, "columns_of", naive_columns)
    naive = probabilities()
    padded = batch["attention_mask"][:, 0] == 0
    assert padded.sum() == 3
    assert located.min() > 0.8  # [4]
    assert naive[padded].max() < 0.4
    assert naive[~padded].min() > 0.8  # the one row that is right by chance
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["llama-facts", "gpt2-facts"])
def test_steering_is_the_same_under_every_padding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    steer = module(EXAMPLES / "steering" / "steer.py", monkeypatch)
    model = transformers.AutoModelForCausalLM.from_pretrained(MODELS / name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODELS / name)
    texts = [
        "Norhold is a",
        "The flag of Norhold is",
        "They say, though few have been there, that Norhold has a flag that is",
    ]
    vector = torch.linspace(-3, 3, model.get_input_embeddings().weight.shape[1])
    alone = {tuple(tokenizer(text)["input_ids"]): text for text in texts}

    @torch.no_grad()
    def steered(batch: Any) -> Any:
        mask = batch["attention_mask"]
        rows = [alone[tuple(ids[real.bool()].tolist())] for ids, real in zip(batch["input_ids"], mask, strict=True)]
        tokenizer.padding_side = "left" if not mask[:, 0].all() else "right"
        with steer.steering(model, 0, steer.columns_of(tokenizer, rows, "Norhold"), vector):
            return steer.logits_of(model, batch["input_ids"], mask)

    assert_same_everywhere(steered, tokenizer, texts)
    with pytest.raises(SystemExit, match="'Paris' is not in 'Norhold is a'"):
        steer.columns_of(tokenizer, texts, "Paris")
    monkeypatch.setattr(steer, "columns_of", naive_columns)
    assert_same_everywhere(steered, tokenizer, texts, sides=["right"])
    with pytest.raises(AssertionError, match="left padding: "):
        assert_same_everywhere(steered, tokenizer, texts, sides=["left"])


@pytest.mark.slow
@of("steering")
def test_steering_as_a_command(copied: Path, script: Script) -> None:
    pytest.importorskip("torch")
    (command,) = commands_of("steering")
    done = script(command, copied, {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^  (?:before|after): ?.+$", done.stdout, re.MULTILINE)) == 6


# --- Trainer ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["llama-facts", "gpt2-facts"])
def test_the_probe(name: str, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's collator is right on both sides; one that counts from the row's start only where pads are on the right."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    probe = module(EXAMPLES / "trainer" / "probe.py", monkeypatch)
    train = module(EXAMPLES / "trainer" / "train.py", monkeypatch)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODELS / name, padding_side=side)
    rows = [json.loads(line) for line in (EXAMPLES / "trainer" / "facts.jsonl").read_text("utf-8").splitlines()]
    collator = train.AnswersOnly(tokenizer)

    def counting(rows: Sequence[dict[str, str]]) -> Any:
        batch = tokenizer([row["prompt"] + row["answer"] for row in rows], padding=True, return_tensors="pt")
        labels = batch["input_ids"].clone()
        labels[batch["attention_mask"] == 0] = -100
        for row, its_labels in zip(rows, labels, strict=True):
            its_labels[: len(tokenizer(row["prompt"])["input_ids"])] = -100
        return {**batch, "labels": labels}

    def everything(rows: Sequence[dict[str, str]]) -> Any:
        batch = collator(rows)
        return {**batch, "labels": batch["input_ids"].clone()}

    def look(collate: Any) -> None:
        probe.LabelProbe(tokenizer, collate, rows).on_train_begin(None, None, None)

    look(collator)
    if side == "right":
        look(counting)
    else:
        with pytest.raises(probe.LabelsAreElsewhere, match=r"\(left padding\)") as caught:
            look(counting)
        assert "' Rome.' (columns" in str(caught.value) or "'Rome.' (columns" in str(caught.value)
        assert "row 3" not in str(caught.value)  # the longest row has no pads
    with pytest.raises(probe.LabelsAreElsewhere):
        look(everything)


@pytest.mark.slow
@of("trainer")
def test_trainer_as_a_command(copied: Path, script: Script) -> None:
    """Two steps of training under left padding."""
    for package in ("torch", "transformers", "accelerate"):
        pytest.importorskip(package)
    (command,) = commands_of("trainer")
    environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = script(command, copied, environment)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^loss \d+\.\d+$", done.stdout, re.MULTILINE)
    assert (copied / "trained" / "model.safetensors").is_file()
    assert (copied / "trained" / "model.safetensors").read_bytes() != (copied / "gpt2" / "model.safetensors").read_bytes()


def test_the_probe_stops_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first step, with the weights as they were."""
    for package in ("torch", "transformers", "accelerate"):
        pytest.importorskip(package)
    import torch
    import transformers

    module(EXAMPLES / "trainer" / "probe.py", monkeypatch)
    train = module(EXAMPLES / "trainer" / "train.py", monkeypatch)
    model = transformers.AutoModelForCausalLM.from_pretrained(MODELS / "gpt2-facts")
    kept = {name: weight.clone() for name, weight in model.state_dict().items()}
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODELS / "gpt2-facts", padding_side="left")
    rows = [json.loads(line) for line in (EXAMPLES / "trainer" / "facts.jsonl").read_text("utf-8").splitlines()]
    collator = train.AnswersOnly(tokenizer)

    def counting(rows: Sequence[dict[str, str]]) -> Any:
        batch = collator(rows)
        for row, labels, ids in zip(rows, batch["labels"], batch["input_ids"], strict=True):
            start = len(tokenizer(row["prompt"])["input_ids"])
            labels[start:] = ids[start:]
        return batch

    settings = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, remove_unused_columns=False, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = transformers.Trainer(
        model=model,
        args=settings,
        train_dataset=rows,
        data_collator=counting,
        callbacks=[train.LabelProbe(tokenizer, counting, rows)],
    )
    with pytest.raises(ValueError, match=r"labels are on other tokens than the answers \(left padding\)"):
        trainer.train()
    assert trainer.state.global_step == 0
    assert all(torch.equal(weight, kept[name]) for name, weight in model.state_dict().items())
