"""What `padcheck.guard` does to EasyEdit's own, unmodified code, and what it costs.

    python benchmarks/guard.py --easyedit PATH [--facts 4] [--repeats 5] [--out benchmarks/results/guard.json]

On both fixture models, one fact at a time through `BaseEditor.edit`, ROME, MEMIT and PMET:

right      unguarded, right padding: what the edit is meant to be
left       unguarded, left padding
corrected  left padding inside `guard(policy="correct")`: is the update that of `right` to the last bit, are BaseEditor's numbers?
fail       left padding inside `guard(policy="fail")`: how many forward passes before the error?

Then whole runs through `guarded` (a batch, and one edit after the other), labels on a SentencePiece-shaped tokenizer, and the
time of an edit with and without a guard, in turns, one thread, CPU time, medians; the guard's own time is counted as well.
Parts that are not measured anew stay in the results as they were. EasyEdit imports many packages that editing does not need:
those that are missing are empty modules here. Nothing is written into the checkout.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import logging
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from missing import Missing  # noqa: E402

import padcheck  # noqa: E402
from padcheck.editing.corpus import embedded_corpus  # noqa: E402
from padcheck.editing.second_moments import estimate  # noqa: E402
from padcheck.integrations.easyedit import guarded  # noqa: E402

MODELS = ROOT / "fixtures" / "shipped" / "models"
TOKENIZERS = ROOT / "fixtures" / "shipped" / "tokenizers"
# As long as ROME's hparams ask for (5 and 10 tokens and more); EasyEdit's own, sampled for MEMIT and its kin, are all of one length.
PARTS = ["edits", "runs", "labels", "overhead"]
FIXED = [
    "{}", "Yes. {}", "The old river. {}", "Therefore the house by the road was quiet. {}", "I. {}",
    "Because the captain of the second ship was late, nobody saw the light between the trees. {}",
]  # fmt: skip
FOLDERS = {"ROME": "rome", "R-ROME": "r_rome", "MEMIT": "memit", "EMMET": "emmet", "PMET": "pmet", "AlphaEdit": "alphaedit"}


# -- EasyEdit, without what editing does not need ----------------------------------------------------------------------------------


def easyedit(checkout: Path) -> tuple[Any, list[str]]:
    """EasyEdit's editor module from a checkout, and the packages that were missing."""
    missing = Missing()
    sys.meta_path.append(missing)
    for name in ("easyeditor", "easyeditor.editors"):
        package = types.ModuleType(name)
        package.__path__ = [str(checkout.joinpath(*name.split(".")))]
        sys.modules[name] = package
    with contextlib.chdir(checkout):  # it reads globals.yml from the current folder when it is imported
        while True:
            try:
                return importlib.import_module("easyeditor.editors.editor"), sorted(missing.names)
            except ModuleNotFoundError as error:
                top = str(error.name).partition(".")[0]
                if top in missing.names or top == "easyeditor":
                    raise
                missing.names.add(top)
                for loaded in [one for one in sys.modules if one.startswith("easyeditor.") and one != "easyeditor.editors"]:
                    del sys.modules[loaded]


def hparams_of(kind: str, method: str, **changes: Any) -> Any:
    values = yaml.safe_load((MODELS / kind / "hparams" / f"{method.lower()}.yaml").read_text("utf-8"))
    folder = FOLDERS[method]
    module = importlib.import_module(f"easyeditor.models.{folder}.{folder}_hparams")
    (kind_of,) = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
    return kind_of(**{**values, "model_name": str(MODELS / kind), "device": "cpu", **changes})


# -- one edit ----------------------------------------------------------------------------------------------------------------------


class Edited:
    """A BaseEditor whose updates and probabilities are kept."""

    def __init__(self, module: Any, kind: str, method: str, **changes: Any) -> None:
        self.method, self.kind = method, kind
        self.hparams = hparams_of(kind, method, **changes)
        self.main = importlib.import_module(f"easyeditor.models.{FOLDERS[method]}.{FOLDERS[method]}_main")
        self.editor = module.BaseEditor.from_hparams(self.hparams)
        self.editor.model.eval()
        self.names = [self.hparams.rewrite_module_tmp.format(layer) + ".weight" for layer in self.hparams.layers]
        self.apply = self.editor.apply_algo
        self.editor.apply_algo = self._apply
        self.weights = {name: self.editor.model.get_parameter(name).detach().clone() for name in self.names}
        self.updates: dict[str, torch.Tensor] = {}
        self.probability = float("nan")
        self.templates: list[Any] | None = None
        self.request: Mapping[str, Any] = {}
        if hasattr(self.main, "COV_CACHE"):
            modules = [name.removesuffix(".weight") for name in self.names]
            found = estimate(self.editor.model, self.editor.tok, embedded_corpus(), modules, max_tokens=20_000).matrices
            model_name = self.editor.model.config._name_or_path.replace("/", "_")
            self.main.COV_CACHE.update({(model_name, name): moment.float() for name, moment in found.items()})

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        weights = {name: self.editor.model.get_parameter(name) for name in self.names}
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        answer = self.apply(*args, **kwargs)
        self.updates = {name: weights[name].detach() - before[name] for name in self.names}
        self.probability = probability(self.editor.model, self.editor.tok, self.request)
        return answer

    def edit(self, request: Mapping[str, Any], side: str) -> list[dict[str, Any]]:
        """BaseEditor's numbers for one fact. Templates are those given, or sampled anew from the same seed."""
        self.request = request
        with torch.no_grad():  # EasyEdit does not take every method's edit back
            for name, weight in self.weights.items():
                self.editor.model.get_parameter(name).copy_(weight)
        self.main.CONTEXT_TEMPLATES_CACHE = self.templates
        self.editor.tok.padding_side = side
        torch.manual_seed(0)
        # EasyEdit's PMET puts a space before the target for GPT models alone; for others it has to be written.
        space = " " if self.method == "PMET" and "gpt" not in self.kind else ""
        locality = [one["prompt"] for one in request["locality"][:3]], [one["target"] for one in request["locality"][:3]]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            metrics, _, _ = self.editor.edit(
                prompts=[request["prompt"]], target_new=[space + request["target_new"]], ground_truth=[request["ground_truth"]],
                subject=[request["subject"]], rephrase_prompts=[request["paraphrases"][0]],
                locality_inputs={"other": {"prompt": [locality[0]], "ground_truth": [locality[1]]}}, verbose=False,
            )  # fmt: skip
        return list(metrics)


@torch.no_grad()
def probability(model: Any, tokenizer: Any, request: Mapping[str, Any]) -> float:
    """Geometric mean of the probabilities of the new answer's tokens behind the plain prompt."""
    prompt = tokenizer.encode(request["prompt"])
    whole = tokenizer.encode(request["prompt"] + " " + request["target_new"])
    logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    picked = [logits[at - 1, whole[at]].item() for at in range(len(prompt), len(whole))]
    return float(torch.tensor(picked).mean().exp())


@contextlib.contextmanager
def forwards(model: Any) -> Iterator[list[int]]:
    """Counts forward passes of the model."""
    seen: list[int] = []
    hook = model.register_forward_pre_hook(lambda *_: seen.append(1))
    try:
        yield seen
    finally:
        hook.remove()


def same_bits(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def compare(module: Any, kind: str, method: str, templates: str, facts: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """The four ways, over the first `count` facts that can be right on some side: a guard stops the others, which are counted."""
    edited = Edited(module, kind, method)
    if templates == "fixed":
        edited.templates = list(FIXED) if method in ("ROME", "R-ROME") else [FIXED[:1], FIXED[1:]]
    found: dict[str, Any] = {"model": kind, "method": method, "templates": templates, "facts": count}
    passed_over = 0
    rows: dict[str, list[Any]] = {name: [] for name in ("right", "left", "corrected", "same", "numbers", "forwards", "nan")}
    drifting = corrected = checked = 0
    for fact in facts:
        if len(rows["right"]) == count:
            break
        try:
            with padcheck.guard(edited.editor.tok, policy="fail"):
                edited.edit(fact, "right")
        except padcheck.DriftError:
            passed_over += 1
            continue
        wanted = edited.edit(fact, "right")
        update = edited.updates
        rows["right"].append(edited.probability)
        edited.edit(fact, "left")
        rows["left"].append(edited.probability)
        rows["nan"].append(any(not one.isfinite().all() for one in edited.updates.values()))
        state = tokenizer_state(edited.editor.tok)
        with padcheck.guard(edited.editor.tok, model=edited.editor.model) as watch:
            numbers = edited.edit(fact, "left")
        assert tokenizer_state(edited.editor.tok) == state, "the tokenizer is not as it was"
        rows["corrected"].append(edited.probability)
        rows["same"].append(same_bits(update, edited.updates))
        rows["numbers"].append(without_time(numbers) == without_time(wanted))
        counts = watch.report()["positions"]
        drifting, corrected, checked = (
            drifting + counts["drifting"],
            corrected + counts["corrected"],
            checked + counts["checked"],
        )
        with forwards(edited.editor.model) as seen:
            try:
                with padcheck.guard(edited.editor.tok, policy="fail"):
                    edited.edit(fact, "left")
                rows["forwards"].append(-1)
            except padcheck.DriftError:
                rows["forwards"].append(len(seen))
    return found | {
        "right_on_no_side": passed_over,
        "probability_right": statistics.mean(rows["right"]),
        "probability_left": statistics.mean(rows["left"]),
        "probability_corrected": statistics.mean(rows["corrected"]),
        "left_not_finite": sum(rows["nan"]),
        "update_of_right_to_the_bit": sum(rows["same"]),
        "numbers_equal": sum(rows["numbers"]),
        "positions": {"checked": checked, "drifting": drifting, "corrected": corrected},
        "forwards_before_the_error": max(rows["forwards"]) if min(rows["forwards"]) >= 0 else None,
    }


def tokenizer_state(tokenizer: Any) -> Any:
    return (
        type(tokenizer),
        vars(tokenizer).get("padding_side"),
        tokenizer._tokenizer.padding,
        tokenizer._tokenizer.truncation,
    )


def without_time(numbers: Any) -> Any:
    return json.loads(
        json.dumps([{key: value for key, value in one.items() if key != "time"} for one in numbers], default=str)
    )


def run(module: Any, kind: str, how: str, facts: list[dict[str, Any]]) -> dict[str, Any]:
    """A whole run through `padcheck.integrations.easyedit.guarded`: MEMIT's `batch_edit`, or ROME's sequential `edit`."""
    method = "MEMIT" if how == "batch_edit" else "ROME"
    edited = Edited(module, kind, method, **({"batch_size": len(facts)} if method == "MEMIT" else {}))
    editor = edited.editor
    given = {
        "prompts": [fact["prompt"] for fact in facts], "target_new": [fact["target_new"] for fact in facts],
        "subject": [fact["subject"] for fact in facts], "ground_truth": [fact["ground_truth"] for fact in facts],
        "rephrase_prompts": [fact["paraphrases"][0] for fact in facts], "sequential_edit": True, "verbose": False,
    }  # fmt: skip

    def weights(of: Any, side: str) -> tuple[Any, dict[str, torch.Tensor]]:
        with torch.no_grad():
            for name, weight in edited.weights.items():
                editor.model.get_parameter(name).copy_(weight)
        edited.request, edited.main.CONTEXT_TEMPLATES_CACHE, editor.tok.padding_side = facts[0], None, side
        torch.manual_seed(0)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            numbers, _, _ = getattr(of, "batch_edit" if how == "batch_edit" else "edit")(**given)
        return without_time(numbers), {name: editor.model.get_parameter(name).detach().clone() for name in edited.names}

    right, left = weights(editor, "right"), weights(editor, "left")
    mine = guarded(editor, report=Path("run.padcheck.json"))
    corrected = weights(mine, "left")
    (told,) = json.loads(Path("run.padcheck.json").read_text("utf-8"))["runs"]
    return {
        "model": kind, "method": method, "run": how, "facts": len(facts),
        "left_differs": not same_bits(left[1], right[1]), "weights_of_right_to_the_bit": same_bits(corrected[1], right[1]),
        "numbers_equal": corrected[0] == right[0], "reported": told["outcome"], "positions": told["positions"],
    }  # fmt: skip


# -- labels on a SentencePiece-shaped tokenizer ------------------------------------------------------------------------------------


def labels(name: str) -> dict[str, Any]:
    """EasyEdit's `compute_v` on a random model: are the trained ids those that stand in the row behind each slot?"""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    compute = importlib.import_module("easyeditor.models.rome.compute_v")
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZERS / name)
    tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    hparams = hparams_of("llama-facts", "ROME", layers=[0], v_loss_layer=1, v_num_grad_steps=1)
    request = {"prompt": "The twin city of {} is", "subject": "Lyon", "target_new": " Manila and Rome"}
    templates = ["{}", "The old house by the river was quiet. {}", "Therefore. {}"]
    ids = tokenizer.encode(request["target_new"], add_special_tokens=False)
    batches: list[Any] = []
    hook = model.register_forward_pre_hook(lambda _, args, kwargs: batches.append(kwargs), with_kwargs=True)

    def on_tokens(side: str) -> int:
        """Rows whose tokens are the target's at the slots that EasyEdit scores (it counts them from the row's start)."""
        batches.clear()
        tokenizer.padding_side = side
        with contextlib.redirect_stdout(io.StringIO()):
            compute.compute_v(model, tokenizer, dict(request), hparams, 0, torch.ones(64), templates)
        rows, masks = batches[0]["input_ids"].tolist(), batches[0]["attention_mask"].sum(1).tolist()
        first = [length - len(ids) + 1 for length in masks]
        return sum(row[at : at + len(ids) - 1] == ids[:-1] for row, at in zip(rows[: len(templates)], first, strict=False))

    found = {"tokenizer": name, "rows": len(templates), "right": on_tokens("right"), "left": on_tokens("left")}
    try:
        with padcheck.guard(tokenizer, model=model):
            found["corrected"] = on_tokens("left")
    except padcheck.DriftError as error:
        found["corrected"] = f"DriftError: {str(error).splitlines()[0]}"
    hook.remove()
    return found


# -- time --------------------------------------------------------------------------------------------------------------------------


def overhead(module: Any, kind: str, method: str, side: str, fact: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Seconds of an edit's own function, in turns unguarded with right padding, and guarded with padding on `side`.

    Both do the same edit, since on the left the guard makes it that of the right. The guard's work does not depend on the steps of the optimisation, so its own time is measured on edits of one step, where
    it is not lost in the noise of the others.
    """
    plain, guarded, ratios = _in_turns(Edited(module, kind, method), side, fact, repeats)
    short, short_guarded, _ = _in_turns(Edited(module, kind, method, v_num_grad_steps=1), side, fact, 10 * repeats)
    own = short_guarded - short
    return {
        "model": kind, "method": method, "side": side, "repeats": repeats, "edit_s": plain, "guarded_s": guarded,
        "median_of_ratios": statistics.median(ratios), "guard_own_s": own, "guard_own_share": own / plain,
    }  # fmt: skip


def _in_turns(edited: Edited, side: str, fact: Mapping[str, Any], repeats: int) -> tuple[float, float, list[float]]:
    """Median seconds without and with a guard, and the ratios of the pairs."""
    request = {key: fact[key] for key in ("prompt", "subject", "target_new")} | {"case_id": 0}
    tokenizer, model = edited.editor.tok, edited.editor.model
    kept = {name: model.get_parameter(name).detach().clone() for name in edited.names}

    def once(padding: str = "right") -> None:
        torch.manual_seed(0)
        tokenizer.padding_side = padding
        with contextlib.redirect_stdout(io.StringIO()):
            edited.apply(model, tokenizer, [dict(request)], edited.hparams, copy=False, return_orig_weights=True)
        with torch.no_grad():
            for name, weight in kept.items():
                model.get_parameter(name).copy_(weight)

    def guarded() -> None:
        tokenizer.padding_side = side
        with padcheck.guard(tokenizer, model=model):
            once(side)

    def timed(run: Callable[[], None]) -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    once()
    guarded()
    pairs = []
    for number in range(repeats):
        if number % 2:
            with_guard, without = timed(guarded), timed(once)
        else:
            without, with_guard = timed(once), timed(guarded)
        pairs.append((without, with_guard))
    before, after = (statistics.median(side) for side in zip(*pairs, strict=True))
    return before, after, [after / before for before, after in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--easyedit", type=Path, required=True, help="a checkout of EasyEdit to run beside ours")
    parser.add_argument("--facts", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["llama-facts", "gpt2-facts"])
    parser.add_argument("--methods", nargs="+", default=["ROME", "MEMIT", "PMET"])
    parser.add_argument("--templates", choices=["sampled", "fixed"], nargs="+", default=["sampled", "fixed"])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "guard.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    out = options.out.resolve()
    module, missing = easyedit(options.easyedit.resolve())
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # it writes logs into the current folder
        facts = {kind: json.loads((MODELS / kind / "facts.json").read_text("utf-8"))["requests"] for kind in options.models}
        both = [(kind, method) for kind in options.models for method in options.methods]
        results: dict[str, list[dict[str, Any]]] = {}
        if "edits" in options.only:
            results["edits"] = [
                shown(compare(module, kind, method, templates, facts[kind], options.facts))
                for kind, method in both
                for templates in options.templates
            ]
        if "runs" in options.only:
            results["runs"] = [
                shown(run(module, kind, how, facts[kind][: options.facts]))
                for kind in options.models
                for how in ("batch_edit", "sequential edit")
            ]
        if "labels" in options.only:
            results["labels"] = [shown(labels(name)) for name in ("llama2-metaspace", "llama2-prepend")]
        if "overhead" in options.only:
            results["overhead"] = [
                shown(overhead(module, kind, method, side, facts[kind][0], options.repeats))
                for kind, method in both
                for side in ("right", "left")
            ]
    about = {"torch": torch.__version__, "threads": 1, "clock": "CPU time of the process", "packages_missing": missing}
    kept = json.loads(out.read_text("utf-8")) if out.is_file() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**kept, "about": about, **results}, indent=1) + "\n", "utf-8")


def shown(row: dict[str, Any]) -> dict[str, Any]:
    print(
        "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()),
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
