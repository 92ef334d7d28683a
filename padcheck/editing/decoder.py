"""Parts of a decoder's forward pass: from any layer, to any layer, with the head only where it is asked for.

The model's own `forward` runs, so embeddings, rotary tables, attention masks and the final transform of the logits are the
model's own. What is not wanted is left out for the length of one call: a layer that is left out hands on the hidden states
it is given (or those it is told to give), and the head sees only the (row, column) pairs whose logits are wanted.

Shapes: B rows, T columns of this call, P columns before them (in the cache), D the residual width, V the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Columns:
    """A rectangle of tokens. ids, positions: [B, T]; mask: [B, P + T], 1 where a token is real."""

    ids: Tensor
    mask: Tensor
    positions: Tensor

    def rows(self, wanted: Tensor) -> Columns:
        """Only these rows."""
        return Columns(self.ids[wanted], self.mask[wanted], self.positions[wanted])


@dataclass(slots=True)
class Tap:
    """Something to see, and perhaps to change, at a module's input or output.

    Attributes:
        module: where.
        at: "input" or "output".
        change: what to put in its place, given the [B, T, d] tensor; None only looks.
        seen: the tensor before the change, after the run.
    """

    module: nn.Module
    at: str
    change: Callable[[Tensor], Tensor] | None = None
    seen: Tensor | None = None

    def take(self) -> Tensor:
        """What was seen. Raises RuntimeError if the module never ran."""
        if self.seen is None:
            raise RuntimeError(f"{type(self.module).__name__} was not run")
        return self.seen


class Cache:
    """Keys and values of the columns before a call: filled once, never grown, so that every call starts from the same."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.frozen = False

    @classmethod
    def empty(cls) -> Cache:
        from transformers import DynamicCache

        # Made without a config on purpose: sliding layers then keep every column, and the mask alone limits what they see.
        return cls(DynamicCache())

    def freeze(self, first: int) -> None:
        """From now on calls read and do not write. Layers below `first` will not run and are let go (but for layer 0,
        which tells the model how many columns came before)."""
        self.frozen = True
        for number, layer in enumerate(self.store.layers):
            if 0 < number < first:
                layer.keys, layer.values = layer.keys[:0].clone(), layer.values[:0].clone()
            layer.update = partial(_joined, layer)

    def rows(self, wanted: Tensor) -> Cache:
        """A cache of these rows, in this order. Layers that were let go stay so."""
        return self._taken(lambda held: held[wanted.to(held.device)] if held.shape[0] else held)

    def columns(self, wanted: Tensor) -> Cache:
        """A cache of the same rows that has in column p of row b what stood in column wanted[b, p]; wanted: [B, P]."""
        return self._taken(lambda held: held.take_along_dim(wanted.to(held.device)[:, None, :, None], 2))

    def _taken(self, pick: Callable[[Tensor], Tensor]) -> Cache:
        taken = Cache.empty()
        for number, layer in enumerate(self.store.layers):
            if layer.keys is not None:  # a layer that was left out
                taken.store.update(pick(layer.keys), pick(layer.values), number)
        return taken

    def count(self, shape: torch.Size, like: Tensor) -> None:
        """Layer 0 tells the model how many columns came before. Where it was left out, it holds as many of nothing."""
        nothing = like.new_zeros(shape[0], 1, shape[1], 1)
        self.store.update(nothing, nothing, 0)


def _joined(layer: Any, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    return torch.cat([layer.keys, keys], dim=-2), torch.cat([layer.values, values], dim=-2)


class Decoder:
    """A causal language model seen as embeddings, layers and a head.

    Attributes:
        model: the model; its forward is what runs.
        layers: its decoder layers, in order.
        head: the module that makes logits of final hidden states.
        dtype: of the residual stream.
    """

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module], head: nn.Module) -> None:
        self.model = model
        self.layers = list(layers)
        self.head = head
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._tuple_lengths: list[int | None] = [None] * len(self.layers)
        self.dtype = next(parameter.dtype for parameter in self.layers[0].parameters() if parameter.is_floating_point())
        embeddings = model.get_input_embeddings()  # type: ignore[operator]
        self.device: torch.device = _entry_device(embeddings)

    @property
    def wide(self) -> torch.dtype:
        """The dtype of sums and of the optimised vector."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def learn_layouts(self, token: int) -> None:
        """Find out whether each layer gives a tensor or a tuple, by running two tokens once."""
        taps = []
        for number, layer in enumerate(self.layers):

            def look(_: nn.Module, __: Any, output: Any, number: int = number) -> None:
                self._tuple_lengths[number] = len(output) if isinstance(output, tuple) else None

            taps.append(layer.register_forward_hook(look))
        try:
            ids = torch.tensor([[token, token]], device=self.device)
            columns = Columns(ids, torch.ones_like(ids), torch.arange(2, device=self.device)[None])
            with torch.no_grad():
                self.run(columns)
        finally:
            for tap in taps:
                tap.remove()

    def run(
        self,
        columns: Columns,
        *,
        cache: Cache | None = None,
        start: int = 0,
        hidden: Tensor | None = None,
        stop: int | None = None,
        wanted: tuple[Tensor, Tensor] | None = None,
        taps: Sequence[Tap] = (),
    ) -> Tensor:
        """Run layers start ≤ n < stop on `columns`.

        cache   what came before; None: nothing
        hidden  the input of layer `start`, [B, T, D]; None: from the embeddings (start 0)
        stop    None: all layers
        wanted  rows and columns [n] whose logits are wanted; None: none
        taps    what to see and change

        Returns logits [n, V] in the model's dtype (n is 0 where none are wanted).
        """
        stop = len(self.layers) if stop is None else stop
        arguments: dict[str, Any] = {
            "input_ids": columns.ids, "attention_mask": columns.mask, "use_cache": cache is not None, "return_dict": True,
        }  # fmt: skip
        if self._takes_positions:
            arguments["position_ids"] = columns.positions
        if cache is not None:
            arguments["past_key_values"] = cache.store
        with ExitStack() as stack:
            for number in (*range(start), *range(stop, len(self.layers))):
                given = hidden if number == start - 1 else None
                stack.enter_context(self._left_out(number, given))
            if start == 0 and hidden is not None:
                stack.callback(self.layers[0].register_forward_pre_hook(partial(_give, hidden), with_kwargs=True).remove)
            pads = columns.mask[:, -columns.ids.shape[1] :] == 0
            if not torch.is_grad_enabled() and bool(pads[:, 0].any()):
                for layer in self.layers[start:stop]:
                    stack.callback(layer.register_forward_pre_hook(partial(_blank, pads), with_kwargs=True).remove)
            for tap in taps:
                stack.callback(_attach(tap, columns.ids.shape).remove)
            stack.callback(self.head.register_forward_pre_hook(partial(_gather, wanted)).remove)
            logits: Tensor = self.model(**arguments).logits
        if cache is not None and start and hidden is not None and not cache.frozen:
            cache.count(columns.ids.shape, hidden)
        return logits[0]

    @contextmanager
    def _left_out(self, number: int, given: Tensor | None) -> Iterator[None]:
        layer, width = self.layers[number], self._tuple_lengths[number]

        def hand_on(*args: Any, **kwargs: Any) -> Any:
            output = given if given is not None else (args[0] if args else kwargs["hidden_states"])
            return output if width is None else (output, *(None,) * (width - 1))

        # The class's forward is hidden by one on the object; what stood there before (accelerate puts one) comes back.
        before = layer.__dict__.get("forward")
        layer.__dict__["forward"] = hand_on
        try:
            yield
        finally:
            if before is None:
                del layer.__dict__["forward"]
            else:
                layer.__dict__["forward"] = before


def _entry_device(embeddings: nn.Module) -> torch.device:
    hook = getattr(embeddings, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if device is not None:
        return torch.device(device)
    weight = embeddings.weight
    assert isinstance(weight, Tensor)
    return weight.device


def _give(
    hidden: Tensor, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (hidden, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": hidden}


def _blank(
    pads: Tensor, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A pad at the row's start sees nothing, and some attentions make NaN of that, which 0 · NaN would spread.

    What stands there instead is no constant, of which a norm whose ε is 0 makes NaN.
    """
    states = args[0] if args else kwargs["hidden_states"]
    blank = torch.linspace(-1, 1, states.shape[-1], dtype=states.dtype, device=states.device)
    return _give(torch.where(pads.to(states.device)[..., None], blank, states), _, args, kwargs)


def _gather(wanted: tuple[Tensor, Tensor] | None, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    states = args[0]  # [B, T, D]
    if wanted is None:
        return (states[:1, :0], *args[1:])
    rows, columns = wanted
    return (states[rows.to(states.device), columns.to(states.device)][None], *args[1:])


def _attach(tap: Tap, shape: torch.Size) -> Any:
    """Hook a tap on. Some layers (OPT) give their linear modules [B·T, d]: a tap always sees [B, T, d]."""

    def through(tensor: Tensor) -> Tensor | None:
        tap.seen = tensor.reshape(*shape, tensor.shape[-1])
        return None if tap.change is None else tap.change(tap.seen).reshape(tensor.shape)

    def on_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = through(args[0] if args else kwargs["hidden_states"])
        if changed is None:
            return None
        return _give(changed, _, args, kwargs)

    def on_output(_: nn.Module, __: Any, output: Any) -> Any:
        several = isinstance(output, tuple)
        changed = through(output[0] if several else output)
        if changed is None:
            return None
        return (changed, *output[1:]) if several else changed

    if tap.at == "input":
        return tap.module.register_forward_pre_hook(on_input, with_kwargs=True)
    return tap.module.register_forward_hook(on_output)
