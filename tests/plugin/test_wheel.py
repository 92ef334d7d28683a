"""Installed and unused, the plugin costs nothing: a subprocess against the installed wheel, entry point and all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

LIGHT = {"padcheck", "padcheck.pytest_plugin"}
MICROSECONDS = 5000
TEST = """
import json, sys
def test_modules(): open("modules.json", "w").write(json.dumps(sorted(sys.modules)))
def test_that_takes_nothing(tmp_path): pass
"""
CLOCK = """
import importlib.metadata, time
load = importlib.metadata.EntryPoint.load
def timed(point):
    start = time.process_time()
    plugin = load(point)
    if point.name == "padcheck": open("seconds.txt", "w").write(str(time.process_time() - start))
    return plugin
importlib.metadata.EntryPoint.load = timed
"""
"""A plugin that takes the processor time of how pytest loads ours: `-X importtime` does not see what importlib.import_module imports."""
OTHERS = ("-p", "no:hypothesispytest", "-p", "no:anyio", "-p", "no:xdist")
"""Plugins that would only cost time."""


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the installed wheel."""
    if not (root / "pyproject.toml").is_file() or not (root / "padcheck").is_dir():
        pytest.skip("not a checkout")
    dist, site = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    python = [sys.executable, "-m"]
    for command in (
        [*python, "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(root)],
        [*python, "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)],
    ):
        wheels = [str(path) for path in dist.glob("*.whl")]
        done = subprocess.run([*command, *wheels], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return site


def python(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "PADCHECK_CACHE_DIR": str(folder / "cache")}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def cumulative(importtime: str, name: str) -> int:
    """Microseconds that `-X importtime` shows for a module and all that it imports."""
    (found,) = re.findall(rf"^import time: +\d+ \| +(\d+) \| +{re.escape(name)}$", importtime, re.MULTILINE)
    return int(found)


def modules(site: Path, folder: Path, *arguments: str) -> set[str]:
    """What is loaded inside a test."""
    (folder / "test_it.py").write_text(TEST)
    done = python(site, folder, "-m", "pytest", "-q", *OTHERS, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(json.loads((folder / "modules.json").read_text()))


@pytest.mark.slow
def test_importing_it_after_pytest(site: Path, tmp_path: Path) -> None:
    program = (
        "import sys, json, pytest; before = set(sys.modules); import padcheck.pytest_plugin as it; "
        "print(json.dumps([it.__file__, sorted(set(sys.modules) - before)]))"
    )
    times = []
    for _ in range(5):
        done = python(site, tmp_path, "-X", "importtime", "-c", program)
        file, gained = json.loads(done.stdout)
        assert Path(file).is_relative_to(site)
        assert set(gained) == LIGHT
        times.append(cumulative(done.stderr, "padcheck") + cumulative(done.stderr, "padcheck.pytest_plugin"))
    assert min(times) <= MICROSECONDS, times  # the least of five: other work of the machine only adds


@pytest.mark.slow
def test_what_a_run_that_does_not_use_it_loads(site: Path, tmp_path: Path) -> None:
    """Found by its entry point, switched off by its name; what is on top is the plugin's one module."""
    without = modules(site, tmp_path, "-p", "no:padcheck")
    assert not LIGHT & without
    assert modules(site, tmp_path) - without == LIGHT


@pytest.mark.slow
def test_what_it_costs_such_a_run(site: Path, tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text(CLOCK)
    times = []
    for _ in range(4):  # at first pytest compiles the plugin, once for an installation
        modules(site, tmp_path, "-p", "clock")
        times.append(float((tmp_path / "seconds.txt").read_text()))
    assert min(times) * 1e6 <= MICROSECONDS, times


@pytest.mark.slow
def test_switched_off_it_is_gone(site: Path, tmp_path: Path) -> None:
    done = python(site, tmp_path, "-m", "pytest", *OTHERS, "-p", "no:padcheck", "--padcheck")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "unrecognized arguments: --padcheck" in done.stderr
    fixtures = ("-m", "pytest", *OTHERS, "--fixtures")
    assert "tiny_causal_lm" not in python(site, tmp_path, *fixtures, "-p", "no:padcheck").stdout
    assert "tiny_causal_lm" in python(site, tmp_path, *fixtures).stdout


@pytest.mark.slow
def test_used_it_works_from_the_wheel(site: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("alg_name: ROME\nfact_token: subject-last\n")
    done = python(site, tmp_path, "-m", "pytest", "-q", *OTHERS, "--padcheck")
    assert done.returncode == 1, done.stderr
    assert "broken.yaml:2:13: error HPR103" in done.stdout
    assert "FAILED broken.yaml::padcheck - HPR103" in done.stdout
