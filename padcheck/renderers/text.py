"""The report for a person at a terminal: the verdict first, then what is wrong, where, why, and the smallest correct change.

Everything reads without colour; with colour the marks are easier to see. Foreign text goes through `width.escape`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from padcheck.diagnostics import Finding, JobError, Place
from padcheck.renderers import strips, wording
from padcheck.renderers.ansi import painter
from padcheck.renderers.width import clip, clusters, display_width, escape, fold, isolate, pad
from padcheck.reports import Mark, PreflightReport, Remedy, Report, RowView

_SEVERITY_STYLES = {"error": ("bold", "red"), "warning": ("bold", "yellow"), "note": ("bold", "cyan")}
_VERDICT_STYLES = {
    "pass": ("bold", "black", "on-green"),
    "corrected": ("bold", "black", "on-green"),
    "fail": ("bold", "white", "on-red"),
    "incomplete": ("bold", "black", "on-yellow"),
}
_MARK_STYLES = {
    "editor": ("bold", "white", "on-red"),
    "truth": ("bold", "black", "on-green"),
    "both": ("bold", "white", "on-blue"),
}
_CARET_STYLES = {"editor": ("bold", "red"), "truth": ("bold", "green"), "both": ("bold", "blue")}
_LABEL_LIMIT = 20
"""Columns of the terminal that one token may take."""
_INDENT = "  "

Excerpt = Callable[[Place], str | None]
"""Gives the line of source that a place stands in, without its line break; None where there is none."""


def render(report: Report, *, color: bool = False, width: int = 100, excerpt: Excerpt | None = None) -> str:
    """`report` for a terminal of `width` columns. With `excerpt`, findings of `check` show the line they are about."""
    page = _Page(color, max(width, 40))
    blocks = page.preflight(report) if isinstance(report, PreflightReport) else page.plain(report, excerpt)
    return "\n\n".join(blocks) + "\n"


def render_rows(views: Sequence[RowView], *, color: bool = False, width: int = 100) -> str:
    """Padded rows as a report shows them: the tokens, and who points at which."""
    page = _Page(color, max(width, 40))
    return "\n\n".join(["\n".join(page.legend()), *(page.row(view) for view in views)]) + "\n"


def render_row(view: RowView, *, width: int = 100) -> str:
    """One padded row: its columns, its tokens, and under them who points where."""
    return _Page(False, width).row(view)


class _Page:
    """A terminal page: colour or none, and a width. Its methods give blocks of lines, joined by newlines."""

    def __init__(self, color: bool, width: int) -> None:
        self.color = color
        self.paint = painter(color)
        self.width = width

    def plain(self, report: Report, excerpt: Excerpt | None) -> Iterator[str]:
        """The report of a command without a verdict: what could not be done, the findings, the counts."""
        yield from (self.error(error) for error in report.errors)
        visible = sorted(report.visible(), key=lambda finding: finding.sort_key[1:])
        yield from (self.placed(finding, excerpt) for finding in visible)
        yield self.closing(report, visible)

    def preflight(self, report: PreflightReport) -> Iterator[str]:
        """The report on a planned run."""
        yield self.verdict(report)
        yield self.context(report)
        yield from (self.error(error) for error in report.errors)
        visible = sorted(report.visible(), key=lambda finding: finding.sort_key)
        if visible:
            yield self.heading("Findings")
            yield from (self.finding(finding) for finding in visible)
        if report.worst:
            yield "\n".join([self.heading("The rows that are furthest off"), *self.legend()])
            yield from (self.row(view) for view in report.worst)
        if report.remedies or report.written:
            yield self.change(report)
        yield self.closing(report, visible)

    # --- Verdict and context ---

    def verdict(self, report: PreflightReport) -> str:
        word = report.verdict.upper()
        badge = self.paint(f" {word} ", *_VERDICT_STYLES[report.verdict]) if self.color else word
        room = self.width - len(word) - 4
        first, *more = _folded(wording.headline(report), room)
        lines = [f"{badge}  {self.paint(first, 'bold')}"]
        lines += [" " * (len(word) + 2) + self.paint(line, "bold") for line in more]
        for paragraph in wording.explanation(report):
            lines += ["", *self.paragraph(paragraph)]
        return "\n".join(lines)

    def context(self, report: PreflightReport) -> str:
        framework = report.framework_title or report.framework
        editor = ", ".join(
            part
            for part in (
                " ".join(filter(None, (framework, report.method))),
                report.fact_token and f"fact_token {report.fact_token}",
                report.run and f"run {report.run}",
            )
            if part
        )
        side = report.padding_side
        counts = (
            f"{wording.plural(report.requests_checked, 'request')}; {wording.rows_sentence(report)}"
            if report.rows_checked
            else ""
        )
        facts = [
            ("editor", editor, [report.framework_because]),
            ("hparams", report.hparams_path, []),
            ("requests", report.requests_path, [counts]),
            ("tokenizer", report.tokenizer_path, [report.tokenizer_how]),
            (
                "padding side",
                side.value if side else "",
                [f"because {side.because}", *(step for step in side.steps if step != side.because)] if side else [],
            ),
            ("templates", report.templates, []),
        ]
        return "\n".join(line for name, value, more in facts if value for line in self.fact(name, value, more))

    def fact(self, name: str, value: str, more: Sequence[str]) -> list[str]:
        """`name  value`, and what is to be said about the value under it."""
        hang = 16
        lines = [self.paint(line, "bold") for line in _folded(value, self.width - hang)]
        for text in filter(None, more):
            lines += [self.paint(line, "dim") for line in _folded(text, self.width - hang)]
        names = [self.paint(pad(_INDENT + name, hang), "cyan"), *[" " * hang] * (len(lines) - 1)]
        return [left + right for left, right in zip(names, lines, strict=True)]

    # --- Findings and errors ---

    def finding(self, finding: Finding) -> str:
        """A finding of `preflight`: the rule, the message, the evidence, the remedy."""
        lines = [self.title(finding)]
        lines += [_INDENT + line for line in _folded(finding.message, self.width - 2)]
        if finding.place.path is not None:
            lines += self.detail("at", str(finding.place))
        if finding.request is not None:
            several = finding.evidence.get("requests", 1) != 1
            lines += self.detail("for example" if several else "about", str(finding.request))
        seen = "; ".join(f"{name} {value}" for name, value in wording.evidence(finding))
        return "\n".join([*lines, *(self.detail("evidence", seen) if seen else []), *self.tail(finding)])

    def placed(self, finding: Finding, excerpt: Excerpt | None) -> str:
        """A finding of `check`: the place, the rule, the message, the line of source, the remedy."""
        place = self.paint(_safe(str(finding.place)), "bold")
        about = f" {finding.request}" if finding.request else ""
        lines = [f"{place}:{_safe(about)} {self.title(finding)}"]
        lines += [_INDENT + line for line in _folded(finding.message, self.width - 2)]
        source = excerpt(finding.place) if excerpt and finding.place.line is not None else None
        if source is not None:
            lines += self.source(finding.place, source)
        return "\n".join([*lines, *self.tail(finding)])

    def title(self, finding: Finding) -> str:
        unsure = "" if finding.confidence == "high" else self.paint(f" (confidence: {finding.confidence})", "dim")
        severity = self.paint(finding.severity, *_SEVERITY_STYLES[finding.severity])
        return f"{severity} {self.paint(finding.rule, 'bold')} {finding.name}{unsure}"

    def tail(self, finding: Finding) -> list[str]:
        lines = [line for other in finding.related for line in self.detail("see", f"{other.place}: {other.message}")]
        remedy = wording.remedy(finding)
        return lines + (self.detail("help", remedy, "green") if remedy else [])

    def detail(self, name: str, value: str, style: str = "cyan") -> list[str]:
        """`  name: value`, folded under itself."""
        lead = f"{_INDENT}{_safe(name)}: "
        hang = min(display_width(lead), 24)
        first, *more = _folded(value, self.width - hang)
        return [self.paint(lead, style) + first, *[" " * hang + line for line in more]]

    def source(self, place: Place, line: str) -> list[str]:
        """The line of source, and carets under its span."""
        number = str(place.line)
        gutter = self.paint(" " * (len(number) + 3) + "| ", "dim")
        start = (place.column or 1) - 1
        end = (
            len(line)
            if place.column is None or place.end_line not in (None, place.line)
            else (place.end_column or place.column + 1) - 1
        )
        # The part of the line around the span: a JSON file may be one line of a megabyte.
        room = self.width - len(number) - 6
        kept = max(0, start - room // 2) if display_width(escape(line[: start + room])) > room else 0
        before, span = escape(line[kept:start]), escape(line[start : max(end, start + 1)])
        shown = _beginning(("…" if kept else "") + before + span + escape(line[max(end, start + 1) :]), room)
        left = display_width(before) + (1 if kept else 0)
        carets = "^" * max(1, min(display_width(span), room - left))
        return [
            f"{self.paint(f'  {number} | ', 'dim')}{shown}",
            gutter + " " * left + self.paint(carets, "bold", "red"),
        ]

    def error(self, error: JobError) -> str:
        """A part of the job that could not be done."""
        first, *more = _folded(f"{wording.error_place(error)}: {error.message}".removeprefix(": "), self.width - 16)
        lines = [f"{self.paint('could not check', 'bold', 'red')} {first}", *[_INDENT + line for line in more]]
        return "\n".join(lines + (self.detail("help", error.remedy, "green") if error.remedy else []))

    # --- Token strips ---

    def legend(self) -> list[str]:
        paint = self.paint
        editor, truth = paint("red", *_MARK_STYLES["editor"]), paint("green", *_MARK_STYLES["truth"])
        marks = f"{editor} the editor's token, {truth} the true one"
        return self.paragraph(strips.LEGEND, "dim") + ([_INDENT + marks] if self.color else [])

    def row(self, view: RowView) -> str:
        """One padded row: its columns, its tokens, and under them who points where."""
        notes = _safe(", ".join(filter(None, (strips.drift(view), wording.cause(view.cause).label if view.cause else ""))))
        title = isolate(clip(escape(strips.title(view)), self.width - len(notes) - 2))
        lines = [f"{self.paint(title, 'bold')}  {self.paint(notes, 'red' if view.drift != 0 else 'blue')}".rstrip()]
        if view.text:
            lines += [_INDENT + self.paint(isolate(clip(escape(view.text), self.width - 4)), "dim")]
        if view.cells:
            lines += self.strip(view)
        if view.note:
            lines += self.paragraph(wording.sentence(view.note))
        if view.oracle != "offsets":
            lines += self.paragraph(f"(the true column was found by {view.oracle})", "dim")
        return "\n".join(lines)

    def strip(self, view: RowView) -> list[str]:
        strip = strips.Strip(view, _LABEL_LIMIT)
        sizes = [max(display_width(label), len(str(column))) for column, label in enumerate(strip.labels)]
        room = self.width - len(_INDENT)

        def fits(columns: Sequence[int]) -> bool:
            gaps = sum(1 for left, right in zip([-1, *columns], [*columns, len(sizes)], strict=True) if right - left > 1)
            return sum(sizes[column] for column in columns) + len(columns) - 1 + 2 * gaps <= room

        numbers, tokens, used = _INDENT, _INDENT, len(_INDENT)
        starts: dict[int, int] = {}
        previous = -1
        for column in strip.columns(fits):
            if column > previous + 1:
                numbers, tokens, used = numbers + "  ", tokens + self.paint("…", "dim") + " ", used + 2
            starts[column] = used
            cell, label, mark = view.cells[column], strip.labels[column], strip.mark(column)
            style = _MARK_STYLES[mark] if mark else ("dim",) if cell.pad or cell.special else ()
            numbers += pad(str(column), sizes[column] + 1)
            tokens += self.paint(isolate(label), *style) + " " * (sizes[column] - display_width(label) + 1)
            used += sizes[column] + 1
            previous = column
        if previous < len(sizes) - 1:
            tokens += self.paint("…", "dim")
        pointers = [line for mark, column, words in strip.captions() for line in self.pointer(mark, column, words, starts)]
        return [self.paint(numbers.rstrip(), "dim"), tokens.rstrip(), *pointers]

    def pointer(self, mark: Mark, column: int | None, words: str, starts: Mapping[int, int]) -> list[str]:
        """A caret under a token and the words beside it: on its right if they fit, else on its left, else below."""
        style = _CARET_STYLES[mark]
        if column is None:
            return self.paragraph(words, *style)
        at, needed = starts[column], display_width(words)
        if at + 2 + needed <= self.width:
            return [" " * at + self.paint(f"^ {isolate(words)}", *style)]
        if len(_INDENT) + needed + 1 <= at:
            return [" " * (at - needed - 1) + self.paint(f"{isolate(words)} ^", *style)]
        return [" " * at + self.paint("^", *style), *self.paragraph(words, *style)]

    # --- The change, and the end ---

    def change(self, report: PreflightReport) -> str:
        lines = [self.heading("Smallest correct change")]
        for number, remedy in enumerate(report.remedies, 1):
            lines += self.remedy(f"{number}. " if len(report.remedies) > 1 else "", remedy)
        if report.written:
            lines += self.detail("written by --fix", ", ".join(report.written), "green")
        return "\n".join(lines).rstrip()

    def remedy(self, number: str, remedy: Remedy) -> list[str]:
        tried = " (tried: with it no row drifts)" if remedy.verified else ""
        first, *more = _folded(remedy.message + tried, self.width - 2 - len(number))
        lines = [_INDENT + number + first, *[_INDENT + " " * len(number) + line for line in more]]
        if remedy.place:
            lines += [" " * len(number) + line for line in self.detail("where", remedy.place)]
        # A line to paste is neither folded nor isolated: it must be copied as it is.
        code = [self.paint(f"      {escape(line)}", "bold", "green") for line in (remedy.line or "").splitlines()]
        return [*lines, "", *code, ""] if code else lines

    def closing(self, report: Report, visible: Sequence[Finding]) -> str:
        sentence = wording.summary_sentence(report)
        if isinstance(report, PreflightReport) and report.seconds:
            sentence += f" Checked in {report.seconds:.2f} s."
        clean = not visible and not report.errors
        lines = [self.paint(line, "bold", *(["green"] if clean else [])) for line in fold(sentence, self.width)]
        if visible:
            gravest = min(visible, key=lambda finding: finding.sort_key)
            lines += [self.paint(f"{wording.docs(gravest.rule)}  says more about a rule.", "dim")]
        return "\n".join(lines)

    def heading(self, text: str) -> str:
        return self.paint(text, "bold", "underline") if self.color else f"{text}\n{'-' * len(text)}"

    def paragraph(self, text: str, *styles: str) -> list[str]:
        return [_INDENT + self.paint(line, *styles) for line in _folded(text, self.width - 2)]


def _safe(text: str) -> str:
    return isolate(escape(text))


def _folded(text: str, width: int) -> list[str]:
    return [isolate(line) for line in fold(escape(text), width)]


def _beginning(text: str, width: int) -> str:
    """As much of `text` from its start on as fits into `width` columns."""
    if display_width(text) <= width:
        return text
    kept, used = "", 1
    for cluster in clusters(text):
        used += display_width(cluster)
        if used > width:
            break
        kept += cluster
    return kept + "…"
