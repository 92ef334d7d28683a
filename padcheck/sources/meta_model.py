"""The names of a model's modules, from the model itself: built of its config.json on PyTorch's meta device, without weights or memory.

Needs `padcheck[edit]`; where torch or transformers is missing, or transformers does not know the model, there is no answer. Code
that lies in the model's folder is never run.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from padcheck.records import Record

_LOADERS = ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText")
"""How editors load models, in this order."""


class ModuleNames(Record):
    """Names as `named_modules()` and `named_parameters()` give them: a tied head is a module, and its weight no parameter of its own."""

    modules: frozenset[str]
    parameters: frozenset[str]
    embed: str | None
    """The input embedding."""
    head: str | None
    """The output embedding."""
    version: str
    """The transformers that built it: names move between versions."""


def module_names(folder: Path) -> ModuleNames | None:
    """The names in the model that `folder`'s config.json describes, whatever its size; None where they cannot be known here."""
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")):
        return None
    import torch
    import transformers

    with _quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            if getattr(config, "auto_map", None) and not type(config).__module__.startswith("transformers."):
                return None
        except Exception:  # whatever transformers makes of a folder that it does not know
            return None
        for loader in _LOADERS:
            try:
                with torch.device("meta"):
                    model = getattr(transformers, loader).from_config(
                        config, trust_remote_code=False, attn_implementation="eager"
                    )
            except Exception:  # not this kind of model; every way of saying so is one
                continue
            return _names(model, transformers.__version__)
    return None


def _names(model: Any, version: str) -> ModuleNames:
    modules = dict(model.named_modules())
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    return ModuleNames(
        frozenset(modules),
        frozenset(name for name, _ in model.named_parameters()),
        next((name for name, module in modules.items() if module is embed), None),
        next((name for name, module in modules.items() if module is head), None),
        version,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on stderr from transformers meanwhile: the report says what there is to say."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
