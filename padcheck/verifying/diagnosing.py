"""Why a padded edit met a number that is not finite: looked up in the model itself, and said in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from padcheck.editing.decoder import Decoder
from padcheck.verifying.outcomes import PARTS, Step

_WRITES = "the editor does not look, and writes NaN into the weights"


@dataclass(frozen=True, slots=True)
class Start:
    """What a search began with.

    Attributes:
        ids, mask: the padded batch, [B, T].
        lookup: the column in row 0 where the values before were read.
        modules: at whose outputs they were read.
        norms: their lengths.
    """

    ids: Tensor
    mask: Tensor
    lookup: int
    modules: tuple[nn.Module, ...]
    norms: tuple[float, ...]


def cause(decoder: Decoder, forward: Callable[[], Any], start: Start, trace: Sequence[Step]) -> str:
    """One sentence that names the cause of a loss that is not finite.

    forward  runs the model on the padded batch
    trace    the search up to the step whose loss is not finite
    """
    embeddings: Any = decoder.model.get_input_embeddings()  # type: ignore[operator]
    pads = (start.mask == 0).any(dim=1)
    zero_pad = False
    if bool(pads.any()):
        pad = int(start.ids[int(pads.nonzero()[0])][0])  # rows are padded on the left
        zero_pad = not bool(embeddings.weight[pad].any())
    because = "the pad token's embedding is zero, " if zero_pad else ""
    broken = _first_broken(decoder, forward)
    if broken is not None:
        return f"{because}{broken.sentence(start.mask)}; {_WRITES}"
    on_pad = not bool(start.mask[0, start.lookup])
    for module, norm in zip(start.modules, start.norms, strict=True):
        if norm:
            continue
        name = _name(decoder.model, module)
        where = f"column {start.lookup} of row 0, {'a pad' if on_pad else 'a token'}"
        if not because and on_pad:
            because = "a masked pad attends to nothing, "
        so = "so " if because else ""
        return (
            f"{because}{so}the output of {name} at the editor's lookup ({where}) is exactly zero, and the weight decay, divided "
            f"by its square, is 0/0; {_WRITES}"
        )
    last, step = trace[-1], len(trace) - 1
    parts = [part.replace("_", " ") for part in PARTS[1:-1] if not math.isfinite(last[part])]
    return f"{because}the {' and the '.join(parts) or 'loss'} is not finite at step {step} ({last['loss']}); {_WRITES}"


# ---- Where a forward pass breaks


@dataclass(frozen=True, slots=True)
class _Broken:
    """The first module that makes numbers that are not finite of finite ones.

    Attributes:
        places: [B, T], where they are.
        zero: whether what it was given there is all zeros.
        inside: whether it made them between two of the modules inside it, as an attention does.
    """

    name: str
    module: nn.Module
    places: Tensor
    zero: bool
    inside: bool

    def sentence(self, mask: Tensor) -> str:
        on_pads = not bool(mask.to(self.places.device)[self.places].any())
        where = "at every pad" if on_pads else f"in column {int(self.places.nonzero()[0, 1])}"
        kind = type(self.module).__name__
        if self.zero and _epsilon(self.module) == 0:
            return (
                f"and {self.name} ({kind}, with an epsilon of 0) divides a zero vector by its length: NaN {where}, which "
                "attention spreads to the tokens"
            )
        if self.inside and on_pads:
            return (
                f"a masked pad attends to nothing, and {self.name} ({kind}) makes NaN of a softmax over nothing, which spreads "
                "to the tokens"
            )
        return f"{self.name} ({kind}) makes numbers that are not finite {where}"


def _epsilon(module: nn.Module) -> float | None:
    """What a norm adds before it divides."""
    found = (getattr(module, name, None) for name in ("eps", "variance_epsilon", "epsilon"))
    return next((float(value) for value in found if isinstance(value, int | float)), None)


def _first_broken(decoder: Decoder, forward: Callable[[], Any]) -> _Broken | None:
    """None where every module gives finite numbers."""
    found: list[_Broken] = []

    def look(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        if found or not isinstance(states, Tensor) or states.ndim != 3 or not states.is_floating_point():
            return
        places = ~torch.isfinite(states).all(dim=-1)
        if not bool(places.any()):
            return
        given = next((one for one in (*args, *kwargs.values()) if isinstance(one, Tensor) and one.ndim == 3), None)
        came = given is not None and not bool(torch.isfinite(given).all())
        if came and "." in name:  # it was given them, and by nobody but the module that it stands in
            name = name.rpartition(".")[0]
            module = decoder.model.get_submodule(name)
        zero = given is not None and given.shape[:2] == places.shape and not bool(given[places].any())
        found.append(_Broken(name, module, places, zero, came or any(True for _ in module.children())))

    with torch.no_grad(), _watched(decoder.model, look):
        forward()
    return found[0] if found else None


@contextmanager
def _watched(model: nn.Module, look: Callable[..., None]) -> Iterator[None]:
    """`look(name, module, args, kwargs, output)` after every module, the inner ones first."""
    with ExitStack() as stack:
        for name, module in model.named_modules():

            def after(
                module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, name: str = name
            ) -> None:
                look(name or type(module).__name__, module, args, kwargs, output)

            stack.callback(module.register_forward_hook(after, with_kwargs=True).remove)
        yield


def _name(model: nn.Module, module: nn.Module) -> str:
    return next((name for name, one in model.named_modules() if one is module), type(module).__name__)
