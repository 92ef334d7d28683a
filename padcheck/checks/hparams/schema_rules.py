"""Rules about keys and values: what the class that loads the file knows, needs, ignores, and what it cannot compute with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from padcheck.checks.building import finding
from padcheck.checks.hparams.case import Case, near, quoted_like, rule
from padcheck.checks.hparams.schemas import Variant, faults, kind_of
from padcheck.diagnostics import Finding, Fix, Place, Related, Severity, TextEdit

_FATAL_TYPES = frozenset(
    {
        "layers",
        "v_num_grad_steps",
        "v_lr",
        "v_loss_layer",
        "v_weight_decay",
        "clamp_norm_factor",
        "kl_factor",
        "mom2_update_weight",
        "num_steps",
        "lr",
        "n_iter",
        "rewrite_module_tmp",
        "layer_module_tmp",
        "context_template_length_params",
        "nullspace_threshold",
        "L2",
    }
)
"""Keys whose values are computed with, so that another type ends in an exception."""
_CERTAIN_RANGES = frozenset(
    {
        "v_num_grad_steps",
        "layers",
        "act_margin",
        "context_template_length_params",
        "nullspace_threshold",
        "tau",
        "emmet_lambda",
    }
)
_ELSEWHERE = frozenset({"alg_name", "alg", "fact_token"})


def _misspelt(case: Case, variant: Variant) -> dict[str, str | None]:
    """Each key that the class does not know, and the one that is absent and meant, if one comes near."""
    absent = [name for name in variant.properties if name not in case.hparams.values]
    return {key: next(iter(near(key, absent, 1, 0.75)), None) for key in variant.unknown(case.hparams.values)}


@rule("HPR122")
def unknown_keys(case: Case) -> Iterator[Finding]:
    """Keys that the class does not know: a TypeError when the file is loaded."""
    variant = case.variant
    if variant is None:
        return
    required = set(variant.missing(case.hparams.values))
    for key, meant in _misspelt(case, variant).items():
        place = case.key_place(key)
        fix = None
        if meant:
            fix = (
                Fix(f"Rename it to {meant}", (TextEdit(place, meant),))
                if place.end_column == (place.column or 0) + len(key)
                else None
            )
        yield finding(
            "HPR122",
            f"{variant.name} does not know the key {key!r}"
            + (f", and lacks {meant}, which it requires" if meant in required else "")
            + ": loading the file stops with a TypeError.",
            place,
            f"Did you mean {meant}?"
            if meant
            else f"Remove it, or load the file with the class that knows it (keys of {case.title}: {variant.source}).",
            severity=_loud(case),
            key=key,
            fix=fix,
        )


@rule("HPR123")
def missing_keys(case: Case) -> Iterator[Finding]:
    """Keys that the class requires: a TypeError when the file is loaded."""
    variant = case.variant
    if variant is None:
        return
    misspelt = set(_misspelt(case, variant).values())  # reported as such
    absent = [key for key in variant.missing(case.hparams.values) if key not in misspelt]
    if absent:
        # Without a device and a place for statistics it is not EasyEdit that will load the file (`padcheck edit` needs neither).
        elsewhere = variant.framework == "easyedit" and variant.locates and {"device", "stats_dir"} <= set(absent)
        shown = ", ".join(absent[:8]) + (f" and {len(absent) - 8} more" if len(absent) > 8 else "")
        yield finding(
            "HPR123",
            f"{variant.name} requires {shown}, which the file does not have: loading it stops with a TypeError.",
            Place(case.path),
            f"Add {'it' if len(absent) == 1 else 'them'}; the class is at {variant.source}.",
            severity="warning" if elsewhere else _loud(case),
            key=",".join(absent),
            evidence={"missing": absent},
        )


def _loud(case: Case) -> Severity:
    """An error where the file itself says which class loads it, or nearly all of its keys do."""
    assert case.variant is not None
    return "error" if case.sure or case.variant.distance(case.hparams.values) <= 2 else "warning"


@rule("HPR124")
def duplicate_keys(case: Case) -> Iterator[Finding]:
    """A key that stands twice: the last one wins without a word."""
    import yaml

    seen: dict[str, int] = {}
    for key, place in case.hparams.duplicates:
        at = seen[key] = seen.get(key, 0) + 1
        first, last = case.key_place(key, at - 1), case.key_place(key, at)
        lines = case.text.splitlines(keepends=True)
        values = []
        for each in (first, last):
            line = lines[(each.line or 1) - 1] if each.line and each.line <= len(lines) else ""
            try:
                values.append(yaml.safe_load(line.strip().rstrip(",")))
            except yaml.YAMLError:
                values.append(line)
        same = values[0] == values[1]
        fix = None
        simple = (
            first.line is not None
            and first.line != last.line
            and isinstance(values[0], dict)
            and values[0].get(key) is not None
        )
        if simple and first.line is not None and not case.path.endswith(".json"):
            fix = Fix(
                f"Remove the first {key}, which has no effect",
                (TextEdit(Place(case.path, first.line, 1, first.line + 1, 1), ""),),
                "safe",
            )
        yield finding(
            "HPR124",
            f"{key} stands here for the second time; this value counts and the first one is dropped without a word"
            + (" (they are equal)." if same else "."),
            place,
            "Keep one of them.",
            severity="warning" if same else "error",
            key=f"{key}:{at}",
            fix=fix,
            related=[Related("the value that is dropped", first)],
        )


@rule("HPR125")
def legacy_aliases(case: Case) -> Iterator[Finding]:
    """Former names of keys."""
    variant = case.variant
    for alias, key in (variant.aliases if variant else {}).items():
        if alias not in case.hparams.values:
            continue
        place = case.key_place(alias)
        both = key in case.hparams.values
        fix = None if both or place.end_column is None else Fix(f"Rename {alias} to {key}", (TextEdit(place, key),), "safe")
        yield finding(
            "HPR125",
            f"{alias} is the former name of {key}"
            + (", and the file has both." if both else "; only this method's loader still takes it."),
            place,
            f"Write {key}." if not both else f"Remove {alias}.",
            key=alias,
            fix=fix,
        )


@rule("HPR126", "HPR127", "HPR133")
def values(case: Case) -> Iterator[Finding]:
    """Values of the wrong type, out of range, or not among those that the method knows."""
    variant = case.variant
    if variant is None:
        return
    for key, value in case.values.items():
        schema = variant.properties.get(key)
        if schema is None or key in _ELSEWHERE:
            continue
        written = case.hparams.values[key]
        if key == "device" and isinstance(written, str) and isinstance(value, float):
            yield finding(
                "HPR126",
                f"device {written!r} becomes {value!r}: the loader turns every numeric string into a float, and no device is called that.",
                case.place(key),
                "Write the number without quotes, or cuda:N.",
                key=key,
                severity="error",
                fix=case.replace_value(key, written.strip(), "Remove the quotes"),
            )
            continue
        for fault, where, words in faults(value, schema):
            if fault != "type" or where or _matters(case, key, schema.get("type")):
                yield _fault(case, key, fault, where, words)
    yield from _steps(case)
    yield from _templates(case)
    yield from _lengths(case)


def _fault(case: Case, key: str, fault: str, where: str, words: str) -> Finding:
    ignored = case.variant is not None and bool(case.variant.properties[key].get("x-ignored"))
    name = f"{key}{where}"
    value = case.hparams.values[key]
    if fault == "choice":
        choices = [str(each) for each in case.variant.properties[key].get("enum", ())] if case.variant else []
        close = near(str(value), choices, 1, 0.6)
        fatal = (
            key in {"mom2_dtype", "objective_optimization", "solver", "delta_init", "weight_decay_method", "base_method"}
            and not ignored
        )
        return finding(
            "HPR133",
            f"{name} {value!r} {words}" + (" (the method never reads it)." if ignored else "."),
            case.place(key),
            f"Did you mean {close[0]}?" if close else None,
            severity="error" if fatal else "note" if ignored else "warning",
            key=key,
            fix=case.replace_value(key, quoted_like(case, key, close[0]), f"Write {close[0]}") if close else None,
        )
    if fault == "range":
        certain = key in _CERTAIN_RANGES and not ignored
        return finding("HPR127", f"{name} {words}.", case.place(key), severity="error" if certain else "warning", key=name)
    if fault == "pattern":
        return finding(
            "HPR126",
            f"{name} {value!r} {words}.",
            case.place(key),
            "Put {} where the layer's number stands.",
            key=name,
            severity="warning" if ignored else "error",
        )
    exponent = isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value.strip())
    hint = (
        f" (YAML 1.1 reads {value} without a point before the e as text)"
        if exponent and isinstance(case.values[key], str)
        else ""
    )
    converted = (
        "" if where or case.values[key] == value else f", after the loader has made {kind_of(case.values[key])} of {value!r}"
    )
    severity: Severity = "note" if ignored else "error" if key in _FATAL_TYPES else "warning"
    return finding("HPR126", f"{name} {words}{hint}{converted}.", case.place(key), severity=severity, key=name)


def _matters(case: Case, key: str, words_type: str | list[str] | None) -> bool:
    """Whether a value of another type than the annotation says makes a difference. Annotations are often wrong: an int that is a rate."""
    value = case.values[key]
    if key in _FATAL_TYPES:
        return not isinstance(value, bool)
    if isinstance(value, str):
        return "string" not in (words_type or ())
    return isinstance(value, list | dict)


def _steps(case: Case) -> Iterator[Finding]:
    steps = case.values.get("v_num_grad_steps")
    if (
        isinstance(steps, int)
        and not isinstance(steps, bool)
        and steps == 1
        and case.variant is not None
        and case.variant.locates
    ):
        yield finding(
            "HPR127",
            "With v_num_grad_steps 1 no step is ever taken: the loop ends before the first update, and the edit writes the old value.",
            case.place("v_num_grad_steps"),
            "Use the published 20 or 25.",
            severity="error",
            key="v_num_grad_steps:1",
        )


def _templates(case: Case) -> Iterator[Finding]:
    """R-ROME and ROME generate n // 5 texts for each of five prompts."""
    value = case.values.get("context_template_length_params")
    if not case.reads("context_template_length_params") or not isinstance(value, list):
        return
    for number, pair in enumerate(value):
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and all(isinstance(each, int) and not isinstance(each, bool) for each in pair)
        ):
            continue
        count = pair[1]
        if 0 < count < 5 or count % 5:
            made = 0 if count < 5 else count // 5 * 5
            yield finding(
                "HPR127",
                f"context_template_length_params[{number}] asks for {count} texts and gets {made}: each of five prompts is continued {count // 5} times.",
                case.place("context_template_length_params"),
                "Use a multiple of 5.",
                severity="warning",
                key=f"context_template_length_params[{number}]",
            )


def _lengths(case: Case) -> Iterator[Finding]:
    """Values that must go together."""
    weights, layers = case.values.get("mom2_update_weight"), case.values.get("layers")
    if case.method == "EAMET" and isinstance(weights, list) and isinstance(layers, list) and len(weights) != len(layers):
        yield finding(
            "HPR127",
            f"mom2_update_weight has {len(weights)} numbers for {len(layers)} layers.",
            case.place("mom2_update_weight"),
            "Give one number per layer, or a single number for all.",
            severity="error",
            key="mom2_update_weight:length",
            related=[Related("the layers", case.place("layers"))],
        )
    merge, save = case.values.get("merge_freq"), case.values.get("save_freq")
    if case.method == "WISE" and isinstance(merge, int) and isinstance(save, int) and save > 0 and merge % save:
        yield finding(
            "HPR127",
            f"merge_freq {merge} is no multiple of save_freq {save}: loading the file stops with an AssertionError.",
            case.place("merge_freq"),
            severity="error",
            key="merge_freq",
            related=[Related("save_freq", case.place("save_freq"))],
        )
    size, once = case.values.get("batch_size"), case.values.get("batch_size_once")
    if case.method == "ULTRAEDIT" and isinstance(size, int) and isinstance(once, int) and once > 0 and size % once:
        yield finding(
            "HPR127",
            f"batch_size {size} is no multiple of batch_size_once {once}: the last {size % once} requests of each batch are dropped without a word.",
            case.place("batch_size"),
            severity="warning",
            key="batch_size_once",
            related=[Related("batch_size_once", case.place("batch_size_once"))],
        )


@rule("HPR103", "IDX109", "PAD105")
def fact_token(case: Case) -> Iterator[Finding]:
    """A fact_token that no method has code for, or that this one always fails with."""
    variant, value = case.variant, case.values.get("fact_token")
    if variant is None or not case.reads("fact_token") or value is None:
        return
    choices = variant.properties["fact_token"]["enum"]
    if value not in choices:
        close = near(str(value), choices, 1, 0.5)
        yield finding(
            "HPR103",
            f"fact_token {value!r} is none that {case.title} knows: the first request stops with a ValueError.",
            case.place("fact_token"),
            f"Did you mean {close[0]}?" if close else f"Known are {', '.join(choices)}.",
            key="fact_token",
            fix=case.replace_value("fact_token", quoted_like(case, "fact_token", close[0]), f"Write {close[0]}")
            if close
            else None,
        )


_PUBLISHED = {"layer_selection": "all", "mom2_adjustment": True, "kl_factor": 0, "norm_constraint": False, "dropout": 0.0}
"""Ignored keys that every published file has to hold, with the value that they have there."""


def _untouched(key: str, value: Any) -> bool:
    """Whether an ignored key is merely there because its class requires it: nobody has set it to try something."""
    return key.endswith(("_module", "_module_tmp")) or (key in _PUBLISHED and value == _PUBLISHED[key])


@rule("HPR121")
def ignored_keys(case: Case) -> Iterator[Finding]:
    """Keys that the method never reads."""
    variant = case.variant
    if variant is None:
        return
    present = [key for key in variant.ignored() if key in case.hparams.values and not _untouched(key, case.values[key])]
    switch = "mom2_adjustment"
    if switch in present and case.values.get(switch) is False and case.spreads:
        yield finding(
            "HPR121",
            f"mom2_adjustment: false changes nothing: {case.title} always uses the second moments.",
            case.place(switch),
            "Weigh them with mom2_update_weight." if case.reads("mom2_update_weight") else None,
            severity="warning",
            key=switch,
        )
        present.remove(switch)
    if not present:
        return
    needed = all(key in variant.required for key in present)
    yield finding(
        "HPR121",
        f"{case.title} never reads {', '.join(present)}"
        + (": the class requires them, their values change nothing." if needed else "."),
        case.key_place(present[0]),
        "Do not tune them." if needed else "Remove what is not required.",
        severity="note",
        key=",".join(present),
        evidence={"ignored": present},
    )
