"""What a framework does before any method runs, in a form that is quick to read: families, side rules, what the arithmetic needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from padcheck.caching import remembered

if TYPE_CHECKING:
    from padcheck.positions.editors import Editor, Method

_SAMPLE = {
    "prefix": 3,
    "prefix_subject": 6,
    "row": 12,
    "prompt": 10,
    "part_prefix": 3,
    "part_subject": 3,
    "part_suffix": 4,
    "mask": 12,
    "width": 12,
    "pads": 0,
    "target": 2,
    "target_width": 2,
    "target_pads": 0,
    "prompt_width": 10,
    "joined": 12,
    "bare_prompt": 10,
    "specials": 0,
    "trailing": 0,
    "target_start": 10,
}
"""A row without pads: an index below 0 counts from the end of the row, any other from its start."""


@cache
def framework(framework_id: str) -> Mapping[str, Any]:
    """Facts of a framework: families, side rules, and for each method and fact_token whether its index counts from start or end."""
    return remembered(f"framework-{framework_id}", lambda: compute(framework_id))


_CLASSES = ("GPT2Tokenizer", "PreTrainedTokenizerFast")


def compute(framework_id: str) -> dict[str, Any]:
    """What `framework` gives, worked out from rules/editors."""
    from dataclasses import asdict
    from itertools import chain, combinations

    from padcheck.positions.editors import FACT_TOKENS, Raises, load_editor

    editor = load_editor(framework_id)
    words = sorted({word for rule in editor.side_rules for word in rule.path_contains})
    paths = list(chain.from_iterable(combinations(words, count) for count in range(len(words) + 1)))
    methods = {}
    for name, method in editor.methods.items():
        needs: dict[str, dict[str, str]] = {}
        stops: dict[str, str] = {}
        for token in FACT_TOKENS:
            ends: dict[str, str] = {}
            for batch in method.batches:
                if batch.per == "row" or batch.when is not None:
                    continue
                entry = batch.lookup.by_fact_token.get(token) if batch.lookup else None
                if isinstance(entry, Raises):
                    stops[token] = entry.message
                elif entry is not None:
                    ends.setdefault("left" if entry(_SAMPLE) < 0 else "right", f"its index for {batch.name} is {entry.text}")
                if batch.labels is not None and batch.labels.on == "slots":
                    ends.setdefault(
                        "left" if batch.labels.first(_SAMPLE) < 0 else "right",
                        f"its label slots are {batch.labels.first.text}",
                    )
            needs[token] = ends
        methods[name] = {
            "kind": method.kind,
            "batchable": method.batchable,
            "own_loader": method.own_loader,
            "base": method.base,
            "needs": needs,
            "stops": stops,
            "uneven": _uneven(method),
            "sides": {
                each: {" ".join(path): _side(editor, method, name, each, path) for path in paths} for each in _CLASSES
            },
        }
    return {
        "title": editor.title,
        "unknown_family": editor.unknown_family,
        "methods": methods,
        "words": words,
        "families": [asdict(family) for family in editor.families],
    }


_SHORT = {
    **_SAMPLE,
    "row": 8,
    "prompt": 6,
    "mask": 8,
    "width": 13,
    "pads": 5,
    "target": 2,
    "target_width": 3,
    "target_start": 6,
}
"""A row of 6 + 2 tokens beside one of 10 + 3: what a training method computes on the shorter one, and the pads it has."""


def _uneven(method: Method) -> dict[str, Any] | None:
    """The sides under which a training method labels the shorter row of a batch right, and its arithmetic; None where that is no question."""
    if method.kind != "train" or not method.batchable or method.sets_side is not None:
        return None
    for batch in method.batches:
        labels = batch.labels
        if batch.per == "row" or labels is None or labels.foreign or batch.rows != "prompt+target":
            continue
        sides = []
        for side, start in (("left", 5), ("right", 0)):
            counts = {**_SHORT, "target_pads": 1 if side == "left" else 0, "trailing": 0 if side == "left" else 5}
            first, last = (value if value >= 0 else 13 + value for value in (labels.first(counts), labels.last(counts)))
            shift = 1 if labels.on == "slots" else 0
            inside = range(first + shift, last + shift + 1)
            labelled = [each for each in range(start, start + 8) if each not in inside] if labels.masked else list(inside)
            if labelled == [start + 6, start + 7]:
                sides.append(side)
        words = f"{labels.first.text} to {labels.last.text}"
        size = batch.size if isinstance(batch.size, str) else "batch_size"
        return {
            "size": size,
            "sides": sides,
            "why": f"its labels {'leave out' if labels.masked else 'are'} the columns {words}",
        }
    return None


def _side(editor: Editor, method: Method, name: str, class_name: str, words: Sequence[str]) -> tuple[str | None, str]:
    """The side of a fast tokenizer of this class for a path with these words, if it is the same whatever the tokenizer's own side is."""
    from types import SimpleNamespace

    from padcheck.positions.side import resulting_side

    results = []
    for side in ("left", "right"):
        tokenizer: Any = SimpleNamespace(
            class_name=class_name,
            backend_is_fast_class=True,
            padding_side=side,
            padding_side_because="the tokenizer's own side",
        )
        results.append(resulting_side(editor, method, name, tokenizer, " ".join(words)))
    if results[0].value != results[1].value:
        return None, "nothing in the framework sets it"
    return results[0].value, results[0].because


def family_of(facts: Mapping[str, Any], model_path: str) -> Mapping[str, Any] | None:
    """The branch of the framework's substring dispatch: the first family whose word the path contains."""
    lowered = model_path.lower()
    return next((family for family in facts["families"] if family["contains"] in lowered), None)


def side_without_tokenizer(framework_id: str, method: str, model_path: str) -> tuple[str | None, str]:
    """The side that results whatever the tokenizer's folder says, and why; None where the folder decides."""
    facts = framework(framework_id)
    family = family_of(facts, model_path)
    fast = _class_of(family)
    if fast is None:
        return None, "the class of its tokenizer is not known without its folder"
    lowered = model_path.lower()
    value, because = facts["methods"][method]["sides"][fast][" ".join(word for word in facts["words"] if word in lowered)]
    return value, because


def _class_of(family: Mapping[str, Any] | None) -> str | None:
    """A class that the framework's rules know, for families whose tokenizers are all fast or named by the framework."""
    if family is None or family["unsupported"]:
        return None
    if family["contains"] == "gpt":
        return "GPT2Tokenizer"
    return "PreTrainedTokenizerFast" if family["contains"] in {"llama", "mistral", "qwen2", "qwen3"} else None
