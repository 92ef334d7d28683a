"""The manners of `padcheck check`: what is looked at, exit codes, ignores, fixes, baseline, cache, processes, standard input."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from padcheck import checking, fixing
from padcheck.checks import hparams as checks
from padcheck.cli import main
from padcheck.diagnostics import Finding, Fix, Place, TextEdit
from padcheck.discovery import recognise

from .conftest import LLAMA, MEMIT, ROME, Write, run, said, yaml_of

BAD = {**ROME, "fact_token": "subject-last"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PADCHECK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path)


def json_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


# --- Exit codes -------------------------------------------------------------------------------------------------------------


def test_exit_codes(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = write(ROME), write(BAD, "bad/gpt2-xl.yaml")
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.md").write_text("nothing of ours")
    assert main(["check", str(good)]) == 0
    assert main(["check", str(bad)]) == 1
    assert main(["check", "empty"]) == 3
    assert main(["check", "README.md"]) == 0  # opened and not ours: inspected
    assert main(["check", str(bad), "missing.yaml"]) == 2
    assert main(["check", str(bad), "--exit-zero"]) == 0
    assert main(["check", str(bad), "--fail-on", "never"]) == 0
    assert main(["check", str(good), "--fail-on", "note"]) == 0
    noted = write({**ROME, "device": 3}, "noted/gpt2-xl.yaml")
    assert [main(["check", str(noted), *more]) for more in ([], ["--fail-on", "note"])] == [0, 1]
    assert main(["check", str(bad), "--ignore", "HPR103"]) == 0
    assert main(["check", str(bad), "--select", "HPR1O3"]) == 2
    assert main(["check", str(bad), "--select", "COD"]) == 0
    capsys.readouterr()
    assert main(["check", "misssing.yaml", "--output-format", "json"]) == 2
    assert json_of(capsys)["errors"][0]["path"] == "misssing.yaml"


@pytest.mark.parametrize("output_format", ["text", "concise", "json", "sarif", "github", "gitlab", "junit"])
def test_every_format_says_the_finding(output_format: str, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write(BAD)
    assert main(["check", "--output-format", output_format]) == 1
    assert "HPR103" in capsys.readouterr().out


def test_a_rule_that_crashes_is_a_finding_and_exit_2(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(case: object) -> Any:
        raise KeyError("offsets")

    monkeypatch.setitem(checks.CHECKS, broken, ("HPR130",))
    path = write(BAD)
    assert main(["check", str(path), "--output-format", "json"]) == 2
    report = json_of(capsys)
    assert {"LNT101", "HPR103"} <= {finding["rule"] for finding in report["findings"]}
    assert report["errors"]
    assert main(["check", str(path), "--ignore", "HPR130"]) == 1


# --- What is looked at ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.yaml", "alg_name: caa\nlayers: [20]\n", "hparams"),
        ("a.yml", "layers: [1]\nv_lr: 0.1\nkl_factor: 0\n", "hparams"),
        ("a.yaml", "layers: 3\nhidden: 4\nname: x\n", "other"),
        ("a.yaml", "on: push\njobs: {}\n", "other"),
        ("a.json", json.dumps({"layers": [1], "fact_token": "last", "v_lr": 1}), "hparams"),
        ("a.json", json.dumps([{"prompt": "x", "subject": "x", "target_new": "y"}]), "requests"),
        ("a.jsonl", '{"prompt": "x", "subject": "x", "target_new": "y"}\n', "requests"),
        ("a.csv", "prompt,subject,target_new\nx,y,z\n", "requests"),
        ("a.json", "{}", "other"),
        ("a.py", "", "python"),
        ("a.ipynb", "{}", "notebook"),
        ("a.md", "alg_name: ROME", "other"),
    ],
)
def test_recognition(name: str, text: str, kind: str) -> None:
    assert recognise(Path(name), text).kind == kind


def test_excludes_and_gitignore(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.yaml", "venv/b.yaml", "out/c.yaml", "sub/out/d.yaml", "kept/e.yaml", "node_modules/x/f.yaml"):
        write(ROME, name)
    (tmp_path / ".gitignore").write_text("out/\n*.yml\n!kept\n")
    assert {Path(each[0]).name for each in run(tmp_path).shown} == {
        "a.yaml",
        "c.yaml",
        "d.yaml",
        "e.yaml",
    }  # no repository, as ruff
    (tmp_path / ".git").mkdir()
    assert {Path(each[0]).name for each in run(tmp_path).shown} == {"a.yaml", "e.yaml"}
    assert {Path(each[0]).name for each in run(tmp_path / "venv" / "b.yaml").shown} == {"b.yaml"}
    assert not run(tmp_path / "venv" / "b.yaml", settings={"isolated": True, "force_exclude": True}).shown
    assert main(["check", "--show-files", "a.yaml"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["a.yaml", "hparams"]


def test_broken_files_of_ours_are_findings(write: Write, tmp_path: Path) -> None:
    write("alg_name: ROME\nlayers: [1\n", "a.yaml")
    write("jobs: [1\n", "b.yaml")
    report = run(tmp_path)
    assert [(finding.rule, Path(finding.place.path or "").name) for finding in report.findings] == [("LNT104", "a.yaml")]
    assert not report.errors


def test_files_that_the_configuration_maps(write: Write, tmp_path: Path) -> None:
    values = {key: value for key, value in MEMIT.items() if key not in ("alg_name", "device", "model_name", "stats_dir")}
    write({**values, "v_loss_layer": 3}, "conf/gpt2-xl.json")
    (tmp_path / "padcheck.toml").write_text(
        '[files]\n"conf/*.json" = {kind = "hparams", framework = "kmeng01-memit", method = "MEMIT"}\n'
    )
    report = run(tmp_path / "conf", settings={"isolated": False})
    assert "HPR113" in said(report, "error")


@pytest.mark.parametrize(
    "text",
    [
        "selct = ['HPR']",
        "select = ['HPRR']",
        "fail-on = 'eror'",
        "[files]\n'x' = 'hparam'",
        "[per-file-ignores]\n'x' = ['HPR1O3']",
    ],
)
def test_a_typo_in_the_configuration_is_exit_2_with_a_suggestion(
    text: str, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(ROME)
    (tmp_path / "padcheck.toml").write_text(text)
    assert main(["check", "--output-format", "json"]) == 2
    (error,) = json_of(capsys)["errors"]
    assert error["path"].endswith("padcheck.toml")
    assert error["remedy"]


def test_nearest_configuration_of_each_file(write: Write, tmp_path: Path) -> None:
    write(BAD, "one/gpt2-xl.yaml")
    write(BAD, "two/gpt2-xl.yaml")
    (tmp_path / "one" / "padcheck.toml").write_text('ignore = ["HPR103"]\n')
    report = run(tmp_path, settings={"isolated": False})
    assert [finding.place.path for finding in report.findings if finding.rule == "HPR103"] == [
        (tmp_path / "two/gpt2-xl.yaml").relative_to(tmp_path).as_posix()
    ]


# --- Ignores ----------------------------------------------------------------------------------------------------------------


def test_ignore_comments(write: Write) -> None:
    text = yaml_of(BAD).replace('"subject-last"\n', '"subject-last"  # padcheck: ignore[HPR103] a test\n')
    report = run(write(text, "ROME/gpt2-xl.yaml"))
    assert "HPR103" not in said(report)
    assert [finding.suppressed for finding in report.findings if finding.rule == "HPR103"] == [True]
    above = yaml_of(ROME).replace("fact_token", "# padcheck: ignore[HPR103]\nfact_token")
    assert "LNT102" in said(run(write(above, "ROME/gpt2-xl.yaml")))
    typo = yaml_of(ROME) + "# padcheck: ignore-file[HPR1O3]\n"
    assert "LNT103" in said(run(write(typo, "ROME/gpt2-xl.yaml")), "error")
    quoted = yaml_of(ROME).replace('"./data/stats"', '"# padcheck: ignore[HPR103]"')
    assert not said(run(write(quoted, "ROME/gpt2-xl.yaml")))


def test_per_file_ignores_and_entries(write: Write, tmp_path: Path) -> None:
    write(BAD, "a/gpt2-xl.yaml")
    write(BAD, "b/gpt2-xl.yaml")
    (tmp_path / "padcheck.toml").write_text(
        '[per-file-ignores]\n"a/*" = ["HPR103"]\n[[ignore]]\npath = "b/*.yaml"\nrule = "HPR103"\nreason = "x"\n[[ignore]]\npath = "b/*"\nrule = "HPR113"\n'
    )
    report = run(tmp_path, settings={"isolated": False})
    assert said(report) == {"LNT102"}
    assert report.counts()["suppressed"] == 1


def test_baseline(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(BAD)
    assert main(["check", "--add-ignores"]) == 0
    assert main(["check", "--fail-on", "note"]) == 0
    monkeypatch.chdir(path.parent)
    assert main(["check", "--fail-on", "note"]) == 0  # the same from another folder
    write({**BAD, "v_num_grad_steps": 0})
    capsys.readouterr()
    assert main(["check", "--output-format", "json"]) == 1
    assert {finding["rule"] for finding in json_of(capsys)["findings"] if not finding["suppressed"]} == {"HPR127"}


LISTS = {
    "plain": 'ignore = ["HPR121"]\nselect = []\n',
    "lines": 'select = []\nignore = [\n  "HPR121", # ] not the end\n  "HPR128" # nor this ]\n]\n',
    "comma": 'ignore = [ "HPR121", ]\n',
    "empty": "ignore = []\n",
    "mixed": 'ignore = ["HPR121", { rule = "HPR128", path = "x[1].yaml", reason = "a ] b" }]\n',
    "section": '[tool.padcheck]\n"ignore" = ["HPR121"]\n[tool.padcheck.per-file-ignores]\n"a" = ["HPR121"]\n',
    "entries": '# why\n[[ignore]]\nrule = "HPR128"\npath = "x"\n',
    "nothing": "",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_baseline_stands_beside_what_is_there(name: str, write: Write, tmp_path: Path) -> None:
    """Rules and entries share one list where the list is there; everything else of the file stays."""
    path, config = write(BAD), tmp_path / "padcheck.toml"
    config.write_text(LISTS[name])
    assert main(["check"]) == 1
    assert main(["check", "--add-ignores"]) == 0
    assert main(["check"]) == 0
    after = config.read_text()
    assert [line for line in LISTS[name].splitlines() if line.rstrip(" ,]") not in after] == []
    write({**BAD, "v_num_grad_steps": 0})
    assert {finding.rule for finding in run(path, settings={"isolated": False}).visible()} - {"LNT102"} == {"HPR127"}
    assert main(["check", "--add-ignores"]) == 0  # once more, behind what the first time wrote
    assert main(["check"]) == 0


def test_a_baseline_in_pyproject(write: Write, tmp_path: Path) -> None:
    write(BAD)
    config = tmp_path / "pyproject.toml"
    config.write_text(
        '[project]\nname = "x"\nignore = ["no"]\n[tool.padcheck]\nignore = ["HPR121"]\n[tool.other]\nignore = ["y"]\n'
    )
    assert main(["check", "--add-ignores"]) == 0
    assert main(["check"]) == 0
    assert config.read_text().startswith('[project]\nname = "x"\nignore = ["no"]\n[tool.padcheck]\nignore = ["HPR121",\n  {')
    assert config.read_text().endswith('},\n]\n[tool.other]\nignore = ["y"]\n')


def test_a_baseline_never_breaks_the_configuration(write: Write, tmp_path: Path) -> None:
    write(BAD)
    config = tmp_path / "padcheck.toml"
    config.write_text('tool.padcheck.ignore = ["HPR121"]\n')
    assert main(["check", "--add-ignores"]) == 2
    assert config.read_text() == 'tool.padcheck.ignore = ["HPR121"]\n'


# --- Configuration ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('select = "PAD101"', 1, 'Write select = ["PAD101"].'),
        ('\nignore = "PAD101"', 2, 'Write ignore = ["PAD101"].'),
        ('exclude = "build"', 1, "is a list of strings"),
        ("select = [1]", 1, "is a list of strings"),
        ('\n\nselect = ["PAD1O1"]', 3, "PAD101"),
        ('[per-file-ignores]\n"a.py" = "COD101"', 2, "is a list of strings"),
        ("per-file-ignores = 3", 1, "is a table of patterns"),
        ('[files]\n"a.yaml" = 3', 2, "is given a kind"),
        ('[files]\n"a.yaml" = { kind = "hparams", method = 3 }', 2, "method of 'a.yaml' is not text"),
        ('[[ignore]]\nrule = ["PAD101"]', 1, "rule of an ignore is not text"),
        ('[[ignore]]\nrule = "PAD101"\npath = 3', 1, "path of an ignore is not text"),
        ('fail-on = ["error"]', 1, "fail-on cannot be"),
        ('statistics = "yes"', 1, "is true or false"),
        ("tool.padcheck = 3", 1, "is a table of settings"),
        ("tool = 3", 1, "unknown key 'tool'"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error_with_its_place(
    text: str, line: int | None, words: str, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(ROME)
    (tmp_path / "padcheck.toml").write_text(text + "\n")
    assert main(["check", "--output-format", "json"]) == 2
    (error,) = json_of(capsys)["errors"]
    assert words.lower() in f"{error['message']} {error['remedy']}".lower()
    assert (error["path"].endswith("padcheck.toml"), error["line"]) == (True, line)


# --- Fixes ------------------------------------------------------------------------------------------------------------------


def test_safe_fixes_keep_everything_else(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "# why\r\n"
        + yaml_of(ROME).replace("\n", "\r\n").replace("v_lr: 0.5", "v_lr: 0.5   # first")
        + "v_lr: 0.1 # last\r\n"
    )
    path = write(ROME)
    path.write_bytes(text.encode())
    assert main(["check", str(path), "--fix"]) == 0
    assert path.read_bytes().decode() == text.replace("v_lr: 0.5   # first\r\n", "")
    before = path.stat().st_mtime_ns
    assert main(["check", str(path), "--fix"]) == 0
    assert path.stat().st_mtime_ns == before  # idempotent


def test_unsafe_fixes_wait(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write({**MEMIT, "v_loss_layer": 27, "lm_head_module": "lm_head"})
    old = path.read_text()
    assert main(["check", str(path), "--fix"]) == 1
    assert path.read_text() == old
    assert "--unsafe-fixes" in capsys.readouterr().out
    assert main(["check", str(path), "--diff", "--unsafe-fixes"]) == 1
    assert "+v_loss_layer: 47" in capsys.readouterr().out
    assert path.read_text() == old
    assert main(["check", str(path), "--fix", "--unsafe-fixes"]) == 0
    assert path.read_text() == old.replace("v_loss_layer: 27", "v_loss_layer: 47").replace('"lm_head"', '"transformer.wte"')


def test_a_fix_that_breaks_the_file_is_taken_back(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(case: Any) -> Any:
        place = Place(case.path, 1, 1, 1, 1)
        yield Finding("HPR130", "x", "note", "x", place=place, fix=Fix("break", (TextEdit(place, "["),), "safe"))

    monkeypatch.setitem(checks.CHECKS, breaking, ("HPR130",))
    path = write(ROME)
    old = path.read_text()
    run(path, fix=True)
    assert path.read_text() == old


def test_exit_non_zero_on_fix_and_unused_comments(write: Write) -> None:
    path = write(yaml_of(ROME).replace("device: 0\n", "device: 0 # padcheck: ignore[HPR130] old\n"), "ROME/gpt2-xl.yaml")
    assert main(["check", str(path), "--fix", "--exit-non-zero-on-fix"]) == 1
    assert "padcheck" not in path.read_text()
    assert main(["check", str(path), "--fix", "--exit-non-zero-on-fix"]) == 0


def test_overlapping_fixes_do_not_mix() -> None:
    def fix(start: int, end: int, text: str) -> Finding:
        place = Place("x", 1, start, 1, end)
        return Finding("HPR130", "x", "note", "x", place=place, fix=Fix("", (TextEdit(place, text),), "safe"))

    text, done = fixing.apply_fixes("abcdef\n", [fix(1, 4, "X"), fix(3, 5, "Y"), fix(5, 6, "Z")])
    assert (text, len(done)) == ("XdZf\n", 2)


# --- Cache, processes, standard input ---------------------------------------------------------------------------------------


def test_the_cache_says_the_same_and_nothing_else(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(BAD)
    write({**MEMIT, **LLAMA})
    command = ["check", "--output-format", "json"]
    assert main(command) == 1
    first = capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(checking, "look", lambda task: pytest.fail("looked again"))
        assert main(command) == 1
    assert capsys.readouterr().out == first
    write(ROME)
    assert main(command) == 0
    capsys.readouterr()
    for path in Path(checking.FactCache("x")._path.parent).glob("*.json"):  # type: ignore[union-attr]
        path.write_text("{broken")
    assert main(command) == 0


def test_processes_say_the_same(write: Write, tmp_path: Path) -> None:
    for number in range(6):
        write({**BAD, "layers": [40 + number * 3]}, f"m{number}/gpt2-xl.yaml")
    assert run(tmp_path, jobs=1).findings == run(tmp_path, jobs=3).findings


def test_standard_input(write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def give(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    give(yaml_of(BAD))
    assert main(["check", "-", "--stdin-filename", "hparams/ROME/gpt2-xl.yaml", "--output-format", "json"]) == 1
    (finding,) = [each for each in json_of(capsys)["findings"] if each["rule"] == "HPR103"]
    assert finding["path"] == "hparams/ROME/gpt2-xl.yaml"
    give(yaml_of(BAD))
    main(["check", "-", "--stdin-filename", "gpt2-xl.yaml", "--fix", "--unsafe-fixes"])
    assert capsys.readouterr().out == yaml_of(ROME)


def test_nothing_heavy_is_imported(write: Write, tmp_path: Path) -> None:
    write(ROME)
    write("import torch\ntok.padding_side = 'left'\n", "a.py")
    shared = Path(__file__).parents[2] / "fixtures" / "shipped"
    program = "import sys; from padcheck.cli import main; main(sys.argv[1:]); print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    paths = [str(tmp_path), str(shared / "tokenizers" / "gpt2-shape"), str(shared / "demo")]
    done = subprocess.run(
        [sys.executable, "-c", program, "check", "--no-cache", *paths],
        capture_output=True,
        text=True,
        check=True,
        cwd=shared.parents[1],
    )
    assert not {"torch", "transformers", "numpy", "jsonschema"} & set(done.stdout.splitlines()[-1].split())
