"""Looking at an edit before it begins: the rows that are certain to be built, with the editor's own arithmetic.

Context templates that are not sampled yet are stood in for, as `padcheck preflight` does; what does not drift under every
profile of lengths is left to the check of the batches themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from padcheck.guards import telling
from padcheck.guards.errors import DriftError
from padcheck.passes import run_pass
from padcheck.planning import Options, Plan, settle
from padcheck.positions.drift import Reading
from padcheck.positions.editors import Raises, Side
from padcheck.preflighting import doubts
from padcheck.sources.reading import SourceError
from padcheck.sources.templates import flatten

if TYPE_CHECKING:
    from padcheck.guards.watching import Entered, Watch

_LOOKED_AT = 64
"""Requests looked at before the edit; all of them are looked at in their batches."""


def assembled(prompts: Any, targets: Any, subjects: Any) -> list[dict[str, Any]]:
    """Requests of the parallel lists that a function takes."""
    lists = [[item] if isinstance(item, str) else list(item or ()) for item in (prompts, targets, subjects)]
    return [
        {"prompt": prompt, "target_new": target, "subject": subject}
        for prompt, target, subject in zip(lists[0], lists[1], lists[2] or [""] * len(lists[0]), strict=False)
    ]


def before(
    watch: Watch, here: Entered, requests: Sequence[Mapping[str, Any]], hparams: Any, variables: Mapping[str, Any]
) -> None:
    """Look at an edit of these requests that is about to begin.

    Raises DriftError where the policy says so. `variables`: those of the function's module, where templates may lie.
    """
    site = here.place.site
    for request in requests:
        watch.requests.know(request)
    outer = watch.here()
    again = outer is not None and outer.planned
    plan = _plan(watch, here, requests, hparams, variables)
    if plan is None:
        return
    if plan.method_name not in watch.record.methods:
        watch.record.methods.append(plan.method_name)
    if watch.corrections is not None:
        watch.corrections.begin(here.place.editor.id, plan.method_name, plan.fact_token, requests)
    title = f"{here.place.editor.title}, {plan.method_name} ({here.place.name})"
    _refuse(plan, title, watch.policy)
    here.planned = True
    if watch.policy != "correct":
        if not again:
            drifting, checked = _certain(plan, requests, watch)
            _say(watch, title, drifting, checked)
    elif plan.method.kind == "train" and not site.evaluates:
        _side_for(watch, here, plan, requests, title)


def _plan(
    watch: Watch, here: Entered, requests: Sequence[Mapping[str, Any]], hparams: Any, variables: Mapping[str, Any]
) -> Plan | None:
    """The planned run; None where it cannot be settled (an unknown method, for one)."""
    site, editor = here.place.site, here.place.editor
    values = hparams if isinstance(hparams, Mapping) else getattr(hparams, "__dict__", None)
    if values is None:
        return None
    cached = variables.get(site.templates) if site.templates is not None else None
    if watch.policy == "correct":
        cached = cached or ["{}"]  # rows of templates are not looked at before they are built
    whole = site.run == "batch" and not site.evaluates  # such a function pads the rows of all its requests together
    options = Options(
        framework=editor.id,
        method=site.method,
        padding_side=watch.kept.own_side(),
        passed_in=True,
        run=site.run,
        batch_size=len(requests) if whole else None,
        context_templates=list(flatten(cached)) if cached else None,
    )
    try:
        with watch.kept.asking():
            return settle({**values, "model_name": str(values.get("model_name") or "")}, watch.tokenizer, options)
    except SourceError as error:
        note = f"the run was not looked at before it began ({here.place.name}): {error}"
        if note not in watch.record.notes:
            watch.record.notes.append(note)
        return None


def _refuse(plan: Plan, title: str, policy: str) -> None:
    """A method that stops by itself with this fact token, often after minutes of work, is stopped at once."""
    for batch in plan.batches:
        entry = batch.lookup.by_fact_token.get(plan.fact_token) if batch.lookup is not None else None
        if isinstance(entry, Raises) and policy != "warn":
            raise DriftError(
                f"{title}: with fact_token {plan.fact_token!r} the method {entry.message} ({entry.source}). Choose another fact_token."
            )


def _certain(plan: Plan, requests: Sequence[Mapping[str, Any]], watch: Watch) -> tuple[list[Reading], int]:
    """The positions that drift whatever templates are sampled, and how many were looked at."""
    with watch.kept.asking():
        found: list[Reading] = []
        outcome = run_pass(plan, list(requests), plan.templates, limit=_LOOKED_AT, on_reading=found.append)
        groups = outcome.tally.ordered()
        uncertain = doubts(plan, list(requests)[:_LOOKED_AT], groups)
    certain = [reading for group in groups if group.key not in uncertain for reading in group.readings()]
    # Rows of stand-in templates are not those that will be built; the bare prompt's and the KL rows are.
    return [reading for reading in certain if reading.row.is_kl or reading.row.number == 0] or certain, outcome.rows


def _say(watch: Watch, title: str, drifting: Sequence[Reading], checked: int) -> None:
    if not drifting:
        return
    if watch.policy == "fail":
        raise telling.drift_error(title, drifting, checked, telling.CORRECT)
    watch.warn(title, drifting, checked)


def _side_for(watch: Watch, here: Entered, plan: Plan, requests: Sequence[Mapping[str, Any]], title: str) -> None:
    """Methods that train on prompt and target: the side that makes every label right, for these very requests.

    Their label columns follow from one side or the other, by method and objective. Where neither is right: DriftError.
    """
    if plan.method.sets_side is not None:
        return  # it looks after its batches itself
    asked: Side = plan.side.value
    other: Side = "left" if asked == "right" else "right"
    drifting, checked = _certain(plan, requests, watch)
    for side in (asked, other) if watch.corrections is None else (watch.corrections.side,):
        turned = plan if side == asked else replace(plan, side=replace(plan.side, value=side))
        if not (drifting if side == asked else _certain(turned, requests, watch)[0]):
            here.side = side
            watch.record.planned(here.place, drifting, checked)
            return
    remedy = "No padding side makes this right: the editor's own code has to change."
    raise telling.drift_error(title, drifting, checked, remedy)
