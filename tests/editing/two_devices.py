"""Edits of a model that lies on two devices, on a machine that has one: run as a script, since a backend is registered for good.

The second device, "virtual", keeps its numbers on the CPU, but a tensor on it says that it is elsewhere, and an operation that
meets tensors of both raises, as it does with a GPU. The model is split as accelerate splits it: its hooks move what a layer is
given. What comes out must be what the undivided model gives.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from toys import REQUESTS, covariance_of, hparams_of, model_of, run, same, snapshot, tokenizer_of  # noqa: E402

from padcheck.editing.second_moments import estimate  # noqa: E402

VIRTUAL = "virtual:0"
PARTS = {
    "model.embed_tokens": 0, "model.rotary_emb": 0, "model.layers.0": 0, "model.layers.1": 0,
    "model.layers.2": 1, "model.layers.3": 1, "model.norm": 1, "lm_head": 1,
}  # fmt: skip
aten = torch.ops.aten
_INDEXING = (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)
"""A GPU takes indices from the CPU too."""


class Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class Placed(torch.Tensor):
    """A tensor that says it is on the virtual device. `held`: its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Placed:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=VIRTUAL
        )
        made.held = held
        return made

    def __init__(self, held: torch.Tensor) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(operation, args, kwargs or {})


class Dispatch(TorchDispatchMode):
    """What makes tensors anew sees the virtual device as well."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(operation, args, kwargs or {})


class Functions(TorchFunctionMode):
    """Two functions that torch does without its dispatcher."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.tensor and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return torch.tensor(*args, **kwargs).to(device)
        if function is torch.Tensor.tolist and isinstance(args[0], Placed):
            return args[0].held.tolist()
        return function(*args, **kwargs)


def bare(value: Any) -> Any:
    return value.held if isinstance(value, Placed) else value


def dispatched(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the CPU, its results where they would be."""
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [leaf for leaf in leaves if isinstance(leaf, Placed)]
    bare_args, bare_kwargs = tree_map(bare, (args, kwargs))
    if operation is aten.copy_.default:  # may cross
        operation(*bare_args, **bare_kwargs)
        return args[0]
    wanted = bare_kwargs.pop("device", None)
    if wanted is not None:
        bare_kwargs["device"] = torch.device("cpu")
        bare_kwargs.pop("pin_memory", None)
    on_virtual = bool(there) if wanted is None else torch.device(wanted).type == "virtual"
    if operation is not aten._to_copy.default and there and operation not in _INDEXING:
        strangers = [leaf for leaf in leaves if not isinstance(leaf, Placed) and leaf.ndim]
        if strangers:
            raise RuntimeError(f"{operation} meets tensors of both devices: {[tuple(leaf.shape) for leaf in leaves]}")
    result = operation(*bare_args, **bare_kwargs)
    known = {id(leaf.held): leaf for leaf in there}  # an operation in place gives back what it was given

    def placed(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not on_virtual:
            return value
        return known[id(value)] if id(value) in known else Placed(value)

    return tree_map(placed, result)


def split(devices: tuple[str, str]) -> Any:
    """The toy, its lower half on the first device."""
    model = model_of("llama", dtype=torch.float64)
    for name, part in PARTS.items():
        for module in model.get_submodule(name).modules():
            for key, value in module._parameters.items():
                if value is not None:
                    module._parameters[key] = torch.nn.Parameter(value.detach().to(devices[part]))
            for key, value in module._buffers.items():
                if value is not None:
                    module._buffers[key] = value.to(devices[part])
        hook = AlignDevicesHook(execution_device=torch.device(devices[part]), skip_keys=["past_key_values"])
        add_hook_to_module(model.get_submodule(name), hook)
    whole = AlignDevicesHook(execution_device=torch.device(devices[0]), io_same_device=True, skip_keys=["past_key_values"])
    add_hook_to_module(model, whole)
    return model


def compare(what: str, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        off = float((found[name].to("cpu") - value).norm() / value.norm())
        assert off <= 1e-10, (what, name, off)


def main() -> None:
    """Every method, and second moments, split both ways."""
    torch.set_num_threads(1)
    # Before the first backward pass: autograd counts the devices there.
    backend_registration._setup_privateuseone_for_python_backend("virtual", backend_module=Backend())
    texts = [request["prompt"].format(request["subject"]) for request in REQUESTS]
    modules = ["model.layers.1.mlp.down_proj", "model.layers.2.mlp.down_proj"]
    plain = model_of("llama", dtype=torch.float64)
    methods = ("ROME", "R-ROME", "MEMIT", "EMMET", "PMET", "AlphaEdit")
    moments = {method: covariance_of(plain, hparams_of("llama", method)) for method in methods}
    expected = {method: run("llama", method, model=plain, covariance=moments[method]).updates for method in methods}
    statistics = estimate(plain, tokenizer_of("llama"), texts, modules).matrices
    for devices in ((VIRTUAL, "cpu"), ("cpu", VIRTUAL)):
        with Functions(), Dispatch():
            model = split(devices)
            with pytest.raises(RuntimeError, match="meets tensors of both devices"):
                model.model.norm.weight + model.model.layers[0].input_layernorm.weight
            before = snapshot(model)
            for method in methods:
                result = run("llama", method, model=model, covariance=moments[method])
                for name, update in result.updates.items():
                    assert update.device == model.get_parameter(name).device, (method, name)
                compare(method, result.updates, expected[method])
                with result.applied(model):
                    pass
            compare("stats", estimate(model, tokenizer_of("llama"), texts, modules).matrices, statistics)
            assert same(before, snapshot(model))
        print("split", *devices, "is the same")


if __name__ == "__main__":
    main()
