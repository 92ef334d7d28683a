"""A model folder, opened; and the second moments that a method asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from padcheck.editing.corpus import embedded_corpus
from padcheck.editing.digest import model_digest
from padcheck.editing.hparams import EditHparams
from padcheck.editing.second_moments import estimate, load
from padcheck.sources.reading import SourceError

ESTIMATE_TOKENS = 50_000


def open_model(
    folder: Path, *, device: str | None = None, attention: str | None = None, trust_remote_code: bool = False
) -> tuple[nn.Module, Any]:
    """The causal language model of `folder`, in the dtype that it is stored in, and its tokenizer.

    device     None: the GPU where there is one
    attention  "eager" or "sdpa"; None: what transformers chooses

    Raises SourceError where the folder holds no such model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise SourceError("this folder holds no config.json.", path=str(folder), remedy="Name the folder of a saved model.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = {} if attention is None else {"attn_implementation": attention}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", trust_remote_code=trust_remote_code, **chosen
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        return model.to(device).eval(), tokenizer
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise SourceError(f"the model cannot be opened: {reason[0]}", path=str(folder)) from error


def modules_of(hparams: EditHparams) -> tuple[str, ...]:
    """The modules that are rewritten."""
    return tuple(name.format(layer) for layer in hparams.layers for name in hparams.rewrite_module_tmps)


def needs_moments(hparams: EditHparams) -> bool:
    """Whether the method reads second moments."""
    return hparams.mom2_adjustment if hparams.method in ("ROME", "R-ROME") else True


def read_moments(path: Path, model: nn.Module) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """The second moments that `padcheck stats` wrote, and their key. Raises CovarianceError where they are another model's."""
    if not path.is_file():
        raise SourceError("there is no such file.", path=str(path))
    moments = load(path, {"model": model_digest(model)})
    return moments.matrices, asdict(moments.key)


def estimated_moments(model: nn.Module, tokenizer: Any, hparams: EditHparams) -> tuple[Mapping[str, Tensor], int]:
    """Second moments on the small corpus that padcheck ships, and the count of its tokens: an estimate, to be called one."""
    moments = estimate(model, tokenizer, embedded_corpus(), modules_of(hparams), max_tokens=ESTIMATE_TOKENS)
    return moments.matrices, moments.key.tokens
