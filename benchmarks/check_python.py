"""How long padcheck's Python rules take on a tree, beside the floor of pure Python and beside ruff.

    python benchmarks/check_python.py TREE [--repeat 5]

Every row is CPU time on one thread, the best of `--repeat` runs; each run is a process of its own, so that nothing is warm
but the disk cache. The floor reads, parses and walks (`ast.walk`) the same files, once without the garbage collector and
once with it. "start" imports the rules and checks nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

FLOOR = """
import ast, gc, sys
{gc}
for path in sys.stdin.read().split("\\0"):
    with open(path, "rb") as file:
        data = file.read()
    try:
        tree = ast.parse(data)
    except SyntaxError:
        continue
    for node in ast.walk(tree):
        pass
"""
CHECK = """
import sys
from padcheck.checks.code import check_source, decode_source
from padcheck.rulebook import rules
rules()
count = 0
for path in sys.stdin.read().split("\\0"):
    with open(path, "rb") as file:
        data = file.read()
    count += len(check_source(decode_source(data), path))
print(count)
"""
START = "import padcheck.checks.code; from padcheck.rulebook import rules; rules()"


def cpu_seconds(command: list[str], text: str = "") -> tuple[float, str]:
    """User and system time of one process, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout.strip()


def best(command: list[str], text: str, repeat: int) -> tuple[float, str]:
    return min(cpu_seconds(command, text) for _ in range(repeat))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    files = sorted(str(path) for path in options.tree.rglob("*.py") if path.is_file())
    listed = "\0".join(files)
    ruff = str(Path(sys.executable).with_name("ruff"))
    rows = {
        "floor, collector off": [sys.executable, "-c", FLOOR.format(gc="gc.disable()")],
        "floor, collector on": [sys.executable, "-c", FLOOR.format(gc="")],
        "padcheck, start": [sys.executable, "-c", START],
        "padcheck, all rules": [sys.executable, "-c", CHECK],
        "ruff check": [ruff, "check", "--isolated", "--no-cache", "--quiet", str(options.tree)],
    }
    times: dict[str, float] = {}
    found = ""
    for name, command in rows.items():
        times[name], printed = best(command, listed, options.repeat)
        found = printed if name == "padcheck, all rules" else found
    floor, fastest = times["floor, collector off"], times["ruff check"]
    size = sum(Path(file).stat().st_size for file in files) / 1e6
    print(f"{len(files)} files, {size:.1f} MB, {found} findings; CPU seconds, best of {options.repeat}")
    print(f"{'':24}{'seconds':>9}{'× floor':>9}{'× ruff':>9}")
    for name, seconds in times.items():
        print(f"{name:24}{seconds:9.2f}{seconds / floor:9.2f}{seconds / fastest:9.2f}")


if __name__ == "__main__":
    main()
