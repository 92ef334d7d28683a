"""A literal re-enactment of every editor's position arithmetic on the padded batch, and the truth beside it.

It is the tests' oracle: it imports nothing from padcheck, asks of a tokenizer nothing but to encode one
string and to decode ids, fills the rows by itself, and indexes them as the editors do. It was written from
the editors' sources: EasyEdit 14cea82, kmeng01/rome 0874014, kmeng01/memit 80426fd, rebuilding-rome 4095d04,
unified-model-editing 23d72b5, AlphaEdit f5248d3, PMET, FastEdit. File and line are cited at each piece.

What is *not* re-enacted: how templates are generated, the assertions on `batch_size` in `BaseEditor.edit`,
and truncation at the model's maximal length.

`broken` selects a deliberately wrong copy, which a comparison must find:
`pads_off_by_one` (the truth counts one pad too few), `bos_forgotten` (lengths are counted without special
tokens),
`first_byte_token` (the first instead of the last token of a character).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .easyedit_locate import CONVENTIONS as EASYEDIT_LOCATE
from .easyedit_locate import locate_group
from .easyedit_train import TRAINERS, Setup
from .easyedit_unstructured import unke, unke_are
from .fastedit import fastedit_group
from .kmeng import CONVENTIONS as KMENG
from .kmeng import kmeng_group
from .locate import Plan
from .rows import (
    Bench,
    Broken,
    Disagreement,
    EditorRaises,
    Reenactment,
    Request,
    Row,
    Run,
    Side,
)
from .tokens import Fast, Hugging, PublicTokenizer, SpecialTokens

__all__ = [
    "BATCH_EDIT",
    "METHODS",
    "Disagreement",
    "Fast",
    "Hugging",
    "PublicTokenizer",
    "Reenactment",
    "Row",
    "SpecialTokens",
    "reenact",
]

Templates = Sequence[str] | Sequence[Sequence[str]]
Grouped = Callable[[Bench, Sequence[tuple[int, Request]], Plan, Setup], Iterator[Row]]

METHODS: dict[str, tuple[str, ...]] = {
    "easyedit": (*EASYEDIT_LOCATE, "SimIE", *TRAINERS, "UnKE", "UnKE_ARE"),
    "fastedit": ("ROME",),
}
for _framework, _method in KMENG:
    METHODS[_framework] = (*METHODS.get(_framework, ()), _method)

BATCH_EDIT = frozenset(
    {
        "SERAC",
        "KE",
        "MEND",
        "MEMIT",
        "MEMIT-FE",
        "PMET",
        "FT",
        "QLoRA",
        "LoRA",
        "DPO",
        "EMMET",
        "AlphaEdit",
        "ULTRAEDIT",
        "CORE",
    }
)
"""EasyEdit's methods that `BaseEditor.batch_edit` accepts (editors/batch_editor.py:4-38)."""

_OWN_LIST = frozenset({"EAMET", "SPHERE", "SimIE", "MALMEN", "WISE", "DINM", "UnKE", "UnKE_ARE", "FT_uns"})
"""EasyEdit's methods that `batch_edit` refuses or does not know, but whose own function takes a list of
requests.
"""


def reenact(
    tok: PublicTokenizer,
    *,
    framework: str,
    method: str,
    fact_token: str,
    side: Side,
    run: Run,
    requests: Sequence[Request],
    templates: Templates,
    batch_size: int | None = None,
    objective: str | None = None,
    hparams: Mapping[str, Any] | None = None,
    special: SpecialTokens | None = None,
    broken: Broken | None = None,
) -> Reenactment:
    """Do what `method` of `framework` does with `requests` and note every position it computes.

    `templates`: a list with "{}" first, or groups of them (MEMIT's family), used in order. `batch_size` wins
    over the hparams' key of that name; neither means one group of all requests. `objective` is FT's
    `objective_optimization`. `hparams` is a mapping in the framework's own keys; `model_name` in it steers
    the branches that look at the model's path. `special` replaces the tokenizer's own special ids.

    A request on which the editor raises has no rows and stands in `raised`. Where requests share a batch the
    rest is done again without it. Raises ValueError for an unknown framework or method.
    """
    if method not in METHODS.get(framework, ()):
        raise ValueError(f"no re-enactment of {method!r} in {framework!r}")
    if special is not None:
        tok.special = special
    hparams = hparams or {}
    size = batch_size if batch_size is not None else hparams.get("batch_size")
    bench = Bench(tok, side, hparams, broken)
    plan = Plan(_flat(templates), fact_token)
    setup = Setup(plan.templates, objective, size if run == "batch" else None)
    rows_of = _grouped(framework, method)

    done = Reenactment()
    numbered = list(enumerate(requests))
    if run == "batch" and framework == "easyedit" and method not in BATCH_EDIT | _OWN_LIST:
        done.raised = {index: f"AssertionError: the method {method} can not batch edit" for index, _ in numbered}
        return done
    step = 1 if run != "batch" else (size or max(len(numbered), 1))
    for start in range(0, len(numbered), step):
        _one_group(rows_of, bench, numbered[start : start + step], plan, setup, done)
    _compare_oracles(bench, done)
    return done


def _flat(templates: Templates) -> tuple[str, ...]:
    flat: list[str] = []
    for entry in templates:
        flat += [entry] if isinstance(entry, str) else list(entry)
    return tuple(flat)


def _grouped(framework: str, method: str) -> Grouped:
    if framework == "fastedit":
        return lambda bench, group, plan, setup: fastedit_group(bench, group, plan)
    if framework != "easyedit":
        kmeng = kmeng_group(framework, method)
        return lambda bench, group, plan, setup: kmeng(bench, group, plan)
    if method in EASYEDIT_LOCATE or method == "SimIE":
        locate = locate_group(method)
        if method == "SimIE":  # its base method is called once per request: simie/simie_main.py:68-81
            return lambda bench, group, plan, setup: (row for request in group for row in locate(bench, [request], plan))
        return lambda bench, group, plan, setup: locate(bench, group, plan)
    trainer = {"UnKE": unke, "UnKE_ARE": unke_are, **TRAINERS}[method]
    return lambda bench, group, plan, setup: trainer(bench, group, setup)


def _one_group(
    rows_of: Grouped,
    bench: Bench,
    group: Sequence[tuple[int, Request]],
    plan: Plan,
    setup: Setup,
    done: Reenactment,
) -> None:
    """Rows of one group; a request that raises is taken out and the rest done again."""
    alive = list(group)
    while alive:
        try:
            rows = list(rows_of(bench, alive, plan, setup))
        except EditorRaises as error:
            culprit = alive[0][0] if error.request is None else error.request
            done.raised[culprit] = error.reason
            alive = [(index, request) for index, request in alive if index != culprit]
            continue
        done.rows += rows
        reached = {row.request for row in rows}
        for index, _ in alive:
            if index not in reached:
                done.raised[index] = "the code never comes to this request"
        return


def _compare_oracles(bench: Bench, done: Reenactment) -> None:
    """Every place that was asked for, by both oracles."""
    for reading in bench.readings.values():
        done.dishonest += not reading.honest()
        for which, char in sorted(set(reading.asked)):
            by_offsets, by_decoding = reading.by_offsets(which, char), reading.by_decoding(which, char)
            if by_decoding is None or by_offsets is None or by_offsets == by_decoding:
                continue
            if not reading.differ_by_space(by_offsets, by_decoding):
                done.disagreements.append(Disagreement(reading.text, char, which, by_offsets, by_decoding))
