"""Rules about the run as a whole: who sets the padding side, what the model's positions stand, which family is picked."""

from __future__ import annotations

import json
from collections.abc import Iterator

from padcheck.checks.building import finding
from padcheck.diagnostics import Finding, Place
from padcheck.planning import Plan


def run_findings(plan: Plan, needs_left: int, needs_right: int) -> list[Finding]:
    """All findings about the run. `needs_left`, `needs_right`: positions of padded rows that only that side makes right."""
    return [
        *_family(plan),
        *_flags(plan),
        *_batchable(plan),
        *_no_side(plan, needs_left, needs_right),
        *_default_side(plan, needs_left, needs_right),
        *_pad_token(plan, needs_left + needs_right),
        *_absolute_positions(plan, needs_left + needs_right),
        *_evaluation(plan, needs_left + needs_right),
        *_tokenizer_notes(plan),
    ]


def _family(plan: Plan) -> Iterator[Finding]:
    editor, name = plan.editor, plan.model_path
    place = plan.hparams.place("model_name")
    if plan.options.passed_in or not name:
        return
    if not plan.family_known:
        known = ", ".join(dict.fromkeys(family.contains for family in editor.families))
        yield finding(
            "HPR101", f"{editor.title} knows no model family in model_name {name!r} and stops with NotImplementedError.",
            place, f"It looks for one of these in the path: {known}; or load the model yourself and pass (model, tok).",
        )  # fmt: skip
        return
    family = plan.family
    if family is None:
        return
    if family.unsupported:
        yield finding(
            "HPR101",
            f"{editor.title} takes {name!r} for {family.contains}: {family.unsupported}.",
            place,
            "Name a model that it loads.",
        )
        return
    stated = _stated_class(plan)
    if family.tokenizer_class and stated and _plain(stated) != _plain(family.tokenizer_class):
        yield finding(
            "HPR102", f"{editor.title} sees {family.contains!r} in model_name {name!r} and loads the tokenizer as {family.tokenizer_class}, but the folder's own class is {stated}.",
            place, "Does model_name name the model that this tokenizer belongs to? Rename it, or load the model yourself and pass (model, tok).",
        )  # fmt: skip
        return
    last = name.lower().rstrip("/").rsplit("/", 1)[-1]
    others = [
        other.contains for other in editor.families if other.contains in last and other.contains not in family.contains
    ]
    if family.contains not in last and others:
        yield finding(
            "HPR102", f"{editor.title} takes this model for {family.contains!r}, which stands in a folder's name; the model's own name says {others[0]!r}.",
            place, f"Rename the folder: {editor.title} looks for the first of its family names anywhere in the path.",
        )  # fmt: skip


def _stated_class(plan: Plan) -> str | None:
    """The class that the tokenizer's own folder names."""
    folder = plan.tokenizer.path if plan.tokenizer.path.is_dir() else plan.tokenizer.path.parent
    try:
        value = json.loads((folder / "tokenizer_config.json").read_text("utf-8")).get("tokenizer_class")
    except (OSError, ValueError, AttributeError):
        return None
    return value if isinstance(value, str) else None


def _plain(class_name: str) -> str:
    return class_name.removesuffix("Fast")


def _flags(plan: Plan) -> Iterator[Finding]:
    flags = plan.flags
    if "enable_prompt_keys" not in plan.method.defaults or flags.get("original_implementation"):
        return
    if bool(flags.get("enable_prompt_keys")) == bool(flags.get("enable_random_prefix_keys")):
        both = "both on" if flags.get("enable_prompt_keys") else "both off"
        yield finding(
            "HPR104", f"enable_prompt_keys and enable_random_prefix_keys are {both}: {plan.method_name} stops with an AssertionError.",
            plan.hparams.place("enable_prompt_keys"), "Switch exactly one of them on.",
        )  # fmt: skip


def _batchable(plan: Plan) -> Iterator[Finding]:
    if plan.options.run == "batch" and not plan.method.batchable:
        known = ", ".join(
            name
            for name, method in plan.editor.methods.items()
            if method.batchable and method.kind != "unpadded" and not method.own_loader
        )
        yield finding(
            "HPR105", f"{plan.editor.title} does not take several requests in one call of {plan.method_name}.",
            plan.hparams.place(plan.editor.method_key or ""), f"Plan it with --run edit or --run sequential, or choose one of {known}.",
        )  # fmt: skip


def _no_side(plan: Plan, needs_left: int, needs_right: int) -> Iterator[Finding]:
    if needs_left and needs_right:
        yield finding(
            "PAD105",
            f"No padding side is right for {plan.method_name} with fact_token {plan.fact_token}: {needs_right:,} positions of padded rows are counted from the row's start and need right padding, {needs_left:,} from its end and need left padding.",
            plan.hparams.place("fact_token"),
            "Choose fact_token: subject_last." if plan.fact_token != "subject_last" else None, evidence={"needs_right": needs_right, "needs_left": needs_left},
        )  # fmt: skip


def _default_side(plan: Plan, needs_left: int, needs_right: int) -> Iterator[Finding]:
    """Nobody states the side, and another transformers generation or tokenizer class would choose the other one."""
    side, tokenizer = plan.side, plan.tokenizer
    if side.ruled is not None or side.stated_by_caller or side.forced_by_method or tokenizer.padding_side_place is not None:
        return
    other = tokenizer.other_generation
    if other is None or other.padding_side == side.value or not (needs_left or needs_right):
        return
    yield finding(
        "PAD106",
        f"Nobody sets the padding side: it is {side.value} only because {tokenizer.padding_side_because}; {other.because}.",
        Place(str(tokenizer.path)),
        f'State it: "padding_side": "{"right" if needs_right and not needs_left else side.value}" in tokenizer_config.json, or tok.padding_side after loading.', confidence="high",
    )  # fmt: skip


def _pad_token(plan: Plan, padded: int) -> Iterator[Finding]:
    sets = None if plan.options.passed_in else (plan.family.pad if plan.family is not None else None) or plan.editor.pad
    if padded and plan.tokenizer.pad_token is None and sets is None:
        yield finding(
            "TOK102", "The tokenizer has no pad token and the editor sets none: the first padded batch stops with an error.",
            Place(str(plan.tokenizer.path)), "Set tok.pad_token = tok.eos_token after loading, or pad_token in tokenizer_config.json.",
            severity="warning" if plan.options.passed_in else None,
        )  # fmt: skip


def _absolute_positions(plan: Plan, padded: int) -> Iterator[Finding]:
    if plan.side.value == "left" and padded and plan.tokenizer.left_pads_shift:
        yield finding(
            "PAD108",
            f"{plan.tokenizer.model_type} has absolute positions, and the editor passes no position_ids: on the left-padded rows every token is computed at a position shifted by its pads.",
            Place(str(plan.tokenizer.path)), "Pad on the right, or pass position_ids counted from each row's first real token.",
        )  # fmt: skip


def _evaluation(plan: Plan, padded: int) -> Iterator[Finding]:
    side = plan.editor.evaluation_side
    scheme = plan.tokenizer.position_scheme
    if side is None or side == plan.side.value or plan.method.kind != "locate":
        return
    absolute = plan.tokenizer.left_pads_shift
    yield finding(
        "PAD107",
        f"The edit is computed under {plan.side.value} padding and evaluated under {side} padding"
        + (
            f"; {plan.tokenizer.model_type} has absolute positions, so prompts that are evaluated together are computed at shifted positions."
            if absolute
            else f": fine for {scheme} positions, which do not count the pads."
            if absolute is False
            else ": fine for rotary positions; with learned absolute ones (GPT-2) prompts that are evaluated together are computed at shifted positions."
        ),
        Place(plan.hparams.path),
        "Evaluate one prompt at a time, or pass position_ids." if absolute else None, severity="warning" if absolute else "note",
    )  # fmt: skip


def _tokenizer_notes(plan: Plan) -> Iterator[Finding]:
    for note in plan.tokenizer.notes:
        rule = "TOK103" if "remote" in note.key else "TOK101"
        yield finding(
            rule,
            note[:1].upper() + note[1:] + ".",
            Place(str(plan.tokenizer.path)),
            None,
            severity="note",
            evidence={"key": note.key},
        )
