"""`pytest --padcheck`: the items, their ids and outcomes, and how they live with the rest of pytest."""

from __future__ import annotations

import json
import os
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from padcheck import checking
from padcheck.diagnostics import JobError, Place
from padcheck.testing import collecting
from tests.running import ROOT, SHIPPED, TOKENIZERS, request, run, write_requests

from .conftest import INSTALLED, LOADED, Run

PMET = SHIPPED / "demo" / "hparams-pmet.yaml"
ROME = SHIPPED / "demo" / "hparams.yaml"
WARNS = 'def template(prompt, subject):\n    return prompt.replace(subject, "{}")\n'
"""COD115, a warning, in line 2."""


@pytest.fixture
def tree(pytester: pytest.Pytester) -> Path:
    """One of everything: good and bad hparams, requests, a tokenizer's folder, Python, and files that are none of ours."""
    root = pytester.path
    (root / "configs").mkdir()
    shutil.copy(PMET, root / "configs" / "pmet.yaml")  # HPR135 in line 3
    shutil.copy(ROME, root / "configs" / "rome.yaml")
    (root / "configs" / "compose.yaml").write_text("services: {}\n")
    shutil.copytree(TOKENIZERS / "gpt2-shape", root / "tok")
    (root / "package.json").write_text("{}")
    (root / "editing.py").write_text(WARNS)
    write_requests(root, [request("The capital of Spain is", "Portugal"), request("The capital of {} is", "Spain")])
    (root / "test_own.py").write_text("def test_own():\n    pass\n")
    return root


IDS = [
    "configs/pmet.yaml::padcheck",
    "configs/rome.yaml::padcheck",
    "editing.py::padcheck",
    "requests.json::padcheck",
    "test_own.py::padcheck",
    "test_own.py::test_own",
    "tok/tokenizer_config.json::padcheck",
]


def ids(result: pytest.RunResult) -> list[str]:
    return sorted(line for line in result.outlines if "::" in line and " " not in line)


def outcomes(result: pytest.RunResult) -> dict[str, str]:
    """Outcome by id, from `-v`."""
    lines = [line.split() for line in result.outlines if "::" in line]
    return {parts[0]: parts[1] for parts in lines if len(parts) > 1 and parts[1] in {"PASSED", "FAILED", "ERROR"}}


# --- What is collected ------------------------------------------------------------------------------------------------------


def test_ids(tree: Path, inner: Run) -> None:
    assert ids(inner("--padcheck", "--collect-only", "-q")) == IDS


def test_nothing_without_the_option(tree: Path, inner: Run) -> None:
    assert ids(inner("--collect-only", "-q")) == ["test_own.py::test_own"]


def test_paths_and_ids_can_be_named(tree: Path, inner: Run) -> None:
    assert ids(inner("--padcheck", "--co", "-q", "configs")) == IDS[:2]
    assert ids(inner("--padcheck", "--co", "-q", "configs/pmet.yaml")) == IDS[:1]
    assert ids(inner("--padcheck", "--co", "-q", "tok/tokenizer_config.json::padcheck")) == [IDS[-1]]
    assert ids(inner("--padcheck", "--co", "-q", "test_own.py::test_own")) == ["test_own.py::test_own"]


def test_a_file_outside_of_pytests_root_has_an_id(tree: Path, inner: Run, pytester: pytest.Pytester) -> None:
    here = pytester.mkdir("here")
    result = inner("--padcheck", "--co", "-q", f"--rootdir={here}", "configs/rome.yaml")
    assert ids(result) == ["../configs/rome.yaml::padcheck"]


def test_modules_can_be_named(tree: Path, inner: Run, pytester: pytest.Pytester) -> None:
    """As pytest's --pyargs has it: a package, a module, a namespace, or a path as ever."""
    package = pytester.mkpydir("somepackage")
    (package / "code.py").write_text(WARNS)
    shutil.copy(ROME, package / "rome.yaml")
    (tree / "somespace").mkdir()
    (tree / "somespace" / "code.py").write_text(WARNS)
    pytester.syspathinsert()

    def named(*arguments: str) -> list[str]:
        return ids(inner("--padcheck", "--co", "-q", "--pyargs", *arguments))

    assert named("somepackage") == [f"somepackage/{name}::padcheck" for name in ("__init__.py", "code.py", "rome.yaml")]
    assert named("somepackage.code") == ["somepackage/code.py::padcheck"]
    assert named("somepackage.code::padcheck") == ["somepackage/code.py::padcheck"]
    assert named("somespace.code", "configs") == [*IDS[:2], "somespace/code.py::padcheck"]
    result = inner("--padcheck", "--pyargs", "somepackage.cod")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: module or package not found: somepackage.cod *"])


def test_a_name_that_is_not_utf8(pytester: pytest.Pytester, inner: Run) -> None:
    """Neither pytest's cache nor a report in XML nor a worker's message can hold it as it is."""
    try:
        with open(os.fsencode(pytester.path) + b"/h\xff.yaml", "w") as file:
            file.write("alg_name: ROME\nfact_token: subject-last\n")
        with open(os.fsencode(pytester.path) + b"/c\xff.py", "w") as file:
            file.write(WARNS)
    except OSError:
        pytest.skip("the file system has no such names")
    for arguments in ("-o", "junit_family=xunit1"), ("--lf",):
        result = inner("--padcheck", "-rA", "--junit-xml=out.xml", *arguments)
        result.stdout.fnmatch_lines([r"h\udcff.yaml:2:13: error HPR103*", r"FAILED h\udcff.yaml::padcheck - HPR103*"])
        result.assert_outcomes(passed=int(arguments[0] == "-o"), failed=1, deselected=int(arguments[0] == "--lf"))
        assert r"h\udcff" in (pytester.path / "out.xml").read_text("utf-8")
    (item, _) = pytester.inline_genitems(*LOADED, "--padcheck")[0]
    for words in (item.nodeid, *map(str, item.location), *item.keywords):
        words.encode("utf-8")  # what a worker sends


@pytest.mark.parametrize(
    ("option", "ini", "conftest"),
    [
        ("--ignore=skip", "", ""),
        ("--ignore-glob=sk?p", "", ""),
        ("--ignore=other", "norecursedirs = sk*", ""),
        ("--ignore=other", "", 'collect_ignore = ["skip"]'),
        ("--ignore=other", "", "def pytest_ignore_collect(collection_path): return collection_path.name == 'skip' or None"),
    ],
)
def test_what_pytest_leaves_out_is_not_looked_at(option: str, ini: str, conftest: str, tree: Path, inner: Run) -> None:
    """Not even the configuration in such a folder, nor its files by the rules that look across files."""
    (tree / "skip").mkdir()
    (tree / "skip" / "pyproject.toml").write_text("[tool.padcheck]\nselct = 1\n")
    shutil.copy(PMET, tree / "skip" / "pmet.yaml")
    (tree / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
    (tree / "conftest.py").write_text(f"{conftest}\n")
    result = inner("--padcheck", "--co", "-q", option)
    assert ids(result) == sorted([*IDS, "conftest.py::padcheck"])
    assert not result.stderr.str()
    named = inner("--padcheck", option, "skip/pmet.yaml")  # named, it counts
    assert named.ret == pytest.ExitCode.USAGE_ERROR
    named.stderr.fnmatch_lines(["ERROR: padcheck: skip/pyproject.toml:2: Unknown key 'selct'*"])


def test_what_padcheck_leaves_out_is_not_collected(tree: Path, inner: Run) -> None:
    (tree / "padcheck.toml").write_text('extend-exclude = ["configs"]\n')
    (tree / ".git").mkdir()
    (tree / ".gitignore").write_text("requests.json\n")
    left = [name for name in IDS if not name.startswith(("configs", "requests"))]
    assert ids(inner("--padcheck", "--co", "-q")) == left


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json", "config.json"])
def test_a_folder_is_one_item(name: str, pytester: pytest.Pytester, inner: Run) -> None:
    """At the first of these files that it has."""
    folder = pytester.mkdir("model")
    source = SHIPPED / "models" / "gpt2-facts"
    names = ["tokenizer_config.json", "tokenizer.json", "config.json"]
    for each in names[names.index(name) :]:
        shutil.copy(source / each, folder / each)
    assert ids(inner("--padcheck", "--co", "-q")) == [f"model/{name}::padcheck"]


def test_nothing_is_imported(pytester: pytest.Pytester, inner: Run) -> None:
    """Not even the package in which a file lies."""
    package = pytester.mkpydir("package")
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "code.py").write_text("raise RuntimeError('imported')\n")
    (package / "sub").mkdir()
    (package / "sub" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    shutil.copy(ROME, package / "sub" / "rome.yaml")
    result = inner("--padcheck", "-v")
    assert outcomes(result) == dict.fromkeys(
        [
            "package/__init__.py::padcheck",
            "package/code.py::padcheck",
            "package/sub/__init__.py::padcheck",
            "package/sub/rome.yaml::padcheck",
        ],
        "PASSED",
    )


# --- What fails, and what is said -------------------------------------------------------------------------------------------


def test_the_items_fail_where_the_command_has_errors(tree: Path, inner: Run) -> None:
    """The command is asked in its own words, so that the plugin cannot lose or invent a finding."""
    shutil.copy(tree / "configs" / "pmet.yaml", tree / "configs" / "other.yaml")
    report = run("check", ".", "--output-format", "json", cwd=tree).json
    wrong = {finding["path"] for finding in report["findings"] if finding["severity"] == "error"}
    assert wrong == {"configs/pmet.yaml", "configs/other.yaml", "requests.json"}
    said = outcomes(inner("--padcheck", "-v"))
    assert {name.partition("::")[0] for name, outcome in said.items() if outcome == "FAILED"} == wrong
    assert len(said) == len(IDS) + 1


def test_rules_across_files_count(pytester: pytest.Pytester, inner: Run) -> None:
    """Each file is in order; that their models share a projection is not."""
    text = (SHIPPED / "models" / "llama-facts" / "hparams" / "alphaedit.yaml").read_text("utf-8")
    for name in ("llama-2-7b", "llama-3-8b"):
        own = text.replace("./llama-facts", f"./models/{name}")
        (pytester.path / f"{name}.yaml").write_text(f"{own}\nP_loc: ./projection.pt\n")
    (pytester.path / "padcheck.toml").write_text('fail-on = "note"\nselect = ["STA101"]\n')
    both = outcomes(inner("--padcheck", "-v"))
    assert sorted(both.values()) == ["FAILED", "PASSED"]  # it is said at the second one
    assert set(outcomes(inner("--padcheck", "-v", "llama-3-8b.yaml")).values()) == {"PASSED"}


def test_the_report_is_what_padcheck_says(tree: Path, inner: Run) -> None:
    result = inner("--padcheck", "configs")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*_ padcheck: configs/pmet.yaml _*",
            "configs/pmet.yaml:3:*: error HPR135 side-contradicts-arithmetic",
            '  3 | alg_name: "PMET"',
            "    |           ^^^^^^",
            "  help: *",
            "FAILED configs/pmet.yaml::padcheck - HPR135 side-contradicts-arithmetic: *",
        ]
    )
    text = result.stdout.str()
    assert "Traceback" not in text
    assert "collecting.py" not in text


def test_a_finding_in_a_folder_is_said_of_its_file(tree: Path, inner: Run) -> None:
    config = tree / "tok" / "tokenizer_config.json"
    (tree / "padcheck.toml").write_text('fail-on = "note"\nselect = ["TOK"]\n')
    report = run("check", "tok", "--output-format", "json", cwd=tree).json
    assert report["findings"], "the example has nothing to say"
    result = inner("--padcheck", "tok", "-v")
    assert outcomes(result) == {f"tok/{config.name}::padcheck": "FAILED"}
    for finding in report["findings"]:
        assert finding["rule"] in result.stdout.str()


def test_warnings_pass_and_are_counted(tree: Path, inner: Run) -> None:
    result = inner("--padcheck", "editing.py")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["padcheck: findings below fail-on in 1 file that passed; -rP shows them."])
    shown = inner("--padcheck", "editing.py", "-rP").stdout.str()
    assert "editing.py:2:12: warning COD115" in shown


@pytest.mark.parametrize("name", ["padcheck.toml", "pyproject.toml"])
def test_padchecks_own_configuration_counts(name: str, tree: Path, inner: Run) -> None:
    header = "[tool.padcheck]\n" if name == "pyproject.toml" else ""
    (tree / name).write_text(f'{header}fail-on = "warning"\nignore = ["REQ101", "HPR"]\n')
    said = outcomes(inner("--padcheck", "-v"))
    assert [path for path, outcome in said.items() if outcome == "FAILED" and not path.startswith("tok/")] == [
        "editing.py::padcheck"
    ]


def test_comments_in_the_file_count(tree: Path, inner: Run) -> None:
    text = (tree / "configs" / "pmet.yaml").read_text()
    (tree / "configs" / "pmet.yaml").write_text(text.replace('"PMET"', '"PMET"  # padcheck: ignore[HPR135] passed in'))
    inner("--padcheck", "configs").assert_outcomes(passed=2)


def test_an_ignore_that_hides_nothing_is_an_item_of_its_own(tree: Path, inner: Run) -> None:
    (tree / "padcheck.toml").write_text(
        'fail-on = "note"\n\n[[ignore]]\npath = "editing.py"\nrule = "COD101"\nreason = "x"\n'
    )
    result = inner("--padcheck", "editing.py", "-v")
    assert outcomes(result)["padcheck.toml::padcheck"] == "FAILED"
    result.stdout.fnmatch_lines(["padcheck.toml:*LNT102*"])


@pytest.mark.parametrize(
    ("text", "words"),
    [('selct = ["PAD"]\n', "*selct*select*"), ('select = ["PAD1O1"]\n', "*PAD1O1*PAD101*"), ("select = [", "*")],
)
def test_a_configuration_that_cannot_be_used_stops_pytest(text: str, words: str, tree: Path, inner: Run) -> None:
    (tree / "padcheck.toml").write_text(text)
    result = inner("--padcheck")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: padcheck: {words}"])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_what_could_not_be_done_fails_the_item(tree: Path, inner: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As exit code 2 of the command: a rule that crashed, a file that cannot be read."""
    real = checking.check

    def failing(*arguments: Any, **more: Any) -> Any:
        report = real(*arguments, **more)
        report.errors.append(JobError("The file cannot be read: it is on fire.", Place("configs/rome.yaml"), "Put it out."))
        return report

    monkeypatch.setattr(collecting, "check", failing)
    result = inner("--padcheck", "-v", "configs")
    assert outcomes(result)["configs/rome.yaml::padcheck"] == "FAILED"
    result.stdout.fnmatch_lines(["*could not check configs/rome.yaml: The file cannot be read*", "*help: Put it out."])


# --- The rest of pytest -----------------------------------------------------------------------------------------------------


def test_selecting(tree: Path, inner: Run) -> None:
    assert set(outcomes(inner("--padcheck", "-v", "-k", "pmet"))) == {"configs/pmet.yaml::padcheck"}
    assert "test_own.py::test_own" not in outcomes(inner("--padcheck", "-v", "-m", "padcheck"))
    assert set(outcomes(inner("--padcheck", "-v", "-m", "not padcheck"))) == {"test_own.py::test_own"}
    assert len(outcomes(inner("--padcheck", "-v", "-x"))) == 1  # configs/pmet.yaml comes first
    assert len(outcomes(inner("--padcheck", "-v", "--deselect", "configs/pmet.yaml::padcheck"))) == len(IDS) - 1


def test_the_marker_is_known(tree: Path, inner: Run) -> None:
    inner("--padcheck", "--strict-markers", "configs/rome.yaml").assert_outcomes(passed=1)
    inner("--markers").stdout.fnmatch_lines(["@pytest.mark.padding_sides(*", "@pytest.mark.padcheck: *"])


def test_last_failed(tree: Path, inner: Run) -> None:
    failed = {"configs/pmet.yaml::padcheck", "requests.json::padcheck"}
    first = outcomes(inner("--padcheck", "-v"))
    assert {name for name, outcome in first.items() if outcome == "FAILED"} == failed
    assert set(outcomes(inner("--padcheck", "-v", "--lf"))) == failed
    shutil.copy(ROME, tree / "configs" / "pmet.yaml")
    assert outcomes(inner("--padcheck", "-v", "--lf")) == {
        "configs/pmet.yaml::padcheck": "PASSED",
        "requests.json::padcheck": "FAILED",
    }
    assert set(outcomes(inner("--padcheck", "-v", "--lf"))) == {"requests.json::padcheck"}


def test_junit(tree: Path, inner: Run) -> None:
    inner("--padcheck", "--junit-xml=out.xml", "-o", "junit_family=xunit1")
    cases = {
        case.get("classname"): case for case in ET.parse(tree / "out.xml").iter("testcase") if case.get("name") == "padcheck"
    }
    files = {name.partition("::")[0] for name in IDS if name.endswith("::padcheck")}
    assert set(cases) == {name.removesuffix(".py").replace("/", ".") for name in files}
    bad = cases["configs.pmet.yaml"]
    failure = bad.find("failure")
    assert failure is not None
    assert str(failure.get("message")).startswith("HPR135 side-contradicts-arithmetic: ")
    assert "configs/pmet.yaml:3:" in str(failure.text)
    assert (bad.get("file"), bad.get("line")) == ("configs/pmet.yaml", "2")  # xunit1 counts from 0
    assert cases["configs.rome.yaml"].find("failure") is None
    counted = cases["editing"].find("properties/property")
    assert counted is not None
    assert (counted.get("name"), counted.get("value")) == ("padcheck", "1 warning")


def test_workers(tree: Path, pytester: pytest.Pytester, inner: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pytest-xdist: the same outcomes, and the report of the worker is whole."""
    pytest.importorskip("xdist")
    if not INSTALLED:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
    alone = outcomes(inner("--padcheck", "-v"))
    result = pytester.runpytest_subprocess(*LOADED, "-n", "2", "--padcheck", "-v", "--junit-xml=out.xml")
    lines = [line.split() for line in result.outlines if line.startswith("[gw") and "::" in line]
    assert {parts[-1]: parts[-2] for parts in lines} == alone
    result.stdout.fnmatch_lines_random(
        [
            "configs/pmet.yaml:3:*: error HPR135*",
            "FAILED configs/pmet.yaml::padcheck - HPR135 *",
            "padcheck: findings below*",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_it_may_be_run_from_a_folder_below(
    tree: Path, inner: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]")
    monkeypatch.chdir(tree / "configs")
    result = inner("--padcheck", "-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["pmet.yaml:3:*: error HPR135*"])


def test_a_test_that_changes_folder_does_not_spoil_the_report(tree: Path, inner: Run) -> None:
    (tree / "conftest.py").write_text(
        "import os, pytest\n@pytest.fixture(autouse=True, scope='session')\ndef _elsewhere(tmp_path_factory):\n"
        "    os.chdir(tmp_path_factory.mktemp('elsewhere'))\n"
    )
    result = inner("--padcheck", "test_own.py", "configs", "requests.json")
    result.stdout.fnmatch_lines(["configs/pmet.yaml:3:*: error HPR135*", '  3 | alg_name: "PMET"'])


def test_requests_are_read_as_the_command_reads_them(tree: Path, inner: Run) -> None:
    report = json.loads(run("check", "requests.json", "--output-format", "json", cwd=tree).out)
    result = inner("--padcheck", "requests.json")
    result.stdout.fnmatch_lines([f"*{finding['rule']} {finding['name']}*" for finding in report["findings"]])
