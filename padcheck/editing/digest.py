"""Which model is this: a digest of its content, quick enough to be taken before and after every edit.

The weights are read where they lie, as 64-bit integers, and only one sum per block of them travels: Σ wᵢ·xᵢ modulo 2⁶⁴ with
fixed odd wᵢ. A single changed number always changes its block's sum; several would have to cancel to 64 bits. Integers add up
alike in any order, so that every device, library version and count of threads gives the same digest.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from padcheck.editing.errors import ArchitectureError

_BLOCK = 1 << 16


@torch.no_grad()
def model_digest(model: nn.Module) -> str:
    """32 hex digits of every weight of a model, of its class and its rotary frequencies: an edited model is another model.

    Raises ArchitectureError where a weight has no data (it is offloaded).
    """
    digest = hashlib.sha256(type(model).__name__.encode())
    weights: dict[torch.device, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.device.type == "meta":
            raise ArchitectureError(
                f"{name} is offloaded (it has no data on any device), so it cannot be told which model this is"
            )
        digest.update(f"{name}|{tuple(parameter.shape)}|{parameter.dtype}|".encode())
        values = parameter if parameter.device.type == "cuda" else parameter.cpu()
        known = weights.setdefault(values.device, _weights().to(values.device))
        digest.update(_sums(values.detach(), known))
    # Frequencies are computed, not stored: rounded, so that another device or library may compute them.
    for name, buffer in sorted(model.named_buffers()):
        if name.endswith("inv_freq"):
            digest.update(" ".join(f"{value:.4g}" for value in buffer.double().flatten().tolist()).encode())
    return digest.hexdigest()[:32]


@torch.no_grad()
def tensor_digest(values: Tensor) -> str:
    """32 hex digits of a tensor's content, the same on every device."""
    values = values.detach() if values.device.type == "cuda" else values.detach().cpu()
    return hashlib.sha256(_sums(values, _weights().to(values.device))).hexdigest()[:32]


def _sums(values: Tensor, weights: Tensor) -> bytes:
    """The blocks' sums, and the bytes at the end that fill no integer."""
    octets = values.contiguous().reshape(-1).view(torch.uint8)
    whole = octets[: len(octets) // 8 * 8]
    if whole.storage_offset() % 8:
        whole = whole.clone()
    numbers = whole.view(torch.int64)
    blocks = numbers[: len(numbers) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    rest = numbers[blocks.numel() :]
    # Integers have no matrix product on a GPU; in portions, so that the products fit beside the model.
    parts = (
        [blocks @ weights] if blocks.device.type == "cpu" else [(part * weights).sum(1) for part in torch.split(blocks, 256)]
    )
    sums = torch.cat([*parts, (rest * weights[: len(rest)]).sum()[None]])
    return sums.cpu().numpy().tobytes() + octets[len(whole) :].cpu().numpy().tobytes()


def _weights() -> Tensor:
    """Odd 64-bit integers without a pattern, [_BLOCK] (splitmix64's mixing)."""
    mixed = torch.arange(1, _BLOCK + 1) * _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> shift)) * _signed(factor)
    return mixed | 1


def _signed(number: int) -> int:
    return number - (1 << 64)
