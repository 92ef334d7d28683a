"""The report of `verify` as one page: the verdict in words, the curves, what did it, the tokens that are hit, what is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape as markup

from padcheck.renderers.page import footer, page, text, token_rows
from padcheck.renderers.verification.charts import chart, spark
from padcheck.renderers.verification.words import NAMES, explanation, headline, percent, run, state, whole_percent
from padcheck.renderers.wording import plural
from padcheck.verifying.outcomes import (
    ABLATIONS,
    CORRECTED,
    INDICES,
    LEFT,
    MASK,
    POSITIONS,
    RIGHT,
    Compared,
    Comparison,
    mean,
)

_BANNERS: Mapping[str, tuple[str, str]] = {
    "harm": ("fail", "✕"),
    "no harm": ("pass", "✓"),
    "unexplained": ("incomplete", "!"),
}
_DRAWN = (RIGHT, LEFT, CORRECTED)
_SPOKEN = 3
"""Requests whose prompts are shown going on; the others fold out."""
_PARTS = (
    ("nll", "The new answer (NLL)"),
    ("kl", "What should stay (KL)"),
    ("weight_decay", "Length of δ (weight decay)"),
)
_CHANGED: Mapping[str, str] = {
    LEFT: "nothing: whole rows on the left, positions counted from the row’s start, no position ids",
    INDICES: "lookup, answer slots, KL position and keys moved on by the row’s pads",
    POSITIONS: "position ids that start at the row’s first token",
    MASK: "no attention mask is handed over",
    CORRECTED: "positions moved on by the row’s pads, and position ids",
}


def render(comparison: Comparison, notes: Sequence[str] = ()) -> str:
    """A self-contained page: nothing in it is loaded from anywhere."""
    from padcheck import __version__

    word = state(comparison)
    banner, icon = _BANNERS[word]
    return page(
        "verify",
        state=banner,
        icon=icon,
        word=word,
        headline=headline(comparison),
        sections=[*_sections(comparison, notes)],
        footer=footer(run(comparison), {"name": "padcheck", "version": __version__}),
        style=_STYLE,
    )


def _sections(comparison: Comparison, notes: Sequence[str]) -> Iterator[str]:
    paragraphs = "".join(f"<p>{text(sentence)}</p>" for sentence in explanation(comparison))
    noted = "".join(f'<p class="aside">Note: {text(note)}.</p>' for note in notes)
    yield f'<section class="lead"><div><h2>What was found</h2>{paragraphs}{noted}</div>{_summary(comparison)}</section>'
    yield _curves(comparison)
    yield from _ablation(comparison)
    worst = comparison.by_loss()[:1]
    for one in worst:
        yield from token_rows(one.rows, "The tokens that left padding hits instead")
    yield _requests(comparison)
    yield _generations(comparison)
    yield _details(comparison)


def _summary(comparison: Comparison) -> str:
    """Bars of the probability of the new answer, on average."""
    bars = [("before", "before the edit", mean([one.before.probability for one in comparison.compared]))]
    bars += [(way, NAMES[way], comparison.mean(way)) for way in _DRAWN]
    rows = "".join(
        f'<div class="bar"><dt>{markup(name)}</dt><dd><i class="{way}" style="inline-size:{100 * (value or 0):.1f}%"></i>'
        f"<b>{'not finite' if value is None else percent(value)}</b></dd></div>"
        for way, name, value in bars
    )
    count = plural(len(comparison.compared), "request")
    return f'<figure class="chart"><figcaption>Probability of the new answer, per token<br>mean of {count}</figcaption><dl>{rows}</dl></figure>'


def _curves(comparison: Comparison) -> str:
    def drawn(part: str) -> dict[str, list[float]]:
        return {way: comparison.curve(way, part) for way in _DRAWN}

    legend = "".join(
        f'<span><svg class="key" viewBox="0 0 34 10" width="34" height="10" aria-hidden="true">'
        f'<line class="series {way}" x1="1" x2="33" y1="5" y2="5"/></svg> {markup(NAMES[way])}</span>'
        for way in _DRAWN
    )
    big = [
        chart("Probability of the new answer", drawn("probability"), width=500, height=250, form=whole_percent, top=1.0),
        chart("Loss", drawn("loss"), width=500, height=250, form=_short),
    ]
    small = [chart(name, drawn(part), width=340, height=190, form=_short) for part, name in _PARTS]
    said = (
        "What the editor itself sees while it searches for the new value, step by step, as a mean over the requests; one that has "
        "stopped keeps its last value. Under left padding these numbers are about the wrong tokens."
    )
    return (
        f'<section><h2>While the edit is optimised</h2><p class="aside">{said}</p><p class="legend">{legend}</p>'
        f'<div class="curves">{"".join(big)}</div><h3 class="parts">What the loss is made of</h3>'
        f'<div class="curves three">{"".join(small)}</div></section>'
    )


def _ablation(comparison: Comparison) -> Iterator[str]:
    ways = [way for way in ABLATIONS if way in comparison.ways]
    if not ways:
        return
    rows = "".join(
        f'<tr><th scope="row">{markup(NAMES[way])}<small>{markup(_CHANGED[way])}</small></th>'
        f"<td>{percent(comparison.mean(way))}</td><td>{_failed(comparison, way)}</td>{_recovered(comparison, way)}</tr>"
        for way in (LEFT, *ways, CORRECTED)
    )
    yield (
        '<section><h2>What did it</h2><p class="aside">The same left-padded batch, with one thing put right at a time: what alone '
        "brings the right edit back is the cause.</p>"
        '<div class="scroll"><table class="numbers"><thead><tr><th scope="col">changed</th><th scope="col">probability</th>'
        '<th scope="col">not finite</th><th scope="col">of the harm undone</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _recovered(comparison: Comparison, way: str) -> str:
    part = None if way == LEFT else comparison.recovered(way)
    if part is None:
        return "<td>–</td>"
    length = 100 * min(1.0, max(0.0, part))
    return f'<td class="part"><span class="meter"><i style="inline-size:{length:.1f}%"></i></span>{whole_percent(part)}</td>'


def _failed(comparison: Comparison, way: str) -> str:
    failed = comparison.failed(way)
    return f"{failed} of {len(comparison.compared)}" if failed else "–"


def _requests(comparison: Comparison) -> str:
    rows = "".join(_request(one) for one in comparison.by_loss())
    heads = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("request", "new answer", "before", "right", "left", "corrected", "optimising")
    )
    return (
        '<section><h2>Request by request</h2><p class="aside">Probability of the new answer per token; those first to which left '
        f'padding does most.</p><div class="scroll"><table class="numbers"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody>'
        "</table></div></section>"
    )


def _request(one: Compared) -> str:
    numbers = "".join(f"<td>{percent(one.outcomes[way].probability)}</td>" for way in _DRAWN)
    drawn = spark({way: one.outcomes[way].steps() for way in _DRAWN})
    return (
        f'<tr><th scope="row">{text(one.named)}</th><td class="words">{text(one.request.target_new)}</td>'
        f"<td>{percent(one.before.probability)}</td>{numbers}<td>{drawn}</td></tr>"
    )


def _generations(comparison: Comparison) -> str:
    ordered = comparison.by_loss()
    first, rest = ordered[:_SPOKEN], ordered[_SPOKEN:]
    shown = "".join(map(_spoken, first))
    if rest:
        shown += f"<details><summary>{plural(len(rest), 'more request')}</summary>{''.join(map(_spoken, rest))}</details>"
    return (
        '<section><h2>How the model goes on</h2><p class="aside">Always with the likeliest token, without a pad anywhere.</p>'
        f"{shown}</section>"
    )


def _spoken(one: Compared) -> str:
    said = {"before": one.before.said}
    said |= {way: reading.said for way in _DRAWN if (reading := one.outcomes[way].reading)}
    blocks = []
    for place, prompt in enumerate(one.asked):
        lines = "".join(
            f'<div><dt class="{way}">{way}</dt><dd>{text(texts[place].strip())}</dd></div>'
            for way, texts in said.items()
            if place < len(texts)
        )
        tag = (
            f'<span class="tag">new answer: {text(one.request.target_new)}</span>'
            if not place
            else '<span class="tag">paraphrase</span>'
        )
        blocks.append(f'<h3>{text(prompt)} … {tag}</h3><dl class="said">{lines}</dl>')
    return f'<article class="row">{"".join(blocks)}</article>'


def _details(comparison: Comparison) -> str:
    templates = "<br>".join(text(one) for group in comparison.templates for one in group)
    facts = [
        ("Method", text(comparison.method)),
        ("Attention", f"{text(comparison.attention)}, {text(comparison.dtype)}"),
        ("Context templates", templates),
    ]
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in facts)
    return f'<section><h2>The edits that were made</h2><table class="facts">{rows}</table></section>'


def _short(value: float) -> str:
    return f"{value:.3g}"


_STYLE = """
:root { --right: #0b62a8; --left: #c24a00; --corrected: #1b1f27; --before: #8a93a3; }
@media screen and (prefers-color-scheme: dark) {
  :root { --right: #6db7f2; --left: #ff9a57; --corrected: #f2f4f8; --before: #6c7585; }
}
.chart .bar i { background: var(--before); }
.chart .bar i.right { background: var(--right); } .chart .bar i.left { background: var(--left); }
.chart .bar i.corrected {
  background: repeating-linear-gradient(90deg, var(--corrected) 0 5px, transparent 5px 8px); border: 1px solid var(--corrected);
}
.curves { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
.curves.three { grid-template-columns: 1fr 1fr 1fr; }
section > .aside { margin-block-end: 12px; }
.parts { font-size: 16px; margin-block: 18px 8px; }
.curve { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 12px 14px 8px; break-inside: avoid; }
.curve figcaption { font-weight: 600; font-size: 15px; margin-block-end: 4px; }
.curve svg { inline-size: 100%; block-size: auto; display: block; }
.curve text { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.curve .axis { font-style: italic; }
.grid { stroke: var(--line); stroke-width: 1; }
.series { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
.series.right { stroke: var(--right); stroke-width: 5; stroke-opacity: .45; }
.series.left { stroke: var(--left); }
.series.corrected { stroke: var(--corrected); stroke-width: 1.6; stroke-dasharray: 5 4; }
.series.nan { stroke-dasharray: none; stroke-opacity: 1; stroke-width: 2.5; }
.dot.right { fill: var(--right); } .dot.left { fill: var(--left); } .dot.corrected { fill: var(--corrected); }
.curve text.end, .curve .end { font-weight: 700; font-size: 12.5px; }
.curve .end.right { fill: var(--right); } .curve .end.left { fill: var(--left); } .curve .end.corrected { fill: var(--corrected); }
.curve .and { fill: var(--soft); }
.spark { display: block; }
.spark .series { stroke-width: 1.8; } .spark .series.right { stroke-width: 4; } .spark .series.corrected { stroke-width: 1.2; }
.numbers {
  inline-size: 100%; border-collapse: separate; border-spacing: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; font-variant-numeric: tabular-nums;
}
.numbers th, .numbers td { padding: 8px 14px; border-block-end: 1px solid var(--line); text-align: end; vertical-align: middle; }
.numbers thead th { color: var(--soft); font-weight: 500; font-size: 14px; white-space: nowrap; }
.numbers tr > :first-child, .numbers .words { text-align: start; }
.numbers thead th:nth-child(1) { text-align: start; }
.numbers tbody th { font-weight: 600; }
.numbers tbody tr:last-child > * { border-block-end: 0; }
.numbers small { display: block; color: var(--soft); font-weight: 400; }
.numbers .part { white-space: nowrap; }
.meter {
  display: inline-block; inline-size: 120px; block-size: 10px; border-radius: 5px; background: var(--code); margin-inline-end: 10px;
  overflow: hidden; vertical-align: middle;
}
.meter i { display: block; block-size: 100%; background: var(--green); }
.said { margin-block: 2px 10px; font-size: 15px; }
.said div { display: grid; grid-template-columns: 92px 1fr; gap: 8px; padding-block: 2px; }
.said dt { font-weight: 700; color: var(--soft); }
.said dt.right { color: var(--right); } .said dt.left { color: var(--left); } .said dt.corrected { color: var(--corrected); }
.said dd { margin: 0; overflow-wrap: anywhere; }
.row .tag { color: var(--soft); background: var(--code); }
.row .said:last-child { margin-block-end: 0; }
@media (max-width: 760px) { .curves, .curves.three { grid-template-columns: minmax(0, 1fr); } }
"""
