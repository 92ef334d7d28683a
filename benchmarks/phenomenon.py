"""What left padding does to real edits of the shipped models: the same edits right, left as the editors do it, and corrected.

    python benchmarks/phenomenon.py [--limit N] [--models NAME ...] [--methods NAME ...] [--attentions NAME ...] [--published]

All requests of ``facts.json``, which were fixed before the models were trained, each edited alone; hparams as
``fixtures/choose_hparams.py`` chose them on *other* requests: MEMIT's by the right edit alone, ROME's also by what left
padding takes there (lines "by score": ROME's by the right edit alone). The probability is the geometric mean over the
target's tokens, the interval a bootstrap over the requests. One thread; some minutes for each line.

Eager and sdpa attention differ in what they give a masked pad, which has nothing to attend to. sdpa gives it zeros. Eager
adds the least float to every score, which swallows the scores: softmax then spreads evenly over *all* columns of the row,
those of its later, real tokens included. A left-padded editor that reads its starting value off a pad so gets a vector of
another length (llama-facts, layer 0, v_lr 1, clamp 4, six requests: 4.8 under sdpa, 21.8 under eager, 29.7 where it should
look), and the search is held within a multiple of that length. With as much room as the right edit has, δ can reach a part
of the answer from the few rows whose columns happen to be right. Given the same length, eager harms no less: .01 with sdpa's
(.76 with its own); and sdpa harms no more: .82 with eager's (.47). The keys of the two differ by next to nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from padcheck.editing.corpus import open_corpus  # noqa: E402
from padcheck.editing.hparams import load_hparams  # noqa: E402
from padcheck.editing.opening import modules_of, needs_moments, open_model  # noqa: E402
from padcheck.editing.second_moments import estimate  # noqa: E402
from padcheck.sources.requests import Request, read_requests  # noqa: E402
from padcheck.verifying.comparing import compare  # noqa: E402
from padcheck.verifying.outcomes import ABLATIONS, CORRECTED, LEFT, RIGHT, Comparison, mean  # noqa: E402

MODELS = ROOT / "fixtures" / "shipped" / "models"
HIGH, GAP, SAME = 0.7, 0.25, 1e-4
"""What is asked for: right at least HIGH; left at least GAP below it, with an interval above 0; corrected within SAME of right."""
PUBLISHED: dict[str, Any] = {"v_lr": 0.5, "clamp_norm_factor": 4.0}
"""Of ROME in EasyEdit's llama-7b.yaml and gpt2-xl.yaml."""
_CHOSEN = ("layers", "v_num_grad_steps", "v_lr", "clamp_norm_factor", "mom2_update_weight")


def measured(model_name: str, method: str, attention: str, limit: int | None, published: bool) -> dict[str, Any]:
    """One line of the table."""
    folder = MODELS / model_name
    model, tokenizer = open_model(folder, device="cpu", attention=attention)
    hparams = load_hparams(folder / "hparams" / f"{method.lower()}.yaml")
    if published:
        hparams = replace(hparams, **PUBLISHED)
    requests = [one for one in read_requests(folder / "facts.json") if isinstance(one, Request)][:limit]
    moments = None
    if needs_moments(hparams):
        moments = estimate(model, tokenizer, open_corpus([MODELS / "corpus.txt"]), modules_of(hparams)).matrices
    started = time.perf_counter()

    def tick(done: int) -> None:
        print(f"{model_name} {method} {attention}: {done} of {len(requests)}", end="\r", file=sys.stderr, flush=True)

    comparison = compare(model, tokenizer, requests, hparams, covariance=moments, on_progress=tick)
    return {
        "model": model_name,
        "method": method,
        "attention": attention,
        "search": "published" if published else "chosen",
        "hparams": {name: getattr(hparams, name) for name in _CHOSEN},
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "requests": len(requests),
        "before": mean([one.before.probability for one in comparison.compared]),
        "probability": {way: comparison.mean(way) for way in (RIGHT, *comparison.ways)},
        "not_finite": {way: comparison.failed(way) for way in (RIGHT, *comparison.ways)},
        "locality": {
            way: mean([one.outcomes[way].locality for one in comparison.compared]) for way in (RIGHT, *comparison.ways)
        },
        "gap": comparison.gap(LEFT),
        "interval": comparison.interval(LEFT),
        "corrected_off_by": comparison.worst_correction(),
        "recovered": {way: comparison.recovered(way) for way in (*ABLATIONS, CORRECTED)},
        "reasons": sorted({reason for one in comparison.compared if (reason := one.outcomes[LEFT].reason)}),
        "met": met(comparison),
        "each": [
            {"case_id": one.request.case_id} | {way: one.outcomes[way].probability for way in (RIGHT, *comparison.ways)}
            for one in comparison.compared
        ],
        "seconds": round(time.perf_counter() - started, 1),
    }


def met(comparison: Comparison) -> dict[str, bool]:
    """Which of the three demands are met; left edits that end in NaN are not counted into the gap."""
    right, gap, interval, off = (
        comparison.mean(RIGHT), comparison.gap(LEFT), comparison.interval(LEFT), comparison.worst_correction(),
    )  # fmt: skip
    return {
        "right": right is not None and right >= HIGH,
        "left": gap is not None and gap >= GAP and interval is not None and interval[0] > 0,
        "corrected": off is not None and off <= SAME,
    }


def table(lines: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        f"{'model':12} {'method':7} {'attention':9} {'search':9} {'n':>3} {'before':>7} {'right':>6} {'left':>6} {'correct.':>8} {'gap':>6} "
        f"{'95% interval':>14} {'off by':>8}  indices/positions/mask bring back"
    )
    for line in lines:
        found, interval = line["probability"], line["interval"]
        broken = (
            f"  {line['not_finite'][LEFT]} of {line['requests']} left edits not finite" if line["not_finite"][LEFT] else ""
        )
        missed = [name for name, fine in line["met"].items() if not fine]
        yield (
            f"{line['model']:12} {line['method']:7} {line['attention']:9} {line['search']:9} {line['requests']:>3} {_number(line['before']):>7} "
            f"{_number(found[RIGHT]):>6} {_number(found[LEFT]):>6} {_number(found[CORRECTED]):>8} {_number(line['gap']):>6} "
            f"{f'[{interval[0]:.3f}, {interval[1]:.3f}]' if interval else '–':>14} {line['corrected_off_by'] or 0:8.1e}  "
            + " / ".join("–" if line["recovered"][way] is None else f"{line['recovered'][way]:.0%}" for way in ABLATIONS)
            + broken
            + (f"  NOT MET: {', '.join(missed)}" if missed else "")
        )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


class Kept:
    """The results file: one line per search, method, model and attention; a line that is measured again is replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        self.lines: dict[tuple[str, ...], dict[str, Any]] = {self.key(line): line for line in known.get("lines", ())}

    @staticmethod
    def key(line: dict[str, Any]) -> tuple[str, ...]:
        return line["search"], line["method"], line["model"], line["attention"]

    def add(self, line: dict[str, Any]) -> None:
        self.lines[self.key(line)] = line
        self.path.write_text(json.dumps({"lines": list(self.lines.values())}, indent=1) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["llama-facts", "gpt2-facts"])
    parser.add_argument("--methods", nargs="+", default=["ROME", "MEMIT"])
    parser.add_argument("--attentions", nargs="+", default=["sdpa", "eager"])
    parser.add_argument("--limit", type=int, help="the first so many requests (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "phenomenon.json")
    parser.add_argument("--published", action="store_true", help="v_lr and clamp_norm_factor as EasyEdit has them for ROME")
    parser.add_argument("--show", action="store_true", help="print what is kept, and measure nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = Kept(options.out)
    if not options.show:
        for method, model, attention in itertools.product(options.methods, options.models, options.attentions):
            kept.add(measured(model, method, attention, options.limit, options.published))
    print("\n".join(table(list(kept.lines.values()))))


if __name__ == "__main__":
    main()
