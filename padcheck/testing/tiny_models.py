"""`tiny_causal_lm`: the models that padcheck ships, lent to a test and looked at when they come back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from padcheck.resources import shipped_dir
from padcheck.testing.sides import parametrizes_itself, set_on_lent

if TYPE_CHECKING:
    import torch


class TinyCausalLM(NamedTuple):
    """`model, tokenizer = tiny_causal_lm`. The model knows 600 facts of a made-up world; its weights are float32."""

    model: Any
    tokenizer: Any

    def __repr__(self) -> str:
        return f"TinyCausalLM({self.folder.name})"  # a failing test shows its arguments

    @property
    def folder(self) -> Path:
        """Where both were read from; `hparams/` in it holds hparams for six methods."""
        return Path(self.model.config._name_or_path)

    @property
    def facts(self) -> dict[str, Any]:
        """`facts.json`: the facts that the model knows, and `requests` to edit."""
        return dict(json.loads((self.folder / "facts.json").read_text("utf-8")))


@dataclass(frozen=True)
class _Kept:
    """A loaded model, and what it must be when it comes back: its tensors, bit for bit, and its state by name."""

    model: Any
    tokenizer: Any
    tensors: dict[str, torch.Tensor]
    state: dict[str, tuple[Any, ...]]


_KEPT = pytest.StashKey[dict[str, _Kept]]()


def models() -> list[str]:
    """The names of the shipped models."""
    return sorted(path.parent.name for path in (shipped_dir() / "models").glob("*/model.safetensors"))


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Let a test run on each model of `padcheck_models`, unless it names its models itself.

    Raises pytest.Collector.CollectError for a name that no model has.
    """
    if parametrizes_itself(metafunc, "tiny_causal_lm"):
        return
    chosen = metafunc.config.getini("padcheck_models")
    unknown = [name for name in chosen if name not in models()]
    if unknown:
        raise pytest.Collector.CollectError(f"padcheck_models names {unknown[0]!r}: there are {', '.join(models())}.")
    metafunc.parametrize("tiny_causal_lm", list(dict.fromkeys(chosen)), indirect=True)


def lent(request: pytest.FixtureRequest) -> Iterator[TinyCausalLM]:
    """The model that the test asks for, with a tokenizer of its own. Fails the test if the model comes back changed."""
    from copy import deepcopy

    if not find_spec("torch") or not find_spec("transformers"):
        pytest.fail("tiny_causal_lm needs torch and transformers: pip install 'padcheck[edit]'", pytrace=False)
    kept = request.config.stash.setdefault(_KEPT, {})
    name = getattr(request, "param", None) or request.config.getini("padcheck_models")[0]
    if name not in kept:
        kept[name] = _load(name)
    lent = TinyCausalLM(kept[name].model, deepcopy(kept[name].tokenizer))
    set_on_lent(request, lent)
    monkeypatch = request.getfixturevalue("monkeypatch") if "monkeypatch" in request.fixturenames else None
    yield lent
    changes = _changes(kept[name])
    if changes and monkeypatch:
        monkeypatch.undo()  # which would happen too late where the test takes it first
        changes = _changes(kept[name])
    if changes:
        del kept[name]  # the next test gets it from the disk
        pytest.fail(
            f"the test changed {name}, which other tests share: {'; '.join(changes)}. Undo it, or work on copy.deepcopy(model).",
            pytrace=False,
        )


def _load(name: str) -> _Kept:
    if name not in models():
        pytest.fail(f"there is no model {name!r}: there are {', '.join(models())}", pytrace=False)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shipped_dir() / "models" / name
    model = AutoModelForCausalLM.from_pretrained(folder)
    tensors = {key: tensor.detach().clone() for key, tensor in _tensors(model).items()}
    return _Kept(model, AutoTokenizer.from_pretrained(folder), tensors, _state(model))


def _tensors(model: Any) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, also those that no checkpoint holds."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _state(model: Any) -> dict[str, tuple[Any, ...]]:
    """What else a test may leave behind: settings, attributes and methods of its own, hooks, the mode, what is trained, gradients."""
    import torch

    own = vars(torch.nn.Module()).keys()
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    state: dict[str, tuple[Any, ...]] = {}
    for name, module in model.named_modules():
        where = name or "the model"
        state[f"training mode of {where}"] = (module.training,)
        state[f"hooks on {where}"] = tuple(
            key for kind in hooks for key, hook in getattr(module, kind).items() if _foreign(hook)
        )
        for key, value in vars(module).items():
            if key not in own and (callable(value) or not key.startswith("_")):  # transformers keeps notes in private ones
                state[f"{key} of {where}"] = (value if isinstance(value, int | float | str) else _The(value),)
    for name, parameter in model.named_parameters():
        state[f"requires_grad of {name}"] = (parameter.requires_grad,)
        state[f"gradient of {name}"] = (parameter.grad is not None,)
    for name in ("config", "generation_config"):
        settings = getattr(model, name)
        for key in [*vars(settings), "_attn_implementation", "output_attentions"]:
            if not key.startswith("_") or key == "_attn_implementation":
                # as text, so that a later change of a dictionary shows; to save a model writes torch.float32 as "float32"
                state[f"{name}.{key}"] = (str(getattr(settings, key, None)).removeprefix("torch."),)
    return state


@dataclass(frozen=True, eq=False)
class _The:
    """This very object: what a state compares that is no number or text."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _The) and self.value is other.value


def _foreign(hook: Any) -> bool:
    """Whether a hook is not one of those that transformers leaves on a model once it was asked for hidden states."""
    return not str(getattr(getattr(hook, "func", hook), "__module__", "")).startswith("transformers.")


def _changes(kept: _Kept) -> list[str]:
    """What is not as it was, in words; empty if the model is bit for bit the same."""
    now = _tensors(kept.model)
    named = sorted(set(now) ^ set(kept.tensors))
    named += [key for key in now.keys() & kept.tensors.keys() if not _same_bits(now[key], kept.tensors[key])]
    state = _state(kept.model)
    left = [key for key in {**kept.state, **state} if state.get(key) != kept.state.get(key)]
    parts = [f"the values of {_listed(sorted(named))}"] if named else []
    return parts + ([_listed(left)] if left else [])


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    import torch

    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    return (
        torch.equal(a.detach().contiguous().view(torch.uint8), b.contiguous().view(torch.uint8)) if a.dim() else bool(a == b)
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
