"""One page to send to a colleague: no scripts, nothing loaded from anywhere, light and dark, fit for print.

Every text that is not padcheck's own is escaped and stands in a `bdi`, so that Arabic or Hebrew in a token or a prompt
cannot reorder the page around it. The page forbids itself (Content-Security-Policy) to load or run anything at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape as markup

from padcheck.diagnostics import Finding, JobError
from padcheck.renderers import strips, wording
from padcheck.renderers.width import display_width, escape
from padcheck.reports import PreflightReport, Remedy, Report, RowView

_MINUS = "\N{MINUS SIGN}"
_STRIP_COLUMNS = 108
"""Room of a strip in columns of the terminal."""
_CHIP = 2
"""Columns that a chip's border and spacing take."""

_LABEL_LIMIT = 40
"""Columns of the terminal that one token may take."""

_HEADINGS = {"pass": "What was checked", "corrected": "What was wrong, and why it mattered"}
_ICONS = {"pass": "✓", "corrected": "✓", "fail": "✕", "incomplete": "!"}


def render(report: Report) -> str:
    """`report` as a self-contained HTML page."""
    planned = report if isinstance(report, PreflightReport) else None
    state, title = (planned.verdict, wording.headline(planned)) if planned else _state(report)
    sections = [*_planned(planned)] if planned else [*_errors(report.errors), *_findings(report)]
    return _PAGE.format(
        title=markup(f"padcheck {report.command}: {state}"),
        style=_STYLE,
        command=markup(report.command),
        state=state,
        icon=_ICONS[state],
        word=state.upper(),
        headline=_text(wording.sentence(title)),
        sections="\n".join(sections),
        footer=_footer(report),
    )


def _state(report: Report) -> tuple[str, str]:
    """The banner of a report without a verdict."""
    state = "incomplete" if report.errors else "fail" if report.counts()["error"] else "pass"
    return state, wording.summary_sentence(report)


def _planned(report: PreflightReport) -> Iterator[str]:
    """The sections of a report on a planned run."""
    paragraphs = "".join(f"<p>{_text(paragraph)}</p>" for paragraph in wording.explanation(report))
    chart = _chart(report)
    if paragraphs:
        heading = _HEADINGS.get(report.verdict, "What is wrong, and why it matters")
        yield f'<section class="lead"><div><h2>{heading}</h2>{paragraphs}</div>{chart}</section>'
    yield from _errors(report.errors)
    yield from _change(report)
    yield from _findings(report)
    yield from _worst(report.worst)
    yield from _context(report)


def _context(report: PreflightReport) -> Iterator[str]:
    side = report.padding_side
    framework = " ".join(filter(None, (report.framework_title or report.framework, report.method)))
    facts: list[tuple[str, str, Sequence[str]]] = [
        ("Editor", framework, [report.framework_because]),
        ("Fact token", report.fact_token, []),
        ("Run", report.run, []),
        (
            "Padding side",
            side.value if side else "",
            [f"because {side.because}", *(step for step in side.steps if step != side.because)] if side else [],
        ),
        ("Tokenizer", report.tokenizer_path, [report.tokenizer_how]),
        ("hparams", report.hparams_path, []),
        (
            "Requests",
            report.requests_path,
            [wording.plural(report.requests_checked, "request"), wording.rows_sentence(report)],
        ),
        ("Context templates", report.templates, []),
    ]
    rows = "".join(_fact(name, value, more) for name, value, more in facts if value)
    if rows:
        yield f'<section><h2>The run that was checked</h2><table class="facts">{rows}</table></section>'


def _fact(name: str, value: str, more: Sequence[str]) -> str:
    details = "".join(f"<small>{_text(text)}</small>" for text in more if text)
    return f'<tr><th scope="row">{name}</th><td>{_text(value)}{details}</td></tr>'


def _chart(report: PreflightReport) -> str:
    """Bars of the rows per cause; their lengths are shares of all rows that were checked."""
    counts = wording.by_count(report.by_cause)
    if not counts or not report.rows_checked:
        return ""
    bars = "".join(_bar(wording.cause(name).label, count, max(report.rows_checked, count)) for name, count in counts)
    total = f"{report.rows_drifting:,} of {wording.plural(report.rows_checked, 'row')}"
    caption = f"<figcaption>Rows off their token<br><strong>{total}</strong></figcaption>"
    return f'<figure class="chart">{caption}<dl>{bars}</dl></figure>'


def _bar(label: str, count: int, whole: int) -> str:
    length = max(100 * count / whole, 0.5)  # a single row of thousands is still seen
    bar = f'<i style="inline-size:{length:.1f}%"></i>'
    return f'<div class="bar"><dt>{_text(label)}</dt><dd>{bar}<b>{count:,}</b></dd></div>'


# --- Findings, errors, remedies ---


def _findings(report: Report) -> Iterator[str]:
    findings = sorted(report.visible(), key=lambda finding: finding.sort_key)
    if findings:
        cards = "".join(map(_finding, findings))
        hidden = report.counts()["suppressed"]
        more = f'<p class="aside">{hidden:,} suppressed and not shown.</p>' if hidden else ""
        yield f"<section><h2>Findings</h2>{cards}{more}</section>"


def _finding(finding: Finding) -> str:
    about = [str(finding.place)] if finding.place.path is not None else []
    about += [str(finding.request)] if finding.request else []
    about += [f"confidence: {finding.confidence}"] if finding.confidence != "high" else []
    seen = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in wording.evidence(finding))
    related = "".join(f"<p>{_text(str(other.place))}: {_text(other.message)}</p>" for other in finding.related)
    remedy = wording.remedy(finding)
    return (
        f'<article class="card {finding.severity}"><header><span class="severity">{finding.severity}</span> '
        f"<code>{markup(finding.rule)}</code> {markup(finding.name)}"
        + (f'<span class="where">{" · ".join(map(_text, about))}</span>' if about else "")
        + f"</header><p>{_text(finding.message)}</p>"
        + (f'<p lang="zh">{_text(finding.message_zh)}</p>' if finding.message_zh else "")
        + related
        + (f'<dl class="evidence">{seen}</dl>' if seen else "")
        + (f'<p class="remedy">{_text(remedy)}</p>' if remedy else "")
        + f'<p class="aside"><code>{markup(wording.docs(finding.rule))}</code></p></article>'
    )


def _errors(errors: Sequence[JobError]) -> Iterator[str]:
    if errors:
        cards = "".join(
            '<article class="card error"><header><span class="severity">could not check</span>'
            + (f'<span class="where">{_text(place)}</span>' if (place := wording.error_place(error)) else "")
            + f"</header><p>{_text(error.message)}</p>"
            + (f'<p class="remedy">{_text(error.remedy)}</p>' if error.remedy else "")
            + "</article>"
            for error in errors
        )
        yield f"<section><h2>What could not be checked</h2>{cards}</section>"


def _change(report: PreflightReport) -> Iterator[str]:
    if report.remedies or report.written:
        written = f'<p class="aside">Written by --fix: {", ".join(map(_text, report.written))}</p>' if report.written else ""
        items = "".join(map(_remedy, report.remedies))
        yield f'<section><h2>Smallest correct change</h2><ol class="remedies">{items}</ol>{written}</section>'


def _remedy(remedy: Remedy) -> str:
    tried = ' <span class="tried">✓ tried: with it no row drifts</span>' if remedy.verified else ""
    place = f'<p class="aside">{_text(remedy.place)}</p>' if remedy.place else ""
    line = f"<pre><code>{markup(_visible(remedy.line))}</code></pre>" if remedy.line else ""
    return f"<li><p>{_text(remedy.message)}{tried}</p>{place}{line}</li>"


def _visible(code: str) -> str:
    return "\n".join(escape(line) for line in code.splitlines())


# --- Token strips ---


def _worst(views: Sequence[RowView]) -> Iterator[str]:
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
        yield f'<section><h2>The rows that are furthest off</h2><p class="legend">{legend}</p>{rows}</section>'


def _row(view: RowView) -> str:
    notes = [wording.cause(view.cause).label] if view.cause else []
    notes += [f"true column found by {view.oracle}"] if view.oracle != "offsets" else []
    return (
        f'<article class="row"><h3>{_text(strips.title(view))}'
        + "".join(f' <span class="tag">{_text(note)}</span>' for note in notes)
        + "</h3>"
        + (f'<p class="sentence">{_text(view.text)}</p>' if view.text else "")
        + (_strip(view) if view.cells else "")
        + (f"<p>{_text(wording.sentence(view.note))}</p>" if view.note else "")
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
    captions = "".join(f'<li class="{mark}">{_text(wording.sentence(words))}</li>' for mark, _, words in strip.captions())
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


def _footer(report: Report) -> str:
    versions = " · ".join(f"{markup(name)} {markup(version)}" for name, version in _versions(report))
    took = (
        f" · checked in {report.seconds:.2f} s, without running the model"
        if isinstance(report, PreflightReport) and report.seconds
        else ""
    )
    return f"<p>{_text(wording.summary_sentence(report))}</p><p>{versions}{took}</p>"


def _versions(report: Report) -> Iterator[tuple[str, str]]:
    tool = dict(report.tool)
    yield tool.pop("name", "padcheck"), tool.pop("version", "")
    yield from tool.items()


def _text(text: str) -> str:
    """Foreign text: made visible, escaped, and kept from reordering what stands beside it."""
    shown = markup(escape(text))
    return shown if shown.isascii() else f'<bdi dir="auto">{shown}</bdi>'


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
