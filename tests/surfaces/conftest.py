"""What runs padcheck from outside: scripts of CI systems and hooks, with `padcheck` on the path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.running import ROOT, SHIPPED

Script = Callable[..., subprocess.CompletedProcess[str]]
DUPLICATE = "v_lr: 0.1\n"
"""A second `v_lr`: HPR124, an error that --fix may mend."""


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the commands `padcheck`, of this checkout or the installed wheel, and `python`."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "padcheck"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m padcheck "$@"\n')
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for path in (command, python):
        path.chmod(0o755)
    return folder


@pytest.fixture
def script(commands: Path, tmp_path: Path) -> Script:
    """Run a script as GitHub's `shell: bash` and GitLab's runner do: it stops at the first command that fails."""

    def run(text: str, folder: Path, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "CI_", "COV_"))}
        path = os.pathsep.join([str(commands), inherited["PATH"]])
        own = {
            "PATH": path,
            "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT)),
            "PADCHECK_CACHE_DIR": str(tmp_path / "cache"),
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", text],
            cwd=folder,
            env={**inherited, **own, **environment},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's repository: hparams in order, hparams with an error in line 3, and a warning in Python."""
    folder = tmp_path / "project"
    (folder / "hparams").mkdir(parents=True)
    for name in ("hparams.yaml", "hparams-pmet.yaml"):
        (folder / "hparams" / name).write_bytes((SHIPPED / "demo" / name).read_bytes())
    (folder / "code.py").write_text('def template(prompt, subject):\n    return prompt.replace(subject, "{}")\n')
    (folder / "README.md").write_text("nothing of ours\n")
    return folder


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where pip finds no packages to install."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(tmp_path_factory.mktemp("wheels")),
    ]
    done = subprocess.run([*command, "hatchling"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip reaches no package index: {done.stderr.strip().splitlines()[-1]}")


@pytest.fixture
def checkout_copy(tmp_path: Path) -> Path:
    """What a clone of this repository holds, the changes that are not committed included."""
    if not (ROOT / "padcheck").is_dir():
        pytest.skip("not a checkout")
    if not shutil.which("git"):
        pytest.skip("there is no git")
    copy = tmp_path / "padcheck"
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\0")
    if not (ROOT / ".git").exists():  # an unpacked sdist: all but what work has left in it
        left = {".venv", "__pycache__", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".import_linter_cache"}
        listed = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if not left & set(path.parts)]
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy
