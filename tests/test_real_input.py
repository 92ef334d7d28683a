"""The issue's real input: GPT-2's and Mistral's tokenizers, and 500 requests of CounterFact. Figures are exact.

What the figures should be is worked out here from the tokenizers alone (one or more tokens in a target, does it survive decoding),
not taken from a report.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.running import ROOT, Ran, preflight, rules_of, run_installed, write_hparams, write_requests

SHARED = ROOT.parent / "shared"
REQUESTS = SHARED / "data" / "counterfact_500.json"

pytestmark = pytest.mark.skipif(not REQUESTS.is_file(), reason="no real tokenizers and requests in ../shared")


@cache
def records() -> list[dict[str, Any]]:
    return list(json.loads(REQUESTS.read_text("utf-8")))


def tokenizer(name: str) -> Any:
    return Tokenizer.from_file(str(SHARED / "tokenizers" / name / "tokenizer.json"))


def check(
    folder: Path, name: str, *more: str | Path, method: str = "ROME", model: str = "gpt2-xl", requests: Path = REQUESTS
) -> Ran:
    return preflight(write_hparams(folder, method, model), requests, SHARED / "tokenizers" / name, *more)


def ids(report: dict[str, Any]) -> set[Any]:
    return set(report["requests"]["drifting_ids"])


def test_gpt2_on_the_right_passes(tmp_path: Path) -> None:
    ran = check(tmp_path, "gpt2")
    assert (ran.code, ran.err) == (0, "")
    report = ran.json
    assert report["verdict"] == "pass"
    assert report["requests"] == {"checked": 500, "drifting": 0, "drifting_ids": []}
    assert report["rows"]["drifting"] == 0
    assert rules_of(report, "error") == set()
    assert report["errors"] == []
    # (21 rows + KL) lookups, 21 labels, 21 keys and one value for each request
    assert report["rows"]["checked"] == 500 * (22 + 21 + 21 + 1)


def test_gpt2_on_the_left_fails(tmp_path: Path) -> None:
    ran = check(tmp_path, "gpt2", "--padding-side", "left")
    assert ran.code == 1
    report = ran.json
    assert report["verdict"] == "fail"
    assert report["requests"]["drifting"] == report["requests"]["checked"] == 500
    assert ids(report) == {record["case_id"] for record in records()}
    assert set(report["rows"]["by_cause"]) == {"pads"}
    assert rules_of(report, "error") == {"PAD101", "PAD102", "PAD103", "PAD104"}


def several_tokens() -> set[Any]:
    """The requests whose target, with the space that the editor puts before it, is more than one of Mistral's tokens."""
    mistral = tokenizer("mistral-v1")
    return {
        record["case_id"]
        for record in records()
        if len(mistral.encode(" " + record["target_new"].lstrip(), add_special_tokens=False).ids) > 1
    }


@pytest.mark.parametrize("generation", ["4", "5"])
def test_mistral_on_the_right(tmp_path: Path, generation: str) -> None:
    expected = several_tokens()
    assert len(expected) == 177
    ran = check(tmp_path, "mistral-v1", "--transformers", generation, model="mistral-7b")
    assert ran.code == 1
    report = ran.json
    assert ids(report) == expected
    assert report["requests"]["drifting"] == 177
    assert report["rows"]["drifting"] == 177 * 21  # every row that holds the target's head, and nothing else
    assert set(report["rows"]["by_cause"]) == {"retokenised"}
    assert rules_of(report, "error") == {"TGT101"}


@pytest.mark.parametrize(("generation", "drifting"), [("5", 177), ("4", 500)])
def test_the_hub_shape_differs_by_generation(tmp_path: Path, generation: str, drifting: int) -> None:
    ran = check(tmp_path, "mistral-v1-hub-shape", "--transformers", generation, model="mistral-7b")
    report = ran.json
    assert report["requests"]["drifting"] == drifting
    if drifting == 177:
        assert ids(report) == several_tokens()
    assert report["rows"]["drifting"] == drifting * 21
    assert set(report["rows"]["by_cause"]) == {"retokenised"}
    # Generation 4 also trains a bare ▁ that running text does not have there.
    assert rules_of(report, "error") == ({"TGT101"} if generation == "5" else {"TGT101", "TGT102"})


def test_the_hub_shape_as_it_stands_is_what_generation_4_reads() -> None:
    """With Prepend ▁ the space before the target becomes a ▁ of its own: two tokens at least, and its head is not read back."""
    hub = tokenizer("mistral-v1-hub-shape")
    for record in records():
        target = hub.encode(" " + record["target_new"].lstrip(), add_special_tokens=False).ids
        assert len(target) > 1
        prompt = record["prompt"]
        row = hub.encode(prompt + hub.decode(target[:-1])).ids
        assert row != hub.encode(prompt).ids + target[:-1]


def test_mistral_on_the_left_adds_the_pads_to_the_177(tmp_path: Path) -> None:
    report = check(tmp_path, "mistral-v1", "--padding-side", "left", model="mistral-7b").json
    assert report["requests"]["drifting"] == 500
    assert set(report["rows"]["by_cause"]) == {"pads", "retokenised"}


def test_rows_of_equal_length_do_not_drift_on_the_left(tmp_path: Path) -> None:
    """One request, a one-token target, no templates but the bare prompt: only the KL row could be padded, and it is as long."""
    gpt2 = tokenizer("gpt2")
    prompt, subject, target = "Danielle Darrieux was born", "Danielle Darrieux", "English"
    assert len(gpt2.encode(" " + target).ids) == 1
    assert len(gpt2.encode(prompt).ids) == len(gpt2.encode(f"{subject} is a").ids)
    requests = write_requests(tmp_path, [{"prompt": prompt, "subject": subject, "target_new": target}])
    templates = tmp_path / "templates.txt"
    templates.write_text("{}\n", "utf-8")
    ran = check(tmp_path, "gpt2", "--padding-side", "left", "--context-templates", templates, requests=requests)
    assert ran.code == 0
    report = ran.json
    assert report["verdict"] == "pass"
    assert report["rows"]["drifting"] == 0
    assert report["requests"] == {"checked": 1, "drifting": 0, "drifting_ids": []}
    # One word more in the prompt, and the KL row gets a pad.
    longer = write_requests(tmp_path, [{"prompt": prompt + " in", "subject": subject, "target_new": target}], "longer.json")
    report = check(tmp_path, "gpt2", "--padding-side", "left", "--context-templates", templates, requests=longer).json
    assert report["rows"]["by_cause"] == {"pads": 1}


def test_fastedit_on_the_left_passes(tmp_path: Path) -> None:
    hparams = tmp_path / "fastedit.json"
    hparams.write_text("{}", "utf-8")
    ran = preflight(hparams, REQUESTS, SHARED / "tokenizers" / "gpt2", "--framework", "fastedit", "--padding-side", "left")
    report = ran.json
    assert (ran.code, report["verdict"]) == (0, "pass"), report["findings"]
    assert report["requests"] == {"checked": 500, "drifting": 0, "drifting_ids": []}
    on_the_right = preflight(
        hparams, REQUESTS, SHARED / "tokenizers" / "gpt2", "--framework", "fastedit", "--padding-side", "right"
    )
    assert on_the_right.json["verdict"] == "fail"


def test_pmet_is_padded_on_the_left_by_easyedit(tmp_path: Path) -> None:
    report = check(tmp_path, "gpt2", method="PMET", model="gpt-j-6b").json
    assert report["padding_side"]["value"] == "left"
    assert report["requests"]["drifting"] == 500


def test_as_a_process(tmp_path: Path) -> None:
    hparams = write_hparams(tmp_path)
    arguments = ["preflight", hparams, "--requests", REQUESTS, "--tokenizer", SHARED / "tokenizers" / "gpt2"]
    ran = run_installed(*arguments)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("PASS")
    ran = run_installed(*arguments, "--padding-side", "left")
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith("FAIL")
