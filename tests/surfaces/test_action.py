"""`action.yml` and the GitLab template: valid against the published schemas, and their steps run as the runners run them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.running import ROOT

from .conftest import Script

ACTION = ROOT / "action.yml"
TEMPLATE = ROOT / "templates" / "padcheck.gitlab-ci.yml"
EXPRESSION = re.compile(r"\$\{\{\s*([^}]+?)\s*\}\}")


def action() -> dict[str, Any]:
    return dict(yaml.safe_load(ACTION.read_text("utf-8")))


def step(name: str) -> dict[str, Any]:
    (found,) = [each for each in action()["runs"]["steps"] if each.get("name") == name]
    return dict(found)


def evaluated(text: str, context: Mapping[str, str]) -> str:
    """The text with its `${{ … }}` replaced; an expression that the context does not know is an error."""
    return EXPRESSION.sub(lambda match: context[match[1]], text)


def inputs(**given: str) -> dict[str, str]:
    """What `inputs.…` are: the defaults, and what a workflow gives."""
    known = {name: str(value.get("default", "")) for name, value in action()["inputs"].items()}
    assert given.keys() <= {name.replace("-", "_") for name in known}
    known |= {name.replace("_", "-"): value for name, value in given.items()}
    return {f"inputs.{name}": value for name, value in known.items()}


def outputs(path: Path) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in path.read_text("utf-8").splitlines())


# --- GitHub -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("schema", "path"), [("github-actions", ACTION), ("gitlab-ci", TEMPLATE)], ids=["github", "gitlab"])
def test_against_the_published_schema(schema: str, path: Path) -> None:
    """The schema of schemastore.org, as check-jsonschema brings it along."""
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_schema_does_not_say() -> None:
    """A composite step that runs names its shell; inputs reach a script through its environment, never as its text."""
    known = action()
    for each in known["runs"]["steps"]:
        if "run" in each:
            assert each["shell"] == "bash"
            assert not EXPRESSION.search(each["run"])
    used = set(EXPRESSION.findall(ACTION.read_text("utf-8")))
    names = {re.match(r"inputs\.([\w-]+)", text)[1] for text in used if text.startswith("inputs.")}  # type: ignore[index]
    assert names == set(known["inputs"])
    assert {output["value"] for output in known["outputs"].values()} == {
        "${{ steps.check.outputs.exit-code }}",
        "${{ steps.check.outputs.sarif }}",
    }
    assert step("padcheck")["id"] == "check"


def check(script: Script, project: Path, **given: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    """Run the step that checks, in a project."""
    wanted = step("padcheck")
    environment = {name: evaluated(value, inputs(**given)) for name, value in wanted["env"].items()}
    output = project.parent / "github-output"
    output.write_text("")
    done = script(wanted["run"], project, {**environment, "GITHUB_OUTPUT": str(output)})
    return done, outputs(output)


def test_findings_are_annotations(script: Script, project: Path) -> None:
    done, said = check(script, project)
    assert done.returncode == 1, done.stderr
    assert said == {"exit-code": "1", "sarif": ""}
    (error,) = [line for line in done.stdout.splitlines() if line.startswith("::error ")]
    assert re.match(r"::error file=hparams/hparams-pmet\.yaml,line=3,.*title=HPR135 ", error)
    assert re.search(r"^::warning file=code\.py,line=2,.*title=COD115 ", done.stdout, re.MULTILINE)
    assert all(line.startswith("::") for line in done.stdout.splitlines())


def test_paths_args_and_fail_on(script: Script, project: Path) -> None:
    good = "hparams/hparams.yaml"
    assert check(script, project, paths=good)[1]["exit-code"] == "0"
    assert check(script, project, paths=f"{good}\ncode.py\n")[1]["exit-code"] == "0"
    assert check(script, project, paths=f"{good} code.py", fail_on="warning")[1]["exit-code"] == "1"
    assert check(script, project, args="--ignore HPR135")[1]["exit-code"] == "0"
    assert check(script, project, fail_on="never")[0].returncode == 0
    assert check(script, project, paths="mising.yaml")[1]["exit-code"] == "2"
    assert check(script, project, args="--selct PAD")[0].returncode == 2
    (project / "empty").mkdir()
    assert check(script, project, paths="empty")[1]["exit-code"] == "3"


def test_inputs_are_no_code(script: Script, project: Path) -> None:
    for name in ("paths", "args", "sarif", "fail_on"):
        check(script, project, **{name: "$(touch run) `touch run`; touch run #"})
    assert not [path.name for path in project.rglob("run")]


def test_sarif(script: Script, project: Path) -> None:
    done, said = check(script, project, sarif="padcheck.sarif")
    assert done.returncode == 1
    assert said == {"exit-code": "1", "sarif": "padcheck.sarif"}
    assert "::error" in done.stdout
    log = json.loads((project / "padcheck.sarif").read_text("utf-8"))
    assert {(result["ruleId"], result["level"]) for result in log["runs"][0]["results"]} >= {
        ("HPR135", "error"),
        ("COD115", "warning"),
    }


def test_sarif_in_a_folder_that_is_not_there(script: Script, project: Path) -> None:
    _, said = check(script, project, sarif="out/of/it.sarif", paths="hparams/hparams.yaml")
    assert said == {"exit-code": "0", "sarif": "out/of/it.sarif"}
    assert json.loads((project / "out" / "of" / "it.sarif").read_text("utf-8"))["version"] == "2.1.0"


def test_sarif_that_cannot_be_written_is_said(script: Script, project: Path) -> None:
    """And no later step is handed a file that is not there, or one of another run."""
    (project / "folder").mkdir()
    for sarif, words in ("folder", "folder: Is a directory"), ("code.py/it.sarif", "(Not a directory|File exists)"):
        done, said = check(script, project, sarif=sarif, fail_on="never")
        assert done.returncode == 2
        assert said == {"exit-code": "2", "sarif": ""}
        (error,) = [line for line in done.stdout.splitlines() if "SARIF" in line]
        assert re.fullmatch(rf"::error title=padcheck::The SARIF file cannot be written: .*{words}", error), error
    (project / "old.sarif").write_text("{}")
    done, said = check(script, project, sarif="old.sarif", args="--selct %")
    assert said == {"exit-code": "2", "sarif": ""}
    assert re.search(
        "^::error title=padcheck::The SARIF file cannot be written: Error: .*--selct", done.stdout, re.MULTILINE
    )


def test_sarif_of_a_job_that_could_not_be_done(script: Script, project: Path) -> None:
    (project / "padcheck.toml").write_text("selct = 1\n")
    done, said = check(script, project, sarif="padcheck.sarif")
    assert done.returncode == 2
    assert said == {"exit-code": "2", "sarif": "padcheck.sarif"}
    (call,) = json.loads((project / "padcheck.sarif").read_text("utf-8"))["runs"][0]["invocations"]
    assert "selct" in call["toolExecutionNotifications"][0]["message"]["text"]


@pytest.mark.slow
def test_it_installs_itself(script: Script, tmp_path: Path, index: None, checkout_copy: Path) -> None:
    wanted = step("Install padcheck")
    context = {**inputs(), "github.action_path": str(checkout_copy), "runner.temp": str(tmp_path)}
    environment = {name: evaluated(value, context) for name, value in wanted["env"].items()}
    path = tmp_path / "github-path"
    done = script(wanted["run"], tmp_path, {**environment, "GITHUB_PATH": str(path), "PYTHONPATH": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(path.read_text().strip())
    version = subprocess.run([folder / "padcheck", "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("padcheck")
    installed = {
        path.name.partition("-")[0].lower() for path in folder.parent.glob("lib*/python*/site-packages/*.dist-info")
    }
    assert {"padcheck", "click", "tokenizers", "pyyaml"} <= installed
    assert not {"torch", "transformers", "numpy"} & installed


# --- GitLab -----------------------------------------------------------------------------------------------------------------


def test_gitlab_job(script: Script, project: Path) -> None:
    job = yaml.safe_load(TEMPLATE.read_text("utf-8"))["padcheck"]
    assert job["before_script"] == ['pip install --quiet --disable-pip-version-check "$PADCHECK_PACKAGE"']
    done = script("\n".join(job["script"]), project, job["variables"])
    assert done.returncode == 1, done.stderr
    report = json.loads((project / job["artifacts"]["reports"]["codequality"]).read_text("utf-8"))
    assert job["artifacts"]["when"] == "always"  # a job that fails has its report all the same
    found = {(issue["check_name"], issue["location"]["path"], issue["location"]["lines"]["begin"]) for issue in report}
    assert {("HPR135", "hparams/hparams-pmet.yaml", 3), ("COD115", "code.py", 2)} <= found
    for issue in report:  # what GitLab needs of an issue
        assert issue["description"]
        assert issue["severity"] in {"info", "minor", "major", "critical", "blocker"}
    assert len({issue["fingerprint"] for issue in report}) == len(report)
    assert "error HPR135" in done.stdout  # and people read the log
    quiet = script("\n".join(job["script"]), project, {**job["variables"], "PADCHECK_PATHS": "hparams/hparams.yaml code.py"})
    assert quiet.returncode == 0
