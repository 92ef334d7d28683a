"""Bad input: one clear sentence with its place and the remedy, exit code 2, never a traceback, and all the rest is still checked."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from padcheck import preflight as preflight_function
from tests.running import SHIPPED, TOKENIZERS, Ran, preflight, request, run, run_installed, write_hparams, write_requests

GOOD = [request("The city of Paris is in", "Paris", "Japan", case_id=number) for number in range(3)]
GPT2 = TOKENIZERS / "gpt2-shape"


@pytest.fixture
def hparams(tmp_path: Path) -> Path:
    return write_hparams(tmp_path)


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    return write_requests(tmp_path, GOOD)


def refused(ran: Ran, words: str, remedy: str, path: str | None = None) -> dict[str, Any]:
    """The run's only error: a sentence with `words` in it, and a remedy."""
    assert ran.code == 2
    assert "Traceback" not in ran.out + ran.err
    report = ran.json
    assert report["version"] == 1
    (error,) = report["errors"]
    assert words in error["message"]
    assert error["message"][0].isupper() or not error["message"][0].isalpha()
    assert error["message"].endswith((".", "?", "!"))
    assert remedy in (error["remedy"] or "")
    assert path is None or path in (error["path"] or "")
    assert report["verdict"] != "pass" or "cannot be written" in words, "a plan that was checked keeps its verdict"
    return dict(error)


# -- files that are not there, or not what they should be ------------------------------------------------------------------------------


def test_missing_hparams(tmp_path: Path, requests: Path) -> None:
    refused(preflight(tmp_path / "rom.yaml", requests, GPT2), "does not exist", "Check the path", "rom.yaml")


def test_missing_requests(tmp_path: Path, hparams: Path) -> None:
    (tmp_path / "requests.json").write_text("[]", "utf-8")
    refused(preflight(hparams, tmp_path / "request.json", GPT2), "no such file", "requests.json", "request.json")


@pytest.mark.parametrize("option", ["--tokenizer", "--model"])
def test_missing_tokenizer(option: str, tmp_path: Path, hparams: Path, requests: Path) -> None:
    ran = run("preflight", hparams, "--requests", requests, option, tmp_path / "nowhere", "--output-format", "json")
    refused(ran, "", "", "nowhere")


@pytest.mark.parametrize("option", ["--tokenizer", "--model"])
def test_a_folder_without_a_tokenizer(option: str, tmp_path: Path, hparams: Path, requests: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = run("preflight", hparams, "--requests", requests, option, empty, "--output-format", "json")
    error = refused(ran, "tokenizer", "", "empty")
    assert error["remedy"]


def test_a_folder_in_place_of_a_file(tmp_path: Path, hparams: Path, requests: Path) -> None:
    refused(preflight(tmp_path, requests, GPT2), "folder", "Name one file")
    refused(preflight(hparams, tmp_path, GPT2), "folder", "Name a file")


def test_empty_files(tmp_path: Path, hparams: Path, requests: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("", "utf-8")
    refused(preflight(hparams, empty, GPT2), "", "right file", "empty")
    refused(preflight(empty, requests, GPT2), "is empty", "right file", "empty")
    nothing = write_requests(tmp_path, [], "nothing.json")
    refused(preflight(hparams, nothing, GPT2), "no request", "right file", "nothing.json")


def test_broken_hparams(tmp_path: Path, requests: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("alg_name: ROME\nlayers: [5\nfact_token: x\n", "utf-8")
    error = refused(preflight(broken, requests, GPT2), "YAML", "Mend", "broken.yaml")
    assert error["line"] == 3
    broken = tmp_path / "broken.json"
    broken.write_text('{"alg_name": "ROME",\n "layers": [5,]}\n', "utf-8")
    error = refused(preflight(broken, requests, GPT2), "JSON", "Mend", "broken.json")
    assert error["line"] == 2
    listed = tmp_path / "list.yaml"
    listed.write_text("- ROME\n", "utf-8")
    refused(preflight(listed, requests, GPT2), "maps names to values", "right file")
    binary = tmp_path / "latin.yaml"
    binary.write_bytes("alg_name: ROME # é\n".encode("latin-1"))
    refused(preflight(binary, requests, GPT2), "UTF-8", "UTF-8")


def test_broken_tokenizer(tmp_path: Path, hparams: Path, requests: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {', "utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', "utf-8")
    refused(preflight(hparams, requests, folder), "", "", "tokenizer")


def test_broken_json_at_line_312(tmp_path: Path, hparams: Path) -> None:
    """The requests before the broken place are checked."""
    lines = [json.dumps(request("The city of Paris is in", "Paris", "Japan", case_id=number)) for number in range(400)]
    lines[310] = lines[310].replace('"Japan"', '"Ja"pan"')
    path = tmp_path / "requests.json"
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", "utf-8")
    ran = preflight(hparams, path, GPT2)
    error = refused(ran, "", "", "requests.json")
    assert error["line"] == 312
    column = lines[310].index('pan"') + 1
    assert abs(error["column"] - column) <= 1
    assert ran.json["requests"]["checked"] == 310
    text = run("preflight", hparams, "--requests", path, "--tokenizer", GPT2)
    assert text.code == 2
    assert ":312:" in text.out
    assert text.out.startswith("INCOMPLETE")


def test_a_broken_line_of_json_lines(tmp_path: Path, hparams: Path) -> None:
    """Here the others can be told apart: all of them are checked."""
    lines = [json.dumps(request("The city of Paris is in", "Paris", "Japan", case_id=number)) for number in range(400)]
    lines[311] = lines[311].replace('"Japan"', '"Ja"pan"')
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(lines), "utf-8")
    ran = preflight(hparams, path, GPT2)
    error = refused(ran, "", "", "requests.jsonl")
    assert error["line"] == 312
    assert ran.json["requests"]["checked"] == 399


@pytest.mark.parametrize("missing", ["prompt", "subject", "target_new"])
def test_a_request_without_a_usable_key(missing: str, tmp_path: Path, hparams: Path) -> None:
    records = [dict(record) for record in GOOD]
    del records[1][missing]
    path = write_requests(tmp_path, records)
    ran = preflight(hparams, path, GPT2, "--padding-side", "left")
    error = refused(ran, repr(missing), "")
    assert error["request"] == {"index": 1, "case_id": 1}
    lines = path.read_text("utf-8").splitlines()
    assert '"case_id": 1' in "\n".join(lines[error["line"] - 1 : error["line"] + 5])
    report = ran.json
    assert report["requests"]["checked"] == 2
    assert report["requests"]["drifting_ids"] == [0, 2], "the others are checked"


def test_many_bad_requests_are_counted(tmp_path: Path, hparams: Path) -> None:
    path = write_requests(tmp_path, [{"prompt": "The city of Paris is in", "target_new": "Japan"}] * 50 + GOOD)
    ran = preflight(hparams, path, GPT2)
    assert ran.code == 2
    report = ran.json
    assert report["requests"]["checked"] == 3
    assert len(report["errors"]) == 6
    assert "45 more" in report["errors"][-1]["message"]


def test_a_subject_that_is_absent_is_a_finding_not_an_error(tmp_path: Path, hparams: Path) -> None:
    ran = preflight(hparams, write_requests(tmp_path, [*GOOD, request("The capital of Spain is", "Portugal")]), GPT2)
    assert ran.code == 1
    assert ran.json["errors"] == []
    assert [item["rule"] for item in ran.json["findings"] if item["severity"] == "error"] == ["REQ101"]


# -- names that are not known ----------------------------------------------------------------------------------------------------------


def test_unknown_framework(hparams: Path, requests: Path) -> None:
    refused(
        preflight(hparams, requests, GPT2, "--framework", "easyedt"), "'easyedt'", "Did you mean easyedit?", "--framework"
    )
    refused(preflight(hparams, requests, GPT2, "--framework", "qqq"), "'qqq'", "kmeng01-rome")


def test_unknown_method(tmp_path: Path, hparams: Path, requests: Path) -> None:
    refused(preflight(hparams, requests, GPT2, "--method", "ROMM"), "'ROMM'", "Did you mean ROME?", "--method")
    error = refused(
        preflight(write_hparams(tmp_path, "MEMITT"), requests, GPT2), "'MEMITT'", "Did you mean MEMIT?", "memitt.yaml"
    )
    assert error["line"] == 1


def test_hparams_that_do_not_say_whose_they_are(tmp_path: Path, requests: Path) -> None:
    path = tmp_path / "hparams.json"
    path.write_text('{"layers": [5]}', "utf-8")
    refused(preflight(path, requests, GPT2), "which framework", "--framework")


def test_unknown_fact_token_is_a_finding_at_its_place(tmp_path: Path, requests: Path) -> None:
    ran = preflight(write_hparams(tmp_path, fact_token="subject_lst"), requests, GPT2)
    assert ran.code == 1
    (finding,) = ran.json["findings"]
    assert (finding["rule"], finding["severity"], finding["line"]) == ("HPR103", "error", 1)
    assert "subject_lst" in finding["message"]
    assert "Did you mean subject_last?" in json.dumps(finding)
    assert ran.json["verdict"] == "fail"


@pytest.mark.parametrize("option", ["--select", "--ignore"])
def test_unknown_rule(option: str, hparams: Path, requests: Path) -> None:
    error = refused(preflight(hparams, requests, GPT2, option, "PAD1O1"), "PAD1O1", "", option)
    assert "PAD101" in error["message"] + error["remedy"]


def test_unknown_rule_to_explain() -> None:
    ran = run("explain", "PAD1O1")
    assert ran.code == 2
    assert "PAD101" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("content", "words", "remedy", "line"),
    [
        ("[tool.padcheck]\nselct = ['PAD101']\n", "'selct'", "Did you mean select?", 2),
        ("[tool.padcheck]\nfail-on = 'eror'\n", "'eror'", "Did you mean error?", 2),
        ("[tool.padcheck]\nselect = ['PAD999']\n", "PAD999", "padcheck rules", 2),
        ("[[tool.padcheck.ignore]]\nrle = 'PAD101'\n", "'rle'", "Did you mean rule?", 1),
        ("[[tool.padcheck.ignore]]\nreason = 'x'\n", "names the rule", "rule =", 1),
        ("[tool.padcheck\n", "TOML", "Mend", None),
    ],
)
def test_bad_configuration(
    content: str, words: str, remedy: str, line: int | None, tmp_path: Path, hparams: Path, requests: Path
) -> None:
    config = tmp_path / "padcheck.toml"
    config.write_text(content, "utf-8")
    error = refused(preflight(hparams, requests, GPT2), words, remedy)
    assert error["line"] == line
    named = preflight(hparams, requests, GPT2, "--isolated", "--config", config)
    assert refused(named, words, remedy)["line"] == line
    assert preflight(hparams, requests, GPT2, "--isolated").code == 0


def test_a_configuration_that_is_not_there(tmp_path: Path, hparams: Path, requests: Path) -> None:
    refused(preflight(hparams, requests, GPT2, "--config", tmp_path / "no.toml"), "does not exist", "--config", "no.toml")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--padding-side", "middle"], ["--max-rows", "-1"], ["--batch-size", "0"], ["--run", "all"], ["--transformers", "3"],
        ["--output-format", "xml"], ["--fail-on", "fatal"], ["--nonsense"],
    ],
)  # fmt: skip
def test_options_that_cannot_be_used(arguments: list[str], hparams: Path, requests: Path) -> None:
    ran = run("preflight", hparams, "--requests", requests, "--tokenizer", GPT2, *arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert "Traceback" not in ran.err
    assert "Error:" in ran.err


def test_a_misspelt_command() -> None:
    ran = run("prefligth")
    assert ran.code == 2
    assert "Did you mean preflight?" in ran.err


def test_one_tokenizer_and_no_more(hparams: Path, requests: Path) -> None:
    for arguments in ([], ["--tokenizer", GPT2, "--model", GPT2]):
        ran = run("preflight", hparams, "--requests", requests, "--output-format", "json", *arguments)
        refused(ran, "one of the two", "--tokenizer DIR or --model DIR")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}\nNo place here\n", "exactly one {}"),
        ("{} and {}\n", "exactly one {}"),
        ("{}\n{name} {}\n", "no other braces"),
        ("", "no template"),
    ],
)
def test_bad_templates(content: str, words: str, tmp_path: Path, hparams: Path, requests: Path) -> None:
    templates = tmp_path / "templates.txt"
    templates.write_text(content, "utf-8")
    refused(preflight(hparams, requests, GPT2, "--context-templates", templates), words, "", "templates.txt")


def test_templates_that_are_not_there(tmp_path: Path, hparams: Path, requests: Path) -> None:
    refused(
        preflight(hparams, requests, GPT2, "--context-templates", tmp_path / "no.json"), "does not exist", "Check", "no.json"
    )


# -- outputs that cannot be written ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--rows-out", "--html", "--output-file"])
def test_outputs_that_cannot_be_written(option: str, tmp_path: Path, hparams: Path, requests: Path) -> None:
    """The plan is checked all the same, and the report says so on the terminal."""
    place = tmp_path / "no" / "such" / "folder" / "file"
    ran = run(
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
        option,
        place,
    )
    error = refused(ran, "cannot be written", "Check the path", "file")
    assert "No such file or directory" in error["message"]
    assert ran.json["requests"]["drifting"] == 3
    ran = run("preflight", hparams, "--requests", requests, "--tokenizer", GPT2, option, place)
    assert ran.code == 2
    assert "cannot be written" in ran.out
    assert "1 part of the job could not be done" in ran.out


@pytest.mark.parametrize("option", ["--rows-out", "--html"])
def test_a_folder_as_output(option: str, tmp_path: Path, hparams: Path, requests: Path) -> None:
    refused(preflight(hparams, requests, GPT2, option, tmp_path), "cannot be written", "Check the path")


# -- allowed, and unusual --------------------------------------------------------------------------------------------------------------


def test_no_rows_to_show(hparams: Path, requests: Path) -> None:
    for more in ([], ["--output-format", "json"]):
        ran = run(
            "preflight",
            hparams,
            "--requests",
            requests,
            "--tokenizer",
            GPT2,
            "--padding-side",
            "left",
            "--max-rows",
            "0",
            *more,
        )
        assert ran.code == 1
        assert "Traceback" not in ran.out + ran.err


def test_requests_from_standard_input(monkeypatch: pytest.MonkeyPatch, hparams: Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(GOOD).encode())))
    ran = preflight(hparams, "-", GPT2, "--padding-side", "left")
    assert ran.code == 1
    assert ran.json["errors"] == []
    assert ran.json["requests"] == {"checked": 3, "drifting": 3, "drifting_ids": [0, 1, 2]}


@pytest.mark.slow
def test_requests_through_a_pipe(hparams: Path, tmp_path: Path) -> None:
    """Stand-in templates need a second look at the requests: what can be read only once is kept."""
    arguments = ["--tokenizer", GPT2, "--padding-side", "left", "--output-format", "json"]
    ran = run_installed("preflight", hparams, "--requests", "-", *arguments, stdin=json.dumps(GOOD))
    assert (ran.code, ran.err) == (1, "")
    assert ran.json["requests"]["drifting"] == 3
    empty = run_installed("preflight", hparams, "--requests", "-", *arguments, stdin="")
    refused(empty, "", "right file", "-")
    if os.name == "posix":
        import threading

        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=lambda: pipe.write_text(json.dumps(GOOD), "utf-8"))
        writer.start()
        ran = run_installed("preflight", hparams, "--requests", pipe, *arguments)
        writer.join()
        assert (ran.code, ran.err) == (1, "")
        assert ran.json["requests"]["checked"] == 3


def test_the_function_never_raises_for_bad_input(tmp_path: Path) -> None:
    report = preflight_function(tmp_path / "none.yaml", tmp_path / "none.json", tokenizer=GPT2)
    assert (report.exit_code(), report.verdict) == (2, "incomplete")
    report = preflight_function({"alg_name": "ROME", "model_name": "gpt2"}, GOOD)
    assert report.exit_code() == 2
    assert "--tokenizer" in str(report.errors[0].remedy)
    report = preflight_function({"alg_name": "ROME", "model_name": "gpt2"}, [*GOOD, {"prompt": "x"}], tokenizer=GPT2)
    assert report.requests_checked == 3
    assert report.exit_code() == 2


@pytest.mark.parametrize("output_format", ["text", "concise", "json", "sarif", "github", "gitlab", "junit"])
def test_an_error_is_said_in_every_format(output_format: str, tmp_path: Path, hparams: Path) -> None:
    ran = run(
        "preflight", hparams, "--requests", tmp_path / "no.json", "--tokenizer", GPT2, "--output-format", output_format
    )
    assert ran.code == 2
    assert "no.json" in ran.out
    if output_format in {"json", "sarif", "gitlab"}:
        json.loads(ran.out)


@pytest.mark.slow
def test_no_traceback_from_the_installed_command(tmp_path: Path, hparams: Path, requests: Path) -> None:
    for arguments in (
        [tmp_path / "no.yaml", "--requests", requests, "--tokenizer", GPT2],
        [hparams, "--requests", SHIPPED / "nothing", "--tokenizer", tmp_path],
        [hparams, "--requests", requests, "--tokenizer", GPT2, "--rows-out", tmp_path],
    ):
        ran = run_installed("preflight", *arguments)
        assert ran.code == 2
        assert "Traceback" not in ran.out + ran.err
        assert "Traceback" not in ran.out
