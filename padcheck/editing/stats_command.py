"""The engine of `padcheck stats`: hparams, a model and a corpus in; one file of second moments out."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from padcheck.editing.corpus import Walk, open_corpus
from padcheck.editing.errors import EditError, HparamsError
from padcheck.editing.hparams import are_layers, converted, has_layer, whole
from padcheck.editing.places import check_writable
from padcheck.editing.stats_files import own_file
from padcheck.sources.hparams import read_hparams
from padcheck.sources.reading import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from padcheck.editing.second_moments import Moments, Progress

DTYPES = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class StatsOptions:
    """What `padcheck stats` was asked to do. Limits that are None are not set; see `second_moments.estimate`.

    out            default: below the hparams' `stats_dir`, see `stats_files.own_file`
    max_documents  default: the hparams' `mom2_n_samples`, where no other limit is given
    dtype          of the forward pass, one of `DTYPES`; default: the one that the model is stored in
    device         default: the GPU of this rank, else the CPU
    resume         keep and take up `<out>.partial`
    overwrite      write over `out`
    """

    hparams: Path
    model: Path
    corpus: tuple[Path, ...]
    out: Path | None
    field: str = "text"
    split: str = "train"
    max_tokens: int | None = None
    max_documents: int | None = None
    max_length: int | None = None
    batch_tokens: int = 4096
    dtype: str | None = None
    device: str | None = None
    resume: bool = True
    overwrite: bool = False
    trust_remote_code: bool = False


def run_stats(options: StatsOptions, *, say: Callable[[str], None] = print) -> int:
    """Estimate and save; returns the exit code: 0, or 2 where it could not be done (the reason goes to stderr).

    say  where the summary goes. Under torchrun only the first rank speaks and writes.
    """
    try:
        with _ranks() as rank, _ended():
            return _run(options, rank, say)
    except (SourceError, EditError, OSError, ValueError) as error:
        print(f"padcheck stats: {error}", file=sys.stderr)
        return 2


def _templates_and_layers(hparams: Path, values: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    """Names of the modules that these hparams rewrite, with `{}` for the layer. Raises HparamsError where they do not say."""
    method = values.get("alg_name", values.get("alg"))
    several = values.get("rewrite_module_tmps") if method is None or str(method).upper() == "PMET" else None
    templates: list[Any] = several if isinstance(several, list) and several else [values.get("rewrite_module_tmp")]
    if values.get("layers") is None:
        raise HparamsError(f"{hparams} has no 'layers'")
    layers: list[int] = list(converted("layers", values["layers"]))
    if not are_layers(layers):
        raise HparamsError(
            f"{hparams}: 'layers' is {values['layers']!r}: layers are counted from 0, each once, in ascending order"
        )
    for template in templates:
        if not isinstance(template, str) or not has_layer(template):
            raise HparamsError(
                f"{hparams}: 'rewrite_module_tmp' is no module name with one {{}} for the layer: {template!r}"
            )
    return [template.removesuffix(".weight") for template in templates], layers


def _samples(hparams: Path, values: Mapping[str, Any]) -> int | None:
    """`mom2_n_samples`, which may be written as text. Raises HparamsError where it is no count."""
    given = values.get("mom2_n_samples")
    if given is None:
        return None
    try:
        samples = whole(given)
    except (TypeError, ValueError, OverflowError):
        samples = 0
    if samples < 1:
        raise HparamsError(f"{hparams}: 'mom2_n_samples' is {given!r}, which is no count; mend it, or give --max-documents")
    return samples


def _run(options: StatsOptions, rank: int, say: Callable[[str], None]) -> int:
    values = read_hparams(options.hparams).values
    templates, layers = _templates_and_layers(options.hparams, values)
    modules = tuple(dict.fromkeys(template.replace("{}", str(layer)) for layer in layers for template in templates))
    if options.dtype is not None and options.dtype not in DTYPES:
        raise HparamsError(
            f"--dtype is '{options.dtype}', and a forward pass runs in {', '.join(DTYPES[:-1])} or {DTYPES[-1]}"
        )
    max_documents = options.max_documents
    if max_documents is None and options.max_tokens is None:
        max_documents = _samples(options.hparams, values)
    documents = open_corpus(options.corpus, field=options.field, split=options.split)
    out = options.out
    if out is None:
        if not isinstance(values.get("stats_dir"), str):
            raise HparamsError(f"{options.hparams} has no 'stats_dir': name the file to write with --out FILE")
        out = own_file(str(values["stats_dir"]), options.model, templates, layers)
    if rank == 0:
        check_writable(out, overwrite=options.overwrite)
    walk = iter(documents)

    from padcheck.editing.second_moments import estimate, resume_file, save

    model, tokenizer, content = _load(options)
    partial = out.with_name(f"{out.name}.partial") if options.resume else None
    try:
        with closing(_Bar()) as bar:
            moments = estimate(
                model,
                tokenizer,
                walk,
                modules,
                max_tokens=options.max_tokens,
                max_documents=max_documents,
                max_length=options.max_length,
                batch_tokens=options.batch_tokens,
                progress=bar if rank == 0 else None,
                resume_path=partial,
                content=content,
            )
    except KeyboardInterrupt:
        if partial is not None and resume_file(partial).exists() and rank == 0:
            print(
                f"padcheck stats: what is done is kept in {resume_file(partial)}: the same command goes on from there",
                file=sys.stderr,
            )
        raise
    if rank == 0:
        save(moments, out)
        for line in _summary(out, moments, walk):
            say(line)
    if partial is not None:
        resume_file(partial).unlink(missing_ok=True)
    return 0


_MUCH = 0.1
"""Of the text, the share whose loss calls for advice."""


def _summary(out: Path, moments: Moments, walk: Walk) -> Iterator[str]:
    """What was written, and what a person may not expect of how the corpus was read."""
    key, cut = moments.key, moments.cut
    yield f"{out}: {_counted(len(key.modules), 'module')}, {_counted(key.tokens, 'token')} of {_counted(key.documents, 'document')} ({key.dtype})"
    if walk.by_line:
        files = str(walk.by_line[0]) + (f" and {_counted(len(walk.by_line) - 1, 'more file')}" if walk.by_line[1:] else "")
        has = "have" if walk.by_line[1:] else "has"
        yield f"note: {files} {has} no blank lines, so each line is a document (blank lines would separate paragraphs)"
    if cut is not None and cut.documents:
        share = cut.unread / cut.characters
        line = (
            f"note: {_counted(cut.documents, 'document')} {'was' if cut.documents == 1 else 'were'} longer than "
            f"{key.max_length:,} tokens and cut: {_percent(share)} of the documents' text was not read"
        )
        advice = "; shorter documents or a greater --max-length lose less (in a text file, blank lines separate documents)"
        yield line + (advice if share >= _MUCH else "")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return "less than 1 %" if share < 0.01 else "more than 99 %" if share > 0.99 else f"about {share:.0%}".replace("%", " %")


def _load(options: StatsOptions) -> tuple[Any, Any, str | None]:
    """The model in the dtype that was asked for, its tokenizer, and the digest of the weights as they are stored.

    The last is None where they are what was opened. Another dtype is opened anew, not cast: that would round the rotary
    frequencies too.
    """
    import torch

    from padcheck.editing.digest import model_digest
    from padcheck.editing.opening import open_model

    own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    device, content = options.device or own, None
    dtype = getattr(torch, options.dtype) if options.dtype else None
    trust = options.trust_remote_code
    if dtype is not None:
        # On the CPU: it may not fit the GPU in the dtype that it is stored in.
        stored, tokenizer = open_model(options.model, device="cpu", trust_remote_code=trust)
        if device == "cpu" and all(parameter.dtype == dtype for parameter in stored.parameters()):
            return stored, tokenizer, None
        content = model_digest(stored)
        del stored
    model, tokenizer = open_model(options.model, device=device, dtype=dtype, trust_remote_code=trust)
    return model, tokenizer, content


@contextmanager
def _ranks() -> Iterator[int]:
    """This process' rank; under torchrun the group of processes exists inside, nccl where there are GPUs, else gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield 0
        return
    import torch
    from torch import distributed

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "nccl"
    distributed.init_process_group(backend)
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


@contextmanager
def _ended() -> Iterator[None]:
    """SIGTERM, by which torchrun and schedulers end a job, is Ctrl-C: what is done is kept."""
    if threading.current_thread() is not threading.main_thread():  # only there can a handler be set
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Bar:
    """One line on stderr: rewritten on a terminal and gone at the end, a new one now and then in a log."""

    _QUIET = 10.0
    """Seconds between two lines of a log."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = float("-inf")

    def __call__(self, at: Progress) -> None:
        now = time.monotonic()
        if now - self._last < (0.1 if self._terminal else self._QUIET):
            return
        self._last = now
        left = "" if at.remaining is None else f", {'at most' if at.at_most else 'about'} {_clock(at.remaining)} left"
        line = f"{at.tokens:,} tokens of {at.documents:,} documents, {at.rate:,.0f} tokens/s{left}"
        print(f"\r\x1b[K{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._terminal and self._last > float("-inf"):
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
