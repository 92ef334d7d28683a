"""How long `padcheck check` takes on a tree, beside ruff, flake8 and the floor of pure Python on the same files.

    python benchmarks/check_tree.py PATH/TO/EasyEdit [--runs 5]

CPU time of one process (user and system, best of the runs), so that other work on the machine counts little. The floor reads
every file, parses and walks the Python ones (collector off) and composes the YAML ones: what any checker in Python must pay.
The table goes to standard output, the figures to benchmarks/results/check_tree.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
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


def cpu_seconds(command: list[str], runs: int, environment: dict[str, str]) -> float:
    """Best CPU time of `runs` runs, children included."""
    best = float("inf")
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--one", default="hparams/MEMIT/gpt2-xl.yaml", help="the one file of the last rows, below the tree")
    arguments = parser.parse_args()
    tree, python = str(arguments.tree), sys.executable
    program = "from padcheck.cli import main; raise SystemExit(main())"  # what the installed script does
    check = [python, "-c", program, "check", "--isolated", "-j", "1"]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PADCHECK_CACHE_DIR": cache, "RAYON_NUM_THREADS": "1"}
        one = str(arguments.tree / arguments.one)
        subprocess.run([*check, tree], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, check=False)
        commands = {
            "ruff check": [python, "-m", "ruff", "check", "--isolated", "--no-cache", tree],
            "flake8": [python, "-m", "flake8", "--isolated", "-j", "1", tree],
            "floor of pure Python": [python, "-c", FLOOR, tree],
            "padcheck check --no-cache": [*check, "--no-cache", tree],
            "padcheck check (warm cache)": [*check, tree],
            "import click": [python, "-c", "import click"],
            "padcheck check one.yaml --no-cache": [*check, "--no-cache", one],
            "padcheck check one.yaml (warm cache)": [*check, one],
        }
        present = {name: command for name, command in commands.items() if name != "flake8" or _version("flake8")}
        times = {name: cpu_seconds(command, arguments.runs, environment) for name, command in present.items()}
    width = max(map(len, times))
    print(f"{'':{width}}   CPU s")
    for name, seconds in times.items():
        print(f"{name:{width}}  {seconds:6.3f}")
    ratios = {
        "cold / ruff": times["padcheck check --no-cache"] / times["ruff check"],
        "cold / floor": times["padcheck check --no-cache"] / times["floor of pure Python"],
        "one.yaml / import click": times["padcheck check one.yaml --no-cache"] / times["import click"],
    }
    if "flake8" in times:
        ratios["cold / flake8"] = times["padcheck check --no-cache"] / times["flake8"]
    for name, ratio in ratios.items():
        print(f"{name:{width}}  {ratio:6.2f}")
    versions = {name: _version(name) for name in ("ruff", "flake8", "click", "PyYAML")} | {
        "python": platform.python_version()
    }
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "check_tree.json").write_text(
        json.dumps({"cpu_seconds": times, "ratios": ratios, "versions": versions}, indent=2) + "\n"
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
