"""What the commands do: read, check, render, and say it with an exit code."""

from __future__ import annotations

import json
import os
import sys
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
            raise SourceError(
                "name the tokenizer, with one of the two",
                path="--tokenizer/--model",
                remedy="Give --tokenizer DIR or --model DIR.",
            )
    except SourceError as error:
        return _refused(error, str(options["output_format"] or "text"), options)
    with _rows_file(options["rows_out"]) as (rows_out, unwritable), _progress() as on_progress:
        report = preflight(
            options["hparams"], options["requests"], tokenizer=options["tokenizer"], model=options["model"], max_rows=options["max_rows"],
            fix=options["fix"], diff=options["diff"], rows_out=rows_out, on_progress=on_progress,
            framework=options["framework"], method=options["method"], padding_side=options["padding_side"],
            passed_in=options["passed_in"], run=options["run"], batch_size=options["batch_size"],
            context_templates=options["context_templates"], trust_remote_code=options["trust_remote_code"],
            transformers=cast(Any, int(options["transformers"]) if options["transformers"] else None),
        )  # fmt: skip
    if unwritable is not None:
        report.errors.append(unwritable)
    apply(settings, report)
    relative_to(report, Path.cwd())
    return deliver(report, settings, options)


def run_check(options: Mapping[str, Any]) -> int:
    """`padcheck check`: returns the exit code."""
    from padcheck.checking import CheckReport, Options, check, job_error
    from padcheck.configuration import Settings, settings_for

    paths = list(options["paths"]) or ["."]
    try:
        settings: Settings = settings_for(Path(paths[0] if paths[0] != "-" else options["stdin_filename"] or "."), options)
    except SourceError as error:
        from padcheck.renderers import RENDERERS

        refused = CheckReport("check", {"name": "padcheck", "version": _version()}, errors=[job_error(error)])
        click.echo(
            RENDERERS[str(options["output_format"] or "text")](refused, color=_colour(), width=_width()),
            nl=False,
            color=_colour(),
        )
        return 2
    if options["show_settings"]:
        click.echo(settings.as_toml())
        return 0
    report: CheckReport = check(
        paths,
        Options(
            Path(options["model"]) if options["model"] else None, options["framework"], options["method"], options["fix"], options["unsafe_fixes"],
            options["diff"], options["jobs"], not options["no_cache"], options["stdin_filename"], options,
        ),
        only_show=options["show_files"],
    )  # fmt: skip
    relative_to(report, Path.cwd())
    if options["show_files"]:
        width = max((len(path) for path, _, _ in report.shown), default=0)
        click.echo(
            "\n".join(f"{path:{width}}  {kind:9}  {reason}" for path, kind, reason in report.shown), nl=bool(report.shown)
        )
        return report.exit_code("never")
    if options["add_ignores"]:
        return _add_ignores(report, settings)
    if options["diff"]:
        click.echo("".join(report.diffs), nl=False)
        fixes = "1 fix" if report.fixed == 1 else f"{report.fixed:,} fixes"
        click.echo(f"{fixes} would be written." if report.diffs else "There is nothing to fix.", err=True)
        return 2 if report.errors else int(bool(report.diffs))
    if report.fixed_stdin is not None:
        click.echo(report.fixed_stdin, nl=False)
        return report.exit_code(settings.fail_on)
    code = deliver(report, settings, options, excerpt=excerpts())
    if report.fixed:
        click.echo(f"{report.fixed} fixed.", err=True)
    return 1 if code == 0 and report.fixed and options["exit_non_zero_on_fix"] else code


def _add_ignores(report: Report, settings: Any) -> int:
    """Write an ignore for every finding that is shown, as the baseline: only what is new is reported from then on."""
    from padcheck.baseline import entries_for, with_entries

    path = Path(settings.source) if settings.source else Path("padcheck.toml")
    entries = entries_for(report.visible(), path.resolve().parent)
    if entries:
        try:
            old = path.read_text("utf-8") if path.exists() else ""
            new = with_entries(old, entries, pyproject=path.name == "pyproject.toml")
            if new is None:
                click.echo(
                    f"padcheck: no ignores can be added to {path.as_posix()}, because of the way its ignore is written: "
                    "make it a list, ignore = [...], in padcheck's table.",
                    err=True,
                )
                return 2
            _write(path, new)
        except OSError as error:
            click.echo(f"padcheck: {path.as_posix()} cannot be written: {error.strerror}.", err=True)
            return 2
    click.echo(f"{len(entries)} ignores written to {path.as_posix()}.", err=True)
    return 2 if report.errors else 0


def excerpts() -> Callable[[Place], str | None]:
    """Gives the line of source at a place; each file is read once."""
    lines: dict[str, list[str]] = {}

    def line(place: Place) -> str | None:
        if place.path is None or place.line is None or place.cell is not None:
            return None
        if place.path not in lines:
            try:
                lines[place.path] = Path(place.path).read_text("utf-8-sig", "replace").splitlines()
            except OSError:
                lines[place.path] = []
        known = lines[place.path]
        return known[place.line - 1] if place.line <= len(known) else None

    return line


def deliver(
    report: Report, settings: Any, options: Mapping[str, Any], excerpt: Callable[[Place], str | None] | None = None
) -> int:
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
        report.errors.append(
            JobError(f"The report cannot be written: {error.strerror}.", Place(str(error.filename)), "Check the path.")
        )
    text = RENDERERS[output_format](report, color=_colour(), width=_width(), excerpt=excerpt)
    click.echo(text, nl=not text.endswith("\n"), color=_colour())  # FORCE_COLOR counts where click would strip
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
    lines = [
        f"{count:6}  {rule}  {name}" for (rule, name), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
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
    import textwrap

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

    def short(place: Place) -> Place:
        if place.path is None or place.path.startswith(("-", "<")):
            return place
        return place.replace(path=relative_posix(place.path, root))

    report.findings = [finding.replace(place=short(finding.place)) for finding in report.findings]
    report.errors = [error.replace(place=short(error.place)) for error in report.errors]
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
    color = _colour()
    text = RENDERERS[output_format](report, color=color, width=_width())
    click.echo(text, nl=not text.endswith("\n"), color=color)
    return 2


def _version() -> str:
    from padcheck import __version__

    return __version__


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


@contextmanager
def _rows_file(path: str | None) -> Iterator[tuple[Callable[[dict[str, Any]], None] | None, JobError | None]]:
    """What takes a row's record, or why none is taken: the plan is checked all the same."""
    if path is None:
        yield None, None
        return
    try:
        handle = open(path, "w", encoding="utf-8")  # noqa: SIM115 (closed below; opening alone may fail)
    except OSError as error:
        yield None, JobError(f"The rows cannot be written: {error.strerror}.", Place(path), "Check the path of --rows-out.")
        return
    with handle:
        write, dump = handle.write, json.JSONEncoder(ensure_ascii=False).encode

        def take(record: dict[str, Any]) -> None:
            write(dump(record) + "\n")

        yield take, None


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
    """Columns to write in: $COLUMNS, else the terminal's. What shutil says too, which brings four compression libraries along."""
    try:
        columns = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(sys.__stdout__.fileno()).columns  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):  # no number, no terminal
        columns = 0
    return min(140, max(60, columns or 100))
