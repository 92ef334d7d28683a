"""The report of `padcheck verify`: a table with sparklines for a terminal, and the same numbers as JSON."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from padcheck.verifying.comparing import CORRECTED, INDICES, LEFT, MASK, POSITIONS, RIGHT, Comparison, Outcome, mean

NAMES = {
    RIGHT: "right",
    LEFT: "left, as the editor does it",
    CORRECTED: "left, corrected",
    INDICES: "only the indices right",
    POSITIONS: "only the position ids right",
    MASK: "only the mask left out",
}
_WIDTH = 100
_BARS = "▁▂▃▄▅▆▇█"
_MEANT = 0.9
"""The part of the harm that a change must bring back to be called its cause."""


def as_text(comparison: Comparison, notes: Sequence[str], *, max_requests: int = 20) -> str:
    """The report for a terminal."""
    return "\n".join(_lines(comparison, notes, max_requests)) + "\n"


def _lines(comparison: Comparison, notes: Sequence[str], max_requests: int) -> Iterator[str]:
    compared, ways = comparison.compared, list(NAMES)
    count = sum(map(len, comparison.templates))
    yield f"{comparison.method}, {len(compared)} request{'s' * (len(compared) != 1)}, {count} context templates, {comparison.attention} attention, {comparison.dtype}"
    yield from (f"note: {note}" for note in notes)
    yield ""
    yield f"{'':29}{'target':>8}{'paraphr.':>10}{'locality':>10}   probability while optimising"
    before = mean([one.before.probability for one in compared])
    yield f"{'before the edit':29}{_percent(before):>8}{_percent(mean([one.before.paraphrase for one in compared])):>10}"
    for way in ways:
        if way == INDICES:
            yield "what did it: left, with one thing changed at a time"
        outcomes = [one.outcomes[way] for one in compared]
        failed = sum(outcome.reading is None for outcome in outcomes)
        line = f"{NAMES[way]:29}{_percent(comparison.mean(way)):>8}"
        line += f"{_percent(mean([o.reading.paraphrase for o in outcomes if o.reading])):>10}"
        line += f"{_percent(mean([o.locality for o in outcomes])):>10}   {_curve(outcomes)}"
        yield line + (f"   {failed} of {len(outcomes)} not finite" if failed else "")
    yield ""
    yield from textwrap.wrap(verdict(comparison), _WIDTH)
    for reason, times in Counter(o.reason for one in compared for o in one.outcomes.values() if o.reason).most_common():
        yield from textwrap.wrap(f"not finite ({times} edits): {reason}", _WIDTH)
    yield ""
    yield f"{'request':29}{'right':>8}{'left':>8}{'corrected':>11}   right, then left"
    for one in compared[:max_requests]:
        identity = one.request.index if one.request.case_id is None else one.request.case_id
        named = "".join(character if character.isprintable() else "·" for character in f"{identity} {one.request.subject}")
        cells = "".join(
            f"{_percent(one.outcomes[way].probability):>{width}}" for way, width in ((RIGHT, 8), (LEFT, 8), (CORRECTED, 11))
        )
        yield f"{named[:28]:29}{cells}   {sparkline(one.outcomes[RIGHT].steps)}  {sparkline(one.outcomes[LEFT].steps)}"
    if len(compared) > max_requests:
        yield f"… and {len(compared) - max_requests} more (all of them in --output-format json)"


def verdict(comparison: Comparison) -> str:
    """In words: what left padding took, and what of it each change alone brings back."""
    lost, interval = comparison.gap(LEFT), comparison.interval(LEFT)
    if lost is None:
        return "Left padding: no edit came out finite."
    between = f" (95% interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    sentence = f"Left padding takes {100 * lost:.1f} points of the right edit's probability{between}."
    alone = {way: comparison.recovered(way) for way in (INDICES, POSITIONS, MASK, CORRECTED)}
    if any(value is None for value in alone.values()):
        return sentence + " That is too little to look for a cause."
    parts = {way: value or 0.0 for way, value in alone.items()}
    sentence += (
        f" Right indices alone bring back {parts[INDICES]:.0%} of it, position ids alone {parts[POSITIONS]:.0%}, leaving the mask "
        f"out {parts[MASK]:.0%}; indices and position ids together {parts[CORRECTED]:.0%}."
    )
    return f"{sentence} {_cause(parts)}"


def _cause(parts: dict[str, float]) -> str:
    if parts[INDICES] >= _MEANT:
        rest = parts[CORRECTED] - parts[INDICES]
        return (
            "The indices did it." if rest < 0.01 else f"The indices did it; missing position ids took the last {rest:.0%}."
        )
    if parts[CORRECTED] >= _MEANT:
        return "The indices and the missing position ids did it together: correcting one of them is not enough."
    return "Neither explains it: something else than padding differs between the two."


def sparkline(values: Sequence[float]) -> str:
    """Probabilities from 0 to 1 as bars, one per step; × where a value is not finite."""
    return "".join(_BARS[min(7, int(value * 8))] if math.isfinite(value) else "×" for value in values)


def _curve(outcomes: Sequence[Outcome]) -> str:
    """The mean over requests step by step; one that has stopped keeps its last value."""
    runs = [outcome.steps for outcome in outcomes if outcome.steps]
    longest = max(map(len, runs), default=0)
    means = [sum(run[min(step, len(run) - 1)] for run in runs) / len(runs) for step in range(longest)]
    return f"{sparkline(means)} {_percent(means[-1])}" if means else ""


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def as_json(comparison: Comparison, notes: Sequence[str]) -> dict[str, Any]:
    """All numbers, under the tool's JSON envelope. Probabilities from 0 to 1; null where an edit could not be made."""
    from padcheck import __version__

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
        "requests": [
            {
                "request": {"index": one.request.index, "case_id": one.request.case_id},
                "before": {"probability": one.before.probability, "paraphrase": one.before.paraphrase},
                "edits": {way: _fields(outcome) for way, outcome in one.outcomes.items()},
            }
            for one in comparison.compared
        ],
        "summary": {
            "requests": len(comparison.compared),
            "before": mean([one.before.probability for one in comparison.compared]),
            "probability": {way: comparison.mean(way) for way in NAMES},
            "not_finite": {way: sum(one.outcomes[way].reading is None for one in comparison.compared) for way in NAMES},
            "lost_to_left_padding": comparison.gap(LEFT),
            "interval": list(interval) if interval else None,
            "recovered": {way: comparison.recovered(way) for way in (INDICES, POSITIONS, MASK, CORRECTED)},
            "greatest_difference_corrected_right": comparison.worst_correction(),
            "verdict": verdict(comparison),
        },
    }


def _fields(outcome: Outcome) -> dict[str, Any]:
    return {
        "probability": outcome.probability,
        "paraphrase": outcome.reading.paraphrase if outcome.reading else None,
        "locality": outcome.locality,
        "steps": [value if math.isfinite(value) else None for value in outcome.steps],
        "reason": outcome.reason,
    }
