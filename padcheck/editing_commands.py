"""What `edit`, `stats` and `verify` do: the commands that run a model. Importing this imports neither torch nor transformers."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from padcheck.diagnostics import RequestRef
from padcheck.editing.places import PROVENANCE, check_writable
from padcheck.sources.hparams import read_hparams
from padcheck.sources.reading import SourceError
from padcheck.sources.requests import Request, RequestProblem, read_requests
from padcheck.sources.templates import read_templates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from padcheck.editing.hparams import EditHparams
    from padcheck.editing.result import EditResult

_NEEDED = ("torch", "transformers", "safetensors")
_VERSIONS = ("padcheck", "torch", "transformers", "tokenizers", "safetensors")
_TOKENIZER_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model", "*.tiktoken", "chat_template*", "*.py",
)  # fmt: skip


class _Refused(Exception):
    """The job cannot be done; the message says why."""


def run_edit(options: Mapping[str, Any]) -> int:
    """`padcheck edit`: work an edit out and save the edited model; returns the exit code."""
    with _telling("edit") as told:
        source, out = Path(options["model"]), _path(options["out"])
        _check_out(source, out, dry_run=options["dry_run"])
        hparams = _hparams(options)
        requests = _requests(options["requests"], None)
        templates = _templates(options)

        from padcheck.editing.digest import model_digest
        from padcheck.editing.edits import edit
        from padcheck.editing.opening import (
            found_moments,
            lineage,
            needs_moments,
            open_model,
            where_moments_belong,
        )

        model, tokenizer = open_model(source, device=options["device"], trust_remote_code=options["trust_remote_code"])
        moments = found_moments(model, hparams, source, _path(options["covariance"]))
        if moments is None and needs_moments(hparams):
            raise _Refused(f"{hparams.method} needs second moments: {where_moments_belong(hparams, source)}.")
        result = edit(
            model, tokenizer, requests, hparams, context_templates=templates,
            covariance=None if moments is None else moments.matrices, seed=options["seed"],
        )  # fmt: skip
        if moments is not None and moments.note is not None:
            click.echo(f"note: {moments.note}")
        for line in _summary(requests, hparams, result):
            click.echo(line)
        if options["dry_run"] or out is None:
            click.echo("Nothing is written: this was a dry run.")
            return told.code
        before = model_digest(model)
        key = None if moments is None else moments.key
        provenance = _provenance(options, source, requests, hparams, result, key)
        result.write(model)
        _save(model, source, out, provenance | {"lineage": [*lineage(source, before), before]})
        click.echo(f"The edited model is in {out}; {PROVENANCE} beside it says how it came about.")
    return told.code


def run_stats(options: Mapping[str, Any]) -> int:
    """`padcheck stats`: second moments of the hparams' modules; returns the exit code."""
    with _telling("stats") as told:
        from padcheck.editing.stats_command import StatsOptions
        from padcheck.editing.stats_command import run_stats as run

        own = ("hparams", "model", "corpus", "more", "out")
        given = {name: value for name, value in options.items() if name not in own}
        corpus = tuple(map(Path, (*options["corpus"], *options["more"])))
        job = StatsOptions(Path(options["hparams"]), Path(options["model"]), corpus, _path(options["out"]), **given)
        told.code = run(job, say=click.echo)
    return told.code


def run_verify(options: Mapping[str, Any]) -> int:
    """`padcheck verify`: the same edits right, left and corrected; returns 0, or 1 where "corrected" is not "right"."""
    with _telling("verify") as told:
        page = _path(options["html"])
        if page is not None:
            if not page.absolute().parent.is_dir():
                raise _Refused(f"{page} cannot be written: name a file in a folder that exists.")
            check_writable(page, overwrite=True)
        hparams = _hparams(options)
        requests = _requests(options["requests"], options["limit"])
        templates = _templates(options)

        from padcheck.editing.opening import estimated_moments, found_moments, needs_moments, open_model
        from padcheck.renderers.progress import counter
        from padcheck.renderers.verification import html, json_, text
        from padcheck.renderers.verification.words import correction
        from padcheck.verifying.comparing import compare

        folder = Path(options["model"])
        model, tokenizer = open_model(
            folder, device=options["device"], attention=options["attention"], trust_remote_code=options["trust_remote_code"]
        )  # fmt: skip
        found = found_moments(model, hparams, folder, _path(options["covariance"]))
        moments, notes = (None, []) if found is None else (found.matrices, [found.note] if found.note else [])
        if moments is None and needs_moments(hparams):
            moments, tokens = estimated_moments(model, tokenizer, hparams)
            notes.append(
                f"there are no second moments: these are an ESTIMATE on {tokens:,} tokens of a small embedded corpus"
            )
        comparison = compare(
            model, tokenizer, requests, hparams, covariance=moments, context_templates=templates, seed=options["seed"],
            on_progress=counter(len(requests)),
        )  # fmt: skip
        if page is not None:
            page.write_text(html.render(comparison, notes), "utf-8")
        if options["output_format"] == "json":
            click.echo(json.dumps(json_.document(comparison, notes), ensure_ascii=False, indent=2, allow_nan=False))
        else:
            click.echo(text.render(comparison, notes), nl=False)
        if not comparison.explained:
            click.echo(f"padcheck verify: {correction(comparison)}", err=True)
            told.code = 1
    return told.code


# ---- reading


def _hparams(options: Mapping[str, Any]) -> EditHparams:
    """The hparams file, with --method as its method where one is given."""
    values = dict(read_hparams(Path(options["hparams"])).values)
    if options["method"]:
        values["alg_name"] = options["method"]
    from padcheck.editing.hparams import load_hparams

    return load_hparams(values)


def _requests(path: str, limit: int | None) -> list[Request]:
    """The first `limit` requests. Raises _Refused for one that is none: an edit without it would be another edit."""
    found: list[Request] = []
    for one in islice(read_requests(path), limit):
        if isinstance(one, RequestProblem):
            raise _Refused(f"{path}, {RequestRef(one.index, one.case_id)}: {one.message} {one.remedy}".rstrip())
        found.append(one)
    return found


def _path(given: str | None) -> Path | None:
    return Path(given) if given else None


def _templates(options: Mapping[str, Any]) -> tuple[str, ...] | None:
    path = options["context_templates"]
    return read_templates(Path(path), path).texts if path else None


# ---- saving


def _check_out(source: Path, out: Path | None, *, dry_run: bool) -> None:
    """Raises _Refused unless `out` is a place where nothing can be lost."""
    if out is None:
        if not dry_run:
            raise _Refused("name the folder to write with --out DIR, or ask for a --dry-run.")
        return
    there, here = out.resolve(), source.resolve()
    if there == here or here in there.parents or there in here.parents:
        raise _Refused(f"{out} is the model's own folder, or inside it, or holds it; the source is never written over.")
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise _Refused(f"{out} exists and is not an empty folder; name another.")
    check_writable(out / PROVENANCE if out.exists() else out, overwrite=False)


def _save(model: Any, source: Path, out: Path, provenance: Mapping[str, Any]) -> None:
    """The whole folder, or nothing. The tokenizer's files are copied as they are: read and saved anew, they might read otherwise."""
    from safetensors import SafetensorError

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as name:
        folder = Path(name) / "model"
        try:
            model.save_pretrained(folder)
        except SafetensorError as error:  # a full disk, most of all
            raise OSError(f"{out} cannot be written: {error}") from error
        for file in {file for pattern in _TOKENIZER_FILES for file in source.glob(pattern) if file.is_file()}:
            if not (folder / file.name).exists():
                shutil.copyfile(file, folder / file.name)
        (folder / PROVENANCE).write_text(json.dumps(provenance, ensure_ascii=False, indent=2) + "\n", "utf-8")
        if out.exists():
            out.rmdir()
        folder.rename(out)


def _provenance(
    options: Mapping[str, Any],
    source: Path,
    requests: Sequence[Request],
    hparams: EditHparams,
    result: EditResult,
    covariance: Mapping[str, Any] | None,
) -> dict[str, Any]:
    from dataclasses import asdict

    path = Path(options["hparams"])
    return {
        "version": 1,
        "source": source.resolve().name,
        "hparams": {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "values": asdict(hparams)},
        "requests": [
            {
                "index": one.index,
                "case_id": one.case_id,
                "prompt": one.prompt,
                "subject": one.subject,
                "target_new": one.target_new,
            }
            for one in requests
        ],
        "padding_side": "irrelevant: no position of this edit depends on padding",
        "context_templates": [list(group) for group in result.templates],
        "seed": options["seed"],
        "covariance": covariance,
        "updates": {
            name: {"norm": float(update.norm()), "lost_to_rounding": result.rounding.get(name, 0.0)}
            for name, update in result.updates.items()
        },
        "probability": [
            {"first": trace[0]["probability"], "last": trace[-1]["probability"], "steps": len(trace)}
            for trace in result.trace
        ],
        "fingerprint": result.state.fingerprint,
        "notes": list(result.notes),
        "versions": {name: _version(name) for name in _VERSIONS},
    }


def _summary(requests: Sequence[Request], hparams: EditHparams, result: EditResult) -> Iterator[str]:
    """What was done, what was found, and what the model's dtype takes of it."""
    layers = f"layer{'s' if len(hparams.layers) > 1 else ''} {', '.join(map(str, hparams.layers))}"
    yield f"{hparams.method}, {layers}, {hparams.fact_token}, {sum(map(len, result.templates))} context templates"
    for request, trace in zip(requests, result.trace, strict=True):
        named = request.index if request.case_id is None else request.case_id
        first, last = trace[0]["probability"], trace[-1]["probability"]
        yield f"request {named}: probability of the target in the objective {first:.1%} → {last:.1%} in {len(trace)} steps"
    for name, update in result.updates.items():
        yield f"{name}: update of norm {float(update.norm()):.3g}; rounding takes {result.rounding.get(name, 0.0):.2g} of it"
    for note in result.notes:
        yield f"note: {note}"


# ---- small things


class _Told:
    """The exit code so far."""

    code = 0


@contextmanager
def _telling(command: str) -> Iterator[_Told]:
    """Where the job cannot be done, one sentence on stderr and exit code 2; a traceback only for what is our own fault."""
    told = _Told()
    try:
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise _Refused(f"this command runs a model and needs {', '.join(missing)}: install padcheck[edit].")
        from padcheck.editing.errors import EditError
    except _Refused as refused:
        click.echo(f"padcheck {command}: {refused}", err=True)
        raise SystemExit(2) from None
    try:
        yield told
    except (_Refused, SourceError, EditError, OSError) as error:
        click.echo(f"padcheck {command}: {error}", err=True)
        raise SystemExit(2) from None


def _version(name: str) -> str | None:
    if name == "padcheck":
        from padcheck import __version__

        return __version__
    try:
        return version(name)
    except PackageNotFoundError:
        return None
