"""One page to send to a colleague: no scripts, nothing loaded from anywhere, light and dark, fit for print.

Every text that is not padcheck's own is escaped and stands in a `bdi`, so that Arabic or Hebrew in a token or a prompt
cannot reorder the page around it. The page forbids itself (Content-Security-Policy) to load or run anything at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape as markup

from padcheck.renderers import strips, wording
from padcheck.renderers.width import display_width, escape
from padcheck.reports import RowView

_MINUS = "\N{MINUS SIGN}"
_STRIP_COLUMNS = 108
"""Room of a strip in columns of the terminal."""
_CHIP = 2
"""Columns that a chip's border and spacing take."""

_LABEL_LIMIT = 40
"""Columns of the terminal that one token may take."""


def page(
    command: str, *, state: str, icon: str, word: str, headline: str, sections: Iterable[str], footer: str, style: str = ""
) -> str:
    """The whole page.

    state     of the banner: pass, corrected, fail or incomplete, which choose its colours
    word      what the banner says in capitals, beside `icon`
    headline  one sentence, in text
    sections, footer  in HTML
    style     CSS on top of the page's own
    """
    return _PAGE.format(
        title=markup(f"padcheck {command}: {word}"),
        style=_STYLE + style,
        command=markup(command),
        state=state,
        icon=icon,
        word=markup(word.upper()),
        headline=text(wording.sentence(headline)),
        sections="\n".join(sections),
        footer=footer,
    )


def footer(sentence: str, tool: Mapping[str, str], more: str = "") -> str:
    """The end of a page: a sentence, and the versions of what made it."""
    versions = " · ".join(f"{markup(name)} {markup(version)}" for name, version in _versions(tool))
    return f"<p>{text(sentence)}</p><p>{versions}{more}</p>"


def _versions(tool: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    others = dict(tool)
    yield others.pop("name", "padcheck"), others.pop("version", "")
    yield from others.items()


def text(foreign: str) -> str:
    """Foreign text: made visible, escaped, and kept from reordering what stands beside it."""
    shown = markup(escape(foreign))
    return shown if shown.isascii() else f'<bdi dir="auto">{shown}</bdi>'


# --- Token strips ---


def token_rows(views: Sequence[RowView], heading: str = "The rows that are furthest off") -> Iterator[str]:
    """A section with the strips of these rows; none where there are none."""
    if views:
        legend = "".join(
            f'<span><span class="chip {kind}">{sample}</span> {meaning}</span>'
            for kind, sample, meaning in (
                ("editor", "token", "the editor’s token"),
                ("truth", "token", "the true one"),
                ("both", "token", "both"),
                ("pad", "pad", "padding: it only fills the row up"),
                ("", strips.SPACE, "a space"),
            )
        )
        rows = "".join(map(_row, views))
        yield f'<section><h2>{markup(heading)}</h2><p class="legend">{legend}</p>{rows}</section>'


def _row(view: RowView) -> str:
    notes = [wording.cause(view.cause).label] if view.cause else []
    notes += [f"true column found by {view.oracle}"] if view.oracle != "offsets" else []
    return (
        f'<article class="row"><h3>{text(strips.title(view))}'
        + "".join(f' <span class="tag">{text(note)}</span>' for note in notes)
        + "</h3>"
        + (f'<p class="sentence">{text(view.text)}</p>' if view.text else "")
        + (_strip(view) if view.cells else "")
        + (f"<p>{text(wording.sentence(view.note))}</p>" if view.note else "")
        + "</article>"
    )


def _strip(view: RowView) -> str:
    """The chips in a grid, one grid column per token shown, and under them the marks and the arrow between the two."""
    strip = strips.Strip(view, _LABEL_LIMIT)
    sizes = [max(display_width(label), len(str(column))) + _CHIP for column, label in enumerate(strip.labels)]
    shown = strip.columns(lambda columns: sum(sizes[column] for column in columns) <= _STRIP_COLUMNS)
    tracks: dict[int, int] = {}  # column of the row -> column of the grid, 1-based; an elision takes a grid column too
    items: list[str] = []
    end = 1
    for previous, column in zip([-1, *shown], [*shown, len(sizes)], strict=True):
        skipped = column - previous - 1
        if skipped:
            hint = wording.plural(skipped, "more token")
            items.append(f'<span class="gap" style="grid-column:{end}" title="{hint}">…{skipped}</span>')
            end += 1
        if column < len(sizes):
            tracks[column] = end
            items.append(_chip(strip, column, f' style="grid-column:{end}"'))
            end += 1
    items += _marks(strip, tracks)
    captions = "".join(f'<li class="{mark}">{text(wording.sentence(words))}</li>' for mark, _, words in strip.captions())
    return (
        f'<div class="scroll"><div class="strip" dir="ltr">{"".join(items)}</div></div><ul class="captions">{captions}</ul>'
        + (_whole(strip) if len(shown) < len(sizes) else "")
    )


def _whole(strip: strips.Strip) -> str:
    """The tokens that had no room, to fold out; pads say nothing and may be thousands."""
    columns = [column for column, cell in enumerate(strip.view.cells) if not cell.pad or strip.mark(column)]
    chips = "".join(_chip(strip, column) for column in columns)
    pads = wording.plural(sum(cell.pad for cell in strip.view.cells), "pad")
    summary = f"the whole row: {pads} and {wording.plural(sum(not cell.pad for cell in strip.view.cells), 'token')}"
    return f'<details><summary>{summary}</summary><div class="whole" dir="ltr">{chips}</div></details>'


def _chip(strip: strips.Strip, column: int, style: str = "") -> str:
    cell, part = strip.view.cells[column], strip.part_of(column)
    kinds = ["chip", "pad" if cell.pad else "special" if cell.special else "", strip.mark(column) or ""]
    hint = markup(f"column {column}: {escape(cell.text)}" + (f", bytes of {part}" if part else ""))
    label = "pad" if cell.pad else markup(strip.labels[column])
    return (
        f'<span class="{" ".join(filter(None, kinds))}"{style} title="{hint}"><sub>{column}</sub><bdi>{label}</bdi></span>'
    )


def _marks(strip: strips.Strip, tracks: Mapping[int, int]) -> Iterator[str]:
    """The names under the two columns, and the arrow that leads from the editor's to the true one."""
    editor, truth = strip.editor, strip.truth
    if editor is not None:
        mark, name = ("both", "editor = true") if strip.agrees else ("editor", "editor")
        yield f'<span class="name {mark}" style="grid-column:{tracks[editor]}">{name}</span>'
    if truth is not None and not strip.agrees:
        yield f'<span class="name truth" style="grid-column:{tracks[truth]}">true</span>'
    if editor is None or truth is None or editor == truth:
        return
    first, last = sorted((tracks[editor], tracks[truth]))
    way = "rightwards" if editor < truth else "leftwards"
    # The line runs from the middle of one column to the middle of the other: half a column at each end.
    yield f'<i class="half from {way}" style="grid-column:{tracks[editor]}"></i>'
    yield f'<i class="half to {way}" style="grid-column:{tracks[truth]}"></i>'
    if last - first > 1:
        yield f'<i class="line" style="grid-column:{first + 1}/{last}"></i>'
    yield f'<b class="drift" style="grid-column:{first}/{last + 1}">{strips.drift(strip.view, _MINUS)}</b>'


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header class="banner {state}">
<p>padcheck {command}</p>
<h1><span class="icon" aria-hidden="true">{icon}</span>{word}</h1>
<p class="headline">{headline}</p>
</header>
{sections}
<footer>{footer}</footer>
</main>
</body>
</html>
"""

_STYLE = """
:root {
  --page: #f6f7f9; --card: #fff; --ink: #1b1f27; --soft: #5b6472; --line: #dde1e8; --code: #f0f2f6;
  --red: #b3261e; --red-soft: #fde7e4; --green: #146c3a; --green-soft: #dcf3e3; --blue: #1a56b0; --blue-soft: #dfeafb;
  --amber: #8a5a00; --amber-soft: #fff1d2;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #14161b; --card: #1d2027; --ink: #e8eaf0; --soft: #9aa3b2; --line: #333843; --code: #262a33;
    --red: #ff8a80; --red-soft: #4a1f1c; --green: #7fdca0; --green-soft: #173a26; --blue: #93bdff;
    --blue-soft: #1b3157;
    --amber: #f2c063; --amber-soft: #3d2f10;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", sans-serif;
}
main { max-inline-size: 1040px; margin: 0 auto; padding: 24px 20px 40px; }
h1, h2, h3, p, dl, figure, ul, ol { margin: 0; }
code, pre, .chip, .gap {
  font-family: ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", "Noto Sans Mono CJK SC", monospace;
}
.banner { border-radius: 14px; padding: 22px 28px 26px; border: 1px solid; }
.banner > p:first-child { font-size: 14px; opacity: .8; }
.banner h1 {
  font-size: 40px; line-height: 1.2; letter-spacing: .02em; display: flex; align-items: center; gap: 14px;
}
.banner .icon {
  display: inline-grid; place-items: center; inline-size: 40px; block-size: 40px; border-radius: 50%;
  border: 3px solid; font-size: 22px;
}
.banner .headline { font-size: 21px; line-height: 1.35; margin-block-start: 6px; color: var(--ink); }
.banner.fail { background: var(--red-soft); color: var(--red); border-color: var(--red); }
.banner.pass, .banner.corrected { background: var(--green-soft); color: var(--green); border-color: var(--green); }
.banner.incomplete { background: var(--amber-soft); color: var(--amber); border-color: var(--amber); }
section { margin-block-start: 34px; }
h2 { font-size: 20px; margin-block-end: 12px; }
.lead { display: grid; grid-template-columns: minmax(0, 1fr) 300px; gap: 32px; align-items: start; }
.lead p + p { margin-block-start: 10px; }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px; }
.chart figcaption { font-size: 14px; color: var(--soft); margin-block-end: 10px; }
.chart figcaption strong { font-size: 22px; color: var(--ink); }
.bar { margin-block-start: 8px; font-size: 14px; }
.bar dd { margin: 2px 0 0; display: flex; align-items: center; gap: 8px; }
.bar i {
  block-size: 12px; background: var(--red); border-radius: 3px; flex: none; max-inline-size: calc(100% - 60px);
}
.bar b { font-variant-numeric: tabular-nums; }
.card, .row, .remedies li, .facts { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.card { padding: 14px 18px; margin-block-end: 12px; border-inline-start: 5px solid var(--line); }
.card header {
  display: flex; flex-wrap: wrap; gap: 4px 10px; align-items: baseline; margin-block-end: 6px;
  font-weight: 600;
}
.card .where { margin-inline-start: auto; font-weight: 400; font-size: 14px; color: var(--soft); }
.card.error { border-inline-start-color: var(--red); } .card.error .severity { color: var(--red); }
.card.warning { border-inline-start-color: var(--amber); } .card.warning .severity { color: var(--amber); }
.card.note { border-inline-start-color: var(--blue); } .card.note .severity { color: var(--blue); }
.card p + p { margin-block-start: 6px; }
.evidence { display: flex; flex-wrap: wrap; gap: 4px 22px; margin-block: 8px; font-size: 14px; }
.evidence div { display: flex; gap: 6px; }
.evidence dt { color: var(--soft); }
.evidence dd { margin: 0; font-variant-numeric: tabular-nums; }
.remedy::before { content: "→ "; color: var(--green); font-weight: 700; }
.aside { font-size: 14px; color: var(--soft); }
.remedies { padding: 0; list-style-position: inside; counter-reset: remedy; }
.remedies li {
  list-style: none; padding: 14px 18px 14px 52px; margin-block-end: 12px; position: relative;
  counter-increment: remedy;
}
.remedies li::before {
  content: counter(remedy); position: absolute; inset-inline-start: 16px; inset-block-start: 14px;
  inline-size: 24px; block-size: 24px;
  border-radius: 50%; background: var(--green-soft); color: var(--green); font-weight: 700; font-size: 14px;
  display: grid; place-items: center;
}
.tried { color: var(--green); font-size: 14px; font-weight: 600; white-space: nowrap; }
pre {
  margin: 10px 0 0; padding: 12px 14px; background: var(--code); border-radius: 8px; overflow-x: auto;
  font-size: 14px; line-height: 1.5; user-select: all;
}
.row { padding: 14px 18px; margin-block-end: 14px; break-inside: avoid; }
.row h3 { font-size: 16px; display: flex; flex-wrap: wrap; gap: 4px 10px; align-items: baseline; }
.tag {
  font-size: 13px; font-weight: 500; color: var(--red); background: var(--red-soft); border-radius: 99px;
  padding: 1px 10px;
}
.sentence { color: var(--soft); margin-block: 2px 10px; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; padding-block-end: 4px; }
.strip {
  display: grid; grid-template-rows: auto auto auto auto; grid-auto-columns: max-content;
  justify-content: start; column-gap: 3px;
}
.strip > .chip, .strip > .gap { grid-row: 1; }
.chip {
  display: inline-flex; flex-direction: column; align-items: center; min-inline-size: 22px;
  padding: 1px 5px 3px; border: 1px solid var(--line);
  border-radius: 6px; background: var(--code); font-size: 14px; line-height: 1.35; white-space: pre;
}
.chip sub { font-size: 10px; line-height: 1.3; color: var(--soft); vertical-align: baseline; }
.chip.pad {
  color: var(--soft); border-style: dashed; font-size: 12px;
  background: repeating-linear-gradient(135deg, transparent 0 4px, var(--line) 4px 5px);
}
.chip.special { color: var(--soft); }
.chip.editor, .chip.truth, .chip.both { font-weight: 700; border-width: 2px; padding: 0 4px 2px; }
.chip.editor { color: var(--red); border-color: var(--red); background-color: var(--red-soft); }
.chip.truth { color: var(--green); border-color: var(--green); background: var(--green-soft); }
.chip.both { color: var(--blue); border-color: var(--blue); background: var(--blue-soft); }
.gap { align-self: center; color: var(--soft); font-size: 12px; padding-inline: 5px; }
.name { grid-row: 2; justify-self: center; font-size: 12px; font-weight: 700; margin-block-start: 2px; }
.name.editor, .captions .editor { color: var(--red); }
.name.truth, .captions .truth { color: var(--green); }
.name.both, .captions .both { color: var(--blue); }
.line, .half { grid-row: 3; block-size: 10px; border-block-end: 2px solid var(--soft); margin-inline: -2px; }
.half { position: relative; inline-size: calc(50% + 1px); }
.half.from.rightwards, .half.to.leftwards { justify-self: end; }
.half.from { border-inline-start: 0 solid var(--soft); }
.half.from.rightwards { border-inline-start-width: 2px; }
.half.from.leftwards { border-inline-end: 2px solid var(--soft); }
.half.to.rightwards { border-inline-end: 2px solid var(--soft); }
.half.to.leftwards { border-inline-start: 2px solid var(--soft); }
.half.to::after {
  content: ""; position: absolute; inset-block-start: -3px; border: 4px solid transparent;
  border-block-start-width: 0; border-block-end: 7px solid var(--soft);
}
.half.to.rightwards::after { inset-inline-end: -5px; }
.half.to.leftwards::after { inset-inline-start: -5px; }
.drift { grid-row: 4; justify-self: center; font-size: 13px; color: var(--red); white-space: nowrap; }
.captions { list-style: none; padding: 0; margin-block-start: 6px; font-size: 14px; }
.row > p { margin-block-start: 4px; }
.row > .sentence { margin-block: 2px 10px; }
.legend {
  display: flex; flex-wrap: wrap; gap: 6px 22px; font-size: 14px; color: var(--soft); margin-block-end: 12px;
}
.legend > span { white-space: nowrap; }
details { margin-block-start: 8px; font-size: 14px; } summary { cursor: pointer; color: var(--soft); }
.whole { display: flex; flex-wrap: wrap; gap: 3px; margin-block-start: 8px; }
.facts { inline-size: 100%; border-collapse: separate; border-spacing: 0; overflow: hidden; }
.facts th, .facts td {
  text-align: start; vertical-align: top; padding: 9px 18px; border-block-end: 1px solid var(--line);
}
.facts td { overflow-wrap: anywhere; }
.facts tr:last-child > * { border-block-end: 0; }
.facts th { inline-size: 190px; color: var(--soft); font-weight: 500; }
.facts small { display: block; color: var(--soft); font-size: 14px; }
footer {
  margin-block-start: 34px; padding-block-start: 14px; border-block-start: 1px solid var(--line);
  font-size: 14px; color: var(--soft);
}
@media (max-width: 760px) {
  .lead { grid-template-columns: minmax(0, 1fr); }
  .banner h1 { font-size: 32px; }
  .facts th { inline-size: 120px; }
}
@media print {
  body { background: #fff; font-size: 11pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-inline-size: none; padding: 0; } .scroll { overflow: visible; } .strip { zoom: .82; }
  .card, .row, .remedies li, .chart { break-inside: avoid; } h2 { break-after: avoid; } details { display: none; }
}
"""
