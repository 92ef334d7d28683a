"""What every locate-then-edit code has in common, once: rows, lookups, labels, key batches.

The codes differ in a handful of lines; those are fields of `Convention`, filled in by
`easyedit_locate.py`, `kmeng.py` and `fastedit.py`, where each is cited.
Sources are cited as in the repositories: file and line at the commits named in `__init__.py`.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .rows import BatchName, Bench, EditorRaises, Kind, Padded, Request, Row, Slot, target_of
from .truth import label_starts, last_visible

KL_PROMPT = "{} is a"
NOT_IMPLEMENTED = "Exception: This is definitely bugged, fix it."


@dataclass(frozen=True)
class Edit:
    """A request after the editor's own preparation."""

    index: int
    prompt: str
    """Template with its `{}`."""
    subject: str
    target: str


@dataclass(frozen=True)
class Plan:
    """What the whole run shares."""

    templates: tuple[str, ...]
    fact_token: str


@dataclass(frozen=True)
class Convention:
    """The lines in which one code differs from the next."""

    source: str
    prepare: Callable[[Bench, int, Request], Edit]
    target_ids: Callable[[Bench, str], list[int]]
    word_index: Callable[[Bench, str, str, str], int]
    """(bench, template, word, subtoken) -> index as the editor computes it."""
    lookup_last: Literal["minus one", "end of the prompt"]
    keys_last: Literal["minus one", "raises"]
    grouped: bool
    """MEMIT's structure: keys of all requests together and a batch of bare prompts; else ROME's."""
    chunk: int
    """Rows per forward pass of the key batches."""
    kl_prompts: tuple[str, ...] = (KL_PROMPT,)


# --- the editor's side -------------------------------------------------------------------------------------


def fill(template: str, word: str) -> str:
    """`template.format(word)`, with the error the editor would see."""
    try:
        return template.format(word)
    except (IndexError, KeyError, ValueError) as error:
        raise EditorRaises(f"{type(error).__name__}: {error} in {template!r}") from None


def subtoken_of(fact_token: str) -> str | None:
    """`last` of `subject_last`; None for the fact token `last`. Raises as the editors do for other values."""
    if fact_token == "last":
        return None
    if not fact_token.startswith("subject_"):
        raise EditorRaises(f"ValueError: fact_token={fact_token} not recognized")
    subtoken = fact_token[len("subject_") :]
    if subtoken not in ("last", "first", "first_after_last"):
        raise EditorRaises(f"ValueError: Unknown subtoken type: {subtoken}")
    return subtoken


def one_slot(template: str) -> None:
    if template.count("{}") != 1:
        raise EditorRaises(f"AssertionError: {template.count('{}')} fill-ins in {template!r}")


def index_by_partial_sentences(bench: Bench, template: str, word: str, subtoken: str) -> int:
    """Lengths of the prefix, of prefix + word and of the whole; `first` is counted from the end.

    EasyEdit rome/repr_tools.py:50-109, unified rome/repr_tools.py:48-110, AlphaEdit
    rome/repr_tools.py:50-110.
    """
    one_slot(template)
    before, after = template.split("{}")
    upto_slot = bench.count(before)
    upto_word = bench.count(before + word)
    whole = bench.count(before + word + after)
    if subtoken == "first":
        return upto_slot - whole
    back = 1 if subtoken == "last" or whole == upto_word else 0
    return upto_word - back


def index_by_pieces(bench: Bench, template: str, word: str, subtoken: str) -> int:
    """Prefix, word and suffix tokenised apart and their lengths added up, special tokens and all.

    kmeng01/rome rome/repr_tools.py:48-99 (memit, rebuilding-rome and PMET have the same lines).
    """
    one_slot(template)
    slot = template.index("{}")
    before, after = template[:slot], template[slot + 2 :]
    if before:
        if before[-1] != " ":
            raise EditorRaises(f"AssertionError: the text before the slot does not end in a space: {before!r}")
        before = before[:-1]
        word = f" {word.strip()}"
    upto_slot, of_word, of_rest = bench.count(before), bench.count(word), bench.count(after)
    if subtoken == "first":
        return upto_slot
    back = 1 if subtoken == "last" or of_rest == 0 else 0
    return upto_slot + of_word - back


def index_from_the_end(bench: Bench, template: str, word: str, subtoken: str) -> int:
    """As by partial sentences, but always minus the whole length: made for left padding.

    FastEdit fastedit/rome/repr_tools.py:44-86.
    """
    one_slot(template)
    before, after = template.split("{}")
    whole = bench.count(before + word + after)
    upto_word = bench.count(before + word)
    if subtoken == "first":
        return bench.count(before) - whole
    back = 1 if subtoken == "last" or whole == upto_word else 0
    return upto_word - back - whole


def lookup_index(bench: Bench, convention: Convention, template: str, prompt: str, subject: str, fact: str) -> int:
    """`find_fact_lookup_idx`: `template` has the target's head behind it, `prompt` has not.

    EasyEdit rome/compute_v.py:254-279, memit/compute_z.py:263-287; kmeng01/rome rome/compute_v.py:235-259.
    """
    subtoken = subtoken_of(fact)
    if subtoken is not None:
        return convention.word_index(bench, template, subject, subtoken)
    if convention.lookup_last == "minus one":
        return -1
    return bench.count(fill(prompt, subject)) - 1


def key_index(bench: Bench, template: str, subject: str, fact: str, convention: Convention) -> int:
    """The index of the key, value and current batches: no target text, and `last` is -1 or an exception."""
    subtoken = subtoken_of(fact)
    if subtoken is not None:
        return convention.word_index(bench, template, subject, subtoken)
    if convention.keys_last == "raises":
        raise EditorRaises(NOT_IMPLEMENTED)
    return -1


# --- the truth's side --------------------------------------------------------------------------------------


def slot_start(template: str) -> tuple[str, bool]:
    """The text before the slot once the template is filled, and whether visible text follows it."""
    before, after, seen = "", "", False
    for literal, name, _, _ in string.Formatter().parse(template):
        before, after = (before, after + literal) if seen else (before + literal, after)
        seen = seen or name is not None
    return before, bool(after.strip())


def true_place(bench: Bench, text: str, prompt: str, subject: str, fact: str) -> int | None:
    """Where the fact token really is in the row `text`, which begins with `prompt` filled in."""
    reading = bench.reading(text)
    if fact == "last":
        char = last_visible(fill(prompt, subject))
        return None if char is None else reading.last(char)
    before, followed = slot_start(prompt)
    if not subject.strip():
        return None
    if fact == "subject_first":
        return reading.first(len(before) + len(subject) - len(subject.lstrip()))
    last = reading.last(len(before) + len(subject.rstrip()) - 1)
    if fact == "subject_last" or last is None or not followed:
        return last
    return last + 1 if last + 1 < reading.end else None


# --- the passes --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """One row that a pass looks at."""

    edit: Edit
    row: int
    template: str
    """The row's text before filling."""
    prompt: str
    """The same without target text: what the truth is told of."""

    @property
    def text(self) -> str:
        return fill(self.template, self.edit.subject)


def column(padded: Padded, i: int, place: int | None) -> int | None:
    return None if place is None else padded.left(i) + place


def looked_at(
    bench: Bench, padded: Padded, i: int, target: Target, index: int, fact: str, batch: BatchName, kind: Kind
) -> Row:
    """The row for one index into one padded batch."""
    place = true_place(bench, target.text, target.prompt, target.edit.subject, fact)
    return Row(
        target.edit.index,
        batch,
        target.row,
        kind,
        editor=padded.at(index),
        truth=column(padded, i, place),
        width=padded.width,
        pads=padded.pads(i),
        ids=padded.ids(i),
    )


def refused(
    bench: Bench, padded: Padded, i: int, target: Target, fact: str, batch: BatchName, kind: Kind, reason: str
) -> Row:
    """The row the code never reaches because it raises."""
    place = true_place(bench, target.text, target.prompt, target.edit.subject, fact)
    return Row(
        target.edit.index,
        batch,
        target.row,
        kind,
        editor=None,
        truth=column(padded, i, place),
        width=padded.width,
        pads=padded.pads(i),
        ids=padded.ids(i),
        raises=reason,
    )


def optimise(
    bench: Bench,
    convention: Convention,
    edit: Edit,
    plan: Plan,
    ids: Sequence[int] | None = None,
    head: str | None = None,
) -> Iterator[Row]:
    """v* or z: templates x (prompt + decoded head of the target), then the KL rows, as one padded batch.

    `ids` and `head` where an editor does not label the ids whose head it decodes.
    EasyEdit rome/compute_v.py:35-70, memit/compute_z.py:43-75; kmeng01/rome rome/compute_v.py:30-66.
    """
    ids = convention.target_ids(bench, edit.target) if ids is None else ids
    head = bench.decode(ids[:-1]) if head is None else head
    bare = [fill(context, edit.prompt) for context in plan.templates]
    targets = [Target(edit, i, prompt + head, prompt) for i, prompt in enumerate(bare)]
    targets += [Target(edit, len(bare) + i, kl, kl) for i, kl in enumerate(convention.kl_prompts)]
    padded = bench.batch(target.text for target in targets)

    labels = [labelled_by_length(bench, padded, i, targets[i], ids) for i in range(len(bare))]
    indexes = [
        lookup_index(bench, convention, target.template, target.prompt, edit.subject, plan.fact_token) for target in targets
    ]
    show_lookup(padded, indexes[0])
    for i, (target, index) in enumerate(zip(targets, indexes, strict=True)):
        kind: Kind = "lookup" if i < len(bare) else "kl"
        yield looked_at(bench, padded, i, target, index, plan.fact_token, "optimise", kind)
    yield from labels


def show_lookup(padded: Padded, index: int) -> None:
    """The log line of row 0 reads the index in the unpadded sentence: EasyEdit rome/compute_v.py:281-286."""
    length = padded.mask_sum(0)
    if not -length <= index < length:
        raise EditorRaises(f"IndexError: index {index} is out of bounds for {length} tokens")


def labelled_by_length(bench: Bench, padded: Padded, i: int, target: Target, ids: Sequence[int]) -> Row:
    """Slots end at the row's number of real tokens, whatever the side: EasyEdit rome/compute_v.py:53-58."""
    stop = padded.mask_sum(i)
    start = stop - len(ids)
    if start < 0:
        raise EditorRaises(f"RuntimeError: {len(ids)} labels do not fit into {stop} columns")
    slots = tuple(zip(range(start, stop), ids, strict=True))
    return label_row(bench, padded, i, target, slots, list(ids[:-1]))


def label_row(bench: Bench, padded: Padded, i: int, target: Target, slots: Sequence[Slot], head: Sequence[int]) -> Row:
    """Right when the slots begin at the prompt's last token and the row reads `head` from there on."""
    reading = bench.reading(target.text)
    starts = label_starts(reading, fill(target.prompt, target.edit.subject))
    left = padded.left(i)
    place = starts.start if starts else None
    right = False
    if slots:
        begin = slots[0][0] - left
        consecutive = [at for at, _ in slots] == list(range(slots[0][0], slots[0][0] + len(slots)))
        right = begin in starts and consecutive and reading.ids[begin + 1 :] == list(head)
        place = begin if right else place
    bos = bench.tok.special.bos
    return Row(
        target.edit.index,
        "optimise",
        target.row,
        "label",
        editor=slots[0][0] if slots else None,
        truth=column(padded, i, place),
        width=padded.width,
        pads=padded.pads(i),
        ids=padded.ids(i),
        editor_labels=tuple(slots),
        labels_right=right,
        bos_in_labels=bool(slots) and bos is not None and slots[0][1] == bos,
    )


def key_batch(
    bench: Bench, convention: Convention, targets: Sequence[Target], fact: str, batch: BatchName, kind: Kind
) -> Iterator[Row]:
    """Prompts in chunks, each chunk padded by itself: EasyEdit rome/repr_tools.py:149-153."""
    indexes: list[int | EditorRaises] = []
    for target in targets:
        try:
            indexes.append(key_index(bench, target.template, target.edit.subject, fact, convention))
        except EditorRaises as error:
            if error.reason != NOT_IMPLEMENTED:
                raise EditorRaises(error.reason, target.edit.index) from None
            indexes.append(error)
    for start in range(0, len(targets), convention.chunk):
        part = targets[start : start + convention.chunk]
        padded = bench.batch(target.text for target in part)
        for i, (target, index) in enumerate(zip(part, indexes[start : start + convention.chunk], strict=True)):
            if isinstance(index, EditorRaises):
                yield refused(bench, padded, i, target, fact, batch, kind, index.reason)
                continue
            try:
                yield looked_at(bench, padded, i, target, index, fact, batch, kind)
            except EditorRaises as error:
                raise EditorRaises(error.reason, target.edit.index) from None


def in_templates(edit: Edit, templates: Sequence[str]) -> list[Target]:
    prompts = [fill(context, edit.prompt) for context in templates]
    return [Target(edit, i, prompt, prompt) for i, prompt in enumerate(prompts)]


def bare(edit: Edit, row: int = 0) -> Target:
    return Target(edit, row, edit.prompt, edit.prompt)


def rome(bench: Bench, convention: Convention, edit: Edit, plan: Plan) -> Iterator[Row]:
    """One request of ROME: u over the templates, v*, then the key and value of the bare prompt alone.

    EasyEdit rome/compute_u.py:83-107, rome/compute_v.py:187-195; kmeng01/rome compute_u.py:76-101,
    compute_v.py:170-178.
    """
    yield from key_batch(bench, convention, in_templates(edit, plan.templates), plan.fact_token, "keys", "key")
    yield from optimise(bench, convention, edit, plan)
    yield from key_batch(bench, convention, [bare(edit)], plan.fact_token, "value", "value")


def memit(bench: Bench, convention: Convention, edits: Sequence[Edit], plan: Plan) -> Iterator[Row]:
    """A group of requests of MEMIT: z one by one, the keys of all of them, the bare prompts of all of them.

    EasyEdit memit/memit_main.py:111-182, memit/compute_ks.py:19-37; kmeng01/memit
    memit/memit_main.py:101-168.
    """
    for edit in edits:
        try:
            yield from optimise(bench, convention, edit, plan)
        except EditorRaises as error:
            raise EditorRaises(error.reason, edit.index) from None
    yield from memit_keys(bench, convention, edits, plan)


def memit_keys(bench: Bench, convention: Convention, edits: Sequence[Edit], plan: Plan) -> Iterator[Row]:
    keys = [target for edit in edits for target in in_templates(edit, plan.templates)]
    yield from key_batch(bench, convention, keys, plan.fact_token, "keys", "key")
    yield from key_batch(bench, convention, [bare(edit) for edit in edits], plan.fact_token, "current", "current")


def one_by_one(
    one: Callable[[Bench, Convention, Edit, Plan], Iterator[Row]],
    bench: Bench,
    convention: Convention,
    edits: Sequence[Edit],
    plan: Plan,
) -> Iterator[Row]:
    """Requests that never share a batch; an error names the request it belongs to."""
    for edit in edits:
        try:
            yield from one(bench, convention, edit, plan)
        except EditorRaises as error:
            raise EditorRaises(error.reason, edit.index) from None


# --- preparation of a request ------------------------------------------------------------------------------


def prepared(bench: Bench, convention: Convention, index: int, request: Request) -> Edit:
    try:
        return convention.prepare(bench, index, request)
    except EditorRaises as error:
        raise EditorRaises(error.reason, index) from None


def spaced_unless_space(target: str) -> str:
    """The whole string is compared with one space, so a space doubles: EasyEdit rome/rome_main.py:72-74."""
    return target if target == " " else " " + target


def spaced_unless_leading(target: str) -> str:
    """The first character is looked at: EasyEdit memit/memit_main.py:84-86. An empty one raises."""
    if not target:
        raise EditorRaises("IndexError: string index out of range (empty target)")
    return target if target[0] == " " else " " + target


def slotted(prompt: str, subject: str, always: bool = False) -> str:
    """The subject replaced by `{}`; EasyEdit rome/rome_main.py:76-80. `always`: even beside a slot."""
    if "{}" in prompt and not always:
        return prompt
    if "{}" not in prompt and subject not in prompt:
        raise EditorRaises(f"AssertionError: {subject!r} is not in {prompt!r}")
    return prompt.replace(subject, "{}")


def text_of(request: Request, key: str) -> str:
    if key not in request:
        raise EditorRaises(f"KeyError: {key!r}")
    return str(request[key])


def templated(bench: Bench, index: int, request: Request) -> Edit:
    """Nothing is replaced: the prompt has its slot already. kmeng01/rome rome/rome_main.py:66-73."""
    prompt, subject = text_of(request, "prompt"), text_of(request, "subject")
    target = spaced_unless_leading(target_of(request))
    fill(prompt, subject)
    return Edit(index, prompt, subject, target)
