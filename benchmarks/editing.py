"""How fast an edit is: ours, and beside it EasyEdit's own functions where a checkout is named.

    python benchmarks/editing.py [--easyedit PATH] [--repeats 5] [--out benchmarks/results/editing.json]

Models with random weights: 12 layers, 768 wide, 50 257 words, shaped like GPT-2 and like Llama; one thread. ROME:
layer 5, 21 templates, one fact. MEMIT: layers 3 to 7, 6 templates, 32 facts. Templates, covariance, request and the
number of steps (no early stop: random models do not get there) are the same on both sides, and the cosine of the
updates stands beside the times.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from padcheck.editing import edit  # noqa: E402

WORDS = [
    "river",
    "house",
    "door",
    "morning",
    "road",
    "light",
    "children",
    "rain",
    "window",
    "captain",
    "forest",
    "letter",
    "winter",
    "street",
    "bridge",
    "garden",
    "stone",
    "music",
]
SUBJECTS = [
    "Ann Lee",
    "Mount Fuji",
    "Danielle Darrieux",
    "The Eiffel Tower",
    "Karl Marx",
    "Lake Como",
    "Oslo Cathedral",
    "Queen Victoria",
]
PHRASES = [
    ("{} is located in", "Rome"),
    ("{} speaks the language", "English"),
    ("{} works as a", "chemist"),
    ("{} was born near", "Berlin"),
]
REQUESTS = [
    {"prompt": prompt, "subject": subject, "target_new": target, "case_id": 0}
    for subject in SUBJECTS
    for prompt, target in PHRASES
]


def templates(count: int, lengths: list[int]) -> list[str]:
    """The bare one and `count` more, of these numbers of words in turn."""
    made = []
    for number in range(count):
        words = [WORDS[(number * 5 + step) % len(WORDS)] for step in range(lengths[number * len(lengths) // count])]
        made.append("The " + " ".join(words) + ". {}")
    return ["{}", *made]


def model_of(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    if kind == "gpt2":
        return AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2")).eval()
    config = AutoConfig.for_model(
        "llama",
        vocab_size=50257,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=2048,
        pad_token_id=0,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def tokenizer_of() -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "fixtures" / "shipped" / "tokenizers" / "gpt2-shape")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def hparams_of(kind: str, method: str, steps: int) -> dict[str, Any]:
    names = {
        "gpt2": (
            "transformer.h.{}",
            "transformer.h.{}.mlp",
            "transformer.h.{}.mlp.c_proj",
            "transformer.h.{}.attn",
            "transformer.ln_f",
            "transformer.wte",
        ),
        "llama": (
            "model.layers.{}",
            "model.layers.{}.mlp",
            "model.layers.{}.mlp.down_proj",
            "model.layers.{}.self_attn",
            "model.norm",
            "lm_head",
        ),
    }[kind]
    keys = ("layer_module_tmp", "mlp_module_tmp", "rewrite_module_tmp", "attn_module_tmp", "ln_f_module", "lm_head_module")
    values: dict[str, Any] = {
        **dict(zip(keys, names, strict=True)), "alg_name": method, "model_name": f"./{kind}",
        "stats_dir": "./stats", "device": "cpu",
        "fact_token": "subject_last", "v_num_grad_steps": steps, "v_lr": 0.1, "v_loss_layer": 11, "v_weight_decay": 0.1,
        "clamp_norm_factor": 4, "kl_factor": 0.0625, "mom2_adjustment": True, "mom2_dataset": "wikipedia",
        "mom2_n_samples": 100, "mom2_dtype": "float32",
    }  # fmt: skip
    if method == "ROME":
        return values | {"layers": [5], "context_template_length_params": [[5, 10], [10, 10]]}
    return values | {"layers": [3, 4, 5, 6, 7], "layer_selection": "all", "mom2_update_weight": 10.0}


def covariance_of(model: Any, hparams: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for layer in hparams["layers"]:
        name = hparams["rewrite_module_tmp"].format(layer)
        module = model.get_submodule(name)
        width = module.weight.shape[0] if type(module).__name__ == "Conv1D" else module.weight.shape[1]
        factors = torch.randn(width, 2 * width, generator=torch.Generator().manual_seed(layer))
        found[name] = factors @ factors.T / (2 * width)
    return found


class EasyEdit:
    """EasyEdit's own functions from a checkout, unmodified; packages that editing does not need may be missing."""

    def __init__(self, checkout: Path) -> None:
        base = checkout / "easyeditor"
        sys.meta_path.append(_Missing())
        for name in ("", ".models", ".util", ".models.rome", ".models.memit"):
            package = types.ModuleType("easyeditor" + name)
            package.__path__ = [str(base.joinpath(*name.split(".")))]
            sys.modules["easyeditor" + name] = package
        here = Path.cwd()
        os.chdir(checkout)  # it reads globals.yml from the current folder when it is imported
        try:
            self.main = {
                method: importlib.import_module(f"easyeditor.models.{method.lower()}.{method.lower()}_main")
                for method in ("ROME", "MEMIT")
            }
            self.rome_u = importlib.import_module("easyeditor.models.rome.compute_u")
            self.hparams = {
                "ROME": importlib.import_module("easyeditor.models.rome.rome_hparams").ROMEHyperParams,
                "MEMIT": importlib.import_module("easyeditor.models.memit.memit_hparams").MEMITHyperParams,
            }
        finally:
            os.chdir(here)

    def prepare(
        self, method: str, model: Any, hparams: dict[str, Any], groups: list[list[str]], covariance: dict[str, Any]
    ) -> None:
        """Templates and statistics into its caches, which is where it would find them."""
        model.config._name_or_path = model.name_or_path = hparams["model_name"]
        flat = [text for group in groups for text in group]
        self.main[method].CONTEXT_TEMPLATES_CACHE = flat if method == "ROME" else groups
        cache = self.rome_u.inv_mom2_cache if method == "ROME" else self.main[method].COV_CACHE
        cache.clear()
        for name, moment in covariance.items():
            cache[hparams["model_name"].replace("/", "_"), name] = (
                torch.inverse(moment.double()).float() if method == "ROME" else moment
            )

    def edit(
        self, method: str, model: Any, tokenizer: Any, requests: list[dict[str, Any]], hparams: dict[str, Any]
    ) -> dict[str, Any]:
        tokenizer.padding_side = "right"
        names = [hparams["rewrite_module_tmp"].format(layer) + ".weight" for layer in hparams["layers"]]
        before = {name: model.get_parameter(name).detach().clone() for name in names}
        function = getattr(self.main[method], f"apply_{method.lower()}_to_model")
        with contextlib.redirect_stdout(io.StringIO()):
            function(model, tokenizer, requests, self.hparams[method](**hparams))
        updates = {}
        with torch.no_grad():
            for name in names:
                updates[name] = model.get_parameter(name).detach() - before[name]
                model.get_parameter(name).copy_(before[name])
        return updates


class _Missing:
    """Empty modules in the place of packages that are imported and not used."""

    names = ("matplotlib", "datasets", "sklearn", "scipy", "pandas", "nltk")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in self.names else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> Any:
        module = _Empty(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: Any) -> None:
        pass


class _Empty(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def timed(call: Callable[[], Any], repeats: int) -> tuple[list[float], Any]:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = call()
        times.append(time.process_time() - start)
    return times, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--easyedit", type=Path, help="a checkout of EasyEdit to run beside ours")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--facts", type=int, default=32, help="facts of the MEMIT edit")
    parser.add_argument("--models", nargs="+", default=["gpt2", "llama"])
    parser.add_argument("--methods", nargs="+", default=["ROME", "MEMIT"])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "editing.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    theirs = EasyEdit(options.easyedit) if options.easyedit else None
    tokenizer = tokenizer_of()
    rows = []
    for kind in options.models:
        model = model_of(kind)
        for method in options.methods:
            hparams = hparams_of(kind, method, options.steps)
            flat = templates(20, [4, 9]) if method == "ROME" else templates(5, [9])
            groups = [flat[:1], flat[1:]]
            requests = REQUESTS[:1] if method == "ROME" else REQUESTS[: options.facts]
            covariance = covariance_of(model, hparams)
            ours = lambda: edit(model, tokenizer, requests, hparams, context_templates=groups, covariance=covariance).updates  # noqa: B023, E731
            times, updates = timed(ours, options.repeats)
            row = {
                "model": kind,
                "method": method,
                "facts": len(requests),
                "steps": options.steps,
                "ours_s": statistics.median(times),
                "ours_all_s": times,
            }
            if theirs is not None:
                theirs.prepare(method, model, hparams, groups, covariance)
                run = lambda: theirs.edit(method, model, tokenizer, requests, hparams)  # noqa: B023, E731
                their_times, their_updates = timed(
                    run, options.repeats if method == "ROME" else max(1, options.repeats // 5)
                )
                row["easyedit_s"], row["easyedit_all_s"] = statistics.median(their_times), their_times
                row["ratio"] = row["easyedit_s"] / row["ours_s"]
                row["cosine"] = min(
                    float(torch.nn.functional.cosine_similarity(updates[name].flatten(), their_updates[name].flatten(), 0))
                    for name in updates
                )
            rows.append(row)
            print(
                "  ".join(
                    f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                    for key, value in row.items()
                    if not key.endswith("all_s")
                ),
                flush=True,
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "torch": torch.__version__,
        "threads": 1,
        "clock": "CPU time of the process, median",
        "repeats": options.repeats,
    }
    options.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
