"""FastEdit: ROME made for left padding, with negative indices throughout. Paths below fastedit/rome/."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .locate import (
    KL_PROMPT,
    Convention,
    Edit,
    Plan,
    Target,
    bare,
    fill,
    in_templates,
    index_from_the_end,
    key_batch,
    label_row,
    looked_at,
    lookup_index,
    one_by_one,
    prepared,
    show_lookup,
    text_of,
)
from .rows import Bench, EditorRaises, Kind, Request, Row, target_of


def prepare(bench: Bench, index: int, request: Request) -> Edit:
    """Nothing is added to the target and nothing replaced in the prompt: rome_main.py:77-83."""
    prompt, subject = text_of(request, "prompt"), text_of(request, "subject")
    fill(prompt, subject)
    return Edit(index, prompt, subject, target_of(request))


def never(bench: Bench, target: str) -> list[int]:
    """The labels are read from the row itself, not made from the target."""
    raise AssertionError("FastEdit makes no target ids")


CONVENTION = Convention(
    # repr_tools.py:43-86 (indices), :121 (512 rows at a time), compute_v.py:220-221 and compute_u.py:60-68
    # (-1)
    "FastEdit",
    prepare,
    never,
    index_from_the_end,
    lookup_last="minus one",
    keys_last="minus one",
    grouped=False,
    chunk=512,
    kl_prompts=(KL_PROMPT, "{}是一个"),
)


def optimise(bench: Bench, convention: Convention, edit: Edit, plan: Plan) -> Iterator[Row]:
    """The whole target stands in the row, and the labels are its tail: compute_v.py:28-52.

    The target's length is counted without special tokens, on text that still has the slot in it. The second
    KL row is looked up at its last token whatever the fact token (:51).
    """
    with_slot = fill(plan.templates[0], edit.prompt)
    length = len(bench.encode(with_slot + edit.target, False)) - len(bench.encode(with_slot, False))
    prompts = [fill(context, edit.prompt) for context in plan.templates]
    targets = [Target(edit, i, prompt + edit.target, prompt) for i, prompt in enumerate(prompts)]
    targets += [Target(edit, len(prompts) + i, kl, kl) for i, kl in enumerate(convention.kl_prompts)]
    padded = bench.batch(target.text for target in targets)
    if not 0 < length < padded.width:
        raise EditorRaises(f"RuntimeError: a target of {length} tokens cannot be copied into {padded.width} columns")

    labels = []
    for i in range(len(prompts)):
        row, first = padded.ids(i), padded.width - length - 1
        slots = [(first + at, row[first + 1 + at]) for at in range(length)]
        labels.append(label_row(bench, padded, i, targets[i], slots, [expected for _, expected in slots]))

    facts = [plan.fact_token if i <= len(prompts) else "last" for i in range(len(targets))]
    indexes = [
        lookup_index(bench, convention, target.template, target.prompt, edit.subject, fact)
        for target, fact in zip(targets, facts, strict=True)
    ]
    show_lookup(padded, indexes[0])
    for i, (target, index, fact) in enumerate(zip(targets, indexes, facts, strict=True)):
        kind: Kind = "lookup" if i < len(prompts) else "kl"
        yield looked_at(bench, padded, i, target, index, fact, "optimise", kind)
    yield from labels


def edit_one(bench: Bench, convention: Convention, edit: Edit, plan: Plan) -> Iterator[Row]:
    """compute_u.py:48-68, compute_v.py:28-52, :143-153."""
    yield from key_batch(bench, convention, in_templates(edit, plan.templates), plan.fact_token, "keys", "key")
    yield from optimise(bench, convention, edit, plan)
    yield from key_batch(bench, convention, [bare(edit)], plan.fact_token, "value", "value")


def fastedit_group(bench: Bench, group: Sequence[tuple[int, Request]], plan: Plan) -> Iterator[Row]:
    """rome_main.py:55-56: a loop over the requests."""
    edits = [prepared(bench, CONVENTION, index, request) for index, request in group]
    return one_by_one(edit_one, bench, CONVENTION, edits, plan)
