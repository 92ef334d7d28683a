"""The numbers of `verify` under the tool's JSON envelope. Probabilities from 0 to 1; null where there is no finite number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from padcheck.renderers.verification.words import verdict
from padcheck.verifying.outcomes import (
    ABLATIONS,
    CORRECTED,
    LEFT,
    PARTS,
    RIGHT,
    Compared,
    Comparison,
    Outcome,
    mean,
)


def document(comparison: Comparison, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Everything there is."""
    from padcheck import __version__

    ways = (RIGHT, *comparison.ways)
    interval = comparison.interval(LEFT)
    return {
        "version": 1,
        "tool": {"name": "padcheck", "version": __version__},
        "command": "verify",
        "method": comparison.method,
        "attention": comparison.attention,
        "dtype": comparison.dtype,
        "context_templates": [list(group) for group in comparison.templates],
        "notes": list(notes),
        "requests": [_request(one) for one in comparison.compared],
        "summary": {
            "requests": len(comparison.compared),
            "before": mean([one.before.probability for one in comparison.compared]),
            "probability": {way: comparison.mean(way) for way in ways},
            "not_finite": {way: comparison.failed(way) for way in ways},
            "lost_to_left_padding": comparison.gap(LEFT),
            "interval": list(interval) if interval else None,
            "recovered": {way: comparison.recovered(way) for way in (*ABLATIONS, CORRECTED)},
            "greatest_difference_corrected_right": comparison.worst_correction(),
            "verdict": verdict(comparison),
        },
    }


def _request(one: Compared) -> dict[str, Any]:
    spoken = {"before": one.before, **{way: outcome.reading for way, outcome in one.outcomes.items()}}
    return {
        "request": {"index": one.request.index, "case_id": one.request.case_id},
        "before": {"probability": one.before.probability, "paraphrase": _number(one.before.paraphrase)},
        "edits": {way: _fields(outcome) for way, outcome in one.outcomes.items()},
        "generation": [
            {"prompt": prompt} | {way: reading.said[place] for way, reading in spoken.items() if reading and reading.said}
            for place, prompt in enumerate(one.asked)
        ],
    }


def _fields(outcome: Outcome) -> dict[str, Any]:
    return {
        "probability": outcome.probability,
        "paraphrase": _number(outcome.reading.paraphrase) if outcome.reading else None,
        "locality": outcome.locality,
        "steps": [{part: _number(step[part]) for part in PARTS} for step in outcome.trace],
        "reason": outcome.reason,
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
