"""The matrix: what padcheck says equals, row by row, a literal re-enactment of the editor on the padded batch.

Fixture tokenizers × frameworks and methods × {left, right} × fact tokens × run modes × requests. The re-enactment
(`tests/reenactment`) imports nothing from padcheck. Broken copies of it must fail the same comparison, so that the
comparison is known to be able to fail.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from padcheck.passes import run_pass
from padcheck.planning import Options, settle
from padcheck.sources.hparams import Hparams
from padcheck.sources.tokenizer_folder import TokenizerFolder, open_tokenizer
from tests.reenactment import BATCH_EDIT, METHODS, Fast, SpecialTokens, reenact

SHIPPED = Path(__file__).parent.parent / "fixtures" / "shipped"
TOKENIZERS = sorted(path.name for path in (SHIPPED / "tokenizers").iterdir() if path.is_dir())
TEMPLATES = ["{}", "Therefore. {}", "The old house by the river was quiet. {}"]
FACT_TOKENS = ("subject_last", "subject_first", "subject_first_after_last", "last")
HONEST = [name for name in TOKENIZERS if not name.startswith("lying-")]
NOT_EDITS = {
    "IKE": "edits no weights and forwards one row at a time",
    "KE": "EasyEdit ships hparams for it but no algorithm",
    "SERAC": "its edit stores text and reads no token",
}
ON_QUESTIONS = frozenset({"UnKE", "UnKE_ARE", "FT_uns", "LoRA_uns"})


@dataclass
class Comparison:
    """What was compared, and what differs."""

    rows: int = 0
    drifting: int = 0
    unknown: int = 0
    missed: list[Any] = field(default_factory=list)
    accused: list[Any] = field(default_factory=list)
    other: list[Any] = field(default_factory=list)

    @property
    def differences(self) -> int:
        return len(self.missed) + len(self.accused) + len(self.other)


def probes(step: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted((SHIPPED / "probes").glob("*.json")):
        found += json.loads(path.read_text("utf-8"))
    extra = {
        "loc_prompt": "who was the first to sing this song? A singer",
        "ground_truth": "Something",
        "target_neg": "Nothing",
        "locality": {"general knowledge constraint": {"prompt": "What is it?", "ground_truth": "It is a thing."}},
    }
    return [{**request, **extra} for request in found[::step]]


def shaped(requests: list[dict[str, Any]], framework: str, method: str) -> list[dict[str, Any]]:
    """The requests as files of this framework hold them."""
    result = []
    for request in requests:
        request = dict(request)
        literal = request["prompt"].replace("{}", request["subject"])
        request["question"], request["answer"] = literal, request["target_new"]
        if method in ON_QUESTIONS:
            request["prompt"] = literal
        elif framework != "easyedit" and "{}" not in request["prompt"]:
            request["prompt"] = request["prompt"].replace(request["subject"], "{}")
        if framework == "fastedit":
            request["target"] = request.pop("target_new")
        result.append(request)
    return result


def settings(framework: str, method: str) -> Iterator[tuple[str, str, str, str | None]]:
    """(side, fact_token, run, objective) of one method."""
    facts: tuple[str, ...] = FACT_TOKENS
    objectives: tuple[str | None, ...] = (None,)
    if method.startswith("FT"):
        facts, objectives = ("subject_last",), ("prompt_last", "target_new")
    if method == "WISE":
        objectives = ("only_label",)
    batchable = framework != "easyedit" or method in BATCH_EDIT | ON_QUESTIONS | {"MALMEN"}
    runs = ("edit", "batch") if batchable else ("edit", "sequential")
    yield from itertools.product(("left", "right"), facts, runs, objectives)


def compare(
    folder: TokenizerFolder,
    framework: str,
    method: str,
    requests: list[dict[str, Any]],
    broken: Any = None,
    only: str | None = None,
) -> Comparison:
    """Both sides on the same tokenizer, row by row."""
    reader: Any = folder.reader
    pad = folder.pad_id if folder.pad_id is not None else (folder.eos_id or 0)
    special = SpecialTokens(folder.bos_id, folder.eos_id, folder.unk_id, pad)
    public = Fast(reader.tokenizer, special, clean_up=reader._tidy, class_name=folder.class_name, bos_switch=False)
    result = Comparison()
    given = shaped(requests, framework, method)
    for side, fact_token, run, objective in settings(framework, method):
        if only is not None and fact_token != only:
            continue
        hparams: dict[str, Any] = {"fact_token": fact_token, "batch_size": 4, "max_length": 40, "base_method": "ROME"}
        if framework == "easyedit":
            hparams |= {"alg_name": method, "model_name": "x/gpt-llama"}
        if objective:
            hparams["objective_optimization"] = objective
        theirs = reenact(
            public, framework=framework, method=method, fact_token=fact_token, side=side, run=run, requests=given,
            templates=TEMPLATES, batch_size=4 if run == "batch" else None, objective=objective, hparams=hparams, broken=broken,
        )  # fmt: skip
        options = Options(
            framework=framework, method=method, padding_side=side, run=run, batch_size=4, context_templates=TEMPLATES
        )
        plan = settle(Hparams("<hparams>", hparams), folder, options)
        ours: dict[tuple[int, str, int, str], dict[str, Any]] = {}

        def keep(record: dict[str, Any], ours: dict[Any, Any] = ours) -> None:
            ours[record["request"], record["batch"], record["row"], record["kind"]] = record

        outcome = run_pass(plan, given, plan.templates, rows_out=keep)
        stopped = {index for index, state in enumerate(outcome.drifting) if state == 2}
        expected = {
            (row.request, row.batch, row.row, "key" if (row.batch, row.kind) == ("train", "lookup") else row.kind): row
            for row in theirs.rows
            if _comparable(method, row)
        }
        flagged = {key[0] for key, record in ours.items() if record["causes"]} | stopped
        for key in sorted(expected.keys() | ours.keys()):
            row, record = expected.get(key), ours.get(key)
            where = (framework, method, side, fact_token, run, objective, key)
            result.rows += 1
            if row is None:
                # The editor stops at this request: it must be flagged, its rows do not matter.
                if key[0] not in theirs.raised or (key[0] not in flagged and _loud(theirs.raised[key[0]])):
                    result.other.append(("only padcheck has this row", where, record, theirs.raised.get(key[0])))
                continue
            if record is None:
                if key[0] not in stopped:
                    result.missed.append(("padcheck has no such row", where, row))
                continue
            result.drifting += row.drifts
            drifts = bool(record["causes"])
            if row.drifts and not drifts:
                if record["truth"] is None:
                    result.unknown += 1  # padcheck says that no oracle can be trusted in this row
                else:
                    result.missed.append((where, row, record))
            elif drifts and not row.drifts:
                result.accused.append((where, row, record))
            elif row.editor != record["editor"]:
                result.other.append(("another column", where, row, record))
            elif record["kind"] != "label" and None not in (row.truth, record["truth"]) and row.truth != record["truth"]:
                result.other.append(("another truth", where, row, record))
    return result


def _comparable(method: str, row: Any) -> bool:
    if method == "DPO":
        return bool(row.row == 0)  # row 1 is the rejected target, built in the same way
    if method.startswith("UnKE"):
        # Their labels are appended as ids and cannot shift; UnKE_ARE's z is computed window by window, one row each.
        return row.kind != "label" and not (method == "UnKE_ARE" and row.batch == "optimise")
    return True


def _loud(reason: str) -> bool:
    """Whether a reason for which the re-enactment has no rows is the editor's crash on this request."""
    return not any(word in reason for word in ("fewer requests", "never comes"))


@pytest.fixture(scope="module")
def folders() -> dict[str, TokenizerFolder]:
    return {name: open_tokenizer(SHIPPED / "tokenizers" / name, generation=5) for name in TOKENIZERS}


@pytest.mark.parametrize("framework", sorted(METHODS))
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_every_row_equals_the_reenactment(tokenizer: str, framework: str, folders: dict[str, TokenizerFolder]) -> None:
    total = Comparison()
    for method in METHODS[framework]:
        if framework == "easyedit" and (method in NOT_EDITS or (method == "DPO" and tokenizer.startswith("lying-"))):
            continue  # DPO reads its labels from the offsets themselves: where those lie, both sides only repeat the lie
        found = compare(folders[tokenizer], framework, method, probes(13))
        total.rows += found.rows
        total.drifting += found.drifting
        total.unknown += found.unknown
        total.missed += found.missed
        total.accused += found.accused
        total.other += found.other
    assert total.rows > 300
    assert total.drifting > 50
    if tokenizer in HONEST:
        assert total.unknown <= 0.02 * total.rows
    assert not total.missed, total.missed[0]
    assert not total.accused, total.accused[0]
    assert not total.other, total.other[0]


@pytest.mark.parametrize(
    ("broken", "tokenizer", "only"),
    [
        ("pads_off_by_one", "gpt2-shape", "subject_last"),
        ("bos_forgotten", "llama3-shape", "subject_last"),
        ("first_byte_token", "gpt2-shape", "subject_last"),
    ],
)
def test_a_broken_copy_fails_the_comparison(
    broken: str, tokenizer: str, only: str, folders: dict[str, TokenizerFolder]
) -> None:
    assert compare(folders[tokenizer], "easyedit", "MEMIT", probes(5), None, only).differences == 0
    assert compare(folders[tokenizer], "easyedit", "MEMIT", probes(5), broken, only).differences > 0
