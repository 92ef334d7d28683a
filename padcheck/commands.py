"""What the commands do: read, check, render, and say it with an exit code."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import click

from padcheck.diagnostics import JobError, Place, relative_posix
from padcheck.reports import PreflightReport, Report
from padcheck.sources.reading import SourceError


def run_preflight(options: Mapping[str, Any]) -> int:
    """`padcheck preflight`: returns the exit code."""
    from padcheck.configuration import Settings, apply, settings_for
    from padcheck.preflighting import preflight

    try:
        settings: Settings = settings_for(Path(options["hparams"]), options)
        if options["show_settings"]:
            click.echo(settings.as_toml())
            return 0
        if bool(options["tokenizer"]) == bool(options["model"]):
            raise SourceError("name the tokenizer, with one of the two", path="--tokenizer/--model", remedy="Give --tokenizer DIR or --model DIR.")
    except SourceError as error:
        return _refused(error, str(options["output_format"] or "text"), options)
    with _rows_file(options["rows_out"]) as rows_out, _progress() as on_progress:
        report = preflight(
            options["hparams"], options["requests"], tokenizer=options["tokenizer"], model=options["model"], max_rows=options["max_rows"],
            fix=options["fix"], diff=options["diff"], rows_out=rows_out, on_progress=on_progress,
            framework=options["framework"], method=options["method"], padding_side=options["padding_side"],
            passed_in=options["passed_in"], run=options["run"], batch_size=options["batch_size"],
            context_templates=options["context_templates"], trust_remote_code=options["trust_remote_code"],
            transformers=cast(Any, int(options["transformers"]) if options["transformers"] else None),
        )  # fmt: skip
    apply(settings, report)
    relative_to(report, Path.cwd())
    return deliver(report, settings, options)


def deliver(report: Report, settings: Any, options: Mapping[str, Any]) -> int:
    """Write the report where it is wanted and return the exit code."""
    from padcheck.renderers import RENDERERS

    output_format = settings.output_format
    try:
        if options.get("html"):
            from padcheck.renderers.html import render as render_html

            _write(Path(options["html"]), render_html(report))
        if options["output_file"]:
            _write(Path(options["output_file"]), RENDERERS[output_format](report, color=False, width=100))
            output_format = "text"
    except OSError as error:
        report.errors.append(JobError(f"The report cannot be written: {error.strerror}.", Place(str(error.filename)), "Check the path."))
    text = RENDERERS[output_format](report, color=_colour(), width=_width())
    click.echo(text, nl=not text.endswith("\n"))
    if settings.statistics and output_format in {"text", "concise"}:
        click.echo(statistics(report))
    if options["exit_zero"] and not report.errors:
        return 0
    return report.exit_code(settings.fail_on)


def statistics(report: Report) -> str:
    """Findings by rule, the most frequent first."""
    counts: dict[tuple[str, str], int] = {}
    for finding in report.visible():
        counts[finding.rule, finding.name] = counts.get((finding.rule, finding.name), 0) + 1
    lines = [f"{count:6}  {rule}  {name}" for (rule, name), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return "\n".join(lines) or "no findings"


def run_explain(rule_id: str, output_format: str) -> int:
    """`padcheck explain`."""
    from padcheck.rulebook import UnknownRule, find, page

    try:
        rule = find(rule_id)
    except UnknownRule as error:
        click.echo(f"padcheck: {error}", err=True)
        return 2
    if output_format == "json":
        click.echo(json.dumps({**_rule_facts(rule), "page": page(rule)}, ensure_ascii=False, indent=2))
        return 0
    click.echo(page(rule).strip())
    return 0


def run_rules(output_format: str) -> int:
    """`padcheck rules`."""
    from padcheck.rulebook import rules

    known = list(rules().values())
    if output_format == "json":
        click.echo(json.dumps([_rule_facts(rule) for rule in known], ensure_ascii=False, indent=2))
        return 0
    width = max(len(rule.name) for rule in known)
    room = max(40, _width() - width - 18)
    for rule in known:
        head, *rest = textwrap.wrap(rule.summary, room) or [""]
        click.echo(f"{rule.id}  {rule.name:{width}}  {rule.severity:7}  {head}")
        for line in rest:
            click.echo(" " * (width + 19) + line)
    return 0


def _rule_facts(rule: Any) -> dict[str, Any]:
    return {name: getattr(rule, name) for name in ("id", "name", "family", "severity", "summary", "message_zh", "since")}


def run_demo(html: Path | None) -> int:
    """`padcheck demo`: the same planned run under both sides, on the shipped tokenizer and requests."""
    from padcheck.demonstrating import demonstrate

    return demonstrate(color=_colour(), width=_width(), html=html)


# -- small things ------------------------------------------------------------------------------------------------------------------


def relative_to(report: Report, root: Path) -> None:
    """Paths as the JSON contract has them: POSIX, relative."""
    from dataclasses import replace

    def short(place: Place) -> Place:
        if place.path is None or place.path.startswith(("-", "<")):
            return place
        return replace(place, path=relative_posix(place.path, root))

    report.findings = [replace(finding, place=short(finding.place)) for finding in report.findings]
    report.errors = [replace(error, place=short(error.place)) for error in report.errors]
    if isinstance(report, PreflightReport):
        for name in ("hparams_path", "requests_path", "tokenizer_path"):
            path = getattr(report, name)
            if path and not path.startswith(("-", "<")):
                setattr(report, name, relative_posix(path, root))


def _refused(error: SourceError, output_format: str, options: Mapping[str, Any]) -> int:
    """Settings or options that cannot be used: still a report, in the format asked for."""
    from padcheck.preflighting import job_error
    from padcheck.renderers import RENDERERS

    report = PreflightReport("preflight", {"name": "padcheck", "version": _version()}, errors=[job_error(error)])
    click.echo(RENDERERS[output_format](report, color=_colour(), width=_width()))
    return 2


def _version() -> str:
    from padcheck import __version__

    return __version__


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


@contextmanager
def _rows_file(path: str | None) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    if path is None:
        yield None
        return
    try:
        handle = open(path, "w", encoding="utf-8")
    except OSError as error:
        raise click.FileError(path, error.strerror or "cannot be written") from None
    with handle:
        write, dump = handle.write, json.JSONEncoder(ensure_ascii=False).encode
        yield lambda record: write(dump(record) + "\n") and None


@contextmanager
def _progress() -> Iterator[Callable[[int], None] | None]:
    """A counter on stderr, where it is a terminal and the work takes more than a second."""
    if not sys.stderr.isatty():
        yield None
        return
    import time

    started = shown = time.monotonic()
    drawn = False

    def tick(done: int) -> None:
        nonlocal shown, drawn
        now = time.monotonic()
        if now - started > 1 and now - shown > 0.2:
            shown, drawn = now, True
            sys.stderr.write(f"\r{done:,} requests, {done / (now - started):,.0f} a second")
            sys.stderr.flush()

    try:
        yield tick
    finally:
        if drawn:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def _colour() -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _width() -> int:
    return min(140, max(60, shutil.get_terminal_size((100, 24)).columns))
