"""`.pre-commit-hooks.yaml`: pre-commit itself installs the hooks and runs them in somebody's repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from padcheck import discovery
from tests.running import ROOT, SHIPPED

from .conftest import DUPLICATE

HOOKS = ROOT / ".pre-commit-hooks.yaml"


def hooks() -> dict[str, dict[str, Any]]:
    return {hook["id"]: hook for hook in yaml.safe_load(HOOKS.read_text("utf-8"))}


def test_two_hooks_that_run_the_command() -> None:
    assert set(hooks()) == {"padcheck", "padcheck-fix"}
    assert hooks()["padcheck"]["entry"] == "padcheck check --force-exclude"
    assert hooks()["padcheck-fix"]["entry"] == "padcheck check --force-exclude --fix --exit-non-zero-on-fix"
    for hook in hooks().values():
        assert hook["language"] == "python"
        assert "additional_dependencies" not in hook  # the core alone


def test_they_get_the_files_that_padcheck_reads_and_no_others() -> None:
    tables = {f"{suffix}{packed}" for suffix in discovery.TABLES for packed in ("", ".gz")}
    read = discovery.PYTHON | discovery.YAML | tables | {".ipynb"}
    (pattern,) = {hook["files"] for hook in hooks().values()}
    assert all(re.search(pattern, f"some/folder/name{suffix}") for suffix in read)
    others = ["README.md", "a.toml", "a.txt", "model.safetensors", "a.py.gz", "json", "a.pyc", "a.json.bak", "Makefile"]
    assert not [name for name in others if re.search(pattern, name)]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@localhost", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, "-c", "init.defaultBranch=main", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_pre_commit_runs_them(index: None, checkout_copy: Path, tmp_path: Path) -> None:
    """Failing, fixing, and at last content, on staged files."""
    pytest.importorskip("pre_commit")
    git(checkout_copy, "init")
    git(checkout_copy, "add", "--all", "--force")
    git(checkout_copy, "commit", "--quiet", "--message", "as it is")
    project = tmp_path / "project"
    (project / "hparams").mkdir(parents=True)
    (project / "excluded").mkdir()
    git(project, "init")
    config = {
        "repos": [
            {
                "repo": str(checkout_copy),
                "rev": git(checkout_copy, "rev-parse", "HEAD").strip(),
                "hooks": [{"id": "padcheck-fix"}, {"id": "padcheck"}],
            }
        ]
    }
    (project / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    (project / "padcheck.toml").write_text('extend-exclude = ["excluded"]\n')
    good = (SHIPPED / "demo" / "hparams.yaml").read_text("utf-8")
    bad = good.replace('fact_token: "subject_last"', 'fact_token: "subject-last"')
    assert bad != good
    (project / "hparams" / "a.yaml").write_text(good + DUPLICATE)
    (project / "hparams" / "b.yaml").write_text(bad)
    (project / "excluded" / "c.yaml").write_text(bad)
    (project / "README.md").write_text("nothing of ours\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") and name != "PYTHONPATH"}
    environment |= {
        "PRE_COMMIT_HOME": str(tmp_path / "home"),
        "PADCHECK_CACHE_DIR": str(tmp_path / "cache"),
        "COLUMNS": "100",
    }

    def run(hook: str) -> tuple[int, str]:
        git(project, "add", "--all")
        command = [sys.executable, "-m", "pre_commit", "run", "--color", "never", hook]
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        return done.returncode, done.stdout + done.stderr

    code, said = run("padcheck")
    assert code == 1, said
    assert "- exit code: 1" in said
    assert re.search(r"^hparams/a\.yaml:\d+:1: error HPR124 ", said, re.MULTILINE)
    assert re.search(r"^hparams/b\.yaml:\d+:\d+: error HPR103 ", said, re.MULTILINE)
    assert "excluded/" not in said

    code, said = run("padcheck-fix")
    assert code == 1, said
    assert "- files were modified by this hook" in said
    mended = (project / "hparams" / "a.yaml").read_text()
    assert mended.count("v_lr") == 1
    assert mended.endswith(DUPLICATE)  # the value that counted
    assert (project / "hparams" / "b.yaml").read_text() == bad  # an unsafe fix is held back

    (project / "hparams" / "b.yaml").write_text(good)
    for hook in ("padcheck-fix", "padcheck"):
        code, said = run(hook)
        assert code == 0, said
        assert "Passed" in said

    for path in (project / "hparams").iterdir():
        path.unlink()
    code, said = run("padcheck")
    assert (code, "Passed" in said) == (0, True)  # padcheck.toml is no file for it, .pre-commit-config.yaml none of ours

    packages = {
        path.name.partition("-")[0].lower()
        for path in (tmp_path / "home").glob("repo*/py_env*/lib*/python*/site-packages/*.dist-info")
    }
    assert {"padcheck", "click", "tokenizers", "pyyaml"} <= packages
    assert not {"torch", "transformers", "numpy"} & packages
