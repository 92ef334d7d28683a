"""A report as one page to send to a colleague; `page` says what such a page is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape as markup

from padcheck.diagnostics import Finding, JobError
from padcheck.renderers import wording
from padcheck.renderers.page import footer, page, token_rows
from padcheck.renderers.page import text as _text
from padcheck.renderers.width import escape
from padcheck.reports import PreflightReport, Remedy, Report

_HEADINGS = {"pass": "What was checked", "corrected": "What was wrong, and why it mattered"}
_ICONS = {"pass": "✓", "corrected": "✓", "fail": "✕", "incomplete": "!"}


def render(report: Report) -> str:
    """`report` as a self-contained HTML page."""
    planned = report if isinstance(report, PreflightReport) else None
    state, title = (planned.verdict, wording.headline(planned)) if planned else _state(report)
    sections = [*_planned(planned)] if planned else [*_errors(report.errors), *_findings(report)]
    return page(
        report.command,
        state=state,
        icon=_ICONS[state],
        word=state,
        headline=title,
        sections=sections,
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
    yield from token_rows(report.worst)
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


def _footer(report: Report) -> str:
    took = (
        f" · checked in {report.seconds:.2f} s, without running the model"
        if isinstance(report, PreflightReport) and report.seconds
        else ""
    )
    return footer(wording.summary_sentence(report), report.tool, took)
