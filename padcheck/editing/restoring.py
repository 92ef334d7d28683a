"""The model and the tokenizer as they were, whatever happened in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def borrowed(model: nn.Module, tokenizer: Any) -> Iterator[None]:
    """For the length of the block the model is in evaluation mode, without gradients for its weights and without autocast;
    afterwards modes, `requires_grad`, the tokenizer's backend and all random states are what they were."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    padding, truncation = (
        dict(value) if value else None for value in (getattr(backend, "padding", None), getattr(backend, "truncation", None))
    )
    splits = getattr(backend, "encode_special_tokens", None)
    devices = sorted({parameter.device.index or 0 for parameter in model.parameters() if parameter.device.type == "cuda"})
    kinds = {parameter.device.type for parameter in model.parameters()} - {"meta"}
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.random.fork_rng(devices=devices))
            for kind in kinds:
                stack.enter_context(torch.autocast(kind, enabled=False))
            for module, training in modes:
                if training:
                    module.training = False
            for parameter, wanted in flags:
                if wanted:
                    parameter.requires_grad_(False)
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, wanted in flags:
            if parameter.requires_grad != wanted:
                parameter.requires_grad_(wanted)
        if backend is not None:
            if padding is not None:
                backend.enable_padding(**padding)
            if truncation is not None:
                backend.enable_truncation(**truncation)
            if splits is not None:
                backend.encode_special_tokens = splits
