"""`padcheck.integrations.easyedit.guarded`, and the reports against their published schemas."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest

import padcheck
from padcheck import DriftError, DriftWarning
from padcheck.integrations.easyedit import guarded
from tests.guarding.foreign.house.editors.editor import BaseEditor
from tests.guarding.foreign.house.tape import Tape
from tests.guarding.kit import REQUESTS, hparams, tokenizer

SCHEMAS = Path(padcheck.__file__).parent / "schemas"
LISTS = [[one[key] for one in REQUESTS] for key in ("prompt", "target_new", "subject")]


def valid(report: dict[str, Any], name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(json.dumps(report)), schema)


def editor_of(method: str = "ROME", side: str = "left", **more: Any) -> Any:
    tok = tokenizer(side=side)
    return BaseEditor(Tape(tok), tok, hparams(method, **more))


def on_tokens(model: Tape) -> bool:
    return bool(model.labels) and all(behind == target for behind, target in model.labels)


@pytest.mark.parametrize("sequential", [False, True])
def test_edit_is_covered(rome: Any, sequential: bool, tmp_path: Path) -> None:
    editor = editor_of()
    path = tmp_path / "run.json"
    mine = guarded(editor, report=path)
    numbers = mine.edit(*LISTS, sequential_edit=sequential)
    assert len(numbers) == len(REQUESTS)
    assert on_tokens(editor.model)
    report = json.loads(path.read_text("utf-8"))
    valid(report, "guard-runs")
    assert report == json.loads(json.dumps(mine.padcheck_report))
    (run,) = report["runs"]
    assert (run["function"], run["method"], run["sequential"], run["stopped"]) == (
        "BaseEditor.edit",
        "ROME",
        sequential,
        None,
    )
    assert (run["outcome"], run["policy"]) == ("corrected", "correct")
    assert run["tokenizer"]["class"] == type(editor.tok).__name__
    assert run["tokenizer"]["padding_side"] == "left"
    sides = {(entry["asked"], entry["used"]) for site in run["sites"] for entry in site["padding_side"]}
    assert sides == {("left", "right")}
    assert all("compute_v.py" in entry["because"] or "repr_tools" in entry["because"] or "generate" in entry["because"]
               for site in run["sites"] for entry in site["padding_side"])  # fmt: skip
    assert run["requests"]["drifting"] == len(REQUESTS)
    assert set(report["versions"]) == {"python", "padcheck", "transformers", "tokenizers", "torch"}


def test_batch_edit_and_edit_requests_are_covered(rome: Any) -> None:
    editor = editor_of("MEMIT")
    mine = guarded(editor)
    mine.batch_edit(LISTS[0], LISTS[1], subject=LISTS[2])
    assert on_tokens(editor.model)
    mine.edit_requests([dict(REQUESTS[0])])
    assert [run["function"] for run in mine.padcheck_report["runs"]] == ["BaseEditor.batch_edit", "BaseEditor.edit_requests"]
    assert {run["outcome"] for run in mine.padcheck_report["runs"]} == {"corrected"}
    valid(mine.padcheck_report, "guard-runs")


def test_fail_stops_before_the_first_forward_pass_and_is_reported(rome: Any, tmp_path: Path) -> None:
    editor = editor_of()
    path = tmp_path / "run.json"
    mine = guarded(editor, policy="fail", report=path)
    with pytest.raises(DriftError):
        mine.edit(*LISTS)
    assert editor.model.forwards == 0
    (run,) = json.loads(path.read_text("utf-8"))["runs"]
    assert run["stopped"].startswith("DriftError: EasyEdit, ROME")
    assert "\n" not in run["stopped"]
    valid(json.loads(path.read_text("utf-8")), "guard-runs")


def test_it_is_the_editor_in_everything_else() -> None:
    editor = editor_of()
    mine = guarded(editor)
    assert isinstance(mine, BaseEditor)
    assert (mine.tok, mine.model, mine.hparams) == (editor.tok, editor.model, editor.hparams)
    mine.alg_name = "other"
    assert editor.alg_name == "other"
    del mine.alg_name
    assert not hasattr(editor, "alg_name")
    assert mine.edit.__name__ == "edit"
    assert "guarded(" in repr(mine)
    with pytest.raises(AttributeError, match="no_such"):
        mine.no_such  # noqa: B018
    assert copy.copy(mine).tok is editor.tok
    assert type(editor).edit is BaseEditor.edit, "the editor itself is left as it is"


def test_a_tokenizer_that_is_exchanged_between_runs(rome: Any) -> None:
    editor = editor_of()
    mine = guarded(editor)
    mine.edit(*LISTS)
    editor.tok = editor.model.tok = tokenizer("llama3-shape", "left")
    rome.CONTEXT_TEMPLATES_CACHE = None
    mine.edit(*LISTS)
    assert [run["tokenizer"]["name_or_path"].endswith("llama3-shape") for run in mine.padcheck_report["runs"]] == [
        False,
        True,
    ]


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="needs a BaseEditor"):
        guarded(object())
    with pytest.raises(ValueError, match="policy"):
        guarded(editor_of(), policy="mend")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be read"):
        guarded(editor_of(), corrections=tmp_path / "none.json")


class Plain:
    """An editor whose runs end at once, with `answer` or, if it is an error, by it."""

    alg_name = "ROME"
    model = None

    def __init__(self, answer: Any) -> None:
        self.tok = tokenizer()
        self.answer = answer

    def edit(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_place_where_no_report_can_be_written_is_said_before_the_run(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none" / "run.json", "no folder"), (tmp_path, "is a folder")):
        with pytest.raises(ValueError, match=why):
            guarded(Plain(1), report=path)


def test_a_report_that_cannot_be_written_costs_no_edit(tmp_path: Path) -> None:
    """The folder goes away while the edit runs. Neither its result nor its error is lost, even where warnings are errors."""
    folder = tmp_path / "runs"
    folder.mkdir()
    fine, broken = Plain("metrics"), Plain(ValueError("the real error"))
    mine = guarded(fine, report=folder / "run.json")
    other = guarded(broken, report=folder / "run.json")
    folder.rmdir()
    with pytest.warns(DriftWarning, match="was not written"):
        assert mine.edit() == "metrics"
    assert len(mine.padcheck_report["runs"]) == 1
    for action in ("error", "ignore"):
        with warnings.catch_warnings():
            warnings.simplefilter(action)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="the real error"):
                other.edit()


def test_it_can_be_pickled() -> None:
    mine = guarded(Plain("metrics"), policy="fail")
    mine.edit()
    for made in (pickle.loads(pickle.dumps(mine)), copy.deepcopy(mine)):
        assert made.edit() == "metrics"
        assert [run["policy"] for run in made.padcheck_report["runs"]] == ["fail", "fail"]
        assert made.tok is not mine.tok
    assert len(mine.padcheck_report["runs"]) == 1


@pytest.mark.parametrize("policy", ["correct", "warn"])
@pytest.mark.filterwarnings("ignore::padcheck.DriftWarning")
def test_the_report_of_a_guard(rome: Any, policy: Any) -> None:
    tok = tokenizer(side="left")
    with padcheck.guard(tok, policy=policy) as watch:
        valid(watch.report(), "guard")
        rome.execute_rome(Tape(tok), tok, {**REQUESTS[0], "case_id": "a"}, hparams())
        tok(["a b", "a"], padding=True)
    valid(watch.report(), "guard")
    assert watch.report()["outcome"] == ("corrected" if policy == "correct" else "drift")


def test_it_loads_neither_torch_nor_transformers_by_itself() -> None:
    import subprocess
    import sys

    program = (
        "import sys, padcheck.integrations.easyedit, padcheck; padcheck.guard;"
        "print(*sorted({'torch', 'transformers', 'numpy', 'jsonschema'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
