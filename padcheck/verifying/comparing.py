"""One edit, several times: right, on a left-padded batch as an editor would do it, and with what padding touches put right."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from padcheck.editing.architecture import Architecture
from padcheck.editing.edits import edit
from padcheck.editing.errors import ObjectiveError, SolveError
from padcheck.editing.hparams import EditHparams
from padcheck.editing.restoring import borrowed
from padcheck.editing.rows import Groups, facts_of, grouped
from padcheck.editing.session import Session
from padcheck.editing.state import EditState
from padcheck.sources.requests import Request
from padcheck.sources.token_readers import wrap
from padcheck.verifying.literal import Literal, Way
from padcheck.verifying.measuring import Probe
from padcheck.verifying.outcomes import (
    CORRECTED,
    INDICES,
    LEFT,
    MASK,
    POSITIONS,
    RIGHT,
    Compared,
    Comparison,
    Outcome,
    Reading,
    Step,
)
from padcheck.verifying.viewing import worst_rows

WAYS: Mapping[str, Way] = {
    LEFT: Way(),
    CORRECTED: Way(indices=True, positions=True),
    INDICES: Way(indices=True),
    POSITIONS: Way(positions=True),
    MASK: Way(mask=False),
}
"""What is done with the left-padded batch: as the editor does; both right; and one thing at a time (`mask`: left out)."""

_NOT_FINITE = "the edited model answers with numbers that are not finite"


def compare(
    model: nn.Module,
    tokenizer: Any,
    requests: Sequence[Request],
    hparams: EditHparams,
    *,
    covariance: Mapping[str, Any] | None = None,
    context_templates: Sequence[str] | None = None,
    seed: int = 0,
    ablate: bool = True,
    on_progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Edit `model` with each request alone, right and in each of `WAYS`, and ask it. It comes back as it was, bit for bit.

    ablate       whether to change one thing at a time, too; without it "left" and "corrected" alone are run
    on_progress  called with the count of requests done

    The other arguments are those of `padcheck.editing.edit`. Raises an EditError that names the cause; an edit that meets a
    number that is not finite does not: that is an outcome.
    """
    groups: Groups | None = None if context_templates is None else grouped(context_templates)
    reader = wrap(tokenizer).reader
    ways = WAYS if ablate else {name: WAYS[name] for name in (LEFT, CORRECTED)}
    ends = _ends(model, tokenizer)
    pad = next((int(one) for one in (tokenizer.pad_token_id, tokenizer.eos_token_id) if one is not None), 0)
    compared: list[Compared] = []
    with borrowed(model, tokenizer), torch.no_grad():
        architecture = Architecture(model, hparams)
        modules = tuple(site.name for sites in architecture.sites for site in sites)
        projections: dict[str, Any] = {}
        for number, request in enumerate(requests):
            failed = result = None
            try:
                result = edit(
                    model, tokenizer, [request], hparams, context_templates=groups, covariance=covariance, seed=seed
                )
            except (ObjectiveError, SolveError) as error:
                if groups is None:  # there are no templates yet to go on with
                    raise
                failed = Outcome(None, None, (), str(error))
            else:
                groups = result.templates  # sampled once, for all
                projections = result.state.projections
            (fact,), _ = facts_of([request], reader, groups, hparams.fact_token)
            probe = Probe(fact, reader, pad, ends)
            before = probe.read(model, speak=True)
            if not math.isfinite(before.probability):
                raise ObjectiveError(
                    f"request {request.index}: the model answers with {before.probability} before any edit: its weights hold NaN, or "
                    f"{architecture.decoder.dtype} is too narrow for it"
                )
            if failed is not None:
                outcomes = {RIGHT: failed}
            elif result is not None:
                with result.applied(model):
                    outcomes = {RIGHT: _asked(probe.read(model, speak=True), before, result.trace[0])}
            kl: tuple[int, ...] = ()
            for name, way in ways.items():
                state = EditState(hparams.method, modules, projections=dict(projections))
                session = Session(architecture, hparams, [fact], groups, covariance, None, state, [], traces=[[]])
                literal = Literal(session, reader, pad, way)
                kl = literal.kl
                outcomes[name] = _padded(literal, probe, before, speak=name in (LEFT, CORRECTED))
            rows = worst_rows(fact, kl, tuple(text for group in groups for text in group), tokenizer)
            compared.append(Compared(request, before, outcomes, probe.asked, rows))
            if on_progress is not None:
                on_progress(number + 1)
    attention = str(getattr(model.config, "_attn_implementation", "unknown"))
    dtype = str(architecture.decoder.dtype).removeprefix("torch.")
    return Comparison(hparams.method, attention, dtype, groups or (), tuple(ways), tuple(compared))


def _padded(literal: Literal, probe: Probe, before: Reading, *, speak: bool) -> Outcome:
    """One padded edit, asked and taken off again."""
    try:
        literal.rewrite()
        return _asked(probe.read(literal.model, speak=speak), before, literal.trace)
    except (ObjectiveError, SolveError) as error:
        return Outcome(None, None, tuple(literal.trace), str(error))
    finally:
        literal.session.ledger.restore()


def _asked(reading: Reading, before: Reading, trace: Sequence[Step]) -> Outcome:
    """The outcome of an edit that could be made; one whose model answers NaN could not."""
    if not math.isfinite(reading.probability):
        return Outcome(None, None, tuple(trace), _NOT_FINITE)
    return Outcome(reading, reading.locality(before), tuple(trace))


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids at which the model stops speaking."""
    told = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = told if isinstance(told, list | tuple) else [told]
    return frozenset(int(one) for one in (*several, tokenizer.eos_token_id) if one is not None)
