"""How fast an edit is, and the statistics it needs: ours beside EasyEdit's own functions, unmodified.

    python benchmarks/editing.py --easyedit CHECKOUT [--parts rome memit8 memit32 stats] [--models gpt2 llama]
                                 [--repeats 5] [--steps 20] [--tokens 16384] [--out FILE] [--again] [--table]

Random weights, 12 layers, 768 wide, 50 257 words; one thread; CPU time; the two sides in turn, in one process. ROME: one fact
at layer 5, 21 templates. MEMIT: 8 or 32 facts at layers 3 to 7, 6 templates. Both sides get the same templates, covariance,
requests and number of steps (random models never stop early), and what comes out is compared in the same line. Statistics:
the inputs of the rewritten module at layers 3 to 7 over the same documents, EasyEdit's `layer_stats` once for each layer.

Every measurement is kept at once: a run that was interrupted goes on where it stopped. `--table` only prints what is kept.
Without a checkout (nor one in $EASYEDIT) only ours is measured. 32 facts with 20 steps take EasyEdit about half an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from easyedit import VARIABLE, EasyEdit, agreement, checkout_of, forwards  # noqa: E402
from floor import EDIT_PARTS, STATS_PARTS, Floor, Pass, recorded, spent  # noqa: E402

from padcheck.editing import edit  # noqa: E402
from padcheck.editing.corpus import embedded_corpus  # noqa: E402
from padcheck.editing.second_moments import estimate  # noqa: E402
from padcheck.resources import shipped_dir  # noqa: E402

PARTS = ("rome", "memit8", "memit32", "stats")
BARS = {"rome": 5.0, "memit8": 5.0, "memit32": 5.0, "stats": 2.5}
BATCH_TOKENS = 3072  # three times the model's positions: what EasyEdit's `layer_stats` takes by itself

# ---- what is edited

_WORDS = (
    "river", "house", "garden", "bridge", "museum", "tower", "film", "song", "language", "people", "company", "church",
    "doctor", "teacher", "writer", "poet", "train", "ship",
)  # fmt: skip
# As CounterFact is for GPT-2's tokenizer (means of 500 records): subjects of 3.9 tokens, 3.2 tokens of the prompt behind them,
# and three prompts of four begin with the subject.
_SUBJECTS = (
    "Agatha Christie of England", "Albert Einstein of Germany", "Jane Austen of London", "Nelson Mandela of Egypt",
    "Charles Darwin of England", "Isaac Newton of London", "Marie Curie of Warsaw", "Johann Sebastian Bach",
)  # fmt: skip
_PHRASES = (
    ("{} speaks the language of", "England"),
    ("The mother tongue of {} is", "English"),
    ("{} works as a", "chemist"),
    ("{} lives in the", "museum"),
)
REQUESTS = tuple(
    {"prompt": prompt, "subject": subject, "target_new": target, "case_id": 0}
    for subject in _SUBJECTS
    for prompt, target in _PHRASES
)


def templates(*lengths: tuple[int, int]) -> list[list[str]]:
    """The bare one, and a group of all others: for each (tokens, count) so many of so many tokens and a full stop.

    Every word is one token in the fixture tokenizers, as common words are in the published ones.
    """
    made = []
    for tokens, count in lengths:
        for number in range(count):
            words = [_WORDS[(number * 5 + step) % len(_WORDS)] for step in range(tokens - 1)]
            made.append(f"The {' '.join(words)}. {{}}")
    return [["{}"], made]


def tokenizer_of() -> Any:
    """A fixture tokenizer: of the 50 257 words of the model it uses a few."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shipped_dir() / "tokenizers" / "gpt2-shape")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


NAMES = {
    "gpt2": {
        "layer_module_tmp": "transformer.h.{}", "mlp_module_tmp": "transformer.h.{}.mlp",
        "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj", "attn_module_tmp": "transformer.h.{}.attn",
        "ln_f_module": "transformer.ln_f", "lm_head_module": "transformer.wte",
    },
    "llama": {
        "layer_module_tmp": "model.layers.{}", "mlp_module_tmp": "model.layers.{}.mlp",
        "rewrite_module_tmp": "model.layers.{}.mlp.down_proj", "attn_module_tmp": "model.layers.{}.self_attn",
        "ln_f_module": "model.norm", "lm_head_module": "lm_head",
    },
}  # fmt: skip


def hparams_of(kind: str, method: str, steps: int, layers: Sequence[int], loss_layer: int) -> dict[str, Any]:
    """EasyEdit-shaped hparams."""
    values: dict[str, Any] = {
        **NAMES[kind], "alg_name": method, "model_name": f"./{kind}", "stats_dir": "./stats", "device": "cpu",
        "layers": list(layers), "fact_token": "subject_last", "v_num_grad_steps": steps, "v_lr": 0.1,
        "v_loss_layer": loss_layer, "v_weight_decay": 0.1, "clamp_norm_factor": 4, "kl_factor": 0.0625,
        "mom2_adjustment": True, "mom2_dataset": "wikipedia", "mom2_n_samples": 100, "mom2_dtype": "float32",
    }  # fmt: skip
    if method == "ROME":
        return values | {"context_template_length_params": [[5, 10], [10, 10]]}
    return values | {"layer_selection": "all", "mom2_update_weight": 10.0}


def _model_of(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2")
    if kind == "llama":
        config = AutoConfig.for_model(
            "llama",
            vocab_size=50257,
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=2048,
            pad_token_id=0,
        )
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def _covariance_of(model: Any, hparams: Mapping[str, Any]) -> dict[str, Tensor]:
    found = {}
    for layer in hparams["layers"]:
        name = hparams["rewrite_module_tmp"].format(layer)
        module = model.get_submodule(name)
        width = module.weight.shape[0] if type(module).__name__ == "Conv1D" else module.weight.shape[1]
        factors = torch.randn(width, 2 * width, generator=torch.Generator().manual_seed(layer))
        found[name] = factors @ factors.T / (2 * width)
    return found


def _documents(tokenizer: Any, tokens: int) -> list[str]:
    """Paragraphs of the embedded corpus, 1 to 12 together, until they have so many tokens: lengths vary as in the wild."""
    paragraphs, found, at, count = list(embedded_corpus()), list[str](), 0, 0
    while count < tokens:
        size = (1, 2, 3, 5, 8, 12)[len(found) % 6]
        found.append(" ".join(paragraphs[(at + i) % len(paragraphs)] for i in range(size)))
        at += size
        count += len(tokenizer(found[-1], truncation=True, max_length=1024)["input_ids"])
    return found


# ---- the cases


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured. ours, theirs: name of a weight or module → tensor; details: where our time goes, once."""

    part: str
    kind: str
    settings: dict[str, Any]
    model: Any
    ours: Callable[[], Mapping[str, Tensor]]
    theirs: Callable[[], Mapping[str, Tensor]] | None
    details: Callable[[], dict[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.part}"


def _cases(options: argparse.Namespace, checkout: EasyEdit | None) -> Iterator[Case]:
    tokenizer = tokenizer_of()
    for kind in options.models:
        model = _model_of(kind)
        for part in options.parts:
            yield (_statistics if part == "stats" else _editing)(part, kind, model, tokenizer, options, checkout)


def _editing(
    part: str, kind: str, model: Any, tokenizer: Any, options: argparse.Namespace, checkout: EasyEdit | None
) -> Case:
    method = "ROME" if part == "rome" else "MEMIT"
    hparams = hparams_of(kind, method, options.steps, [5] if method == "ROME" else [3, 4, 5, 6, 7], 11)
    groups = templates((5, 10), (10, 10)) if method == "ROME" else templates((10, 5))
    requests = REQUESTS[: int(part.removeprefix("memit"))] if method == "MEMIT" else REQUESTS[:1]
    covariance = _covariance_of(model, hparams)

    def ours() -> Mapping[str, Tensor]:
        return edit(model, tokenizer, requests, hparams, context_templates=groups, covariance=covariance).updates

    def theirs() -> Mapping[str, Tensor]:
        assert checkout is not None
        checkout.prepare(method, model, hparams, groups, covariance)
        return checkout.edit(method, model, tokenizer, requests, hparams)

    def details() -> dict[str, Any]:
        with recorded() as passes:
            seconds, shares = spent(ours, EDIT_PARTS, time.process_time)
        return {
            "shares": shares,
            **columns_of(passes, len(requests), options.steps),
            **_under(model, hparams, passes, seconds),
        }

    settings = {
        "steps": options.steps,
        "facts": len(requests),
        "templates": sum(map(len, groups)),
        "layers": hparams["layers"],
    }
    return Case(part, kind, settings, model, ours, theirs if checkout else None, details)


def _statistics(
    part: str, kind: str, model: Any, tokenizer: Any, options: argparse.Namespace, checkout: EasyEdit | None
) -> Case:
    texts = _documents(tokenizer, options.tokens)
    modules = [NAMES[kind]["rewrite_module_tmp"].format(layer) for layer in range(3, 8)]
    lengths = [len(tokenizer(text, truncation=True, max_length=1024)["input_ids"]) for text in texts]

    def ours() -> Mapping[str, Tensor]:
        return estimate(model, tokenizer, texts, modules, max_length=1024, batch_tokens=BATCH_TOKENS).matrices

    def theirs() -> Mapping[str, Tensor]:
        assert checkout is not None
        return checkout.second_moments(model, tokenizer, texts, modules, "float32")

    def details() -> dict[str, Any]:
        seconds, shares = spent(ours, STATS_PARTS, time.process_time)
        return {"shares": shares, **_under_statistics(model, kind, modules, lengths, seconds)}

    settings = {"documents": len(texts), "tokens": sum(lengths), "batch_tokens": BATCH_TOKENS, "layers": list(range(3, 8))}
    return Case(part, kind, settings, model, ours, theirs if checkout else None, details)


# ---- where the time goes


def columns_of(passes: Sequence[Pass], facts: int, steps: int) -> dict[str, Any]:
    """What goes forward in a step, per fact, as all are under way; and what goes forward once."""
    moving, once = [one for one in passes if one.gradient], [one for one in passes if not one.gradient]
    return {
        "columns_per_step": sum(one.rows * one.columns for one in moving) / facts / steps,
        "layers_per_step": moving[0].stop - moving[0].start,
        "logits_per_step": sum(one.wanted for one in moving) / facts / steps,
        "columns_once": sum(one.rows * one.columns for one in once) / facts,
    }


def _under(model: Any, hparams: Mapping[str, Any], passes: Sequence[Pass], seconds: float) -> dict[str, Any]:
    layers = list(model.get_submodule(hparams["layer_module_tmp"].removesuffix(".{}")))
    work = Floor(model, layers, model.get_submodule(hparams["ln_f_module"]), time.process_time).of(passes)
    return {
        "profiled_s": seconds,
        "floor_s": work.seconds,
        "of_floor": work.seconds / seconds,
        "floor_parts_s": asdict(work),
    }


def _under_statistics(
    model: Any, kind: str, modules: Sequence[str], lengths: Sequence[int], seconds: float
) -> dict[str, Any]:
    """The layers alone on as many tokens in rows of the mean length, and half of each product K·Kᵀ, which is symmetric."""
    layers = list(model.get_submodule(NAMES[kind]["layer_module_tmp"].removesuffix(".{}")))
    width = round(statistics.mean(lengths))
    batch = Pass(BATCH_TOKENS // width, width, 0, 8, 0, False)
    floor = Floor(model, layers, model.get_submodule(NAMES[kind]["ln_f_module"]), time.process_time)
    batches = sum(lengths) / (batch.rows * batch.columns)
    forward = floor.of([batch]).layers_forward * batches
    weight = model.get_submodule(modules[0]).weight
    keys = torch.randn(BATCH_TOKENS, max(weight.shape))
    products = statistics.median(_timed(lambda: keys.T @ keys)[0] for _ in range(3))
    sums = products / 2 * len(modules) * sum(lengths) / BATCH_TOKENS
    parts = {"layers_forward": forward, "half of the products": sums}
    return {"floor_s": forward + sums, "of_floor": (forward + sums) / seconds, "floor_parts_s": parts}


# ---- measuring and keeping


class Kept:
    """The results file: a case whose settings are others than those asked for begins anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        self.cases: dict[str, dict[str, Any]] = known.get("cases", {})

    def case(self, case: Case, about: Mapping[str, Any], *, again: bool) -> dict[str, Any]:
        settings = {**case.settings, **about}
        row = self.cases.get(case.name, {})
        if again or row.get("settings") != settings:
            row = self.cases[case.name] = {"settings": settings, "ours_s": [], "easyedit_s": []}
        return row

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        clock = "CPU seconds of the process, one thread; EasyEdit's two tokenising workers are not counted"
        self.path.write_text(json.dumps({"clock": clock, "cases": self.cases}, indent=1) + "\n", "utf-8")


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def _measure(case: Case, row: dict[str, Any], kept: Kept, repeats: int) -> None:
    while len(row["ours_s"]) < repeats or (case.theirs and len(row["easyedit_s"]) < repeats):
        number = len(row["ours_s"]) + 1
        seconds, found = _timed(case.ours)
        row["ours_s"].append(seconds)
        _say(f"{case.name}: ours {number} of {repeats}: {seconds:.1f} s")
        if case.theirs:
            with forwards(case.model) as seen:
                seconds, others = _timed(case.theirs)
            row["easyedit_s"].append(seconds)
            row["easyedit_columns"] = sum(rows * columns for rows, columns in seen)
            row["cosine"], row["norm_ratio"] = agreement(found, others)
            left = (repeats - len(row["easyedit_s"])) * (row["ours_s"][-1] + seconds)
            _say(f"{case.name}: EasyEdit's {number} of {repeats}: {seconds:.1f} s; about {left / 60:.0f} min to go")
        kept.save()
    if "details" not in row:
        _say(f"{case.name}: where our time goes")
        row["details"] = case.details()
        kept.save()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ---- the table


def table(cases: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The results for people."""
    yield f"{'':16}{'repeats':>8}{'ours':>9}{'EasyEdit':>10}{'ratio':>7}{'bar':>6}{'cosine':>12}{'norms':>9}"
    for name, row in cases.items():
        if not row["ours_s"]:
            continue
        ours = statistics.median(row["ours_s"])
        line = f"{name:16}{len(row['ours_s']):8}{ours:8.1f}s"
        if row["easyedit_s"]:
            theirs = statistics.median(row["easyedit_s"])
            line += f"{theirs:9.1f}s{theirs / ours:7.1f}{BARS[name.split()[1]]:6.1f}{row['cosine']:12.8f}{row['norm_ratio']:9.6f}"
        yield line
    for name, row in cases.items():
        details = row.get("details", {})
        if details:
            yield ""
            yield f"{name}: {', '.join(f'{key} {value}' for key, value in row['settings'].items() if key not in _ABOUT)}"
            yield from _explained(row, details)


def _explained(row: Mapping[str, Any], details: Mapping[str, Any]) -> Iterator[str]:
    yield "  our time: " + ", ".join(f"{part} {share:.0%}" for part, share in details["shares"].items())
    if "columns_per_step" in details:
        yield (
            f"  a step and fact: {details['columns_per_step']:.0f} columns through {details['layers_per_step']} layers, "
            f"{details['logits_per_step']:.0f} through the head; once: {details['columns_once']:.0f} columns a fact"
        )
    if "easyedit_columns" in row:
        facts = row["settings"].get("facts", 1)
        yield f"  EasyEdit, in all: {row['easyedit_columns'] / facts:,.0f} columns{' a fact' if facts > 1 else ''}"
    if "of_floor" in details:
        parts = details["floor_parts_s"]
        yield (
            f"  floor (nothing but the layers, and what follows them, on our columns) {details['floor_s']:.1f} s, {details['of_floor']:.0%} of our time: "
            + ", ".join(f"{part.replace('_', ' ')} {seconds / details['floor_s']:.0%}" for part, seconds in parts.items())
        )
        yield f"  so at most {1 / details['of_floor']:.2f} times faster without sending fewer columns"


_ABOUT = ("torch", "transformers", "machine", "easyedit")


def main() -> int:
    """Measure what is asked for, print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--easyedit", type=Path, metavar="CHECKOUT", help=f"a checkout of EasyEdit (default: ${VARIABLE})")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", choices=("gpt2", "llama"), default=["gpt2"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of the search, on both sides (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=16384, help="of the statistics' corpus (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "editing.json")
    parser.add_argument("--again", action="store_true", help="forget what is kept of these cases (the code has changed)")
    parser.add_argument("--table", action="store_true", help="measure nothing, print what is kept")
    options = parser.parse_args()
    kept = Kept(options.out)
    if not options.table:
        import transformers

        torch.set_num_threads(1)
        checkout = checkout_of(options.easyedit)
        theirs = EasyEdit(checkout) if checkout else None
        about = dict(
            zip(
                _ABOUT,
                (torch.__version__, transformers.__version__, platform.machine(), theirs and theirs.commit),
                strict=True,
            )
        )
        _say(f"EasyEdit {theirs.commit}" if theirs else "no checkout of EasyEdit: only ours is measured")
        for case in _cases(options, theirs):
            _measure(case, kept.case(case, about, again=options.again), kept, options.repeats)
    print("\n".join(table(kept.cases)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
