"""`padcheck demo`: the bug on embedded data, in two planned runs of the same edits that differ in nothing but the method's
padding side; and, where torch is installed, what it does to edits of a small model.

Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import click

from padcheck.diagnostics import Place
from padcheck.preflighting import preflight
from padcheck.reports import PreflightReport
from padcheck.resources import install, shipped_dir

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


_NEEDED = ("torch", "transformers", "safetensors")
_MODEL = "llama-facts"
_EDITS = 8
_PROVEN = (
    f"{_EDITS} edits of a small Llama that padcheck brings along, made for real: right, and on left-padded batches as the editors "
    "make them."
)
_WITHOUT = "What this does to a real edit:  {}, and run padcheck demo again: it then edits a small model."


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
    report.findings = [finding.replace(place=_short(finding.place, shipped)) for finding in report.findings]
    return report


def _short(place: Place, shipped: Path) -> Place:
    """Without the path of the installation."""
    inside = place.path is not None and Path(place.path).is_relative_to(shipped)
    return place.replace(path=Path(place.path or "").relative_to(shipped).as_posix()) if inside else place


def demonstrate(*, color: bool, width: int, html: Path | None = None) -> int:
    """Show both planned runs, and the edits where torch is installed; returns 0 (most of it fails on purpose)."""
    from padcheck.renderers.text import render

    for number, (hparams, sentence) in enumerate(_STEPS, 1):
        report = run_step(hparams)
        _title(number, sentence, color)
        click.echo(render(report, color=color, width=width), color=color)
    if html is not None:
        from padcheck.renderers.html import render as render_html

        html.write_text(render_html(report), "utf-8")
        click.echo(f"The second report as a page: {html}\n")
    if all(find_spec(name) is not None for name in _NEEDED):
        _title(len(_STEPS) + 1, _PROVEN, color)
        click.echo(_proof())
        click.echo(
            "Now yours:  padcheck preflight HPARAMS --requests FILE --tokenizer DIR, then padcheck verify HPARAMS --model DIR"
        )
    else:
        click.echo(_WITHOUT.format(install("edit")))
        click.echo("Now yours:  padcheck preflight HPARAMS --requests FILE --tokenizer DIR")
    return 0


def _title(number: int, sentence: str, color: bool) -> None:
    title = f"{number}. {sentence}"
    click.echo(f"\033[1m{title}\033[0m\n" if color else f"{title}\n", color=color)


def _proof() -> str:
    """The report of `padcheck verify` on a few edits of a shipped model."""
    from padcheck.editing.hparams import load_hparams
    from padcheck.editing.opening import open_model
    from padcheck.renderers.progress import counter
    from padcheck.renderers.verification.text import render
    from padcheck.sources.requests import Request, read_requests
    from padcheck.verifying.comparing import compare

    folder = shipped_dir() / "models" / _MODEL
    requests = [one for one in islice(read_requests(folder / "facts.json"), _EDITS) if isinstance(one, Request)]
    hparams = load_hparams(folder / "hparams" / "rome.yaml")
    with _small_and_quiet():
        model, tokenizer = open_model(folder, device="cpu")
        return render(
            compare(model, tokenizer, requests, hparams, ablate=False, on_progress=counter(len(requests), "edits"))
        )


@contextmanager
def _small_and_quiet() -> Iterator[None]:
    """One thread: on a busy machine, several that wait for each other at every step take a small model ten times as long. And
    no progress bar for weights that are there at once."""
    torch, logging = import_module("torch"), import_module("transformers.utils.logging")
    threads, shown = torch.get_num_threads(), logging.is_progress_bar_enabled()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if shown:
            logging.enable_progress_bar()
