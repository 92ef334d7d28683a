"""The report of `verify` for a terminal: the verdict, a table with sparklines, the requests, and how the prompts go on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from padcheck.renderers.verification.words import ASKED, NAMES, explanation, headline, percent, run
from padcheck.renderers.width import clip, escape, fold, isolate, pad
from padcheck.verifying.outcomes import ABLATIONS, CORRECTED, LEFT, RIGHT, Compared, Comparison, mean

_WIDTH = 100
_LABEL = 29
_BARS = "▁▂▃▄▅▆▇█"
_STEPS = 24
"""Bars of a sparkline, at most."""
_SPOKEN = 2
"""Requests whose prompts are shown going on."""


def render(comparison: Comparison, notes: Sequence[str] = (), *, max_requests: int = 20) -> str:
    """The report; all of it reads without colour."""
    return "\n".join(_lines(comparison, notes, max_requests)) + "\n"


def _lines(comparison: Comparison, notes: Sequence[str], max_requests: int) -> Iterator[str]:
    yield run(comparison)
    for note in notes:
        yield from fold(f"note: {note}", _WIDTH)
    yield ""
    yield from fold(headline(comparison), _WIDTH)
    yield from fold(" ".join(explanation(comparison)), _WIDTH)
    yield ""
    yield from _table(comparison)
    yield ""
    yield f"{'request':{_LABEL}}{'right':>8}{'left':>8}{'corrected':>11}   while optimising: right, then left"
    widest = max(len(sparkline(one.outcomes[RIGHT].steps())) for one in comparison.compared[:max_requests])
    for one in comparison.compared[:max_requests]:
        cells = "".join(
            f"{percent(one.outcomes[way].probability):>{width}}" for way, width in ((RIGHT, 8), (LEFT, 8), (CORRECTED, 11))
        )
        right, left = (sparkline(one.outcomes[way].steps()) for way in (RIGHT, LEFT))
        yield f"{_cell(one.named)}{cells}   {right:{widest}}  {left}"
    if len(comparison.compared) > max_requests:
        yield f"… and {len(comparison.compared) - max_requests} more (all of them in --output-format json)"
    yield ""
    yield "how the model goes on, always with the likeliest token:"
    for one in comparison.by_loss()[:_SPOKEN]:
        yield from _spoken(one)


def _table(comparison: Comparison) -> Iterator[str]:
    compared = comparison.compared
    yield f"{ASKED:{_LABEL + 8}}{'paraphr.':>10}{'locality':>10}   while optimising"
    before = mean([one.before.probability for one in compared])
    paraphrase = mean([one.before.paraphrase for one in compared])
    yield f"{'before the edit':{_LABEL}}{percent(before):>8}{percent(paraphrase):>10}"
    for way in (RIGHT, *comparison.ways):
        if way == ABLATIONS[0]:
            yield "what did it: left, with one thing changed at a time"
        outcomes = [one.outcomes[way] for one in compared]
        steps = comparison.curve(way, "probability")
        line = f"{NAMES[way]:{_LABEL}}{percent(comparison.mean(way)):>8}"
        line += f"{percent(mean([o.reading.paraphrase for o in outcomes if o.reading])):>10}"
        line += f"{percent(mean([o.locality for o in outcomes])):>10}   {sparkline(steps)}"
        if steps and math.isfinite(steps[-1]):
            line += f" {percent(steps[-1])}"
        failed = comparison.failed(way)
        yield line + (f"   {failed} of {len(outcomes)} not finite" if failed else "")


def _spoken(one: Compared) -> Iterator[str]:
    said = {"before": one.before.said} | {
        way: reading.said for way in (RIGHT, LEFT, CORRECTED) if (reading := one.outcomes[way].reading)
    }
    for place, prompt in enumerate(one.asked):
        target = f"   (the new answer: {one.request.target_new})" if place == 0 else ""
        yield f"  {isolate(clip(escape(prompt + target), _WIDTH - 2))}"
        for way, texts in said.items():
            yield f"    {way:11}{isolate(clip(escape(texts[place].strip()), _WIDTH - 15))}"


def _cell(text: str) -> str:
    return pad(isolate(clip(escape(text), _LABEL - 1)), _LABEL)


def sparkline(values: Sequence[float]) -> str:
    """Probabilities from 0 to 1 as bars, one per step; × where a value is not finite. Of many steps, some evenly apart, with
    the first and the last."""
    last = len(values) - 1
    if last >= _STEPS:
        values = [values[round(place * last / (_STEPS - 1))] for place in range(_STEPS)]
    return "".join(_BARS[min(7, int(value * 8))] if math.isfinite(value) else "×" for value in values)
