"""`corrections=PATH`: what `padcheck preflight --fix` wrote is done, and what contradicts it is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import padcheck
from padcheck import DriftError
from tests.guarding.foreign.house.editors.editor import BaseEditor
from tests.guarding.foreign.house.tape import Tape
from tests.guarding.kit import REQUESTS, TEMPLATES, hparams, tokenizer
from tests.running import TOKENIZERS, preflight, write_hparams, write_requests

NAME = "llama3-shape"


def written(
    folder: Path,
    method: str = "ROME",
    fact_token: str = "subject_last",
    *,
    given: bool = True,
    name: str = NAME,
    side: str = "left",
) -> Path:
    """The corrections of a run of the house editor, as the command writes them."""
    requests = write_requests(folder, [dict(one, case_id=number) for number, one in enumerate(REQUESTS)])
    file = write_hparams(folder, method, fact_token=fact_token)
    templates = folder / "templates.txt"
    templates.write_text("\n".join(TEMPLATES) + "\n", "utf-8")
    more = ("--context-templates", templates) if given else ()
    run = ("--run", "batch") if method == "MEMIT" else ()
    ran = preflight(file, requests, TOKENIZERS / name, "--passed-in", "--padding-side", side, *more, *run, "--fix")
    assert ran.json["verdict"] == "corrected", ran.err
    return folder / "requests.json.padcheck.json"


def edited(
    rome: Any, path: Path | None, fact_token: str, *, name: str = NAME, side: str = "left", given: bool = True
) -> list[Tape]:
    """The requests edited one by one under a guard: with the corrections, or with policy "correct"."""
    tok = tokenizer(name, side)
    tapes = []
    with padcheck.guard(tok, corrections=path) as watch:
        for request in REQUESTS:
            rome.CONTEXT_TEMPLATES_CACHE = list(TEMPLATES) if given else None
            model = Tape(tok)
            rome.execute_rome(model, tok, request, hparams(fact_token=fact_token))
            tapes.append(model)
    assert watch.report()["outcome"] in {"right", "corrected"}
    assert watch.report()["corrections"] == (None if path is None else path.as_posix())
    return tapes


def seen(tapes: list[Tape]) -> Any:
    return [(model.reads, model.labels) for model in tapes]


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    data = json.loads(path.read_text("utf-8"))
    change(data)
    path.write_text(json.dumps(data), "utf-8")
    return path


@pytest.mark.parametrize("given", [True, False], ids=["templates", "stand-ins"])
@pytest.mark.parametrize("fact_token", ["subject_last", "subject_first"])
def test_the_run_is_the_corrected_one(rome: Any, tmp_path: Path, fact_token: str, given: bool) -> None:
    path = written(tmp_path, fact_token=fact_token, given=given)
    obeyed, correct = edited(rome, path, fact_token, given=given), edited(rome, None, fact_token, given=given)
    assert seen(obeyed) == seen(correct)
    assert not any(token == "<|pad|>" for model in obeyed for _, _, token in model.reads)


def test_a_batch(tmp_path: Path, rome: Any) -> None:
    path = written(tmp_path, "MEMIT", "subject_first")
    tok = tokenizer(NAME)
    model = Tape(tok)
    editor = BaseEditor(model, tok, hparams("MEMIT", "subject_first", batch_size=8))
    with padcheck.guard(tok, corrections=path):
        editor.batch_edit(
            [one["prompt"] for one in REQUESTS],
            [one["target_new"] for one in REQUESTS],
            subject=[one["subject"] for one in REQUESTS],
        )
    assert model.labels


def test_heads(tmp_path: Path, rome: Any) -> None:
    path = written(tmp_path, name="llama2-metaspace", side="right")
    entries = json.loads(path.read_text("utf-8"))["corrections"]
    assert {entry["kind"] for entry in entries} == {"head"}
    obeyed = edited(rome, path, "subject_last", name="llama2-metaspace", side="right")
    assert all(behind == target for model in obeyed for behind, target in model.labels)

    def other(data: dict[str, Any]) -> None:
        data["corrections"][0]["from"] = "something else"

    with pytest.raises(DriftError, match="the target's head was decoded to 'something else'"):
        edited(rome, changed(path, other), "subject_last", name="llama2-metaspace", side="right")


def test_a_request_that_the_file_does_not_hold(tmp_path: Path, rome: Any) -> None:
    path = written(tmp_path)
    tok = tokenizer(NAME)
    model = Tape(tok)
    for strange in ({**REQUESTS[0], "target_new": "French"}, {**REQUESTS[0], "prompt": "Danielle Darrieux speaks"}):
        with pytest.raises(DriftError, match="does not hold the request"), padcheck.guard(tok, corrections=path):
            rome.execute_rome(model, tok, strange, hparams())
    assert model.forwards == 0


def test_another_run_than_the_one_that_was_checked(tmp_path: Path, rome: Any) -> None:
    path = written(tmp_path)
    tok = tokenizer(NAME)
    with (
        pytest.raises(DriftError, match="fact_token 'subject_last', and this run has 'subject_first'"),
        padcheck.guard(tok, corrections=path),
    ):
        rome.execute_rome(Tape(tok), tok, REQUESTS[0], hparams(fact_token="subject_first"))
    editor = BaseEditor(Tape(tok), tok, hparams("MEMIT"))
    with pytest.raises(DriftError, match="method 'ROME', and this run has 'MEMIT'"), padcheck.guard(tok, corrections=path):
        editor.edit(*([one[key] for one in REQUESTS] for key in ("prompt", "target_new", "subject")))


def test_other_templates_than_those_that_were_given(tmp_path: Path, rome: Any) -> None:
    path = written(tmp_path, fact_token="subject_first")
    with pytest.raises(DriftError, match="other requests or other templates"):
        edited(rome, path, "subject_first", given=False)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [("from", 1, "the editor's column was 1 when the file was written"), ("to", 3, "the column to use is 3 by the file")],
)
def test_columns_that_are_not_those_of_the_run(tmp_path: Path, rome: Any, key: str, value: int, what: str) -> None:
    path = written(tmp_path, fact_token="subject_first")

    def other(data: dict[str, Any]) -> None:
        for entry in data["corrections"]:
            if entry["kind"] == "key" and entry["row"] == 2:
                entry[key] = value

    with pytest.raises(DriftError, match=what):
        edited(rome, changed(path, other), "subject_first")


def test_a_side_that_is_wrong_for_this_editor(tmp_path: Path, rome: Any) -> None:
    path = written(tmp_path)

    def left(data: dict[str, Any]) -> None:
        data["padding_side"] = "left"

    with pytest.raises(DriftError, match="is not the true one"):
        edited(rome, changed(path, left), "subject_last", side="right")


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "key missing": (lambda data: data.pop("padding_side"), "the file lacks padding_side"),
    "unknown key": (lambda data: data.update(side="left"), "an unknown key side"),
    "side": (lambda data: data.update(padding_side="middle"), "padding_side is 'middle'"),
    "version": (lambda data: data.update(version=2), "version 2"),
    "type": (lambda data: data.update(requests="all"), "requests is of the wrong type"),
    "entry": (lambda data: data["corrections"].append(7), r"corrections\[\d+\] is no object"),
    "entry key": (lambda data: data["corrections"][0].pop("to"), r"corrections\[0\] lacks to"),
    "entry type": (lambda data: data["corrections"][0].update(to="x"), r"corrections\[0\].to is of the wrong type"),
    "request": (lambda data: data["corrections"][0].update(request=99), "names request 99 of 3"),
    "mark": (lambda data: data["requests"].append(3), "something else than digests"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_files_that_are_no_corrections(tmp_path: Path, case: str) -> None:
    path = written(tmp_path, fact_token="subject_first")
    change, what = BROKEN[case]
    with pytest.raises(ValueError, match=what) as caught:
        padcheck.guard(tokenizer(NAME), corrections=changed(path, change))
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    assert "preflight --fix" in text


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{", "utf-8")
    (tmp_path / "b.json").write_text("[]", "utf-8")
    for name, what in (
        ("a.json", "no JSON"),
        ("b.json", "the file is no object"),
        ("c.json", "cannot be read"),
        (".", "cannot be read"),
    ):
        with pytest.raises(ValueError, match=what):
            padcheck.guard(tokenizer(NAME), corrections=tmp_path / name)
