"""Every way in which requests.md says that a request breaks has a rule that finds it and a suggestion that helps."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.running import BROKEN, HONEST, ROOT, TOKENIZERS, preflight, request, write_hparams, write_requests

TABLE = ROOT.parent / "shared" / "knowledge" / "requests.md"

EULER = request("In the set {{1, 2}} the number of {} is", "Leonhard Euler", "3")
PARIS = request("The city of Paris is in", "Paris", "Japan")


MODELS = {
    "llama2-metaspace": "./models/llama-2-7b",
    "llama2-prepend": "./models/llama-2-7b",
    "qwen-shape": "./models/qwen2-7b",
    "t5-shape": "./models/t5",
}
"""A path in which EasyEdit sees the tokenizer's family."""


def found(
    folder: Path, record: dict[str, Any], name: str, method: str = "ROME", **hparams: Any
) -> dict[str, dict[str, Any]]:
    """Rule → its finding, for one request on the right."""
    path = write_hparams(folder, method, **{"model": MODELS.get(name, "./models/gpt2-xl"), **hparams})
    ran = preflight(path, write_requests(folder, [record]), TOKENIZERS / name, "--padding-side", "right")
    return {item["rule"]: item for item in ran.json["findings"]}


# The first words of the table's row, the request, tokenizer, method and hparams that show it, the rule, what is suggested.
SILENT: list[tuple[str, dict[str, Any], str, str, dict[str, Any], str, str]] = [
    ("subject inside a longer word", request("Who leads the USA? It is", "US"), "gpt2-shape", "ROME", {}, "REQ103", "Is 'USA' meant?"),
    ("`{{...}}` escaped braces", EULER, "llama2-metaspace", "ROME", {}, "IDX110", ""),
    ("empty target_new", request("The capital of Spain is", "Spain", ""), "gpt2-shape", "ROME", {}, "TGT106", "Give the new answer"),
    ("target already starting with a space", request("The capital of Spain is", "Spain", " Oslo"), "gpt2-shape", "ROME", {}, "TGT105", "Use 'Oslo'."),
    ("Chinese / Japanese target", request("法国的首都是", "法国", "北京"), "qwen-shape", "ROME", {}, "TGT104", "forces no space"),
    ("multi-token target with SentencePiece", request("The twin city of Lyon is", "Lyon", "Manila and Rome"), "llama2-metaspace", "ROME", {}, "TGT101", ""),
    ("target whose prefix re-tokenises", request("The sign that Leo Tolstoy drew was", "Leo Tolstoy", "🖋"), "gpt2-shape", "ROME", {}, "TGT101", ""),
    ("R-ROME/EAMET/UnKE target via", PARIS, "t5-shape", "R-ROME", {}, "TGT103", "add_special_tokens=False"),
    ("subject with trailing space", request("The city of Paris is in", "Paris "), "gpt2-shape", "ROME", {}, "REQ104", "Use 'Paris'."),
    ("subject with leading space", request("The city of Paris is in", " Paris"), "gpt2-shape", "ROME", {}, "REQ104", "Use 'Paris'."),
    ("subject directly followed by letters/digits/CJK", request("北京大学的校长是", "北京", "鲁迅"), "qwen-shape", "ROME", {}, "IDX103", "Rephrase"),
    ("prompt ending right after the subject", request("The capital is Lisbon", "Lisbon", "of Egypt"), "gpt2-shape", "ROME",
     {"fact_token": "subject_first_after_last"}, "IDX108", ""),
    ("prompt ends with a space", request("The capital of Spain is ", "Spain"), "gpt2-shape", "ROME", {}, "REQ107", "Use 'The capital of Spain is'."),
    ("list prompt containing eos/pad text", request("The end <|endoftext|> of the book by Jane Austen is", "Jane Austen"), "gpt2-shape", "ROME",
     {}, "REQ110", "Take it out"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "record", "name", "method", "hparams", "rule", "suggestion"), SILENT, ids=[case[0] for case in SILENT]
)
def test_what_breaks_silently_is_found(
    row: str,
    record: dict[str, Any],
    name: str,
    method: str,
    hparams: dict[str, Any],
    rule: str,
    suggestion: str,
    tmp_path: Path,
) -> None:
    rules = found(tmp_path, record, name, method, **hparams)
    assert rule in rules, f"{row}: only {sorted(rules)}"
    assert suggestion in json.dumps(rules[rule], ensure_ascii=False)
    assert rules[rule]["request"]["index"] == 0


def test_no_row_of_the_table_is_left_out() -> None:
    if not TABLE.is_file():
        pytest.skip("no requests.md in ../shared")
    rows = []
    for line in TABLE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and "silent" in cells[2].lower():
            rows.append(cells[0].replace("**", ""))
    assert len(rows) == len(SILENT)
    for row in rows:
        assert sum(row.startswith(case[0]) for case in SILENT) == 1, row


# Rows that the table calls loud: the editor stops, and says little. The rule says why.
LOUD: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("other case", request("The capital of Spain is", "spain"), "ROME", "REQ101", "'Spain'"),
    (
        "other Unicode form",
        request("Frédéric Chopin spoke", "Fre\u0301de\u0301ric Chopin"),
        "ROME",
        "REQ101",
        "'Frédéric Chopin'",
    ),
    ("accents left out", request("Frédéric Chopin spoke", "Frederic Chopin"), "ROME", "REQ101", "'Frédéric Chopin'"),
    ("curly quotes", request("Georgia O’Keeffe was born in", "Georgia O'Keeffe"), "ROME", "REQ101", "'Georgia O’Keeffe'"),
    (
        "near words",
        request("The mother tongue of Danielle Darrieux is", "Daniele Darieux"),
        "ROME",
        "REQ101",
        "'Danielle Darrieux'",
    ),
    ("nothing near", request("The capital of Spain is", "Portugal"), "ROME", "REQ101", "{}"),
    ("subject twice", request("Is Paris in Texas? No, Paris is in", "Paris"), "ROME", "REQ102", "{}"),
    ("subject besides {}", request("In Lima they love it; {} lies in", "Lima"), "AlphaEdit", "REQ102", "{}"),
    ("empty subject", request("The capital of Spain is", ""), "ROME", "REQ106", "subject"),
    ("named field", request("The capital of {country} is not Spain but", "Spain"), "ROME", "REQ105", "{{"),
    ("lone brace", request("Complete the set {1, 2 for Leonhard Euler:", "Leonhard Euler"), "ROME", "REQ105", "{{"),
    ("two fields", request("{} and {} were born in", "Jane Austen"), "ROME", "REQ105", "{}"),
    ("{} in the target", request("The empty set is", "empty set", "{} or a circle"), "ROME", "TGT107", "braces"),
    ("{x} in the target", request("The empty set is", "empty set", "{x} and nothing else"), "ROME", "TGT107", "braces"),
    ("empty target in MEMIT", request("The capital of Spain is", "Spain", ""), "MEMIT", "TGT106", "answer"),
    ("two spaces in the target", request("The capital of Spain is", "Spain", "New  York"), "ROME", "TGT105", "'New York'"),
    ("template trained literally", request("The capital of {} is", "Spain"), "FT", "REQ108", "'The capital of Spain is'"),
    ("no loc_prompt", request("The capital of Spain is", "Spain"), "WISE", "REQ109", "loc_prompt"),
    ("no target_neg", request("The capital of Spain is", "Spain"), "DPO", "REQ109", "target_neg"),
]


@pytest.mark.parametrize(("case", "record", "method", "rule", "suggestion"), LOUD, ids=[case[0] for case in LOUD])
def test_what_stops_the_editor_is_explained(
    case: str, record: dict[str, Any], method: str, rule: str, suggestion: str, tmp_path: Path
) -> None:
    hparams = {"objective_optimization": "target_new"} if method == "FT" else {}
    rules = found(tmp_path, record, "gpt2-shape", method, **hparams)
    assert rule in rules, f"only {sorted(rules)}"
    assert suggestion in json.dumps(rules[rule], ensure_ascii=False)


@pytest.mark.parametrize(
    ("framework", "record", "rule"),
    [
        ("kmeng01-rome", request("The city of ({}) lies in", "Lyon"), "REQ111"),
        ("kmeng01-rome", request("The capital of Spain is", "Spain"), "REQ113"),
        ("kmeng01-memit", request("The city of ({}) lies in", "Lyon"), "REQ111"),
    ],
)
def test_templates_of_the_original_code(framework: str, record: dict[str, Any], rule: str, tmp_path: Path) -> None:
    hparams = tmp_path / "hparams.json"
    hparams.write_text(json.dumps({"fact_token": "subject_last", "context_template_length_params": []}), "utf-8")
    method = framework.rpartition("-")[2].upper()
    report = preflight(
        hparams, write_requests(tmp_path, [record]), TOKENIZERS / "gpt2-shape", "--framework", framework, "--method", method
    ).json
    assert rule in {item["rule"] for item in report["findings"]}


# Rules that each of broken.json's requests must raise with EasyEdit's ROME on some tokenizer; None: a request without a usable key.
BROKEN_RULES: dict[str, set[str] | None] = {
    "no-subject": None, "no-prompt": None, "no-target": None,
    "subject-absent": {"REQ101"}, "subject-other-case": {"REQ101"}, "subject-other-form": {"REQ101"}, "subject-other-quote": {"REQ101"},
    "subject-twice": {"REQ102"}, "subject-in-word-end": {"REQ103"}, "subject-in-word-middle": {"REQ103"}, "subject-in-word-start": {"REQ103"},
    "subject-before-digit": {"REQ103"}, "subject-before-letters": {"REQ103"}, "subject-before-han": {"IDX103"},
    "subject-empty": {"REQ106"}, "subject-blank": {"REQ106"}, "subject-space-after": {"REQ104"}, "subject-space-before": {"REQ104"},
    "field-named": {"REQ105"}, "field-open": {"REQ105"}, "field-twice": {"REQ105"}, "field-escaped": {"IDX110"},
    "field-and-subject": {"REQ102"}, "field-without-space": {"REQ111"},
    "target-empty": {"TGT106"}, "target-blank": {"TGT106"}, "target-space-before": {"TGT105"}, "target-double-space": {"TGT105"},
    "target-field": {"TGT107"}, "target-field-named": {"TGT107"}, "target-han": {"TGT104"}, "target-pieces": {"TGT101"},
    "target-bytes": {"TGT101"}, "target-digits": {"TGT101"}, "prompt-space-after": {"REQ107"}, "prompt-ends-at-subject": {"IDX108"},
    "prompt-long": {"REQ112"}, "prompt-special": {"REQ110"},
}  # fmt: skip
# Only other methods or fact tokens break these.
ELSEWHERE: dict[str, dict[str, Any]] = {
    "field-and-subject": {"method": "AlphaEdit"},
    "prompt-ends-at-subject": {"fact_token": "subject_first_after_last"},
}


def broken() -> dict[str, dict[str, Any]]:
    return {record["case_id"]: record for record in json.loads(BROKEN.read_text("utf-8"))}


def test_broken_requests_are_all_named_here() -> None:
    assert broken().keys() == BROKEN_RULES.keys()


@pytest.mark.parametrize("case_id", [case_id for case_id, rules in BROKEN_RULES.items() if rules and rules != {"REQ111"}])
def test_each_broken_request(case_id: str, tmp_path: Path) -> None:
    seen: set[str] = set()
    for name in ("gpt2-shape", "llama2-metaspace", "qwen-shape"):
        seen |= found(tmp_path, broken()[case_id], name, **ELSEWHERE.get(case_id, {})).keys()
    rules = BROKEN_RULES[case_id]
    assert rules is not None
    assert rules <= seen


def test_a_row_longer_than_the_model(tmp_path: Path) -> None:
    """Certain where config.json says how many absolute positions there are; a doubt where only the tokenizer has a limit."""
    record = broken()["prompt-long"]
    assert found(tmp_path, record, "gpt2-shape")["REQ112"]["severity"] == "warning"
    folder = tmp_path / "gpt2"
    shutil.copytree(TOKENIZERS / "gpt2-shape", folder)
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_positions": 1024}', "utf-8")
    ran = preflight(write_hparams(tmp_path), write_requests(tmp_path, [record]), folder)
    assert {item["rule"]: item["severity"] for item in ran.json["findings"]}["REQ112"] == "error"
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_positions": 8192}', "utf-8")
    ran = preflight(write_hparams(tmp_path), write_requests(tmp_path, [record]), folder)
    assert "REQ112" not in {item["rule"] for item in ran.json["findings"]}


def test_broken_json_in_one_run(tmp_path: Path) -> None:
    """Requests without a usable key are errors that name them (exit code 2); all the others are checked all the same."""
    ran = preflight(write_hparams(tmp_path), BROKEN, TOKENIZERS / "gpt2-shape", "--padding-side", "right")
    report = ran.json
    assert ran.code == 2
    assert [error["request"]["case_id"] for error in report["errors"]] == ["no-subject", "no-prompt", "no-target"]
    for error, key in zip(report["errors"], ("'subject'", "'prompt'", "'target_new'"), strict=True):
        assert key in error["message"]
    assert report["requests"]["checked"] == len(broken()) - 3
    lines = BROKEN.read_text("utf-8").splitlines()
    for item in [*report["findings"], *report["errors"]]:
        if item["path"].endswith("broken.json") and item["request"]:
            case_id = re.search(r'"case_id": "([^"]+)"', lines[item["line"] - 1])
            assert case_id is not None
            assert case_id[1] == item["request"]["case_id"]


@pytest.mark.parametrize("name", HONEST)
def test_a_sound_request_gets_no_request_finding(name: str, tmp_path: Path) -> None:
    rules = found(tmp_path, PARIS, name)
    assert not {rule for rule in rules if rule.startswith("REQ")}
