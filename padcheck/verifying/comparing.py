"""One edit, several times: right, on a left-padded batch as an editor would do it, and with what padding touches put right."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from padcheck.editing.architecture import Architecture
from padcheck.editing.edits import edit
from padcheck.editing.errors import HparamsError, ObjectiveError, SolveError
from padcheck.editing.hparams import EditHparams
from padcheck.editing.restoring import borrowed
from padcheck.editing.rows import Groups, facts_of, grouped
from padcheck.editing.session import Session
from padcheck.editing.state import EditState
from padcheck.sources.requests import Request
from padcheck.sources.token_readers import wrap
from padcheck.verifying.literal import METHODS, Literal, Way
from padcheck.verifying.measuring import Probe, Reading

RIGHT, LEFT, CORRECTED = "right", "left", "corrected"
INDICES, POSITIONS, MASK = "indices", "positions", "mask"
WAYS: Mapping[str, Way] = {
    LEFT: Way(),
    CORRECTED: Way(indices=True, positions=True),
    INDICES: Way(indices=True),
    POSITIONS: Way(positions=True),
    MASK: Way(mask=False),
}
"""What is done with the left-padded batch: as the editor does; both right; and one thing at a time (`mask`: left out)."""

HARM = 0.05
"""A difference in probability below this is not worth a cause."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one edit.

    Attributes:
        reading: of the edited model; None where the edit could not be made.
        locality: the share of unrelated prompts that begin as before the edit.
        steps: the target's probability in the objective, step by step.
        reason: why the edit could not be made.
    """

    reading: Reading | None
    locality: float | None
    steps: tuple[float, ...]
    reason: str | None = None

    @property
    def probability(self) -> float | None:
        return None if self.reading is None else self.reading.probability


@dataclass(frozen=True, slots=True)
class Compared:
    """One request: before, and the outcome of "right" and of each of `WAYS`."""

    request: Request
    before: Reading
    outcomes: Mapping[str, Outcome]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All requests. `attention`: the model's implementation; `templates`: the context templates of all edits alike."""

    method: str
    attention: str
    dtype: str
    templates: Groups
    compared: tuple[Compared, ...]

    def mean(self, way: str) -> float | None:
        """The mean probability after an edit, over the requests where it could be made."""
        return mean([one.outcomes[way].probability for one in self.compared])

    def gap(self, way: str) -> float | None:
        """How far an edit falls below the right one, on average, where both could be made."""
        return mean(self._gaps(way))

    def interval(self, way: str, resamples: int = 2000) -> tuple[float, float] | None:
        """The bootstrap 95 % interval of `gap`; None for fewer than two requests."""
        gaps = self._gaps(way)
        if len(gaps) < 2:
            return None
        draw = random.Random(0)
        means = sorted(sum(draw.choices(gaps, k=len(gaps))) / len(gaps) for _ in range(resamples))
        return means[int(0.025 * resamples)], means[int(0.975 * resamples) - 1]

    def recovered(self, way: str) -> float | None:
        """Which part of what left padding took this change alone brings back; None where it took next to nothing."""
        lost, still = self.gap(LEFT), self.gap(way)
        return None if lost is None or still is None or lost < HARM else 1 - still / lost

    def worst_correction(self) -> float | None:
        """The greatest distance in probability between "corrected" and "right" for any request."""
        gaps = self._gaps(CORRECTED)
        return max(map(abs, gaps)) if gaps else None

    def _gaps(self, way: str) -> list[float]:
        pairs = [(one.outcomes[RIGHT].probability, one.outcomes[way].probability) for one in self.compared]
        return [right - other for right, other in pairs if right is not None and other is not None]


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are there; None if none is."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def compare(
    model: nn.Module,
    tokenizer: Any,
    requests: Sequence[Request],
    hparams: EditHparams,
    *,
    covariance: Mapping[str, Any] | None = None,
    context_templates: Sequence[str] | None = None,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Edit `model` with each request alone, right and in each of `WAYS`, and ask it. It comes back as it was, bit for bit.

    The arguments are those of `padcheck.editing.edit`. Raises an EditError that names the cause; a padded edit that meets
    a number that is not finite does not: that is an outcome.
    """
    if hparams.method not in METHODS:
        raise HparamsError(f"{hparams.method} is not re-enacted on padded batches; {', '.join(METHODS)} are")
    groups: Groups | None = None if context_templates is None else grouped(context_templates)
    reader = wrap(tokenizer).reader
    pad = next((int(one) for one in (tokenizer.pad_token_id, tokenizer.eos_token_id) if one is not None), 0)
    compared: list[Compared] = []
    with borrowed(model, tokenizer), torch.no_grad():
        architecture = Architecture(model, hparams)
        modules = tuple(site.name for sites in architecture.sites for site in sites)
        for number, request in enumerate(requests):
            result = edit(model, tokenizer, [request], hparams, context_templates=groups, covariance=covariance, seed=seed)
            groups = result.templates  # sampled once, for all
            (fact,), _ = facts_of([request], reader, groups, hparams.fact_token)
            probe = Probe(fact, reader, pad)
            before = probe.read(model)
            with result.applied(model):
                outcomes = {RIGHT: _outcome(probe.read(model), before, [step["probability"] for step in result.trace[0]])}
            for name, way in WAYS.items():
                state = EditState(hparams.method, modules, projections=dict(result.state.projections))
                session = Session(architecture, hparams, [fact], groups, covariance, None, state, [], traces=[[]])
                outcomes[name] = _padded(Literal(session, reader, pad, way), probe, before)
            compared.append(Compared(request, before, outcomes))
            if on_progress is not None:
                on_progress(number + 1)
    attention = str(getattr(model.config, "_attn_implementation", "unknown"))
    dtype = str(architecture.decoder.dtype).removeprefix("torch.")
    return Comparison(hparams.method, attention, dtype, groups or (), tuple(compared))


def _padded(literal: Literal, probe: Probe, before: Reading) -> Outcome:
    """One padded edit, asked and taken off again."""
    ledger = literal.session.ledger
    reason = reading = None
    try:
        literal.rewrite()
        reading = probe.read(literal.model)
        if not math.isfinite(reading.probability):
            reason, reading = "the edited model answers with numbers that are not finite", None
    except (ObjectiveError, SolveError) as error:
        reason = str(error)
    finally:
        ledger.restore()
    return _outcome(reading, before, [step["probability"] for step in literal.trace], reason)


def _outcome(reading: Reading | None, before: Reading, steps: Sequence[float], reason: str | None = None) -> Outcome:
    return Outcome(reading, None if reading is None else reading.locality(before), tuple(steps), reason)
