"""How long `padcheck check` takes on a tree, beside ruff, flake8 and the floor of pure Python on the same files.

    python benchmarks/check_tree.py PATH/TO/EasyEdit [--runs 5] [--small-runs 25] [--one hparams/MEMIT/gpt2-xl.yaml]

Run it with the Python of an environment that holds ruff, flake8 and padcheck as a wheel: a checkout, which compiles its rule
pages whenever it starts, is slower than what people install. CPU time of one process (user and system, on one thread), the commands
taken in turn so that other work on the machine meets all of them; medians. The floor reads every file, parses and walks the Python
ones (collector off) and composes the YAML ones: what any checker in Python must pay. Commands on one file are run more often.
The table goes to standard output, the figures to benchmarks/results/check_tree.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

FLOOR = """
import ast, gc, sys
from pathlib import Path
import yaml
gc.disable()
for path in Path(sys.argv[1]).rglob("*"):
    if path.suffix == ".py":
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            pass
        del tree
    elif path.suffix in (".yaml", ".yml"):
        try:
            yaml.compose(path.read_bytes(), yaml.CSafeLoader)
        except yaml.YAMLError:
            pass
"""
PROGRAM = "from padcheck.cli import script; raise SystemExit(script())"
"""What the installed `padcheck` does."""

Command = Sequence[str]


def cpu_seconds(command: Command, environment: Mapping[str, str], folder: str) -> float:
    """CPU time of one run, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=folder, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def medians(
    commands: Mapping[str, Command], runs: int, environment: Mapping[str, str], folder: str
) -> dict[str, tuple[float, float]]:
    """Name → median and least CPU time of `runs` runs, after one that warms the disk cache; the commands in turn."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            seconds = cpu_seconds(command, environment, folder)
            if turn:
                times[name].append(seconds)
    return {name: (statistics.median(each), min(each)) for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--small-runs", type=int, default=25)
    parser.add_argument("--one", default="hparams/MEMIT/gpt2-xl.yaml", help="the one file of the last rows, below the tree")
    arguments = parser.parse_args()
    tree, python = str(arguments.tree.resolve()), sys.executable
    one = str(arguments.tree.resolve() / arguments.one)
    check = [python, "-c", PROGRAM, "check", "--isolated", "-j", "1"]
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "PADCHECK_CACHE_DIR": scratch, "RAYON_NUM_THREADS": "1"}
        subprocess.run([*check, tree], stdout=subprocess.DEVNULL, env=environment, cwd=scratch, check=False)
        large = {
            "ruff check": [python, "-m", "ruff", "check", "--isolated", "--no-cache", tree],
            "flake8": [python, "-m", "flake8", "--isolated", "-j", "1", tree],
            "floor of pure Python": [python, "-c", FLOOR, tree],
            "padcheck check --no-cache": [*check, "--no-cache", tree],
            "padcheck check (warm cache)": [*check, tree],
        }
        small = {
            "import click": [python, "-c", "import click"],
            "import click, yaml": [python, "-c", "import click, yaml"],
            "padcheck check one.yaml --no-cache": [*check, "--no-cache", one],
            "padcheck check one.yaml (warm cache)": [*check, one],
        }
        if not _version("flake8"):
            del large["flake8"]
        times = medians(large, arguments.runs, environment, scratch)
        times |= medians(small, arguments.small_runs, environment, scratch)
    width = max(map(len, times))
    print(f"{'CPU seconds':{width}}  median   least")
    for name, (median, least) in times.items():
        print(f"{name:{width}}  {median:6.3f}  {least:6.3f}")
    cold = times["padcheck check --no-cache"][0]
    ratios = {
        "cold / ruff (wanted: 6 at most)": cold / times["ruff check"][0],
        "cold / floor (wanted: 2 at most)": cold / times["floor of pure Python"][0],
        "one.yaml / import click (wanted: 2 at most)": times["padcheck check one.yaml --no-cache"][0]
        / times["import click"][0],
    }
    if "flake8" in times:
        ratios["flake8 / cold (wanted: 5 at least)"] = times["flake8"][0] / cold
    print()
    for name, ratio in ratios.items():
        print(f"{name:44}  {ratio:6.2f}")
    versions = {name: _version(name) for name in ("padcheck", "ruff", "flake8", "click", "PyYAML")}
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "check_tree.json").write_text(
        json.dumps(
            {
                "cpu_seconds": {name: {"median": median, "least": least} for name, (median, least) in times.items()},
                "ratios": ratios,
                "versions": versions | {"python": platform.python_version()},
            },
            indent=2,
        )
        + "\n"
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
