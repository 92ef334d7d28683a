"""The original codes and their forks: kmeng01/rome 0874014, kmeng01/memit 80426fd, rebuilding-rome 4095d04,
unified-model-editing 23d72b5, AlphaEdit f5248d3, PMET. Paths are relative to each repository.

All of them want the slot in the prompt and the target as `{"str": ...}`; a plain string will do here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from .easyedit_locate import r_rome, stripped
from .locate import (
    Convention,
    Edit,
    Plan,
    index_by_partial_sentences,
    index_by_pieces,
    memit,
    one_by_one,
    prepared,
    rome,
    templated,
)
from .rows import Bench, Request, Row


def full_ids(bench: Bench, target: str) -> list[int]:
    """With whatever special tokens the tokenizer adds: rome/compute_v.py:31-33, memit/compute_z.py:40-42."""
    return list(bench.encode(target))


def full_ids_stripped(bench: Bench, target: str) -> list[int]:
    """AlphaEdit/compute_z.py:40-44."""
    return stripped(bench, bench.encode(target))


def unified_ids(bench: Bench, target: str) -> list[int]:
    """Two ids cut where the model's path says llama-2, else as AlphaEdit: memit/compute_z.py:38-45."""
    ids = bench.encode(target)
    return list(ids[2:]) if "llama-2" in bench.model_name else stripped(bench, ids)


_ROME = Convention(
    # rome/repr_tools.py:43-99, :135 (512 rows at a time), compute_v.py:247-248 and compute_u.py:92-101
    # (`last` is -1)
    "kmeng01/rome",
    templated,
    full_ids,
    index_by_pieces,
    lookup_last="minus one",
    keys_last="minus one",
    grouped=False,
    chunk=512,
)
_MEMIT = Convention(
    # memit/compute_z.py:215-216 (`last` raises in the keys), :244-245 (-1 in the lookup),
    # rome/repr_tools.py:135
    "kmeng01/memit",
    templated,
    full_ids,
    index_by_pieces,
    lookup_last="minus one",
    keys_last="raises",
    grouped=True,
    chunk=128,
)

CONVENTIONS: dict[tuple[str, str], Convention] = {
    ("kmeng01-rome", "ROME"): _ROME,
    ("kmeng01-memit", "MEMIT"): _MEMIT,
    ("kmeng01-memit", "ROME"): replace(_ROME, source="kmeng01/memit rome/", chunk=128),
    ("rebuilding-rome", "R-ROME"): replace(_ROME, source="rebuilding-rome rome/"),
    # unified keeps the special tokens of the target in ROME (rome/compute_v.py:30-32)
    ("unified", "ROME"): replace(_ROME, source="unified rome/", word_index=index_by_partial_sentences, chunk=128),
    ("unified", "MEMIT"): replace(
        _MEMIT, source="unified memit/", word_index=index_by_partial_sentences, target_ids=unified_ids
    ),
    ("unified", "EMMET"): replace(
        _MEMIT, source="unified emmet/", word_index=index_by_partial_sentences, target_ids=unified_ids
    ),
    ("alphaedit", "AlphaEdit"): replace(
        _MEMIT,
        source="AlphaEdit AlphaEdit/",
        word_index=index_by_partial_sentences,
        target_ids=full_ids_stripped,
    ),
    ("alphaedit", "MEMIT"): replace(
        _MEMIT, source="AlphaEdit memit/", word_index=index_by_partial_sentences, target_ids=full_ids_stripped
    ),
    # PMET keeps kmeng's own repr_tools (edit/rome/repr_tools.py:68-124) and target ids
    # (edit/pmet/compute_zs.py:44-46)
    ("pmet", "PMET"): replace(_MEMIT, source="PMET edit/pmet/"),
}


def _rebuilding(bench: Bench, convention: Convention, edit: Edit, plan: Plan) -> Iterator[Row]:
    return r_rome(bench, convention, edit, plan, rebuilding=True)


def kmeng_group(framework: str, method: str) -> Callable[[Bench, Sequence[tuple[int, Request]], Plan], Iterator[Row]]:
    """One call of the method's `apply_*` function; all of them take a list of requests."""
    convention = CONVENTIONS[framework, method]

    def rows(bench: Bench, group: Sequence[tuple[int, Request]], plan: Plan) -> Iterator[Row]:
        edits = [prepared(bench, convention, index, request) for index, request in group]
        if convention.grouped:
            return memit(bench, convention, edits, plan)
        one = _rebuilding if framework == "rebuilding-rome" else rome
        return one_by_one(one, bench, convention, edits, plan)

    return rows
