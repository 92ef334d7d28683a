"""What is known of a model without its weights: from its config.json, from the modules that transformers builds of that, or from
rules/models/profiles.toml by its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from padcheck.caching import remembered
from padcheck.records import Record
from padcheck.resources import rules_dir

if TYPE_CHECKING:
    from padcheck.sources.meta_model import ModuleNames

_CONTAINERS_AND_MORE = frozenset(
    {"act", "act_fn", "activation", "dropout", "attn_dropout", "resid_dropout", "rotary_emb", "attention_dropout"}
)
"""Modules without weights that a block may have besides those listed."""


class Model(Record):
    """A model's shape. Whatever is not known is None.

    `source`: how it is known, for a message. `certain`: from its own config.json, not from a name.
    """

    title: str
    source: str
    certain: bool
    layers: int
    hidden: int | None
    vocab: int | None
    tied: bool | None
    architecture: Mapping[str, Any] | None
    kinds: tuple[str, ...] | None = None
    """The kind of each block, where they are not alike."""
    names: ModuleNames | None = None
    """Every module and parameter, where the model was built without weights."""

    @property
    def last(self) -> int:
        return self.layers - 1

    def has(self, name: str, layer: int | None = None, *, weight: bool = False) -> bool | None:
        """Whether a module of this name exists; None where that is not known. `weight`: it must hold one itself."""
        if self.names is not None:
            return f"{name}.weight" in self.names.parameters if weight else name in self.names.modules
        architecture = self.architecture
        if architecture is None:
            return None
        block = architecture["block"].format(layer) if layer is not None else None
        if block is not None and (name == block or name.startswith(block + ".")):
            if layer is not None and not 0 <= layer < self.layers:
                return False
            part = name[len(block) + 1 :]
            parts = self.parts(layer)
            if part in parts:
                return True
            if weight:
                return False
            return (
                not part
                or any(each.startswith(part + ".") for each in parts)
                or part.rpartition(".")[2] in _CONTAINERS_AND_MORE
            )
        outer = [architecture[key] for key in ("norm", "embed", "head")]
        blocks = architecture["block"].replace(".{}", "")
        return (
            name in outer or any(each.startswith(name + ".") for each in [*outer, blocks]) or (name == blocks and not weight)
        )

    def parts(self, layer: int | None) -> list[str]:
        assert self.architecture is not None
        if self.names is not None and layer is not None:
            return _parts(self.names, self.architecture["block"].format(layer))
        parts: list[str] = list(self.architecture["parts"])
        if self.kinds is not None and layer is not None and layer < len(self.kinds):
            parts += self.architecture.get("kinds", {}).get(self.kinds[layer], [])
        return parts

    def layers_with(self, template: str) -> list[int]:
        """The layers at which a template names a module."""
        return [layer for layer in range(self.layers) if self.has(template.replace("{}", str(layer)), layer)]


@cache
def _profiles() -> Mapping[str, Any]:
    return remembered("profiles", read_profiles)


def read_profiles() -> Mapping[str, Any]:
    """rules/models/profiles.toml as it stands."""
    import tomllib

    return tomllib.loads((rules_dir() / "models" / "profiles.toml").read_text("utf-8"))


def plain_name(name: str) -> str:
    """The last part of a model's path, as names are compared: lower case, - for _, without the maker's name."""
    last = name.strip().replace("\\", "/").rstrip("/").rpartition("/")[2].lower().replace("_", "-")
    return re.sub(r"^(meta|eleutherai|openai-community|mistralai|thudm|baichuan-inc|internlm)-(?=[a-z])", "", last)


@cache
def profile(name: str) -> Model | None:
    """The published model that goes by this name, if exactly one does."""
    plain = plain_name(name)
    data = _profiles()
    found = [
        entry
        for entry in data["models"]
        if entry["family"] in plain and re.search(rf"(?<![a-z0-9.])(?:{entry['match']})(?![a-z0-9.])", plain)
    ]
    if len(found) != 1:
        return None
    entry = found[0]
    architecture = data["architectures"][entry["architecture"]]
    return Model(
        entry["title"],
        f"the published {entry['title']}",
        False,
        entry["layers"],
        entry.get("hidden"),
        entry.get("vocab"),
        entry.get("tied", architecture["tied"]),
        architecture,
        _kinds(architecture, entry["layers"]),
    )


def _kinds(architecture: Mapping[str, Any], layers: int) -> tuple[str, ...] | None:
    names = list(architecture.get("kinds", {}))
    if not names:
        return None
    every = architecture["every"]
    return tuple(names[1] if (layer + 1) % every == 0 else names[0] for layer in range(layers))


def from_config(folder: Path) -> Model | None:
    """The model of a folder with a config.json; None where that is no model's config or says too little."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    text: Mapping[str, Any] = {**config, **config["text_config"]} if isinstance(config.get("text_config"), dict) else config
    layers = _first(text, ("num_hidden_layers", "n_layer", "num_layers"))
    if not isinstance(layers, int) or isinstance(layers, bool):
        return None
    model_type = text.get("model_type", config.get("model_type"))
    architecture = next((each for each in _profiles()["architectures"].values() if model_type in each["model_types"]), None)
    if text is not config and model_type != "qwen3_5_text":
        architecture = None  # the decoder of a multimodal model hangs below another name
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    listed = text.get("layer_types")
    kinds = tuple(listed) if isinstance(listed, list) else _kinds(architecture, layers) if architecture else None
    return Model(
        folder.name,
        f"{(folder / 'config.json').as_posix()}",
        True,
        layers,
        _first(text, ("hidden_size", "n_embd")),
        _first(text, ("vocab_size", "padded_vocab_size")),
        tied if isinstance(tied, bool) else architecture["tied"] if architecture else None,
        architecture,
        kinds,
    )


def built(folder: Path) -> Model | None:
    """The model of a folder, its names checked against what transformers builds of config.json, where that can be done."""
    model = from_config(folder)
    if model is None:
        return None
    from padcheck.sources.meta_model import module_names

    names = module_names(folder)
    if names is None:
        return model
    head_is_parameter = f"{names.head}.weight" in names.parameters if names.head else None
    return model.replace(
        source=f"{model.source}, built by transformers {names.version}",
        tied=model.tied if head_is_parameter is None else not head_is_parameter,
        architecture=_architecture(names, model.layers) or model.architecture,
        names=names,
    )


def _architecture(names: ModuleNames, layers: int) -> Mapping[str, Any] | None:
    """The names as a profile has them."""
    lists = [name.removesuffix("0") for name in names.modules if name.endswith(".0")]
    blocks = [stem for stem in lists if all(f"{stem}{layer}" in names.modules for layer in range(layers))]
    if not blocks or names.embed is None or names.head is None:
        return None
    stem = min(blocks, key=lambda each: (each.count("."), each))
    around = stem.rstrip(".").rpartition(".")[0]
    norms = [
        name
        for name in sorted(names.modules)
        if name.rpartition(".")[0] == around and re.search(r"norm|ln", name.rpartition(".")[2])
    ]
    return {
        "block": f"{stem}{{}}",
        "norm": norms[-1] if norms else None,
        "embed": names.embed,
        "head": names.head,
        "parts": _parts(names, f"{stem}0"),
    }


def _parts(names: ModuleNames, block: str) -> list[str]:
    """The modules of a block that hold a weight."""
    return sorted(
        name.removeprefix(f"{block}.").removesuffix(".weight")
        for name in names.parameters
        if name.startswith(f"{block}.") and name.endswith(".weight")
    )


def _first(config: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


# --- Names ------------------------------------------------------------------------------------------------------------------

_FAMILIES = (
    "blip2",
    "minigpt4",
    "llavaov",
    "llava",
    "chatglm",
    "glm",
    "gpt-neox",
    "gpt-neo",
    "gpt-j",
    "gptj",
    "gpt2",
    "gpt-2",
    "gpt",
    "tinyllama",
    "llama",
    "vicuna",
    "alpaca",
    "qwen",
    "mistral",
    "mixtral",
    "baichuan",
    "internlm",
    "gemma",
    "phi",
    "t5",
    "opt",
    "bloom",
    "falcon",
    "deepseek",
)
_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z])")
_WORD_SIZE = re.compile(r"-(xl|large|medium|small|base)(?![a-z])")
_VARIANT = re.compile(r"(?<![a-z])(chat|instruct|it)(?![a-z])")


class NameParts(Record):
    """What a model's name says; None for what it does not say."""

    family: str
    generation: str | None
    size: str | None
    variant: str | None
    """ "chat" or None."""


def name_parts(name: str) -> NameParts | None:
    """The parts of a model's or a file's name; None where no known family stands in it."""
    plain = plain_name(name)
    family = next((each for each in _FAMILIES if each in plain), None)
    if family is None:
        return None
    rest = plain[plain.index(family) + len(family) :]
    if "vl" in re.split(r"[-\d.]", rest):
        family += "-vl"
    generation = re.match(r"-?v?(\d+(?:\.\d+)?)(?![\d.]*b)(?=[-a-z]|$)", rest)
    size = _SIZE.search(rest.replace("_", "-")) or _WORD_SIZE.search(rest)
    folded = {"gptj": "gpt-j", "gpt-2": "gpt2", "glm": "chatglm", "llavaov": "llava"}.get(family, family)
    return NameParts(
        folded, generation[1] if generation else None, size[1] if size else None, "chat" if _VARIANT.search(rest) else None
    )
