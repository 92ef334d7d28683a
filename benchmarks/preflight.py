"""Speed and memory of `padcheck preflight`, as ratios measured in one run.

    python benchmarks/preflight.py --tokenizer DIR --requests FILE.json [--counts 500,50000] [--memory]

Compared with the tokenizer alone: `encode_batch` of the distinct strings that the editor itself would encode (rows and the parts that
it encodes to find its index), and of the rows alone, in the same chunks, one thread (RAYON_NUM_THREADS=1), CPU time. Prints a table
and keeps it in benchmarks/results/. It never fails a test.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

WORDS = [
    "the",
    "old",
    "house",
    "by",
    "river",
    "was",
    "quiet",
    "and",
    "nobody",
    "knew",
    "who",
    "had",
    "left",
    "door",
    "open",
    "after",
    "rain",
    "so",
    "we",
    "walked",
    "along",
    "road",
    "until",
]
TEMPLATES = ["{}"] + [
    f"{start} {' '.join(WORDS[shift : shift + length])}. {{}}"
    for length in (3, 8)
    for shift in (0, 5)
    for start in ("The", "Therefore", "Because", "I", "You")
]


def hparams(folder: Path) -> dict[str, Any]:
    """EasyEdit's ROME on the model that the tokenizer's folder is named after (EasyEdit goes by the name)."""
    return {"alg_name": "ROME", "model_name": folder.name, "fact_token": "subject_last"}


def many(requests: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return [{**requests[index % len(requests)], "case_id": index} for index in range(count)]


def strings(request: dict[str, Any], targets: dict[str, str]) -> tuple[list[str], list[str]]:
    """(rows, parts): what EasyEdit's ROME encodes for one request."""
    prompt, subject = request["prompt"], request["subject"]
    start = prompt.index(subject)
    head = targets[request["target_new"]]
    rows = [template.replace("{}", prompt) for template in TEMPLATES]
    rows += [row + head for row in rows] if head else []
    rows.append(f"{subject} is a")
    parts = [template.replace("{}", prompt[: start + len(subject)]) for template in TEMPLATES]
    parts += [template.replace("{}", prompt[:start]) for template in TEMPLATES]
    return rows, [*parts, subject, ""]


def encode(tokenizer: Any, groups: list[list[str]], chunk: int) -> float:
    """CPU seconds of encode_batch over distinct strings, in the same chunks as preflight's."""
    started = time.process_time()
    for at in range(0, len(groups), chunk):
        tokenizer.encode_batch(list(dict.fromkeys(text for group in groups[at : at + chunk] for text in group)))
    return time.process_time() - started


def speed(folder: Path, requests: list[dict[str, Any]], count: int, side: str, repeats: int) -> dict[str, Any]:
    from padcheck.passes import CHUNK, run_pass
    from padcheck.planning import Options, settle

    batch = many(requests, count)
    path = Path(tempfile.mkstemp(suffix=".jsonl")[1])
    path.write_text("\n".join(json.dumps(request) for request in batch), "utf-8")
    plan = settle(hparams(folder), folder, Options(context_templates=TEMPLATES, padding_side=side, transformers=5))  # type: ignore[arg-type]
    reader: Any = plan.tokenizer.reader
    tokenizer = reader.tokenizer
    targets = {
        target: reader.decode(tokenizer.encode(" " + target, add_special_tokens=False).ids[:-1])
        for target in {r["target_new"] for r in batch}
    }
    pairs = [strings(request, targets) for request in batch]
    rows, everything = [row for row, _ in pairs], [row + parts for row, parts in pairs]
    ours, alone, all_strings = [], [], []
    for _ in range(repeats):
        alone.append(encode(tokenizer, rows, CHUNK))
        all_strings.append(encode(tokenizer, everything, CHUNK))
        started = time.process_time()
        outcome = run_pass(plan, path, plan.templates)
        ours.append(time.process_time() - started)
    path.unlink()
    mine, row_time, string_time = map(statistics.median, (ours, alone, all_strings))
    return {
        "tokenizer": folder.name, "side": side, "requests": count, "positions": outcome.rows, "preflight_s": round(mine, 3),
        "rows_alone_s": round(row_time, 3), "all_strings_s": round(string_time, 3), "ratio_all_strings": round(mine / string_time, 2),
        "ratio_rows_alone": round(mine / row_time, 2), "us_per_position": round(mine / outcome.rows * 1e6, 2),
    }  # fmt: skip


def memory(folder: Path, requests: list[dict[str, Any]], kind: str, count: int) -> int:
    """Peak resident KiB of one preflight in a process of its own, left padding."""
    path = Path(tempfile.mkstemp(suffix=f".{kind}")[1])
    batch = many(requests, count)
    path.write_text(json.dumps(batch) if kind == "json" else "\n".join(map(json.dumps, batch)), "utf-8")
    done = subprocess.run(
        [sys.executable, __file__, "--tokenizer", str(folder), "--requests", str(path), "--peak"],
        capture_output=True,
        text=True,
        check=True,
    )
    path.unlink()
    return int(done.stdout.split()[-1])


def startup(repeats: int = 7) -> dict[str, float]:
    """Wall seconds: `padcheck --version` against `python -c "import click"`, medians, interleaved."""
    commands = {"import click": ["-c", "import click"], "padcheck --version": ["-m", "padcheck.cli", "--version"]}
    script = Path(sys.executable).with_name("padcheck")
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, arguments in commands.items():
            command = (
                [str(script), "--version"]
                if name.startswith("padcheck") and script.exists()
                else [sys.executable, *arguments]
            )
            started = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
            taken[name].append(time.perf_counter() - started)
    return {name: round(statistics.median(values), 4) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, action="append", required=True)
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--counts", default="500,50000")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        from padcheck import preflight

        preflight(
            hparams(options.tokenizer[0]),
            options.requests,
            tokenizer=options.tokenizer[0],
            padding_side="left",
            context_templates=TEMPLATES[:3],
            transformers=5,
        )
        # Not ru_maxrss: a child begins with its parent's peak.
        status = Path("/proc/self/status").read_text("utf-8")
        print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
        return
    requests = json.loads(options.requests.read_text("utf-8"))
    result: dict[str, Any] = {"speed": [], "memory_kib": {}, "startup_s": startup()}
    columns = (
        "tokenizer",
        "side",
        "requests",
        "positions",
        "preflight_s",
        "rows_alone_s",
        "all_strings_s",
        "ratio_all_strings",
        "ratio_rows_alone",
    )
    print(" | ".join(columns))
    for folder in options.tokenizer:
        for count in map(int, options.counts.split(",")):
            for side in ("right", "left"):
                row = speed(folder, requests, count, side, options.repeats if count < 5000 else 1)
                result["speed"].append(row)
                print(" | ".join(str(row[name]) for name in columns), flush=True)
    if options.memory:
        for kind in ("json", "jsonl"):
            peaks = {count: memory(options.tokenizer[0], requests, kind, count) for count in (1_000, 100_000)}
            result["memory_kib"][kind] = {**peaks, "ratio": round(peaks[100_000] / peaks[1_000], 3)}
            print(kind, result["memory_kib"][kind], flush=True)
    print(result["startup_s"])
    out = ROOT / "benchmarks" / "results" / "preflight.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
