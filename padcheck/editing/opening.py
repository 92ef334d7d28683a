"""A model folder, opened; and the second moments that a method asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from padcheck.editing.corpus import embedded_corpus
from padcheck.editing.digest import model_digest
from padcheck.editing.errors import CovarianceError
from padcheck.editing.hparams import EditHparams
from padcheck.editing.places import PROVENANCE
from padcheck.editing.second_moments import estimate, load, load_key
from padcheck.editing.stats_files import cached_files, own_file, read_cached
from padcheck.sources.reading import SourceError

ESTIMATE_TOKENS = 50_000

_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "tokenization*.py")


@dataclass(frozen=True, slots=True)
class FoundMoments:
    """Second moments that lay somewhere.

    matrices  module name → E[k kᵀ], [d, d]
    key       what is known of them
    note      what a person has to know of them, or None
    """

    matrices: Mapping[str, Tensor]
    key: Mapping[str, Any]
    note: str | None = None


def open_model(
    folder: Path,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    attention: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[nn.Module, Any]:
    """The causal language model of `folder` and its tokenizer.

    device     None: the GPU where there is one
    dtype      None: the one that it is stored in
    attention  "eager" or "sdpa"; None: what transformers chooses

    Raises SourceError where the folder holds no such model.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise SourceError("this folder holds no config.json.", path=str(folder), remedy="Name the folder of a saved model.")
    if not any(file for pattern in _TOKENIZER_FILES for file in folder.glob(pattern)):
        # Without them transformers makes an empty tokenizer of the model's class, which reads every word as the unknown token.
        raise SourceError(
            "this folder holds no tokenizer.", path=str(folder), remedy="Copy the model's tokenizer files into it."
        )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = {} if attention is None else {"attn_implementation": attention}
    try:
        opened: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype or "auto", trust_remote_code=trust_remote_code, output_loading_info=True, **chosen
        )
        model, loaded = opened
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        model = model.to(device).eval()
    except (OSError, ValueError, KeyError, RuntimeError, AssertionError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise SourceError(f"the model cannot be opened: {reason[0]}", path=str(folder)) from error
    absent = sorted(map(str, [*loaded.get("missing_keys", ()), *loaded.get("mismatched_keys", ())]))
    if absent:
        raise SourceError(
            f"its files lack {len(absent)} weights that config.json asks for ({', '.join(absent[:3])}{', ...' if absent[3:] else ''}): "
            "transformers would make them up",
            path=str(folder),
        )
    return model, tokenizer


def modules_of(hparams: EditHparams) -> tuple[str, ...]:
    """The modules that are rewritten."""
    return tuple(name.format(layer) for layer in hparams.layers for name in hparams.rewrite_module_tmps)


def needs_moments(hparams: EditHparams) -> bool:
    """Whether the method reads second moments."""
    return hparams.mom2_adjustment if hparams.method in ("ROME", "R-ROME") else True


def found_moments(model: nn.Module, hparams: EditHparams, folder: Path, given: Path | None) -> FoundMoments | None:
    """The second moments at `given`: a file of `padcheck stats`, or a folder with the frameworks' own caches.

    Where nothing is given: the file that `padcheck stats` writes for these hparams and the model in `folder`; None where there
    is none, or none is needed.

    Raises CovarianceError where they are another model's, SourceError where there is no such file.
    """
    path = given
    if path is None and needs_moments(hparams):
        path = _own_file(hparams, folder)
        if path is not None and not path.is_file():
            return None
    if path is None:
        return None
    if path.is_dir():
        files = cached_files(path, modules_of(hparams))
        if not files:
            raise CovarianceError(f"{path} holds no second moments of {modules_of(hparams)[0]} (*_mom2_*.npz)")
        named = {module: file.relative_to(path).as_posix() for module, file in files.items()}
        note: str | None = (
            f"second moments are those in {path}: they bear the modules' names alone, and nothing proves that they are this model's"
        )
        return FoundMoments(read_cached(files), {"folder": str(path), "files": named}, note)
    if not path.is_file():
        raise SourceError("there is no such file.", path=str(path))
    now = model_digest(model)
    note = f"second moments are those in {path}" if given is None else None
    model_of_file = load_key(path).model
    if model_of_file != now and model_of_file in lineage(folder, now):
        note = f"second moments are those in {path}, of the model before the edits that {PROVENANCE} tells of"
    else:
        model_of_file = now
    moments = load(path, {"model": model_of_file})
    return FoundMoments(moments.matrices, asdict(moments.key), note)


def lineage(folder: Path, digest: str) -> tuple[str, ...]:
    """Digests of the models that the one in `folder` was edited from, the first one first; empty where no provenance file tells
    it, or tells it of another model than `digest`."""
    try:
        known = json.loads((folder / PROVENANCE).read_text("utf-8"))
        return tuple(map(str, known["lineage"])) if known["fingerprint"] == digest else ()
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _own_file(hparams: EditHparams, folder: Path) -> Path | None:
    """The file that `padcheck stats` writes for these hparams; None where they name no folder for it."""
    if not hparams.stats_dir:
        return None
    return own_file(hparams.stats_dir, folder, hparams.rewrite_module_tmps, hparams.layers)


def where_moments_belong(hparams: EditHparams, folder: Path) -> str:
    """How to come by second moments, in a sentence."""
    own = _own_file(hparams, folder)
    if own is None:
        return "write them with `padcheck stats` and give --covariance PATH"
    there = own.parent
    if there.is_dir() and any(there.rglob("*_mom2*.npz")):
        return (
            f"`padcheck stats` writes them to {own}; --covariance {there} takes the framework's own caches, which bear the "
            "model's name alone"
        )
    return f"`padcheck stats` writes them to {own}, or give --covariance PATH"


def estimated_moments(model: nn.Module, tokenizer: Any, hparams: EditHparams) -> tuple[Mapping[str, Tensor], int]:
    """Second moments on the small corpus that padcheck ships, and the count of its tokens: an estimate, to be called one."""
    moments = estimate(model, tokenizer, embedded_corpus(), modules_of(hparams), max_tokens=ESTIMATE_TOKENS)
    return moments.matrices, moments.key.tokens
