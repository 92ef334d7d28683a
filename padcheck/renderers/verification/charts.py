"""Curves as inline SVG: no script, no picture to load; colours come from the page's style, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape as markup

Format = Callable[[float], str]

_TOP, _BOTTOM, _LABELS, _CHARACTER = 12, 36, 122, 7
"""Margins in pixels, `_LABELS` for the names at the ends of the curves; and the width of a figure on an axis."""
_LINE = 15
"""Height of a line of labels."""


def chart(
    title: str,
    series: Mapping[str, Sequence[float]],
    *,
    width: int,
    height: int,
    form: Format,
    top: float | None = None,
    x_name: str = "step",
) -> str:
    """A figure with one curve per entry of `series` (name → values; the CSS class of a curve is its name).

    form  of the numbers on the axis
    top   the greatest value on the axis; None: what the values need

    Curves that end at the same height share their label. A value that is not finite ends the curve with a cross.
    """
    finite = [value for values in series.values() for value in values if math.isfinite(value)]
    ticks = _ticks(top if top is not None else max(finite, default=1.0))
    steps = max((len(values) for values in series.values()), default=1)
    left = 12 + _CHARACTER * max(len(form(tick)) for tick in ticks)
    inner_width, inner_height = width - left - _LABELS, height - _TOP - _BOTTOM

    def x(step: float) -> float:
        return left + inner_width * step / max(1, steps - 1)

    def y(value: float) -> float:
        return _TOP + inner_height * (1 - min(value, ticks[-1]) / ticks[-1])

    parts = [
        *(
            f'<line class="grid" x1="{left}" x2="{left + inner_width}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
            f'<text class="tick" x="{left - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{form(tick)}</text>'
            for tick in ticks
        ),
        *(
            f'<text class="tick" x="{x(step):.1f}" y="{height - _BOTTOM + 17}" text-anchor="middle">{step}</text>'
            for step in _whole_ticks(steps)
        ),
        f'<text class="axis" x="{left + inner_width / 2:.1f}" y="{height - 4}" text-anchor="middle">{markup(x_name)}</text>',
        *(_curve(name, values, x, y) for name, values in series.items()),
        *_labels(series, x, y),
    ]
    told = ", ".join(f"{name} ends at {_said(values, form)}" for name, values in series.items())
    return (
        f'<figure class="curve"><figcaption>{markup(title)}</figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{markup(title)}: {markup(told)}">{"".join(parts)}</svg>'
        "</figure>"
    )


def spark(series: Mapping[str, Sequence[float]], *, width: int = 120, height: int = 26) -> str:
    """Curves from 0 to 1 alone, without axes."""
    steps = max((len(values) for values in series.values()), default=1)

    def x(step: float) -> float:
        return 3 + (width - 6) * step / max(1, steps - 1)

    def y(value: float) -> float:
        return 3 + (height - 6) * (1 - min(1.0, max(0.0, value)))

    curves = "".join(_curve(name, values, x, y) for name, values in series.items())
    return f'<svg class="spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">{curves}</svg>'


def _curve(name: str, values: Sequence[float], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """The line up to the first value that is not finite, and there a cross."""
    good = next((step for step, value in enumerate(values) if not math.isfinite(value)), len(values))
    points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in enumerate(values[:good]))
    drawn = f'<polyline class="series {name}" points="{points}"/>' if good > 1 else ""
    if good == 1:
        drawn = f'<circle class="dot {name}" cx="{x(0):.1f}" cy="{y(values[0]):.1f}" r="2.5"/>'
    if good < len(values):
        at, height = x(good), y(values[good - 1]) if good else y(0.0)
        drawn += (
            f'<path class="series {name} nan" d="M{at - 4:.1f} {height - 4:.1f}l8 8m0 -8l-8 8"/>'
            f'<text class="end {name}" x="{at + 8:.1f}" y="{height - 6:.1f}">NaN</text>'
        )
    return drawn


def _labels(
    series: Mapping[str, Sequence[float]], x: Callable[[float], float], y: Callable[[float], float]
) -> Iterator[str]:
    """The names at the ends of the curves, moved apart where they would stand on each other."""
    ends: list[tuple[float, list[str]]] = []
    for name, values in series.items():
        if not values or not math.isfinite(values[-1]):
            continue
        height = y(values[-1])
        near = next((names for other, names in ends if abs(other - height) < 2), None)
        if near is not None:
            near.append(name)
        else:
            ends.append((height, [name]))
    last = -math.inf
    longest = max((len(values) for values in series.values()), default=1)
    for height, names in sorted(ends):
        last = max(height, last + _LINE)
        words = '<tspan class="and">, </tspan>'.join(f'<tspan class="end {name}">{name}</tspan>' for name in names)
        yield f'<text class="end" x="{x(longest - 1) + 7:.1f}" y="{last + 4:.1f}">{words}</text>'


def _said(values: Sequence[float], form: Format) -> str:
    return form(values[-1]) if values and math.isfinite(values[-1]) else "no finite number"


def _ticks(greatest: float) -> list[float]:
    """Round numbers from 0 to at least `greatest`, three to six of them."""
    if not greatest > 0:
        return [0.0, 1.0]
    rough = greatest / 4
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(scale * size for size in (1, 2, 2.5, 5, 10) if scale * size >= rough * 0.999)
    return [step * number for number in range(math.ceil(greatest / step - 1e-9) + 1)]


def _whole_ticks(steps: int) -> list[int]:
    size = next(size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, steps) if steps / size <= 6)
    return list(range(0, steps, size))
