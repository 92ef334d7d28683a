"""The engine of `padcheck stats`: hparams, a model and a corpus in; one file of second moments out."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from padcheck.editing.corpus import open_corpus
from padcheck.editing.errors import EditError, HparamsError
from padcheck.editing.stats_files import own_file
from padcheck.sources.hparams import read_hparams
from padcheck.sources.reading import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from padcheck.editing.second_moments import Progress


@dataclass(frozen=True, slots=True)
class StatsOptions:
    """What `padcheck stats` was asked to do. Limits that are None are not set; see `second_moments.estimate`.

    out            default: below the hparams' `stats_dir`, see `stats_files.own_file`
    max_documents  default: the hparams' `mom2_n_samples`, where no other limit is given
    dtype          of the forward pass, as in "bfloat16"; default: as the model's config says
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
        with _ranks() as rank:
            return _run(options, rank, say)
    except (SourceError, EditError, OSError, ValueError) as error:
        print(f"padcheck stats: {error}", file=sys.stderr)
        return 2


def _templates_and_layers(hparams: Path, values: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    """Names of the modules that these hparams rewrite, with `{}` for the layer. Raises HparamsError where they do not say."""
    templates = values.get("rewrite_module_tmps") or [values.get("rewrite_module_tmp")]
    layers = values.get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, int) for layer in layers) or not layers:
        raise HparamsError(f"{hparams}: 'layers' is no list of layer numbers")
    if not all(isinstance(template, str) and template.count("{}") == 1 for template in templates):
        raise HparamsError(f"{hparams}: 'rewrite_module_tmp' is no module name with one {{}} for the layer")
    return [template.removesuffix(".weight") for template in templates], layers


def _run(options: StatsOptions, rank: int, say: Callable[[str], None]) -> int:
    values = read_hparams(options.hparams).values
    templates, layers = _templates_and_layers(options.hparams, values)
    modules = tuple(dict.fromkeys(template.format(layer) for layer in layers for template in templates))
    documents = open_corpus(options.corpus, field=options.field, split=options.split)
    out = options.out
    if out is None:
        if not isinstance(values.get("stats_dir"), str):
            raise HparamsError(f"{options.hparams} has no 'stats_dir': name the file to write with --out FILE")
        out = own_file(str(values["stats_dir"]), options.model, templates, layers)
    if out.exists() and not options.overwrite:
        raise FileExistsError(f"{out} exists already; name another file, or overwrite it")
    max_documents = options.max_documents
    if max_documents is None and options.max_tokens is None:
        samples = values.get("mom2_n_samples")
        max_documents = samples if isinstance(samples, int) and samples > 0 else None

    from padcheck.editing.second_moments import estimate, forget, save

    model, tokenizer = _load(options)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial") if options.resume else None
    with closing(_Bar()) as bar:
        moments = estimate(
            model,
            tokenizer,
            documents,
            modules,
            max_tokens=options.max_tokens,
            max_documents=max_documents,
            max_length=options.max_length,
            batch_tokens=options.batch_tokens,
            progress=bar if rank == 0 else None,
            resume_path=partial,
        )
    if rank == 0:
        save(moments, out)
        key = moments.key
        say(f"{out}: {len(key.modules)} modules, {key.tokens:,} tokens of {key.documents:,} documents ({key.dtype})")
    if partial is not None:
        forget(partial)
    return 0


def _load(options: StatsOptions) -> tuple[Any, Any]:
    import torch

    from padcheck.editing.opening import open_model

    device = options.device
    if device is None and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    dtype = getattr(torch, options.dtype, None) if options.dtype else None
    if options.dtype and not isinstance(dtype, torch.dtype):
        raise HparamsError(f"'{options.dtype}' is no dtype of torch")
    return open_model(options.model, device=device, dtype=dtype, trust_remote_code=options.trust_remote_code)


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
        left = "" if at.remaining is None else f", at most {_clock(at.remaining)} left"
        line = f"{at.tokens:,} tokens of {at.documents:,} documents, {at.rate:,.0f} tokens/s{left}"
        print(f"\r\x1b[K{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._terminal and self._last > float("-inf"):
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
