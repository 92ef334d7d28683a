"""EasyEdit's locate-then-edit methods (commit 14cea82; paths below easyeditor/models/)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from .locate import (
    NOT_IMPLEMENTED,
    Convention,
    Edit,
    Plan,
    bare,
    fill,
    in_templates,
    index_by_partial_sentences,
    key_batch,
    memit,
    memit_keys,
    one_by_one,
    optimise,
    prepared,
    rome,
    slotted,
    spaced_unless_leading,
    spaced_unless_space,
    subtoken_of,
    text_of,
)
from .rows import Bench, EditorRaises, Request, Row, target_of
from .tokens import WithoutBos

CHUNK = 128  # rome/repr_tools.py:149; every EasyEdit method reads its keys through that file


# --- preparation -------------------------------------------------------------------------------------------


def prepare_rome(bench: Bench, index: int, request: Request) -> Edit:
    """rome/rome_main.py:70-85, r_rome/r_rome_main.py:82-98."""
    target = spaced_unless_space(target_of(request))
    subject = text_of(request, "subject")
    prompt = slotted(text_of(request, "prompt"), subject)
    fill(prompt, subject)  # the log line formats it at once
    return Edit(index, prompt, subject, target)


def prepare_memit(bench: Bench, index: int, request: Request) -> Edit:
    """memit/memit_main.py:82-98; emmet/emmet_main.py, eamet/eamet_main.py, core/core_main.py, memit_FE
    likewise.
    """
    target = spaced_unless_leading(target_of(request))
    subject = text_of(request, "subject")
    prompt = slotted(text_of(request, "prompt"), subject)
    fill(prompt, subject)
    return Edit(index, prompt, subject, target)


def prepare_alphaedit(bench: Bench, index: int, request: Request) -> Edit:
    """Replaces the subject even where the slot is there: alphaedit/AlphaEdit_main.py:124-133,
    SPHERE_main.py:150-159.
    """
    target = spaced_unless_leading(target_of(request))
    subject = text_of(request, "subject")
    return Edit(index, slotted(text_of(request, "prompt"), subject, always=True), subject, target)


def prepare_pmet(bench: Bench, index: int, request: Request) -> Edit:
    """A space only where the model's name says gpt: pmet/pmet_main.py:83-91."""
    target = target_of(request)
    spaced = spaced_unless_leading(target)
    subject = text_of(request, "subject")
    prompt = slotted(text_of(request, "prompt"), subject)
    fill(prompt, subject)
    return Edit(index, prompt, subject, spaced if "gpt" in bench.model_name else target)


# --- target ids --------------------------------------------------------------------------------------------


def plain_ids(bench: Bench, target: str) -> list[int]:
    """Without special tokens and otherwise as they come: rome/compute_v.py:35, pmet/compute_zs.py:50."""
    return list(bench.encode(target, add_special_tokens=False))


def stripped(bench: Bench, ids: Sequence[int]) -> list[int]:
    """The first id is cut if it is the BOS or the unknown token; an empty target fails on `[0]`."""
    if not ids:
        raise EditorRaises("IndexError: the target has no tokens")
    drop = ids[0] in (bench.tok.special.bos, bench.tok.special.unk)
    return list(ids[1:] if drop else ids)


def plain_ids_stripped(bench: Bench, target: str) -> list[int]:
    """memit/compute_z.py:43-46, and emmet, alphaedit, SPHERE, core, memit_FE."""
    return stripped(bench, plain_ids(bench, target))


def full_ids_stripped(bench: Bench, target: str) -> list[int]:
    """With special tokens, then the first cut: r_rome/compute_v.py:35-38."""
    return stripped(bench, bench.encode(target))


# --- conventions -------------------------------------------------------------------------------------------


def _rome_like(source: str, target_ids: Callable[[Bench, str], list[int]]) -> Convention:
    """`last` is the end of the unpadded prompt in the lookup (rome/compute_v.py:268), -1 elsewhere (:244,
    compute_u.py:105).
    """
    return Convention(
        source,
        prepare_rome,
        target_ids,
        index_by_partial_sentences,
        lookup_last="end of the prompt",
        keys_last="minus one",
        grouped=False,
        chunk=CHUNK,
    )


def _memit_like(
    source: str,
    prepare: Callable[[Bench, int, Request], Edit] = prepare_memit,
    target_ids: Callable[[Bench, str], list[int]] = plain_ids_stripped,
) -> Convention:
    """`last` is -1 in the lookup and an exception in the keys (memit/compute_z.py:242-243, 275-276)."""
    return Convention(
        source,
        prepare,
        target_ids,
        index_by_partial_sentences,
        lookup_last="minus one",
        keys_last="raises",
        grouped=True,
        chunk=CHUNK,
    )


CONVENTIONS: dict[str, Convention] = {
    "ROME": _rome_like("rome/compute_v.py, rome/compute_u.py", plain_ids),
    "R-ROME": _rome_like("r_rome/compute_v.py, r_rome/compute_u.py", full_ids_stripped),
    "MEMIT": _memit_like("memit/compute_z.py, memit/compute_ks.py"),
    "MEMIT-FE": _memit_like("memit_FE/compute_z.py, memit_FE/compute_ks.py"),
    "EMMET": _memit_like("emmet/compute_z.py, emmet/compute_ks.py"),
    "EAMET": _memit_like("eamet/compute_z.py, eamet/compute_ks.py"),
    "PMET": _memit_like("pmet/compute_zs.py, pmet/compute_ks.py", prepare_pmet, plain_ids),
    "AlphaEdit": _memit_like("alphaedit/compute_z.py, alphaedit/compute_ks.py", prepare_alphaedit),
    "SPHERE": _memit_like("SPHERE/compute_z.py, SPHERE/compute_ks.py", prepare_alphaedit),
    "CORE": _memit_like("core/compute_z.py, core/compute_ks.py"),
}


# --- the methods that add something of their own -----------------------------------------------------------


def r_rome(bench: Bench, convention: Convention, edit: Edit, plan: Plan, rebuilding: bool = False) -> Iterator[Row]:
    """Keys by the flags; the loop over templates reads one row at a time.

    r_rome/r_rome_main.py:35-37, compute_u.py:83-118, compute_v.py:196-240. rebuilding-rome has the same lines
    (rome/compute_u.py:83-104, compute_v.py:169-206) with `original_implementation` true by default
    (rome/rome_hparams.py:12) and without the exception for it in the assertion (rome/rome_main.py:34-36).
    """
    prompt_keys = bool(bench.hparams.get("enable_prompt_keys", False))
    prefix_keys = bool(bench.hparams.get("enable_random_prefix_keys", True))
    original = bool(bench.hparams.get("original_implementation", rebuilding))
    if prompt_keys == prefix_keys and (rebuilding or not original):
        raise EditorRaises("AssertionError: one of prompt keys and random prefix keys must be chosen")
    last = subtoken_of(plan.fact_token) is None
    if last and prompt_keys:
        raise EditorRaises("ValueError: last token projection not supported with prompt_keys")

    over_templates = in_templates(edit, plan.templates)
    keys = over_templates if original or prefix_keys or last else [bare(edit)]
    yield from key_batch(bench, convention, keys, plan.fact_token, "keys", "key")
    yield from optimise(bench, convention, edit, plan)
    for target in over_templates if prefix_keys else [bare(edit)]:
        yield from key_batch(bench, convention, [target], plan.fact_token, "value", "value")


def memit_fe(bench: Bench, convention: Convention, edits: Sequence[Edit], plan: Plan) -> Iterator[Row]:
    """z of the later layers by one pass over the bare prompt: memit_FE/compute_z.py:58-134.

    In that pass `last` is -1, as in a lookup (:67-73, :406-408); in the keys it is an exception.
    """
    alone = replace(convention, keys_last="minus one")
    for edit in edits:
        try:
            yield from optimise(bench, convention, edit, plan)
            yield from key_batch(bench, alone, [bare(edit)], plan.fact_token, "value", "value")
        except EditorRaises as error:
            raise EditorRaises(error.reason, edit.index) from None
    yield from memit_keys(bench, convention, edits, plan)


def eamet(bench: Bench, convention: Convention, edits: Sequence[Edit], plan: Plan) -> Iterator[Row]:
    """Keys first, then z with the BOS switched off, then the keys again, still without.

    eamet/eamet_main.py:148 (keys of the z layer: they raise for `last` before any z),
    eamet/compute_z.py:65-68 (`tok.add_bos_token`, never set back), :88-138 (target ids),
    eamet_main.py:241-255 (the keys that are written).
    """
    if subtoken_of(plan.fact_token) is None:
        raise EditorRaises(NOT_IMPLEMENTED, edits[0].index)
    if "gemma" not in bench.model_name and bench.tok.bos_switch:
        bench = bench.with_tokenizer(WithoutBos(bench.tok, bench.tok.class_name))
    for edit in edits:
        try:
            labels, head = eamet_target(bench, edit.target)
            yield from optimise(bench, convention, edit, plan, labels, head)
        except EditorRaises as error:
            raise EditorRaises(error.reason, edit.index) from None
    yield from memit_keys(bench, convention, edits, plan)


def eamet_target(bench: Bench, target: str) -> tuple[list[int], str]:
    """The labels lose their first id where it is thought to be a BOS; the text's head mostly does not."""
    ids, name = bench.encode(target), bench.model_name
    if not ids:
        raise EditorRaises("IndexError: the target has no tokens")
    cut = not any(part in name for part in ("mistral", "qwen", "deepseek")) and (
        "llama" in bench.tok.class_name.lower() or "llama-3.1" in name or "gemma" in name
    )
    labels = ids[1:] if cut else ids
    if "llama-3.1" in name:
        text, marker = bench.decode(ids[:-1]), "<|begin_of_text|>"
        # `find` gives -1 once the BOS is off, and the slice then eats the head's first characters
        return labels, text[text.find(marker) + len(marker) :]
    return labels, bench.decode(labels[:-1] if "gemma" in name else ids[:-1])


# --- the entry points --------------------------------------------------------------------------------------


def locate_group(method: str) -> Callable[[Bench, Sequence[tuple[int, Request]], Plan], Iterator[Row]]:
    """One call of the method's `apply_*` function on one group of requests."""

    def rows(bench: Bench, group: Sequence[tuple[int, Request]], plan: Plan) -> Iterator[Row]:
        name = str(bench.hparams.get("base_method", "ROME")) if method == "SimIE" else method
        convention = CONVENTIONS[name]
        edits = [prepared(bench, convention, index, request) for index, request in group]
        if name == "MEMIT-FE":
            return memit_fe(bench, convention, edits, plan)
        if name == "EAMET":
            return eamet(bench, convention, edits, plan)
        if convention.grouped:
            return memit(bench, convention, edits, plan)
        one = r_rome if name == "R-ROME" else rome
        return one_by_one(one, bench, convention, edits, plan)

    return rows
