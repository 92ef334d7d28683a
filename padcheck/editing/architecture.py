"""The modules that an edit touches, found by the names in the hparams, and the tests that decide whether an edit may run.

Nothing here is a table of architectures: names come from the hparams, a weight's orientation from its module's type, and
what the algebra or the batching takes for granted is tried on the model itself with a few tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from padcheck.editing.decoder import Cache, Columns, Decoder, Tap
from padcheck.editing.errors import ArchitectureError
from padcheck.editing.hparams import EditHparams

_RECURRENT = ("mamba", "linear_attention", "recurrent", "conv", "rwkv", "hybrid", "retention")
_RECURRENT_CLASSES = ("mamba", "rwkv", "gateddelta", "recurrentblock", "shortconv", "retnet", "linearattention")


@dataclass(frozen=True, slots=True)
class Site:
    """One weight to rewrite.

    Attributes:
        name: the module's name; the covariance is looked up by it.
        module: a Linear or Conv1D.
        layer: its decoder layer.
        transposed: whether the parameter is stored [d_in, d_out] (Conv1D).
        factor: by how much its output is multiplied where it joins the residual stream; None where it does not simply join.
    """

    name: str
    module: nn.Module
    layer: int
    transposed: bool
    factor: float | None

    @property
    def parameter(self) -> str:
        return f"{self.name}.weight"

    @property
    def weight(self) -> Tensor:
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def d_in(self) -> int:
        return int(self.weight.shape[0 if self.transposed else 1])

    def shaped(self, update: Tensor) -> Tensor:
        """An update [d_out, d_in] in the parameter's own shape."""
        return (update.T if self.transposed else update).contiguous()


class Architecture:
    """A model, with the modules that its hparams name.

    Attributes:
        decoder: how to run parts of it.
        sites: for each rewritten layer in order, the weights to rewrite there.
    """

    def __init__(self, model: nn.Module, hparams: EditHparams) -> None:
        self.model = unwrapped(model)
        self.hparams = hparams
        _refuse_by_name(self.model)
        layers = _layers(self.model, hparams.layer_module_tmp)
        if hparams.layers[-1] >= len(layers):
            raise ArchitectureError(
                f"'layers' names layer {hparams.layers[-1]}, but the model has layers 0 to {len(layers) - 1}"
            )
        head = self.model.get_output_embeddings()
        if head is None:
            raise ArchitectureError(
                f"{type(self.model).__name__} has no head that makes logits: load it as a causal language model"
            )
        self.decoder = Decoder(self.model, layers, head)
        _refuse_meta(self.model)
        for template in hparams.rewrite_module_tmps:
            for layer in hparams.layers:
                _transposed(_submodule(self.model, template.format(layer), "rewrite_module_tmp"), template.format(layer))
        token = _ordinary_token(self.model)
        self.decoder.learn_layouts(token)
        _check_alignment(self.decoder, token)
        self.sites = tuple(
            tuple(self._site(name, layer, token) for name in hparams.rewrite_module_tmps) for layer in hparams.layers
        )

    def module(self, name: str, key: str) -> nn.Module:
        """The module `name`, which the hparams give under `key`. Raises ArchitectureError with what is there instead."""
        return _submodule(self.model, name, key)

    def _site(self, template: str, layer: int, token: int) -> Site:
        name = template.format(layer)
        module = _submodule(self.model, name, "rewrite_module_tmp")
        transposed = _transposed(module, name)
        weight = module.weight
        assert isinstance(weight, Tensor)
        sharing = [other for other, parameter in self.model.named_parameters(remove_duplicate=False) if parameter is weight]
        if not sharing:
            raise ArchitectureError(
                f"{name}.weight is no parameter of the model but is computed from others (weight_norm, pruning): what is "
                "written to it would be lost; take the parametrisation off first"
            )
        if len(sharing) > 1:
            raise ArchitectureError(
                f"{name}.weight is shared with {', '.join(o for o in sharing if o != f'{name}.weight')}: an edit "
                "would change both"
            )
        return Site(name, module, layer, transposed, _factor(self.decoder, module, layer, token))


def unwrapped(model: nn.Module) -> Any:
    """The model that torch.compile has wrapped, or the model itself."""
    return getattr(model, "_orig_mod", model)


def _submodule(model: nn.Module, name: str, key: str) -> nn.Module:
    found: nn.Module = model
    done: list[str] = []
    for part in name.split("."):
        step = getattr(found, part, None) if not part.isdigit() else dict(found.named_children()).get(part)
        if not isinstance(step, nn.Module):
            there = ", ".join(child for child, _ in found.named_children()) or "nothing"
            raise ArchitectureError(
                f"'{key}' names {name}, but {'.'.join(done) or type(model).__name__} has no {part!r}; it has {there}"
            )
        found = step
        done.append(part)
    return found


def _layers(model: nn.Module, template: str) -> list[nn.Module]:
    parent, _, rest = template.partition(".{}")
    if rest:
        raise ArchitectureError(f"'layer_module_tmp' is {template!r}: it names a part of a layer, not the layer")
    stack = _submodule(model, parent, "layer_module_tmp")
    if not isinstance(stack, nn.ModuleList | nn.Sequential) or not len(stack):
        raise ArchitectureError(f"'layer_module_tmp': {parent} is a {type(stack).__name__}, not a list of layers")
    return list(stack)


def _transposed(module: nn.Module, name: str) -> bool:
    kinds = {kind.__name__ for kind in type(module).__mro__}
    home = type(module).__module__.split(".")[0]
    weight = getattr(module, "weight", None)
    if home not in {"torch", "transformers"} and not ({"Linear", "Conv1D"} & kinds and home in {"__main__", "tests"}):
        raise ArchitectureError(
            f"{name} is a {home} {type(module).__name__}: quantised or wrapped weights cannot take an "
            "update; load it in full precision"
        )
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        why = (
            "whose weight is no matrix"
            if isinstance(weight, Tensor) and weight.ndim == 1
            else "without a weight matrix of its own (fused or packed)"
        )
        raise ArchitectureError(f"{name} is a {type(module).__name__} {why}: it cannot be rewritten")
    if not weight.is_floating_point() or weight.element_size() < 2:
        raise ArchitectureError(f"{name}.weight is {weight.dtype}: quantised weights cannot take an update")
    if "Conv1D" in kinds:
        return True
    if "Linear" in kinds:
        return False
    raise ArchitectureError(
        f"{name} is a {type(module).__name__}: only Linear and Conv1D say which way round their weight stands"
    )


def _refuse_by_name(model: nn.Module) -> None:
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(model, "get_output_embeddings"):
        raise ArchitectureError(f"{type(model).__name__} is no causal language model of transformers")
    if getattr(config, "is_encoder_decoder", False):
        raise ArchitectureError(
            f"{type(model).__name__} is an encoder-decoder: the columns before the lookup see those after it"
        )
    if getattr(model, "is_quantized", False) or getattr(config, "quantization_config", None) is not None:
        raise ArchitectureError("the model is quantised: load it in full precision to edit it")
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    kinds = {str(kind) for kind in (getattr(text, "layer_types", None) or ())}
    recurrent = sorted(kind for kind in kinds if any(word in kind for word in _RECURRENT))
    if not recurrent:
        classes = {type(module).__name__ for module in model.modules()}
        recurrent = sorted(name for name in classes if any(word in name.lower() for word in _RECURRENT_CLASSES))
    if recurrent:
        raise ArchitectureError(
            f"{type(model).__name__} has recurrent or linear-attention layers ({', '.join(recurrent)}): pads "
            "and cached prefixes would enter their state"
        )
    if getattr(text, "attention_chunk_size", None) or "chunked_attention" in kinds:
        raise ArchitectureError(
            f"{type(model).__name__} attends in chunks counted from the row's first column, which pads would shift"
        )


def _refuse_meta(model: nn.Module) -> None:
    offloaded = next((name for name, parameter in model.named_parameters() if parameter.device.type == "meta"), None)
    if offloaded is None:
        return
    raise ArchitectureError(
        f"{offloaded} is offloaded (it has no data on any device): load the model so that it fits, or split it over devices"
    )


def _ordinary_token(model: nn.Module) -> int:
    """A token whose embedding is not zero (pad rows are), for trying things out."""
    weight = model.get_input_embeddings().weight  # type: ignore[operator]
    limit = min(int(weight.shape[0]), 512)
    norms = weight[:limit].detach().float().norm(dim=1)
    return int(norms.argmax())


# ---- What is tried on the model itself


def _tolerance(dtype: torch.dtype) -> float:
    return {torch.float64: 1e-9, torch.float32: 1e-3}.get(dtype, 0.1)


def _check_alignment(decoder: Decoder, token: int) -> None:
    """One row with pads on both sides and a cached prefix must give what it gives alone: the ground under every batch
    here."""
    embeddings: Any = decoder.model.get_input_embeddings()  # type: ignore[operator]
    size = int(embeddings.weight.shape[0])
    ids = torch.tensor([[(token + 7 * step) % size for step in range(5)]], device=decoder.device)
    ones = torch.ones_like(ids)
    last = decoder.layers[-1]
    alone, cut = Tap(last, "output"), Tap(last, "output")
    with torch.no_grad():
        decoder.run(Columns(ids, ones, torch.arange(5, device=decoder.device)[None]), taps=[alone])
        pad = ids.new_zeros(1, 1)
        cache = Cache.empty()
        before = torch.tensor([[0, 0, 1, 2]], device=decoder.device)
        mask = torch.cat([pad, ones[:, :3]], 1)
        decoder.run(Columns(torch.cat([ids[:, 4:], ids[:, :3]], 1), mask, before), cache=cache)
        cache.freeze(0)
        after = torch.tensor([[3, 4, 5]], device=decoder.device)
        whole = torch.cat([mask, ones[:, 2:]], 1)
        decoder.run(Columns(torch.cat([ids[:, 3:], ids[:, :1]], 1), whole, after), cache=cache, taps=[cut])
    expected, got = alone.take()[:, 3:5].double(), cut.take()[:, :2].double()
    if not torch.isfinite(expected).all():
        raise ArchitectureError(
            f"{type(decoder.model).__name__} makes hidden states that are not finite of ordinary tokens: "
            f"its weights hold NaN, or {decoder.dtype} is too narrow for it"
        )
    difference = float((expected - got).norm() / expected.norm().clamp_min(1e-30))
    if not difference <= _tolerance(decoder.dtype):
        raise ArchitectureError(
            f"{type(decoder.model).__name__} gives other hidden states for a padded row with a cached prefix "
            "than for the row alone "
            f"(relative difference {difference:.1e}): it is not causal, or its positions or states cannot be "
            "given from outside"
        )


def _factor(decoder: Decoder, module: nn.Module, layer: int, token: int) -> float | None:
    """By what the layer's output moves when the module's output moves by ε: ε times a number, or something else (None).

    A norm after the module (Gemma-2, OLMo-2) turns and shrinks ε; a factor (Granite) scales it. ε is as long as the output
    itself, so that low precision can see it, and tried at two lengths, so that a norm cannot pass for a factor.
    """
    ids = torch.tensor([[token, token, token]], device=decoder.device)
    columns = Columns(ids, torch.ones_like(ids), torch.arange(3, device=decoder.device)[None])

    def output(shift: Tensor | None) -> tuple[Tensor, Tensor]:
        change = None if shift is None else (lambda states: states + shift.to(states))
        own, out = Tap(module, "output", change), Tap(decoder.layers[layer], "output")
        decoder.run(columns, stop=layer + 1, taps=[own, out])
        return own.take()[0, -1], out.take()[0, -1]

    with torch.no_grad():
        own, base = output(None)
        if own.shape != base.shape:
            return None
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(own.shape, generator=generator, dtype=torch.float64).to(own.device)
        direction *= max(float(own.double().norm()), float(base.double().norm()) * 0.1, 1e-3) / direction.norm()
        factors = []
        for length in (1.0, 3.0):
            shift = direction * length
            moved = output(shift)[1].double() - base.double()
            shift = shift.to(moved.device)
            factor = float(moved @ shift / (shift @ shift))
            error = float((moved - factor * shift).norm() / shift.norm())
            if not error <= _tolerance(decoder.dtype) * max(abs(factor), 1e-6):
                return None
            factors.append(factor)
    first, second = factors
    if abs(first - second) > _tolerance(decoder.dtype) * abs(first):
        return None
    return 1.0 if abs(first - 1.0) <= _tolerance(decoder.dtype) else first


def additive(sites: Sequence[Site], method: str) -> None:
    """Refuse methods that spread a residual over layers where a rewritten module's output does not simply join the
    stream."""
    for site in sites:
        if site.factor is None:
            raise ArchitectureError(
                f"{site.name}: its output does not reach the residual stream as it is (a norm stands after it, "
                "as in Gemma-2 and OLMo-2, "
                f"or it is not added there), and {method} computes as if it did"
            )
