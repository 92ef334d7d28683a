"""Rules against the model: its depth, its last layer, its head, and the names of its modules at every edited layer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from padcheck.checks.building import finding
from padcheck.checks.hparams.case import Case, near, quoted_like, rule
from padcheck.checks.hparams.models import Model, name_parts, plain_name
from padcheck.diagnostics import Confidence, Finding


def _sure(model: Model) -> Confidence:
    return "high" if model.certain else "medium"


@rule("HPR112")
def model_and_file_name(case: Case) -> Iterator[Finding]:
    """The file is named after another model than it loads."""
    name = case.model_name
    stem = Path(case.path).stem
    there, here = (name_parts(name) if name else None), name_parts(stem)
    if there is None or here is None or name is None:
        return
    differs = []
    if here.family != there.family:
        differs.append("another family")
    else:
        if here.size and there.size and here.size != there.size:
            differs.append(f"size {there.size} in place of {here.size}")
        if (here.generation or "1") != (there.generation or "1") and here.generation and there.generation:
            differs.append(f"generation {there.generation} in place of {here.generation}")
    if differs:
        yield finding(
            "HPR112",
            f"The file is named {stem} and loads {plain_name(name)}: {', '.join(differs)}.",
            case.place("model_name"),
            "Rename the file or name the other model; layers, v_loss_layer and caches belong to one of them.",
            key="model_name",
        )
    elif here.variant != there.variant:
        what = "a chat model, which its name does not say" if there.variant else "which is no chat model"
        yield finding(
            "HPR112",
            f"The file is named {stem} and loads {plain_name(name)}, {what}.",
            case.place("model_name"),
            "Name the file after the model that it loads.",
            severity="note",
            key="model_name",
        )


@rule("HPR113")
def loss_layer(case: Case) -> Iterator[Finding]:
    """v_loss_layer against the model's last layer, and what that means to the method."""
    value, model = case.values.get("v_loss_layer"), case.model
    if not isinstance(value, int) or isinstance(value, bool) or model is None or case.variant is None:
        return
    # A layer that the model does not have is another rule's (HPR118).
    effective = max([value, *(layer for layer in case.layers() if layer <= model.last)])
    if effective == model.last:
        return
    place, last = case.place("v_loss_layer"), model.last
    fix = case.replace_value("v_loss_layer", str(last), f"Write {last}, the model's last layer")
    if effective > last:
        yield finding(
            "HPR113",
            f"v_loss_layer {value} is no layer of the model, which has {model.layers} (0 to {last}; {model.source})"
            + (": its output is never found and the run stops." if case.reads("v_loss_layer") else "."),
            place,
            f"Write {last}.",
            severity="error" if case.reads("v_loss_layer") else "note",
            confidence=_sure(model),
            key="v_loss_layer",
            fix=fix,
            evidence={"last": last},
        )
    elif case.reads_own_logits:
        yield finding(
            "HPR113",
            f"v_loss_layer {value} is not the last of the model's {model.layers} layers; that is harmless here, since {case.title} takes the loss from the model's own logits.",
            place,
            severity="note",
            confidence=_sure(model),
            key="v_loss_layer",
            evidence={"last": last},
        )
    elif case.variant.head is not None:
        yield finding(
            "HPR113",
            f"The loss is taken from the output of layer {effective} through {case.values.get('ln_f_module')} and {case.values.get('lm_head_module')}, but the model has {model.layers} layers and ends with {last} ({model.source}): the edit is optimised on predictions that the model never makes.",
            place,
            f"Write {last}.",
            severity="error",
            confidence=_sure(model),
            key="v_loss_layer",
            fix=fix,
            evidence={"last": last},
        )


@rule("HPR114", "HPR115", "HPR116")
def modules(case: Case) -> Iterator[Finding]:
    """Module templates and outer modules that the model does not have; the output embedding."""
    model, variant = case.model, case.variant
    if variant is None:
        return
    for key in ("rewrite_module_tmp", "layer_module_tmp", "mlp_module_tmp", "attn_module_tmp", "rewrite_module_tmps"):
        value = case.values.get(key)
        templates = (
            [value]
            if isinstance(value, str)
            else [each for each in value if isinstance(each, str)]
            if isinstance(value, list)
            else []
        )
        for template in templates:
            if template.count("{}") == 1:
                yield from _template(case, key, template)
    if model is None or model.architecture is None:
        return
    norm = case.values.get("ln_f_module")
    if isinstance(norm, str) and case.reads("ln_f_module") and variant.head and model.has(norm) is False:
        right = model.architecture["norm"]
        yield finding(
            "HPR116",
            f"The model has no module {norm} ({model.source})" + (f"; its last norm is {right}." if right else "."),
            case.place("ln_f_module"),
            confidence=_sure(model),
            key="ln_f_module",
            fix=case.replace_value("ln_f_module", quoted_like(case, "ln_f_module", right), f"Write {right}")
            if right
            else None,
        )
    yield from _head(case, model)


def _template(case: Case, key: str, template: str) -> Iterator[Finding]:
    model, variant = case.model, case.variant
    assert variant is not None
    reads = case.reads(key)
    weight = key.startswith("rewrite_module_tmp") and variant.locates  # the others look for part of a parameter's name
    if template.endswith(".weight") and variant.locates and reads:
        place = case.place(key)
        yield finding(
            "HPR116",
            f"{key} names the weight, but the method looks up the module and adds .weight itself: {template}.weight does not exist.",
            place,
            "Leave .weight out.",
            key=f"{key}:weight",
            fix=case.replace_value(key, quoted_like(case, key, template.removesuffix(".weight")), "Leave .weight out"),
        )
        return
    if model is None or model.architecture is None:
        return
    name = template.removesuffix(".weight")
    wanted = [layer for layer in case.layers() if 0 <= layer < model.layers]
    absent = [layer for layer in wanted if model.has(name.format(layer), layer, weight=weight and reads) is False]
    if not absent:
        return
    anywhere = model.layers_with(name)
    if not reads:
        return
    if anywhere and len(absent) < model.layers and model.kinds:
        kinds = sorted({model.kinds[layer] for layer in absent})
        yield finding(
            "HPR116",
            f"{name} exists at layers {', '.join(map(str, anywhere))} only, and not at the edited {', '.join(map(str, absent))}, which are of kind {', '.join(kinds)} ({model.source}).",
            case.place(key),
            confidence=_sure(model),
            key=key,
        )
        return
    block = model.architecture["block"]
    known = [f"{block}.{part}" for part in model.parts(absent[0]) if part.startswith("mlp")] if weight else [block]
    close = near(name, [block, *(f"{block}.{part}" for part in model.parts(absent[0]))], 1, 0.85)
    yield finding(
        "HPR116",
        f"The model has no module {name.format(absent[0])} ({model.source}).",
        case.place(key),
        f"Did you mean {close[0]}?" if close else f"Its names look like {', '.join(known)}.",
        confidence=_sure(model),
        key=key,
        fix=case.replace_value(key, quoted_like(case, key, close[0]), f"Write {close[0]}")
        if close and case.values.get(key) == template
        else None,
    )


def _head(case: Case, model: Model) -> Iterator[Finding]:
    variant, head = case.variant, case.values.get("lm_head_module")
    if variant is None or variant.head is None or not isinstance(head, str) or not case.reads("lm_head_module"):
        return
    assert model.architecture is not None
    output, embed = model.architecture["head"], model.architecture["embed"]
    place = case.place("lm_head_module")
    if model.tied is False and head == embed:
        yield finding(
            "HPR114",
            f"{head} is the input embedding, and this model's head is not tied to it ({model.source}): the loss is computed with the wrong matrix.",
            place,
            f"Write {output}.",
            confidence=_sure(model),
            key="lm_head_module",
            fix=case.replace_value("lm_head_module", quoted_like(case, "lm_head_module", output), f"Write {output}"),
        )
    elif model.tied and head == output and variant.head == "parameter":
        yield finding(
            "HPR115",
            f"{case.title} looks up {head}.weight among the named parameters, where a tied head does not stand ({model.source}): it stops with a LookupError.",
            place,
            f"Write {embed}, the same matrix under the name it has there.",
            confidence=_sure(model),
            key="lm_head_module",
            fix=case.replace_value("lm_head_module", quoted_like(case, "lm_head_module", embed), f"Write {embed}"),
        )
    elif head not in (output, embed):
        yield finding(
            "HPR116",
            f"The model has no module {head} that could be its output embedding ({model.source}).",
            place,
            f"Write {output if not model.tied or variant.head == 'module' else embed}.",
            confidence=_sure(model),
            key="lm_head_module",
        )


@rule("HPR118", "HPR119", "HPR120")
def layers(case: Case) -> Iterator[Finding]:
    """The edited layers: inside the model, ascending, each once, as many as the method is made for."""
    place, found, model = case.place("layers"), case.layers(), case.model
    if model is not None:
        outside = [layer for layer in found if layer >= model.layers]
        if outside:
            yield finding(
                "HPR118",
                f"Layer {', '.join(map(str, outside))} is outside the model, which has {model.layers} (0 to {model.last}; {model.source}).",
                place,
                confidence=_sure(model),
                key="layers",
            )
    if len(set(found)) < len(found):
        yield finding(
            "HPR119",
            "A layer stands in layers more than once.",
            place,
            "Name each layer once.",
            key="layers:repeated",
            severity="error" if case.spreads else "warning",
        )
    elif found != sorted(found):
        written = "[" + ", ".join(map(str, sorted(found))) + "]"
        yield finding(
            "HPR119",
            f"layers is not ascending: the target is computed at the last one written ({found[-1]}), and the layers above it are edited all the same."
            if case.spreads
            else "layers is not ascending.",
            place,
            f"Write {written}.",
            severity="error" if case.spreads else "note",
            key="layers",
            fix=case.replace_value("layers", written, "Sort the layers"),
        )
    if case.method in {"ROME", "R-ROME"} and len(found) > 1:
        yield finding(
            "HPR120",
            f"{case.title} is made for one layer; with {len(found)} each gets an edit of its own.",
            place,
            severity="warning",
            key="layers",
        )
    elif case.spreads and len(found) == 1:
        yield finding(
            "HPR120",
            f"{case.title} spreads the edit over several layers; with one layer it takes all of it there.",
            place,
            severity="note",
            key="layers",
        )


@rule("HPR116", "HPR118")
def inner_parameters(case: Case) -> Iterator[Finding]:
    """`inner_params`: full names of weights (MEND, GRACE, WISE …)."""
    value, model = case.values.get("inner_params"), case.model
    if not isinstance(value, list) or model is None or model.architecture is None:
        return
    for name in value:
        if not isinstance(name, str) or name.startswith(
            ("encoder.", "decoder.", "Qformer", "opt_", "llama_", "language_model", "model.language_model")
        ):
            continue
        plain = re.sub(r"\[(\d+)\]", r".\1", name)
        at = re.search(r"\.(\d+)(?=\.)", plain)
        layer = int(at[1]) if at else None
        module = re.sub(r"\.(weight|bias)$", "", plain)
        if layer is not None and layer >= model.layers:
            yield finding(
                "HPR118",
                f"{name} is outside the model, which has {model.layers} layers (0 to {model.last}; {model.source}).",
                case.place("inner_params"),
                confidence=_sure(model),
                key=f"inner_params:{name}",
            )
        elif model.has(module, layer) is False:
            yield finding(
                "HPR116",
                f"The model has no {name} ({model.source}).",
                case.place("inner_params"),
                f"Its names look like {model.architecture['block']}.{model.parts(0)[-1]}.",
                confidence=_sure(model),
                key=f"inner_params:{name}",
            )


_PEFT = frozenset({"LoRA", "LoRA_uns", "QLoRA", "DPO"})
"""Methods of EasyEdit that hand target_modules to peft, which compares the members of a list with names or their ends."""


def _last_word(pattern: str) -> str:
    return next(reversed(re.findall(r"[A-Za-z]\w*", pattern)), "q_proj")


@rule("HPR116")
def adapter_targets(case: Case) -> Iterator[Finding]:
    """`target_modules` of which none is the end of a module's name: peft refuses them."""
    value, model = case.values.get("target_modules"), case.model
    if case.framework != "easyedit" or case.method not in _PEFT or not isinstance(value, list):
        return
    targets = [each for each in value if isinstance(each, str)]
    if not targets or len(targets) < len(value):
        return
    patterns = [each for each in targets if "*" in each]
    if len(patterns) == len(targets):
        yield finding(
            "HPR116",
            f"target_modules {patterns[0]!r} is a pattern, and peft compares the members of a list as they are with the ends of names: none matches, and it stops with a ValueError.",
            case.place("target_modules"),
            f"Write [{', '.join(dict.fromkeys(_last_word(each) for each in patterns))}].",
            key="target_modules",
        )
    elif model is not None and model.architecture is not None and (model.names is not None or not model.kinds):
        parts = model.parts(0)
        modules = model.names.modules if model.names is not None else [f".{part}" for part in parts]
        if not any(name.endswith(f".{each}") for each in targets for name in modules):
            yield finding(
                "HPR116",
                f"The model has no module whose name ends in {' or '.join(targets)} ({model.source}): peft stops with a ValueError.",
                case.place("target_modules"),
                f"Its blocks have {', '.join(part.rpartition('.')[2] for part in parts if 'norm' not in part and 'ln' not in part)}.",
                confidence=_sure(model),
                key="target_modules",
            )


_MOVED = (
    (re.compile(r"^language_model\.model\.layers\b"), "model.language_model.layers"),
    (re.compile(r"^model\.layers\b"), "model.language_model.layers"),
)
_MULTIMODAL = re.compile(r"llava|-vl\b|-vl-|vl-")


@rule("ENV101")
def moved_modules(case: Case) -> Iterator[Finding]:
    """Former names of multimodal models' text decoders, which transformers 4.52 moved."""
    name = case.model_name
    if name is None or not _MULTIMODAL.search(plain_name(name)):
        return
    for key in ("inner_params", "rewrite_module_tmp"):
        value = case.values.get(key)
        first = value[0] if isinstance(value, list) and value else value
        if not isinstance(first, str):
            continue
        plain = re.sub(r"\[(\d+)\]", r".\1", first)
        other = next((words for pattern, words in _MOVED if pattern.search(plain)), None)
        if other is not None:
            yield finding(
                "ENV101",
                f"{first} exists until transformers 4.51 only: since 4.52 the text decoder of this model hangs below {other}.",
                case.place(key),
                "Write the new name, or pin the old transformers.",
                severity="note",
                key=key,
            )
