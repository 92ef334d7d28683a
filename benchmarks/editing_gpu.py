"""How fast an edit of a 7B model is on one GPU, and how near that comes to what the model's forward pass costs anyway.

    python benchmarks/editing_gpu.py [--parts rome memit8 memit32] [--repeats 5] [--steps 25] [--easyedit CHECKOUT] [--tiny]

A Llama of 32 layers, 4096 wide, 11 008 inside, 32 000 words, with random weights in bf16 made on the GPU. ROME: one fact at
layer 5, 21 templates; MEMIT: 8 or 32 facts at layers 4 to 8, 6 templates; covariances are given, templates too. Two floors:
the decoder layers and the head run alone on exactly the columns that the edit sent through them, and what the hardware's own
rates, measured first, allow for these columns. `--tiny` is the same with a small model, also on a CPU: for trying this out.
Results go to $OUT, or else to benchmarks/results. After `--seconds` no further repetition is begun.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from easyedit import VARIABLE, EasyEdit, agreement, checkout_of  # noqa: E402
from editing import REQUESTS, columns_of, hparams_of, templates  # noqa: E402
from floor import EDIT_PARTS, Floor, by_hardware, recorded, spent  # noqa: E402

from padcheck.editing import edit  # noqa: E402
from padcheck.resources import shipped_dir  # noqa: E402

PARTS = ("rome", "memit8", "memit32")
SIZES = {
    False: {"num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32},
    True: {"num_hidden_layers": 12, "hidden_size": 64, "intermediate_size": 172, "num_attention_heads": 4},
}


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds, once everything on `device` is done."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def model_of(tiny: bool, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=32000, max_position_embeddings=2048, tie_word_embeddings=False, **SIZES[tiny])
    default = torch.get_default_dtype()
    torch.manual_seed(0)
    try:
        torch.set_default_dtype(dtype)
        with device:
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(default)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.02)
    # Made under bf16, the rotary frequencies would be rounded to it.
    with device:
        model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    return model.eval().requires_grad_(False)


def covariance_of(model: Any, names: list[str]) -> dict[str, Tensor]:
    """Random second moments, [d, d] in float32, made on the model's device."""
    found = {}
    for name in names:
        weight = model.get_submodule(name).weight
        width = weight.shape[1]
        generator = torch.Generator(weight.device).manual_seed(len(found))
        factors = torch.randn(width, 2 * width, generator=generator, device=weight.device)
        found[name] = (factors @ factors.T).div_(2 * width)
    return found


def rates(device: torch.device, tiny: bool, clock: Callable[[], float]) -> tuple[float, float]:
    """Floating-point operations per second of a bf16 product, and bytes per second of a copy (read and written)."""
    size = 512 if tiny else 8192
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    block = torch.empty(size * size * 16, device=device, dtype=torch.uint8)
    other = torch.empty_like(block)

    def median(call: Callable[[], Any]) -> float:
        call()
        times = []
        for _ in range(10):
            start = clock()
            call()
            times.append(clock() - start)
        return statistics.median(times)

    return 2 * size**3 / median(lambda: left @ right), 2 * block.numel() / median(lambda: other.copy_(block))


def same_on_both(device: torch.device, tokenizer: Any) -> float:
    """The worst cosine between updates of a small float32 model made on the CPU and on `device`."""
    found = []
    for where in (torch.device("cpu"), device):
        model = model_of(True, torch.device("cpu"), torch.float32).to(where)
        hparams = hparams_of("llama", "MEMIT", 5, [4, 5, 6], 11)
        names = [hparams["rewrite_module_tmp"].format(layer) for layer in hparams["layers"]]
        covariance = {name: moment.to(where) for name, moment in covariance_of(model.cpu(), names).items()}
        model.to(where)
        found.append(
            edit(model, tokenizer, REQUESTS[:4], hparams, context_templates=templates((10, 5)), covariance=covariance)
        )
    return agreement(found[1].updates, found[0].updates)[0]


def measured(
    part: str, model: Any, tokenizer: Any, options: argparse.Namespace, theirs: EasyEdit | None, hardware: tuple[float, float],
    until: float,
) -> dict[str, Any]:  # fmt: skip
    method, facts = ("ROME", 1) if part == "rome" else ("MEMIT", int(part.removeprefix("memit")))
    layers = [5] if method == "ROME" else [4, 5, 6, 7, 8]
    hparams = hparams_of("llama", method, options.steps, layers, model.config.num_hidden_layers - 1)
    device = model.get_input_embeddings().weight.device
    hparams["device"] = str(device)
    names = [hparams["rewrite_module_tmp"].format(layer) for layer in layers]
    groups, requests, covariance = templates(*_LENGTHS[method]), REQUESTS[:facts], covariance_of(model, names)
    clock = clock_of(device)

    def ours() -> Mapping[str, Tensor]:
        return edit(model, tokenizer, requests, hparams, context_templates=groups, covariance=covariance).updates

    ours()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    row: dict[str, Any] = {"facts": facts, "steps": options.steps, "layers": layers, "ours_s": [], "easyedit_s": []}
    found: Mapping[str, Tensor] = {}
    while len(row["ours_s"]) < options.repeats and (len(row["ours_s"]) < 1 or time.monotonic() < until):
        start = clock()
        found = ours()
        row["ours_s"].append(clock() - start)
    if device.type == "cuda":
        row["peak_GiB"], row["held_GiB"] = torch.cuda.max_memory_allocated(device) / 2**30, held / 2**30
    seconds = statistics.median(row["ours_s"])

    with recorded() as passes:
        _, row["shares"] = spent(ours, EDIT_PARTS, clock)
    row |= columns_of(passes, facts, options.steps)
    work = Floor(model, list(model.model.layers), model.model.norm, clock).of(passes)
    layer = sum(parameter.numel() for parameter in model.model.layers[0].parameters())
    least = by_hardware(passes, layer, model.lm_head.weight.numel(), model.dtype.itemsize, *hardware)
    row |= {"floor_s": work.seconds, "of_floor": work.seconds / seconds, "hardware_s": least, "of_hardware": least / seconds}
    if theirs is not None and time.monotonic() < until:
        theirs.prepare(method, model, hparams, groups, covariance)
        for _ in range(2):  # the first one warms up
            start = clock()
            others = theirs.edit(method, model, tokenizer, requests, hparams)
            row["easyedit_s"] = [clock() - start]
        row["cosine"], row["norm_ratio"] = agreement(found, others)
    return row


_LENGTHS = {"ROME": ((5, 10), (10, 10)), "MEMIT": ((10, 5),)}


def table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The results for people."""
    lines = [
        f"{'':10}{'facts':>6}{'edit':>10}{'a fact':>10}{'floor':>10}{'reached':>9}{'hardware':>10}{'reached':>9}{'peak GiB':>10}"
    ]
    for part, row in rows.items():
        seconds = statistics.median(row["ours_s"])
        line = f"{part:10}{row['facts']:6}{seconds:9.3f}s{seconds / row['facts']:9.3f}s{row['floor_s']:9.3f}s{row['of_floor']:9.0%}"
        lines.append(f"{line}{row['hardware_s']:9.3f}s{row['of_hardware']:9.0%}{row.get('peak_GiB', 0):10.1f}")
    for part, row in rows.items():
        lines.append("")
        lines.append(f"{part}: " + ", ".join(f"{name} {share:.0%}" for name, share in row["shares"].items()))
        lines.append(
            f"  a step and fact: {row['columns_per_step']:.0f} columns through {row['layers_per_step']} layers, "
            f"{row['logits_per_step']:.0f} through the head; once: {row['columns_once']:.0f} columns a fact"
        )
        if row["easyedit_s"]:
            times = row["easyedit_s"][0] / statistics.median(row["ours_s"])
            lines.append(
                f"  EasyEdit {row['easyedit_s'][0]:.2f} s, {times:.1f} times ours; cosine {row['cosine']:.5f} (its update is read off bf16 weights)"
            )
    return lines


def main() -> int:
    """Measure what is asked for, print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--easyedit", type=Path, metavar="CHECKOUT", help=f"a checkout of EasyEdit (default: ${VARIABLE})")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, help="the results file")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        sys.exit("there is no GPU: only --tiny can run here.")
    import transformers
    from transformers import AutoTokenizer

    until = time.monotonic() + options.seconds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clock = clock_of(device)
    tokenizer = AutoTokenizer.from_pretrained(shipped_dir() / "tokenizers" / "llama2-metaspace")
    tokenizer.pad_token = tokenizer.eos_token  # as EasyEdit has it; ours never pads with it
    checkout = checkout_of(options.easyedit)
    theirs = EasyEdit(checkout) if checkout else None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    print(f"EasyEdit {theirs.commit}" if theirs else "no checkout of EasyEdit: only ours is measured", flush=True)
    cosine = same_on_both(device, tokenizer)
    print(f"a small model in float32, {device.type} against cpu: cosine of the updates {cosine:.8f}", flush=True)
    hardware = rates(device, options.tiny, clock)
    print(
        f"measured rates: {hardware[0] / 1e12:.1f} Tflop/s in a bf16 product, {hardware[1] / 1e12:.2f} TB/s in a copy",
        flush=True,
    )
    start = clock()
    model = model_of(options.tiny, device, torch.bfloat16)
    print(
        f"a model of {sum(p.numel() for p in model.parameters()) / 1e9:.2f}e9 parameters in {clock() - start:.1f} s",
        flush=True,
    )

    out = options.out or Path(os.environ.get("OUT", ROOT / "benchmarks" / "results")) / "editing_gpu.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "device": name, "torch": torch.__version__, "transformers": transformers.__version__, "tiny": options.tiny,
        "flops_per_s": hardware[0], "bytes_per_s": hardware[1], "cpu_cosine": cosine, "easyedit": theirs and theirs.commit,
    }  # fmt: skip
    rows: dict[str, dict[str, Any]] = {}
    for part in options.parts:
        if rows and time.monotonic() > until:
            print(f"{part} is left out: {options.seconds:.0f} s are over", flush=True)
            continue
        rows[part] = measured(part, model, tokenizer, options, theirs, hardware, until)
        print(f"{part}: {statistics.median(rows[part]['ours_s']):.3f} s", flush=True)
        out.write_text(json.dumps({"about": about, "parts": rows}, indent=1) + "\n", "utf-8")
    print("\n".join(table(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
