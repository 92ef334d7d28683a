"""`preflight --fix`: writes what the editor can be told, looks again, and says "corrected" only then."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import padcheck
from padcheck.correcting import _config_edit
from tests.running import SHIPPED, TOKENIZERS, Ran, preflight, request, run, write_hparams, write_requests
from tests.texts import load

SCHEMA = json.loads((Path(padcheck.__file__).parent / "schemas" / "corrections.schema.json").read_text("utf-8"))
PLAIN = [
    request("The city of Paris is in", "Paris", "Japan", case_id="a"),
    request("The mother tongue of Marie Curie is", "Marie Curie", "Swedish", case_id="b"),
    request("What is the twin city of Lyon? It is", "Lyon", "Manila", case_id="c"),
]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def tokenizer_folder(tmp_path: Path, name: str, text: str | None = None) -> Path:
    """A copy of a fixture; `text`: its tokenizer_config.json to the letter."""
    folder = tmp_path / "tokenizer"
    shutil.copytree(TOKENIZERS / name, folder)
    if text is not None:
        (folder / "tokenizer_config.json").write_text(text, "utf-8", newline="")
    return folder


LEFT = """{
    "tokenizer_class": "GPT2Tokenizer",
  "chat_template": "{{ 'padding_side' }}: \\"padding_side\\": \\"left\\" é",
    "nested": {"padding_side": "left"},\t
    "padding_side" :   "left", "bos_token": "<|endoftext|>",
    "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
    "model_max_length": 1024   }

"""


@pytest.mark.parametrize("text", [LEFT, LEFT.replace("\n", "\r\n")], ids=["lf", "crlf"])
def test_the_side_is_mended_by_its_exact_span(tmp_path: Path, text: str) -> None:
    folder = tokenizer_folder(tmp_path, "gpt2-shape", text)
    hparams, requests = write_hparams(tmp_path), write_requests(tmp_path, PLAIN)
    before = snapshot(tmp_path)
    found = preflight(hparams, requests, folder)
    assert (found.code, found.json["verdict"]) == (1, "fail")
    assert snapshot(tmp_path) == before, "no file is touched unasked"

    ran = preflight(hparams, requests, folder, "--fix")
    assert ran.json["verdict"] == "corrected"
    mended = (folder / "tokenizer_config.json").read_bytes().decode()
    assert mended == text.replace('"padding_side" :   "left"', '"padding_side" :   "right"')
    changed = {name for name, content in snapshot(tmp_path).items() if before.get(name) != content}
    assert changed == {"tokenizer/tokenizer_config.json"}

    again = preflight(hparams, requests, folder)
    assert (again.code, again.json["verdict"], again.json["rows"]["drifting"]) == (0, "pass", 0)
    after = snapshot(tmp_path)
    preflight(hparams, requests, folder, "--fix")
    assert snapshot(tmp_path) == after, "a second --fix has nothing left to do"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"padding_side": "left"}', '{"padding_side": "right"}'),
        (
            '{"a": {"padding_side": "left"}, "padding_side": "left"}',
            '{"a": {"padding_side": "left"}, "padding_side": "right"}',
        ),
        ('{"a": "x", "b": [1, 2]}', '{"padding_side": "right", "a": "x", "b": [1, 2]}'),
        ('{\n  "a": 1\n}\n', '{\n  "padding_side": "right",\n  "a": 1\n}\n'),
        ("{}", None),
        ("{ }\n", None),
        ("{\n}\n", None),
        ('{"padding_side": "right", "padding_side": "left"}', '{"padding_side": "right", "padding_side": "right"}'),
        ('{"padding_side": null, "x": "}"}', '{"padding_side": "right", "x": "}"}'),
    ],
)
def test_an_edit_of_the_config(tmp_path: Path, before: str, after: str | None) -> None:
    path = tmp_path / "tokenizer_config.json"
    path.write_text(before, "utf-8")
    place, old, new = _config_edit(tmp_path, "right")
    assert (place, old) == (path, before)
    assert after is None or new == after
    assert json.loads(new) == {**json.loads(before), "padding_side": "right"}
    assert path.read_text("utf-8") == before


def test_a_folder_without_a_config_gets_one(tmp_path: Path) -> None:
    path, old, new = _config_edit(tmp_path, "right")
    assert (path, old, json.loads(new)) == (tmp_path / "tokenizer_config.json", "", {"padding_side": "right"})


def expected_columns(
    name: str, requests: list[dict[str, Any]], templates: list[str]
) -> dict[tuple[int, str, int, str], tuple[str, int, int, int]]:
    """PMET's columns of `subject_first` under right padding, by counting: (request, batch, row, kind) → (the row, the width, the
    editor's column, the true one). The editor counts from the padded row's end; the subject's first token is the one behind its prefix.
    """
    tokenizer = load(name)
    columns = {}

    def padded(index: int, batch: str, rows: list[tuple[str, str, str]]) -> None:
        width = max(len(tokenizer.encode(text).ids) for text, _, _ in rows)
        for number, (text, subject, kind) in enumerate(rows):
            start = text.index(subject)
            counted = width + len(tokenizer.encode(text[:start]).ids) - len(tokenizer.encode(text).ids)
            offsets = tokenizer.encode(text).offsets
            true = next(at for at, (first, last) in enumerate(offsets) if first <= start < last)
            if counted != true:
                columns[index, batch, number, kind] = text, width, counted, true

    for index, one in enumerate(requests):
        prompt, subject = one["prompt"], one["subject"]
        target = tokenizer.encode(" " + one["target_new"]).ids
        head = tokenizer.decode(target[:-1])
        assert tokenizer.encode(prompt + head).ids == tokenizer.encode(prompt).ids + target[:-1], "heads survive"
        texts = [template.format(prompt) for template in templates]
        lookups = [(text + head, subject, "lookup") for text in texts]
        padded(index, "optimise", [*lookups, (f"{subject} is a", subject, "kl")])
        padded(index, "keys", [(text, subject, "key") for text in texts])
        padded(index, "current", [(prompt, subject, "current")])
    return columns


TEMPLATES = ["{}", "Therefore. {}", "The old house by the river was quiet. {}"]


def test_corrections_row_by_row(tmp_path: Path) -> None:
    """EasyEdit counts labels from the row's start and subject_first from its end: right padding, and other columns."""
    hparams = write_hparams(tmp_path, "PMET", fact_token="subject_first")
    requests = write_requests(tmp_path, PLAIN)
    templates = tmp_path / "templates.txt"
    templates.write_text("\n".join(TEMPLATES) + "\n", "utf-8")
    before = snapshot(tmp_path)
    ran = preflight(hparams, requests, TOKENIZERS / "gpt2-shape", "--context-templates", templates, "--fix")
    report = ran.json
    assert report["verdict"] == "corrected"
    path = tmp_path / "requests.json.padcheck.json"
    assert {name for name, content in snapshot(tmp_path).items() if before.get(name) != content} == {path.name}

    corrections = json.loads(path.read_text("utf-8"))
    jsonschema.validate(corrections, SCHEMA)
    names = ("version", "framework", "method", "fact_token", "run", "padding_side", "templates")
    assert {name: corrections[name] for name in names} == {
        "version": 1,
        "framework": "easyedit",
        "method": "PMET",
        "fact_token": "subject_first",
        "run": "edit",
        "padding_side": "right",
        "templates": "given",
    }
    written = {
        (entry["request"], entry["batch"], entry["row"], entry["kind"]): (
            entry["text"],
            entry["width"],
            entry["from"],
            entry["to"],
        )
        for entry in corrections["corrections"]
    }
    expected = expected_columns("gpt2-shape", PLAIN, TEMPLATES)
    assert written == {
        key: (hashlib.sha256(text.encode()).hexdigest()[:16], width, counted, true)
        for key, (text, width, counted, true) in expected.items()
    }
    assert {key[3] for key in expected} == {"lookup", "kl", "key", "current"}
    assert {entry["case_id"] for entry in corrections["corrections"]} == {"a", "b", "c"}
    marks = ["\x1f".join((one["prompt"], one["subject"], one["target_new"])) for one in PLAIN]
    assert corrections["requests"] == [hashlib.sha256(mark.encode()).hexdigest()[:16] for mark in marks]

    first = snapshot(tmp_path)
    preflight(hparams, requests, TOKENIZERS / "gpt2-shape", "--context-templates", templates, "--fix")
    assert snapshot(tmp_path) == first


def test_a_side_that_no_file_can_tell_the_editor(tmp_path: Path) -> None:
    """EasyEdit pads PMET on the left by code. Right padding makes every position right, so the file names that side alone."""
    hparams, requests = write_hparams(tmp_path, "PMET"), write_requests(tmp_path, PLAIN)
    ran = preflight(hparams, requests, TOKENIZERS / "gpt2-shape", "--fix")
    assert ran.json["verdict"] == "corrected"
    corrections = json.loads((tmp_path / "requests.json.padcheck.json").read_text("utf-8"))
    jsonschema.validate(corrections, SCHEMA)
    assert (corrections["padding_side"], corrections["templates"]) == ("right", "stand-in")
    assert corrections["corrections"] == []


def test_without_the_runs_templates_only_rows_that_need_none_are_listed(tmp_path: Path) -> None:
    hparams = write_hparams(tmp_path, "PMET", fact_token="subject_first")
    ran = preflight(hparams, write_requests(tmp_path, PLAIN), TOKENIZERS / "gpt2-shape", "--fix")
    assert ran.json["verdict"] == "corrected"
    corrections = json.loads((tmp_path / "requests.json.padcheck.json").read_text("utf-8"))
    jsonschema.validate(corrections, SCHEMA)
    assert corrections["templates"] == "stand-in"
    assert corrections["corrections"]
    assert {entry["row"] == 0 or entry["kind"] == "kl" for entry in corrections["corrections"]} == {True}


def test_the_line_to_paste(tmp_path: Path) -> None:
    write_hparams(tmp_path, "PMET")
    write_requests(tmp_path, PLAIN)
    ran = run(
        "preflight",
        "pmet.yaml",
        "--requests",
        "requests.json",
        "--tokenizer",
        TOKENIZERS / "gpt2-shape",
        "--fix",
        cwd=tmp_path,
    )
    assert 'padcheck.guard(tokenizer, model=model, corrections="requests.json.padcheck.json")' in ran.out
    assert ran.out.startswith("CORRECTED")


def heads(name: str, one: dict[str, Any]) -> tuple[list[int], str]:
    """A target's ids as EasyEdit's ROME makes them, and the text that it appends to the prompt."""
    ids = load(name).encode(" " + one["target_new"], add_special_tokens=False).ids
    return ids, load(name).decode(ids[:-1], skip_special_tokens=False)


def without_bos(name: str, text: str) -> list[int]:
    return list(load(name).encode(text, add_special_tokens=False).ids)


def test_heads_of_sentencepiece_targets(tmp_path: Path) -> None:
    name = "llama2-metaspace"
    requests = [
        request("The twin city of Lyon is", "Lyon", "Manila and Rome", case_id=7),
        request("The city of Paris is in", "Paris", "Japan", case_id=8),
    ]
    ids, head = heads(name, requests[0])
    assert len(ids) > 1
    prompt = requests[0]["prompt"]
    assert without_bos(name, prompt + head) != without_bos(name, prompt) + ids[:-1], "decoding drops the space"
    hparams = write_hparams(tmp_path, model="./models/llama-2-7b")
    path = write_requests(tmp_path, requests)
    found = preflight(hparams, path, TOKENIZERS / name).json
    assert found["rows"]["by_cause"].keys() == {"retokenised"}
    ran = preflight(hparams, path, TOKENIZERS / name, "--fix")
    assert ran.json["verdict"] == "corrected"
    corrections = json.loads((tmp_path / "requests.json.padcheck.json").read_text("utf-8"))
    jsonschema.validate(corrections, SCHEMA)
    entries = [entry for entry in corrections["corrections"] if entry["kind"] == "head"]
    drifting = {number for number, one in enumerate(requests) if len(heads(name, one)[0]) > 1}
    assert {entry["request"] for entry in entries} == drifting
    for entry in entries:
        one = requests[entry["request"]]
        target, old = heads(name, one)
        assert entry["from"] == old
        assert without_bos(name, one["prompt"] + entry["to"]) == without_bos(name, one["prompt"]) + target[:-1]
        assert entry["case_id"] == one["case_id"]


def test_where_no_text_gives_the_right_ids_nothing_is_called_corrected(tmp_path: Path) -> None:
    """A head that ends inside a character: its bytes cannot be written as text."""
    hparams = write_hparams(tmp_path)
    path = write_requests(tmp_path, [request("The sign that Leo Tolstoy drew was", "Leo Tolstoy", "🖋")])
    report = preflight(hparams, path, TOKENIZERS / "gpt2-shape", "--fix").json
    assert report["verdict"] == "fail"
    assert report["rows"]["by_cause"].keys() == {"retokenised"}


@pytest.mark.parametrize("side", ["left", "right"])
def test_no_side_is_right_for_subject_first(tmp_path: Path, side: str) -> None:
    """EasyEdit counts subject_first from the row's end and the labels from its start."""
    hparams, requests = write_hparams(tmp_path, fact_token="subject_first"), write_requests(tmp_path, PLAIN)
    report = preflight(hparams, requests, TOKENIZERS / "gpt2-shape", "--padding-side", side).json
    no_side = next(item for item in report["findings"] if item["rule"] == "PAD105")
    assert report["verdict"] == "fail"
    assert "No padding side is right" in no_side["message"]
    assert "subject_first" in no_side["message"]
    assert no_side["evidence"]["needs_left"] > 0
    assert no_side["evidence"]["needs_right"] > 0
    ran = preflight(hparams, requests, TOKENIZERS / "gpt2-shape", "--padding-side", side, "--fix")
    assert ran.json["verdict"] == "corrected"
    corrections = json.loads((tmp_path / "requests.json.padcheck.json").read_text("utf-8"))
    jsonschema.validate(corrections, SCHEMA)
    assert corrections["padding_side"] == "right", "the label slots cannot be moved"
    assert {entry["kind"] for entry in corrections["corrections"]} <= {"lookup", "kl", "key", "value", "current"}


def test_a_diff_writes_nothing(tmp_path: Path) -> None:
    folder = tokenizer_folder(tmp_path, "gpt2-shape", LEFT)
    requests = write_requests(tmp_path, PLAIN)
    for method in ("ROME", "PMET"):
        hparams = write_hparams(tmp_path, method)
        before = snapshot(tmp_path)
        for more in (("--diff",), ("--diff", "--fix")):
            ran = preflight(hparams, requests, folder, *more)
            assert snapshot(tmp_path) == before
            assert ran.json["verdict"] == "fail"
            assert ran.code == 1


def test_a_run_that_is_right_is_left_alone(tmp_path: Path) -> None:
    hparams, requests = write_hparams(tmp_path), write_requests(tmp_path, PLAIN)
    before = snapshot(tmp_path)
    ran = preflight(hparams, requests, TOKENIZERS / "gpt2-shape", "--fix")
    assert (ran.code, ran.json["verdict"]) == (0, "pass")
    assert snapshot(tmp_path) == before


def test_other_errors_keep_the_verdict(tmp_path: Path) -> None:
    """Columns can be corrected, a subject that is not in its prompt cannot."""
    hparams = write_hparams(tmp_path, "PMET")
    requests = write_requests(tmp_path, [*PLAIN, request("The capital of Spain is", "Portugal")])
    report = preflight(hparams, requests, TOKENIZERS / "gpt2-shape", "--fix").json
    assert report["verdict"] == "fail"
    assert (tmp_path / "requests.json.padcheck.json").is_file()


def test_a_stated_side_is_not_written_to_the_folder(tmp_path: Path) -> None:
    """`--padding-side left` is what the caller's code does: tokenizer_config.json would not change it, a guard does."""
    folder = tokenizer_folder(tmp_path, "gpt2-shape")
    before = snapshot(folder)
    ran = preflight(write_hparams(tmp_path), write_requests(tmp_path, PLAIN), folder, "--padding-side", "left", "--fix")
    assert snapshot(folder) == before
    assert ran.json["verdict"] == "corrected"
    assert json.loads((tmp_path / "requests.json.padcheck.json").read_text("utf-8"))["padding_side"] == "right"


@pytest.mark.parametrize(
    "name", ["gpt2-shape", "llama2-metaspace", "llama2-prepend", "qwen-shape", "t5-shape", "llama3-shape"]
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_probes_are_corrected_or_said_not_to_be(tmp_path: Path, name: str, side: str) -> None:
    """ "corrected" where every drifting row has an entry; else the verdict stays, and the file still holds what can be told."""
    hparams = write_hparams(tmp_path, "MEMIT", model="./models/opt", batch_size=4)
    requests = tmp_path / "english.json"
    shutil.copy(SHIPPED / "probes" / "english.json", requests)
    arguments = (hparams, requests, TOKENIZERS / name, "--passed-in", "--padding-side", side, "--run", "batch")
    ran: Ran = preflight(*arguments, "--fix")
    written = tmp_path / "english.json.padcheck.json"
    report = ran.json
    if report["rows"]["drifting"] == 0:
        assert not written.exists()
        return
    assert report["verdict"] in {"corrected", "fail"}
    corrections = json.loads(written.read_text("utf-8"))
    jsonschema.validate(corrections, SCHEMA)
    keys = [(entry["request"], entry["batch"], entry["row"], entry["kind"]) for entry in corrections["corrections"]]
    assert len(keys) == len(set(keys))
    assert corrections["corrections"] or corrections["padding_side"] != side


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The corrections have no place: an error with the path, exit code 2, and the findings are there all the same."""
    requests = write_requests(tmp_path, PLAIN)
    (tmp_path / "requests.json.padcheck.json").mkdir()  # even root cannot replace a folder by a file
    ran = preflight(write_hparams(tmp_path, "PMET"), requests, TOKENIZERS / "gpt2-shape", "--fix")
    assert ran.code == 2
    report = ran.json
    assert [error["path"].endswith("requests.json.padcheck.json") for error in report["errors"]] == [True]
    assert report["verdict"] != "corrected"
    assert report["findings"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pmet.yaml", "requests.json", "requests.json.padcheck.json"]
