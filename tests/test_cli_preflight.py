"""`padcheck preflight` from end to end: verdicts, exit codes, the JSON contract, rows, settings, templates, run modes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import padcheck
from padcheck import __version__
from padcheck import preflight as preflight_function
from tests.running import (
    HONEST,
    LYING,
    SHIPPED,
    TOKENIZERS,
    preflight,
    request,
    rules_of,
    run,
    run_installed,
    write_hparams,
    write_requests,
)
from tests.texts import load

GPT2 = TOKENIZERS / "gpt2-shape"
REPORT = json.loads((Path(padcheck.__file__).parent / "schemas" / "report.schema.json").read_text("utf-8"))
RECORDS = [
    request("The city of Paris is in", "Paris", "Japan", case_id="a"),
    request("The mother tongue of Marie Curie is", "Marie Curie", "Swedish", case_id="b"),
    request("What is the twin city of Lyon? It is", "Lyon", "Manila", case_id="c"),
]
TEMPLATES = ["{}", "Therefore. {}", "The old house by the river was quiet. {}"]


@pytest.fixture
def hparams(tmp_path: Path) -> Path:
    return write_hparams(tmp_path)


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    return write_requests(tmp_path, RECORDS)


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    path = tmp_path / "templates.txt"
    path.write_text("\n".join(TEMPLATES), "utf-8")
    return path


def length(text: str) -> int:
    return len(load("gpt2-shape").encode(text).ids)


# -- verdicts, exit codes, the contract ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", [*HONEST, *LYING])
def test_the_contract_holds_for_every_tokenizer(name: str, side: str, hparams: Path, requests: Path) -> None:
    ran = preflight(hparams, requests, TOKENIZERS / name, "--padding-side", side, "--passed-in")
    report = ran.json
    jsonschema.validate(report, REPORT)
    assert ran.err == ""
    assert report["command"] == "preflight"
    assert report["tool"]["version"] == __version__
    assert report["requests"]["checked"] == 3
    errors = [item for item in report["findings"] if item["severity"] == "error"]
    assert ran.code == bool(errors)
    assert report["verdict"] == ("fail" if errors else "pass" if "none" not in ran.out else report["verdict"])
    if side == "left":
        assert report["verdict"] == "fail"
        assert report["rows"]["by_cause"]["pads"] > 0
    assert sum(report["rows"]["by_cause"].values()) == report["rows"]["drifting"]


def test_one_finding_for_each_rule_cause_and_convention(hparams: Path, tmp_path: Path) -> None:
    many = write_requests(tmp_path, RECORDS * 20, "many.json")
    findings = preflight(hparams, many, GPT2, "--padding-side", "left").json["findings"]
    assert sorted(item["rule"] for item in findings if item["severity"] == "error") == [
        "PAD101",
        "PAD102",
        "PAD103",
        "PAD104",
    ]
    for item in findings:
        if item["severity"] == "error":
            assert item["evidence"]["requests"] <= 60
            assert item["evidence"]["positions"] >= item["evidence"]["requests"]
            assert len(item["evidence"]["first_ids"]) == min(10, item["evidence"]["requests"])
            assert item["evidence"]["worst"]
            assert item["evidence"]["source"].startswith("easyeditor/models/rome/")
    assert len({item["fingerprint"] for item in findings}) == len(findings)


def test_the_worst_row_is_the_evidence(hparams: Path, requests: Path, templates: Path) -> None:
    """The lookup that is furthest off, by counting: the bare prompt of the request whose rows differ most in length."""
    report = preflight(hparams, requests, GPT2, "--padding-side", "left", "--context-templates", templates).json
    lookup = next(item for item in report["findings"] if item["rule"] == "PAD101")
    worst = lookup["evidence"]["worst"][0]
    pads = {}
    for index, record in enumerate(RECORDS):
        prompt = record["prompt"]
        target = load("gpt2-shape").encode(" " + record["target_new"]).ids
        head = load("gpt2-shape").decode(target[:-1])
        rows = [length(template.format(prompt) + head) for template in TEMPLATES]
        pads[index] = max([*rows, length(f"{record['subject']} is a")]) - rows[0]
    assert worst["pads"] == max(pads.values()) == -worst["drift"]
    assert pads[worst["request"]] == worst["pads"]
    assert (worst["row"], worst["batch"]) == (0, "optimise")
    record = RECORDS[worst["request"]]
    column = length(record["prompt"][: record["prompt"].index(record["subject"]) + len(record["subject"])]) - 1
    assert (worst["editor"], worst["truth"]) == (column, column + worst["pads"])
    assert worst["editor_token"] == ("<pad>" if column < worst["pads"] else worst["editor_token"])
    assert worst["truth_token"].replace("Ġ", "") == record["subject"].split()[-1]


def test_as_a_process(hparams: Path, requests: Path) -> None:
    arguments = ("preflight", hparams, "--requests", requests, "--tokenizer", GPT2)
    right = run_installed(*arguments)
    assert (right.code, right.err) == (0, "")
    assert right.out.startswith("PASS  all 3 requests")
    left = run_installed(*arguments, "--padding-side", "left")
    assert (left.code, left.err) == (1, "")
    assert left.out.startswith("FAIL  3 of 3 requests")
    assert "\x1b[" not in left.out, "no colour where there is no terminal"
    assert "\x1b[" in run_installed(*arguments, FORCE_COLOR="1").out
    assert "\x1b[" not in run_installed(*arguments, FORCE_COLOR="1", NO_COLOR="1").out


def test_both_ways_of_running_say_the_same(hparams: Path, requests: Path) -> None:
    arguments = (
        "preflight",
        hparams,
        "--requests",
        requests,
        "--tokenizer",
        GPT2,
        "--padding-side",
        "left",
        "--output-format",
        "json",
    )
    one, other = run_installed(*arguments).json, run(*arguments).json
    for report in (one, other):
        assert report["summary"].pop("seconds") > 0
    assert one == other


def test_paths_are_relative_and_posix(tmp_path: Path, hparams: Path, requests: Path) -> None:
    report = preflight(Path("rome.yaml"), "requests.json", GPT2, "--padding-side", "left", cwd=tmp_path).json
    assert {item["path"] for item in report["findings"]} <= {"rome.yaml", "requests.json", GPT2.as_posix()}
    absolute = preflight(hparams, requests, GPT2, "--padding-side", "left", cwd=tmp_path).json
    assert {item["path"] for item in absolute["findings"]} == {item["path"] for item in report["findings"]}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--fail-on", "error"], 1), (["--fail-on", "never"], 0), (["--exit-zero"], 0), (["--select", "REQ"], 0),
        (["--ignore", "PAD,IDX,TGT"], 0), (["--select", "PAD101"], 1), (["--select", "lookup-shifted-by-pads"], 1), (["--profile", "lenient"], 1),
    ],
)  # fmt: skip
def test_exit_codes(arguments: list[str], code: int, hparams: Path, requests: Path) -> None:
    ran = preflight(hparams, requests, GPT2, "--padding-side", "left", *arguments)
    assert ran.code == code
    if arguments[0] == "--select":
        selected = arguments[1] if arguments[1] != "lookup-shifted-by-pads" else "PAD101"
        assert all(item["rule"].startswith(selected) for item in ran.json["findings"])


def test_notes_fail_only_where_that_is_asked(hparams: Path, requests: Path) -> None:
    ran = preflight(hparams, requests, GPT2)
    assert rules_of(ran.json, "note")
    assert ran.code == 0
    assert preflight(hparams, requests, GPT2, "--fail-on", "note").code == 1


def test_the_version_and_the_help() -> None:
    assert run("--version").out.strip() == f"padcheck, version {__version__}"
    text = run("preflight", "--help").out
    for option in ("--requests", "--tokenizer", "--model", "--framework", "--method", "--padding-side", "--run", "--batch-size",
                   "--context-templates", "--rows-out", "--max-rows", "--html", "--transformers", "--trust-remote-code", "--fix", "--diff"):  # fmt: skip
        assert option in text


# -- rows ------------------------------------------------------------------------------------------------------------------------------


def test_every_row_is_written(tmp_path: Path, hparams: Path, requests: Path, templates: Path) -> None:
    """Columns worked out by counting, for ROME on the left: what counts from the start, and where it should be."""
    out = tmp_path / "rows.jsonl"
    report = preflight(
        hparams, requests, GPT2, "--padding-side", "left", "--context-templates", templates, "--rows-out", out
    ).json
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(rows) == report["rows"]["checked"] == 3 * (2 * len(TEMPLATES) + 1 + len(TEMPLATES) + 1)
    assert sum(row["drift"] not in (0, None) for row in rows) == report["rows"]["drifting"]
    assert list(rows[0]) == [
        "request", "case_id", "batch", "row", "kind", "editor", "truth", "drift", "cause", "causes", "oracle", "width", "pads", "tokens",
    ]  # fmt: skip
    found = {(row["request"], row["batch"], row["row"], row["kind"]): row for row in rows}
    assert len(found) == len(rows)
    for index, record in enumerate(RECORDS):
        prompt, subject = record["prompt"], record["subject"]
        texts = [template.format(prompt) for template in TEMPLATES]
        target = load("gpt2-shape").encode(" " + record["target_new"]).ids
        head = load("gpt2-shape").decode(target[:-1])
        width = max(length(text) for text in [*(text + head for text in texts), f"{subject} is a"])
        for number, text in enumerate(texts):
            pads = width - length(text + head)
            lookup = length(text[: text.index(subject) + len(subject)]) - 1
            row = found[index, "optimise", number, "lookup"]
            assert (row["editor"], row["truth"], row["pads"], row["width"]) == (lookup, lookup + pads, pads, width)
            assert row["cause"] == ("pads" if pads else None)
            label = length(text) - 1
            row = found[index, "optimise", number, "label"]
            assert (row["editor"], row["truth"]) == (label, label + pads)
        kl = found[index, "optimise", len(TEMPLATES), "kl"]
        assert kl["truth"] == length(subject) - 1 + width - length(f"{subject} is a")
        value = found[index, "value", 0, "value"]
        assert (value["pads"], value["drift"]) == (0, 0), "one row alone has no pads"
        assert all(row["case_id"] == record["case_id"] for key, row in found.items() if key[0] == index)


def test_max_rows_bounds_what_is_shown_not_what_is_written(tmp_path: Path, hparams: Path, requests: Path) -> None:
    tables = []
    for number in ("0", "1", "5"):
        out = tmp_path / f"rows{number}.jsonl"
        arguments = ("preflight", hparams, "--requests", requests, "--tokenizer", GPT2, "--padding-side", "left")
        text = run(*arguments, "--max-rows", number, "--rows-out", out).out
        tables.append((len(text), len(out.read_text("utf-8").splitlines())))
    assert tables[0][0] < tables[1][0] < tables[2][0]
    assert len({rows for _, rows in tables}) == 1


# -- run modes, batch sizes, templates -------------------------------------------------------------------------------------------------


def test_batches_across_requests(tmp_path: Path, requests: Path, templates: Path) -> None:
    """MEMIT's current values: bare prompts of all requests in one padded batch; one request alone has nothing to pad."""
    hparams = write_hparams(tmp_path, "MEMIT", batch_size=2)
    prompts = [record["prompt"] for record in RECORDS]

    def pads(*more: str) -> list[int]:
        out = tmp_path / "rows.jsonl"
        arguments = ("--padding-side", "left", "--context-templates", templates, "--rows-out", out, *more)
        preflight(hparams, requests, GPT2, *arguments)
        rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        return [row["pads"] for row in rows if row["kind"] == "current"]

    lengths = [length(prompt) for prompt in prompts]
    assert pads() == [0, 0, 0]
    assert pads("--run", "sequential") == [0, 0, 0]
    two = max(lengths[:2])
    assert pads("--run", "batch") == [two - lengths[0], two - lengths[1], 0], "batch_size of the hparams"
    assert pads("--run", "batch", "--batch-size", "3") == [max(lengths) - one for one in lengths]
    assert pads("--run", "batch", "--batch-size", "1") == [0, 0, 0]


def test_rome_takes_no_batch(hparams: Path, requests: Path) -> None:
    assert "HPR105" in rules_of(preflight(hparams, requests, GPT2, "--run", "batch").json)


@pytest.mark.parametrize("content", [json.dumps(TEMPLATES), json.dumps([["{}"], TEMPLATES[1:]]), json.dumps(TEMPLATES[1:])])
def test_templates_as_json(content: str, tmp_path: Path, hparams: Path, requests: Path, templates: Path) -> None:
    other = tmp_path / "templates.json"
    other.write_text(content, "utf-8")
    one = preflight(hparams, requests, GPT2, "--padding-side", "left", "--context-templates", templates).json
    two = preflight(hparams, requests, GPT2, "--padding-side", "left", "--context-templates", other).json
    assert one["rows"] == two["rows"]


def test_stand_ins_have_the_lengths_that_are_asked_for(tmp_path: Path, requests: Path) -> None:
    hparams = write_hparams(tmp_path, context_template_length_params=[[3, 5], [12, 10]])
    out = tmp_path / "rows.jsonl"
    preflight(hparams, requests, GPT2, "--rows-out", out)
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    keys = [row for row in rows if row["kind"] == "key" and row["request"] == 0]
    assert len(keys) == 1 + 5 + 10
    bare = length(RECORDS[0]["prompt"])
    lengths = [row["width"] - row["pads"] - bare for row in keys]
    assert lengths[0] == 0
    assert all(0 < one <= 3 + 3 for one in lengths[1:6])
    assert all(8 <= one <= 12 + 3 for one in lengths[6:])


def test_what_depends_on_the_templates_is_a_warning(tmp_path: Path) -> None:
    """A KL row that is padded under one length of stand-ins alone cannot be called certain; with given templates it is."""
    hparams = write_hparams(tmp_path, fact_token="last")
    requests = write_requests(tmp_path, RECORDS[:1])
    severities = {}
    for name, more in (("stand-ins", []), ("given", ["--context-templates", str(tmp_path / "t.txt")])):
        (tmp_path / "t.txt").write_text("{}\nOnce more, long ago. {}\n", "utf-8")
        report = preflight(hparams, requests, GPT2, *more).json
        severities[name] = {
            item["evidence"].get("cause"): item["severity"] for item in report["findings"] if item["evidence"].get("cause")
        }
    assert severities["given"] == {"sign": "error"}
    assert severities["stand-ins"] == {"sign": "error"}, "it shows under every length profile"


# -- requests in every container -------------------------------------------------------------------------------------------------------


def containers() -> dict[str, bytes]:
    table = io.StringIO()
    writer = csv.DictWriter(table, ["case_id", "prompt", "subject", "target_new"])
    writer.writeheader()
    writer.writerows(RECORDS)
    array = json.dumps(RECORDS).encode()
    return {
        "a.json": array,
        "b.jsonl": "\n".join(json.dumps(record) for record in RECORDS).encode(),
        "c.json.gz": gzip.compress(array),
        "d.csv": table.getvalue().encode(),
        "e.json": json.dumps([{"case_id": one["case_id"], "requested_rewrite": {
            "prompt": one["prompt"].replace(one["subject"], "{}"), "subject": one["subject"], "target_new": {"str": one["target_new"]},
        }} for one in RECORDS]).encode(),
    }  # fmt: skip


@pytest.mark.parametrize("name", containers())
def test_the_same_requests_in_every_container(name: str, tmp_path: Path, hparams: Path, requests: Path) -> None:
    path = tmp_path / name
    path.write_bytes(containers()[name])
    expected = preflight(hparams, requests, GPT2, "--padding-side", "left").json
    report = preflight(hparams, path, GPT2, "--padding-side", "left").json
    assert report["rows"] == expected["rows"]
    assert report["requests"] == expected["requests"]


# -- outputs, settings, suppression ----------------------------------------------------------------------------------------------------


def test_a_page_and_a_report_file(tmp_path: Path, hparams: Path, requests: Path) -> None:
    page, report = tmp_path / "page.html", tmp_path / "report.sarif"
    arguments = ("preflight", hparams, "--requests", requests, "--tokenizer", GPT2, "--padding-side", "left")
    ran = run(*arguments, "--html", page, "--output-format", "sarif", "--output-file", report)
    assert ran.out.startswith("FAIL"), "the text report still goes to the terminal"
    assert json.loads(report.read_text("utf-8"))["version"] == "2.1.0"
    content = page.read_text("utf-8")
    assert content.lstrip().lower().startswith("<!doctype html")
    assert not re.search(r"""(src|href)=["']?https?://[^"']+\.(js|css|png|woff2?)""", content), "one self-contained page"


def test_settings_of_the_project(tmp_path: Path, requests: Path) -> None:
    hparams = write_hparams(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.padcheck]\nignore = ["PAD103"]\noutput-format = "json"\n', "utf-8")
    ran = run("preflight", hparams, "--requests", requests, "--tokenizer", GPT2, "--padding-side", "left")
    assert "PAD103" not in rules_of(ran.json)
    ran = run(
        "preflight", hparams, "--requests", requests, "--tokenizer", GPT2, "--padding-side", "left", "--ignore", "PAD101"
    )
    assert {"PAD103"} <= rules_of(ran.json), "the command line comes first"
    assert run("preflight", hparams, "--requests", requests, "--tokenizer", GPT2, "--isolated").out.startswith("PASS")
    shown = run("preflight", hparams, "--requests", requests, "--tokenizer", GPT2, "--show-settings")
    assert shown.code == 0
    assert 'ignore = ["PAD103"]' in shown.out


def test_ignores_hide_and_unused_ones_are_reported(tmp_path: Path, requests: Path) -> None:
    hparams = write_hparams(tmp_path)
    entries = "".join(
        f'[[tool.padcheck.ignore]]\nrule = "{rule}"\nreason = "known"\n'
        for rule in ("PAD101", "PAD102", "PAD103", "PAD104", "REQ101")
    )
    (tmp_path / "padcheck.toml").write_text(entries, "utf-8")
    ran = preflight(hparams, requests, GPT2, "--padding-side", "left")
    hidden = {item["rule"] for item in ran.json["findings"] if item["suppressed"]}
    assert hidden == {"PAD101", "PAD102", "PAD103", "PAD104"}
    assert ran.code == 0
    (unused,) = [item for item in ran.json["findings"] if item["rule"] == "LNT102"]
    assert unused["line"] == 13
    ran = preflight(hparams, requests, GPT2, "--padding-side", "left", "--no-ignores")
    assert not any(item["suppressed"] for item in ran.json["findings"])
    assert ran.code == 1


def test_statistics(hparams: Path, requests: Path) -> None:
    out = run(
        "preflight", hparams, "--requests", requests, "--tokenizer", GPT2, "--padding-side", "left", "--statistics"
    ).out
    assert re.search(r"^ +1  PAD101  lookup-shifted-by-pads$", out, re.MULTILINE)


# -- the function ----------------------------------------------------------------------------------------------------------------------


def test_the_function_takes_what_python_has() -> None:
    report = preflight_function(
        {"alg_name": "ROME", "model_name": "gpt2-xl", "context_template_length_params": [[5, 5]]},
        RECORDS,
        tokenizer=GPT2,
        padding_side="left",
    )
    assert (report.verdict, report.requests_drifting) == ("fail", 3)
    assert report.worst
    assert len(report.worst) <= 20


def test_progress_is_told() -> None:
    done: list[int] = []
    preflight_function({"alg_name": "ROME", "model_name": "gpt2"}, RECORDS * 30, tokenizer=GPT2, on_progress=done.append)
    assert done == [32, 64, 90]


def test_worst_rows_mark_both_tokens() -> None:
    report = preflight_function(
        {"alg_name": "ROME", "model_name": "gpt2"}, RECORDS, tokenizer=GPT2, padding_side="left", context_templates=TEMPLATES
    )
    for view in report.worst:
        assert [cell.column for cell in view.cells] == list(range(view.width))
        assert sum(cell.pad for cell in view.cells) == view.pads
        marks = {cell.mark: cell.column for cell in view.cells if cell.mark}
        assert marks == {"editor": view.editor, "truth": view.truth}


@pytest.mark.parametrize("file", sorted((SHIPPED / "probes").glob("*.json")), ids=lambda path: path.stem)
def test_probes_are_sound_on_a_tokenizer_without_surprises(file: Path, tmp_path: Path) -> None:
    """The right side, GPT-2's shape, one-token heads or none lost: what is left are targets that end inside a character."""
    report: dict[str, Any] = preflight(write_hparams(tmp_path), file, GPT2, "--padding-side", "right").json
    assert "pads" not in report["rows"]["by_cause"]
    assert rules_of(report, "error") <= {"TGT101", "TGT102"}
