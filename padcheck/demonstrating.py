"""`padcheck demo`: the bug on embedded data, in two runs of the same edits that differ in nothing but the method's padding side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from padcheck.diagnostics import Place
from padcheck.preflighting import preflight
from padcheck.reports import PreflightReport
from padcheck.resources import shipped_dir

_STEPS = (
    (
        "hparams.yaml",
        "Twelve edits with ROME in EasyEdit, on a Llama-3-like tokenizer. EasyEdit pads this run on the right.",
    ),
    (
        "hparams-pmet.yaml",
        "The same twelve edits with PMET, which finds its tokens in the same way. EasyEdit pads this run on the left.",
    ),
)


def run_step(hparams: str, max_rows: int = 2) -> PreflightReport:
    """One of the two planned runs, on the shipped requests and tokenizer."""
    shipped = shipped_dir()
    report = preflight(
        shipped / "demo" / hparams, shipped / "demo" / "requests.json", tokenizer=shipped / "tokenizers" / "llama3-shape",
        max_rows=max_rows, transformers=5,
    )  # fmt: skip
    report.hparams_path, report.requests_path, report.tokenizer_path = (
        f"demo/{hparams}",
        "demo/requests.json",
        "demo/llama3-shape",
    )
    report.findings = [replace(finding, place=_short(finding.place, shipped)) for finding in report.findings]
    return report


def _short(place: Place, shipped: Path) -> Place:
    """Without the path of the installation."""
    inside = place.path is not None and Path(place.path).is_relative_to(shipped)
    return replace(place, path=Path(place.path or "").relative_to(shipped).as_posix()) if inside else place


def demonstrate(*, color: bool, width: int, html: Path | None = None) -> int:
    """Show both runs; returns 0 (the second one fails on purpose)."""
    from padcheck.renderers.text import render

    for number, (hparams, sentence) in enumerate(_STEPS, 1):
        report = run_step(hparams)
        title = f"{number}. {sentence}"
        click.echo(f"\033[1m{title}\033[0m\n" if color else f"{title}\n", color=color)
        click.echo(render(report, color=color, width=width), color=color)
    if html is not None:
        from padcheck.renderers.html import render as render_html

        html.write_text(render_html(report), "utf-8")
        click.echo(f"The second report as a page: {html}")
    click.echo("Now yours:  padcheck preflight HPARAMS --requests FILE --tokenizer DIR")
    return 0
