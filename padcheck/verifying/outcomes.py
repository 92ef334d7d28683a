"""What came of the edits, as plain numbers and words: what every report of `verify` shows. No torch is needed to read it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from padcheck.reports import RowView
from padcheck.sources.requests import Request

RIGHT, LEFT, CORRECTED = "right", "left", "corrected"
INDICES, POSITIONS, MASK = "indices", "positions", "mask"
ABLATIONS = (INDICES, POSITIONS, MASK)
"""Left, with one thing changed at a time."""

PARTS = ("loss", "nll", "kl", "weight_decay", "probability")
"""What one evaluation of the objective gives; the three in the middle add up to the loss."""

HARM = 0.05
"""A difference in probability below this is not worth a cause."""

EXACT = 1e-4
COARSE = 2e-2
"""How near "corrected" must come to "right", in probability: where the model computes in 32 bits or more, and in 16."""

Step = Mapping[str, float]
Groups = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read off a model once.

    Attributes:
        probability: of the target after the prompt.
        paraphrase: the same after the paraphrases, on average; None where the request has none.
        openings: the likeliest first token after each unrelated prompt.
        said: how the model goes on, greedily, after each of `Compared.asked`; empty where it was not asked to.
    """

    probability: float
    paraphrase: float | None
    openings: tuple[int, ...]
    said: tuple[str, ...] = ()

    def locality(self, before: Reading) -> float | None:
        """The share of unrelated prompts that begin as before; None where the request has none."""
        if not self.openings:
            return None
        return sum(now == then for now, then in zip(self.openings, before.openings, strict=True)) / len(self.openings)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one edit.

    Attributes:
        reading: of the edited model; None where the edit could not be made.
        locality: the share of unrelated prompts that begin as before the edit.
        trace: `PARTS` of each evaluation of the objective.
        reason: why the edit could not be made.
    """

    reading: Reading | None
    locality: float | None
    trace: tuple[Step, ...]
    reason: str | None = None

    @property
    def probability(self) -> float | None:
        return None if self.reading is None else self.reading.probability

    def steps(self, part: str = "probability") -> tuple[float, ...]:
        """One of `PARTS`, step by step; NaN for a step whose loss is not finite."""
        return tuple(step[part] if math.isfinite(step["loss"]) else math.nan for step in self.trace)


@dataclass(frozen=True, slots=True)
class Compared:
    """One request.

    Attributes:
        before: what the model says before any edit.
        outcomes: by way: "right", "left" and the others.
        asked: the prompts that the model was let go on from: the edit's, and one paraphrase where there is one.
        rows: the row of the left-padded batch that is furthest off, once for the lookup and once for the answer's slots.
    """

    request: Request
    before: Reading
    outcomes: Mapping[str, Outcome]
    asked: tuple[str, ...]
    rows: tuple[RowView, ...]

    @property
    def named(self) -> str:
        """The record's id and its subject."""
        identity = self.request.index if self.request.case_id is None else self.request.case_id
        return f"{identity} {self.request.subject}"

    @property
    def lost(self) -> float:
        """How far "left" falls below "right": all of it where it could not be made, nothing where right could not."""
        right, left = self.outcomes[RIGHT].probability, self.outcomes[LEFT].probability
        return 0.0 if right is None else right - (left or 0.0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All requests.

    Attributes:
        attention, dtype: the model's.
        templates: the context templates of all edits alike.
        ways: what was done with the left-padded batch; `LEFT` and `CORRECTED` are always among them.
    """

    method: str
    attention: str
    dtype: str
    templates: Groups
    ways: tuple[str, ...]
    compared: tuple[Compared, ...]

    def mean(self, way: str) -> float | None:
        """The mean probability after an edit, over the requests where it could be made."""
        return mean([one.outcomes[way].probability for one in self.compared])

    def failed(self, way: str) -> int:
        """The requests where an edit could not be made."""
        return sum(one.outcomes[way].reading is None for one in self.compared)

    def gap(self, way: str) -> float | None:
        """How far an edit falls below the right one, on average, where both could be made."""
        return mean(self._gaps(way))

    def interval(self, way: str, resamples: int = 2000) -> tuple[float, float] | None:
        """The bootstrap 95 % interval of `gap` over the requests; None for fewer than two."""
        gaps = self._gaps(way)
        if len(gaps) < 2:
            return None
        draw = random.Random(0)
        means = sorted(sum(draw.choices(gaps, k=len(gaps))) / len(gaps) for _ in range(resamples))
        return means[int(0.025 * resamples)], means[int(0.975 * resamples) - 1]

    def recovered(self, way: str) -> float | None:
        """Which part of what left padding took this change alone brings back; None where it took next to nothing."""
        if way not in self.ways:
            return None
        lost, still = self.gap(LEFT), self.gap(way)
        return None if lost is None or still is None or lost < HARM else 1 - still / lost

    def worst_correction(self) -> float | None:
        """The greatest distance in probability between "corrected" and "right" for any request; None where either is missing
        for one of them."""
        gaps = self._gaps(CORRECTED)
        return max(map(abs, gaps)) if gaps and len(gaps) == len(self.compared) else None

    @property
    def explained(self) -> bool:
        """Whether "corrected" is "right", so that padding is all there is between "left" and "right"."""
        off = self.worst_correction()
        return off is not None and off <= (EXACT if self.dtype in ("float32", "float64") else COARSE)

    @property
    def harmed(self) -> bool:
        """Whether left padding takes something that is worth a word, or leaves numbers that are not finite."""
        return (self.gap(LEFT) or 0.0) >= HARM or self.failed(LEFT) > self.failed(RIGHT)

    def by_loss(self) -> list[Compared]:
        """The requests, those first to which left padding does most."""
        return sorted(self.compared, key=lambda one: -one.lost)

    def curve(self, way: str, part: str) -> list[float]:
        """The mean over requests of one of `PARTS`, step by step; one that has stopped keeps its last value, and what is not
        finite is left out (NaN where nothing is left)."""
        runs = [run for one in self.compared if (run := one.outcomes[way].steps(part))]
        longest = max(map(len, runs), default=0)
        return [_finite_mean(run[min(step, len(run) - 1)] for run in runs) for step in range(longest)]

    def _gaps(self, way: str) -> list[float]:
        pairs = [(one.outcomes[RIGHT].probability, one.outcomes[way].probability) for one in self.compared]
        return [right - other for right, other in pairs if right is not None and other is not None]


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are there; None if none is."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _finite_mean(values: Iterator[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
