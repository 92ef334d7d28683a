"""The sentences that the reports of `verify` share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from padcheck.renderers.wording import plural
from padcheck.verifying.outcomes import CORRECTED, HARM, INDICES, LEFT, MASK, POSITIONS, RIGHT, Comparison

NAMES: Mapping[str, str] = {
    RIGHT: "right",
    LEFT: "left, as the editor does it",
    CORRECTED: "left, corrected",
    INDICES: "only the indices right",
    POSITIONS: "only the position ids right",
    MASK: "only the mask left out",
}
ASKED = "probability of the new answer, per token"
_MEANT = 0.9
"""The part of the harm that a change must bring back to be called its cause."""


def run(comparison: Comparison) -> str:
    """What was run: method, requests, templates, attention, dtype."""
    templates = sum(map(len, comparison.templates))
    return (
        f"{comparison.method}, {plural(len(comparison.compared), 'request')}, {plural(templates, 'context template')}, "
        f"{comparison.attention} attention, {comparison.dtype}"
    )


def state(comparison: Comparison) -> str:
    """In a word: "harm", "no harm", or "unexplained" where "corrected" is not "right"."""
    if not comparison.explained:
        return "unexplained"
    return "harm" if comparison.harmed else "no harm"


def headline(comparison: Comparison) -> str:
    """The verdict in one sentence."""
    total, broken = len(comparison.compared), comparison.failed(LEFT)
    if comparison.failed(RIGHT) == total:
        made = "The edit itself" if total == 1 else "None of the edits"
        return f"{made} {'cannot' if total == 1 else 'can'} be made here, whatever the padding: {comparison.compared[0].outcomes[RIGHT].reason}."
    if broken == total:
        return f"Left padding breaks {'the edit' if total == 1 else 'every edit'}: it ends in numbers that are not finite."
    lost, interval = comparison.gap(LEFT) or 0.0, comparison.interval(LEFT)
    between = f" (95% interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    more = f", and {broken} of {total} edits end in numbers that are not finite" if broken else ""
    if comparison.harmed:
        return f"Left padding takes {100 * lost:.1f} points of the right edit's probability{between}{more}."
    if lost <= -HARM:
        return f"Left padding comes out {-100 * lost:.1f} points higher than the right edit here{between}: is the right one finished?"
    return f"Left padding takes next to nothing here: {100 * lost:.1f} points of the right edit's probability{between}."


def explanation(comparison: Comparison) -> list[str]:
    """What did the harm, and whether the correction is whole, in sentences."""
    sentences = []
    reasons = Counter(reason for one in comparison.compared if (reason := one.outcomes[LEFT].reason))
    sentences += [f"Why {plural(count, 'edit')} came to nothing: {reason}." for reason, count in reasons.most_common()]
    parts = {way: comparison.recovered(way) for way in (INDICES, POSITIONS, MASK, CORRECTED)}
    known = {way: value for way, value in parts.items() if value is not None}
    if len(known) == len(parts):
        sentences.append(
            f"Right indices alone bring back {whole_percent(known[INDICES])} of it, right position ids alone {whole_percent(known[POSITIONS])}, "
            f"leaving the mask out {whole_percent(known[MASK])}; indices and position ids together {whole_percent(known[CORRECTED])}."
        )
        sentences.append(_cause(known))
    return [*sentences, correction(comparison)]


def correction(comparison: Comparison) -> str:
    """Whether "corrected" is "right"."""
    off = comparison.worst_correction()
    if off is not None:
        so = "is the right one" if comparison.explained else "is not the right one, so padding does not explain it all"
        return f"The corrected edit {so}: the greatest difference of a request is {off:.1e} in probability."
    name, way = ("right edit itself", RIGHT) if comparison.failed(RIGHT) else ("corrected edit", CORRECTED)
    return f"The {name} could not be made for {plural(comparison.failed(way), 'request')}: nothing is proved there."


def verdict(comparison: Comparison) -> str:
    """All of it in one paragraph."""
    return " ".join([headline(comparison), *explanation(comparison)])


def _cause(parts: Mapping[str, float]) -> str:
    if parts[INDICES] >= _MEANT:
        rest = parts[CORRECTED] - parts[INDICES]
        return (
            "The indices did it." if rest < 0.01 else f"The indices did it; missing position ids took the last {rest:.0%}."
        )
    if parts[CORRECTED] >= _MEANT:
        return "The indices and the missing position ids did it together: correcting one of them is not enough."
    return "Neither explains it: something else than padding differs between the two."


def whole_percent(value: float) -> str:
    """Without the sign that rounding leaves of a little less than nothing."""
    return f"{round(100 * value) + 0}%"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
