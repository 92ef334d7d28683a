"""Where an edit's time goes, and the floor under it: the layers and the head alone, on exactly the columns that it sent there.

What `padcheck.editing` asks of the model is recorded (rows, columns, layers, logits, whether a gradient followed), and then
done again with random hidden states and nothing around it: no cached prefix to attend to, no mask, no embeddings, no loss.
So an edit cannot reach its floor; how near it comes says what is left to gain without sending fewer columns.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from padcheck.editing import edits, keys, memit, objective, second_moments, session
from padcheck.editing.decoder import Columns, Decoder

Parts = Mapping[str, Sequence[tuple[Any, str]]]
"""Name of a part → where its functions are, and their names."""

Clock = Callable[[], float]
"""Seconds since some moment, everything that was started on a device being done."""

EDIT_PARTS: Parts = {
    "prefixes and lower layers, once": [(objective._Group, "_prepare")],
    "steps, forward": [(objective._Group, "_evaluate")],
    "steps, backward": [(torch.autograd, "grad")],
    "keys and values": [(keys.Walk, "keys"), (keys.Walk, "values")],
    "solving": [(session, "factored"), (memit, "solve_positive"), (session, "second_moment")],
    "looking at the model": [(edits, "Architecture"), (edits, "model_digest")],
}
STATS_PARTS: Parts = {
    "forward": [(second_moments._Keys, "_run")],
    "sums": [(second_moments._Sum, "add"), (second_moments._Sum, "mean")],
    "digest of the model": [(second_moments, "model_digest")],
}


def spent(call: Callable[[], Any], parts: Parts, clock: Clock) -> tuple[float, dict[str, float]]:
    """Seconds of one call, and the share of it that is spent inside the functions of each part; none calls another."""
    inside = dict.fromkeys(parts, 0.0)
    before: list[tuple[Any, str, Any]] = []

    def timing(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                inside[part] += clock() - start

        return timed

    try:
        for part, functions in parts.items():
            for owner, name in functions:
                before.append((owner, name, getattr(owner, name)))
                setattr(owner, name, timing(part, getattr(owner, name)))
        start = clock()
        call()
        whole = clock() - start
    finally:
        for owner, name, function in reversed(before):
            setattr(owner, name, function)
    shares = {part: seconds / whole for part, seconds in inside.items()}
    return whole, shares | {"the rest": 1 - sum(shares.values())}


@dataclass(frozen=True, slots=True)
class Pass:
    """Part of a forward pass. rows × columns went through layers start ≤ n < stop; `wanted` of them through the head.

    gradient  whether autograd watched; backward  whether a backward pass followed
    """

    rows: int
    columns: int
    start: int
    stop: int
    wanted: int
    gradient: bool
    backward: bool = False


@contextmanager
def recorded() -> Iterator[list[Pass]]:
    """Every pass that `padcheck.editing` makes inside the block, in order."""
    passes: list[Pass] = []
    run, grad = Decoder.run, torch.autograd.grad

    def running(self: Decoder, columns: Columns, **kwargs: Any) -> Tensor:
        wanted = kwargs.get("wanted")
        rows, width = columns.ids.shape
        stop = kwargs.get("stop")
        passes.append(
            Pass(
                rows,
                width,
                kwargs.get("start", 0),
                len(self.layers) if stop is None else stop,
                0 if wanted is None else len(wanted[0]),
                torch.is_grad_enabled(),
            )
        )
        return run(self, columns, **kwargs)

    def backward(*args: Any, **kwargs: Any) -> Any:
        passes[-1] = replace(passes[-1], backward=True)
        return grad(*args, **kwargs)

    Decoder.run, torch.autograd.grad = running, backward  # type: ignore[method-assign, assignment]
    try:
        yield passes
    finally:
        Decoder.run, torch.autograd.grad = run, grad  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds by part; `layers` and `head` add up to the whole."""

    layers_forward: float = 0.0
    layers_backward: float = 0.0
    head_forward: float = 0.0
    head_backward: float = 0.0

    @property
    def seconds(self) -> float:
        return self.layers_forward + self.layers_backward + self.head_forward + self.head_backward

    def plus(self, other: Work, times: int) -> Work:
        """This and `times` times the other."""
        return Work(
            self.layers_forward + times * other.layers_forward,
            self.layers_backward + times * other.layers_backward,
            self.head_forward + times * other.head_forward,
            self.head_backward + times * other.head_backward,
        )


class Floor:
    """Measures passes on a model. `layers`: its decoder layers; `norm`: what stands between them and the head."""

    def __init__(self, model: Any, layers: Sequence[nn.Module], norm: nn.Module, clock: Clock, repeats: int = 3) -> None:
        self._model, self._layers, self._norm, self._clock, self._repeats = model, list(layers), norm, clock, repeats
        self._head: nn.Module = model.get_output_embeddings()

    def of(self, passes: Sequence[Pass]) -> Work:
        """The least that these passes can cost here: the sum over all of them, each kind measured `repeats` times."""
        total = Work()
        for one, times in Counter(passes).items():
            measured = [self._measured(one) for _ in range(self._repeats)]
            median = Work(
                *(
                    statistics.median(getattr(work, name) for work in measured)
                    for name in ("layers_forward", "layers_backward", "head_forward", "head_backward")
                )
            )
            total = total.plus(median, times)
        return total

    def _measured(self, one: Pass) -> Work:
        embeddings = self._model.get_input_embeddings().weight
        width, device, dtype = embeddings.shape[1], embeddings.device, embeddings.dtype
        start = torch.randn(one.rows, one.columns, width, device=device, dtype=dtype, requires_grad=one.gradient)
        arguments = self._arguments(one.columns)
        with torch.set_grad_enabled(one.gradient):
            times = [self._clock()]
            states = start
            for layer in self._layers[one.start : one.stop]:
                states = layer(states, **arguments)
                states = states[0] if isinstance(states, tuple) else states
            times.append(self._clock())
            at = torch.arange(one.wanted, device=device) % (one.rows * one.columns)
            picked = states.reshape(-1, width)[at].detach().requires_grad_(one.gradient)
            mark = self._clock()
            logits = self._head(self._norm(picked[None])) if one.wanted else None
            head_forward = self._clock() - mark
            head_backward = layers_backward = 0.0
            if one.backward:
                if logits is not None:
                    seed = torch.randn_like(logits)
                    mark = self._clock()
                    torch.autograd.grad(logits, picked, seed)
                    head_backward = self._clock() - mark
                seed = torch.randn_like(states)
                mark = self._clock()
                if one.start < one.stop:
                    torch.autograd.grad(states, start, seed)
                layers_backward = self._clock() - mark
        return Work(times[1] - times[0], layers_backward, head_forward, head_backward)

    def _arguments(self, columns: int) -> dict[str, Any]:
        """What a layer of this model needs besides the hidden states, for rows of so many columns."""
        kept: dict[str, Any] = {}

        def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kept.update({name: kwargs[name] for name in ("position_embeddings", "position_ids") if name in kwargs})
            raise _Seen

        handle = self._layers[0].register_forward_pre_hook(look, with_kwargs=True)
        device = self._model.get_input_embeddings().weight.device
        try:
            with torch.no_grad():
                self._model(input_ids=torch.zeros(1, columns, dtype=torch.long, device=device), use_cache=False)
        except _Seen:
            pass
        finally:
            handle.remove()
        return kept


def by_hardware(passes: Sequence[Pass], layer: int, head: int, width: int, operations: float, bandwidth: float) -> float:
    """The seconds that these passes take at the least on hardware with these rates, whatever the program.

    layer, head  parameters of one layer and of the head; width: bytes of a parameter
    operations   floating-point operations per second; bandwidth: bytes per second

    Every pass reads the weights that it uses once, and a backward pass once more; a parameter is two operations a column.
    """
    seconds = 0.0
    for one in passes:
        times = 2 if one.backward else 1
        layers = (one.stop - one.start) * layer
        arithmetic = 2 * (layers * one.rows * one.columns + head * one.wanted)
        moved = (layers + (head if one.wanted else 0)) * width
        seconds += times * max(arithmetic / operations, moved / bandwidth)
    return seconds


class _Seen(Exception):
    """The first layer has been reached."""
