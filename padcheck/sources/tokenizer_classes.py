"""Which tokenizer class transformers makes of a folder, and what that class does when no file says otherwise.

The facts are in `rules/models/tokenizer_classes.toml`, one section per release of transformers. `choose` follows
`AutoTokenizer.from_pretrained` of that release from what the folder's JSON files say to a class.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from padcheck.resources import rules_dir
from padcheck.sources.token_readers import Side

Generation = Literal[4, 5]

_NAMED_IN_ROW = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")

# Folders of these names get the generic class from transformers 5.23 on (`MODEL_IDS_TO_TOKENIZERS_BACKEND` there).
_GENERIC_BY_PATH = (
    "deepseek-ai/deepseek-r1-distill-llama-*",
    "deepseek-ai/deepseek-coder-*",
    "allenai/dolma2-tokenizer",
    "google/umt5-small",
    "naver-clova-ix/donut-*",
    "salesforce/blip2-opt-*",
    "salesforce/blip2-flan-t5-*",
    "salesforce/instructblip-flan-t5-*",
    "stepfun-ai/step-3.7-*",
)


@dataclass(frozen=True, slots=True)
class TokenizerClass:
    """One class of one release.

    specials   the special tokens where no file states them, by key of tokenizer_config.json; None: the class says "none"
    recipe     how it makes the tokenizer from tokenizer.json (see `tokenizer_recipes`); None: only transformers can tell
    from_slow  where `add_prefix_space` is stated, it converts the slow tokenizer and leaves tokenizer.json unread
    """

    name: str
    fast: bool = True
    padding_side: Side = "right"
    recipe: str | None = None
    specials: Mapping[str, str | None] = field(default_factory=dict)
    clean_up: bool = False
    add_bos: bool = False
    add_eos: bool = False
    from_slow: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """One tabulated release of transformers: `name` is "4.57", `version` the exact one that was looked at."""

    name: str
    version: str
    generation: Generation
    generic: TokenizerClass
    classes: Mapping[str, TokenizerClass]
    same: Mapping[str, str]
    model_types: Mapping[str, str]
    unnamed: Mapping[str, str]
    wrong_on_the_hub: frozenset[str]
    ways: frozenset[str]

    def by_name(self, name: str) -> TokenizerClass | None:
        """The class that this name leads to in this release."""
        return self.classes.get(self.same.get(name, name))


@dataclass(frozen=True, slots=True)
class Choice:
    """The class that would be loaded, and why that one.

    remote   the class that the folder itself brings along as code; `chosen` is what transformers takes in its place
    unnamed  no file names a class; transformers 4 would refuse the folder
    """

    chosen: TokenizerClass
    because: str
    remote: str | None = None
    unnamed: bool = False


class NoSuchClass(Exception):
    """transformers 4 refuses a class that it does not know. `name` is that class."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@cache
def releases() -> tuple[Release, ...]:
    """All tabulated releases, oldest first."""
    data = tomllib.loads((rules_dir() / "models" / "tokenizer_classes.toml").read_text(encoding="utf-8"))
    found: dict[str, Release] = {}
    for name, section in sorted(data.items(), key=lambda item: "like" in item[1]):
        like = found.get(section.get("like", ""))
        generation: Generation = 4 if name.startswith("4.") else 5
        classes = dict(like.classes) if like else {}
        classes.update({key: TokenizerClass(key, fast=True) for key in section.get("fast", ())})
        classes.update({key: TokenizerClass(key, fast=False) for key in section.get("slow", ())})
        classes.update({key: _row(key, row) for key, row in section.get("classes", {}).items()})
        for gone in section.get("absent", ()):
            del classes[gone]
        found[name] = Release(
            name=name,
            version=section["version"],
            generation=generation,
            generic=like.generic if like else classes[section["generic"]],
            classes=classes,
            same=_pairs(section.get("same", {}), like.same if like else {}),
            model_types=_pairs(section.get("model_types", {}), like.model_types if like else {}),
            unnamed=_pairs(section.get("unnamed", {}), like.unnamed if like else {}),
            wrong_on_the_hub=frozenset(
                section.get("wrong_on_the_hub", like.wrong_on_the_hub if like else ()),
            ),
            ways=frozenset(section["ways"]),
        )
    return tuple(sorted(found.values(), key=lambda release: _numbers(release.name)))


def releases_meant(generation: Generation, installed: str | None) -> tuple[Release, ...]:
    """The tabulated release that stands for what will run, or the two that it lies between.

    That is the installed transformers where it is of this generation, and else the newest one tabulated.
    """
    known = [release for release in releases() if release.generation == generation]
    if installed is None or _numbers(installed)[0] != generation:
        return (known[-1],)
    wanted = _numbers(installed)[:2]
    older = [release for release in known if _numbers(release.name) <= wanted]
    newer = [release for release in known if _numbers(release.name) >= wanted]
    if not older or not newer:
        return (known[0] if not older else known[-1],)
    return (older[-1],) if older[-1] is newer[0] else (older[-1], newer[0])


def age(installed: str | None, generation: Generation) -> Literal["older", "known", "newer"]:
    """The installed transformers beside all tabulated releases of this generation; "known" where it is of another one."""
    if installed is None or _numbers(installed)[0] != generation:
        return "known"
    known = [_numbers(release.name) for release in releases() if release.generation == generation]
    return "older" if _numbers(installed) < known[0] else "newer" if _numbers(installed) > known[-1] else "known"


def choose(
    release: Release,
    tokenizer_config: Mapping[str, Any],
    model_config: Mapping[str, Any] | None,
    *,
    path: str = "",
    byte_level: bool = False,
    class_override: str | None = None,
    use_fast: bool = True,
) -> Choice:
    """The class that this release loads.

    tokenizer_config, model_config  what tokenizer_config.json and config.json say (None: there is no config.json)
    path            the folder as it will be named to from_pretrained
    byte_level      whether tokenizer.json holds the text "ByteLevel" in quotes
    class_override  a class on which from_pretrained is called itself, in place of AutoTokenizer
    Raises NoSuchClass.
    """
    if class_override is not None:
        return _overridden(release, class_override)
    if release.generation == 4:
        return _choose_4(release, tokenizer_config, model_config or {}, use_fast)
    return _choose_5(release, tokenizer_config, model_config or {}, path, byte_level)


def _overridden(release: Release, name: str) -> Choice:
    because = f"{name}.from_pretrained is called"
    if release.generation == 4:
        found = release.by_name(name)
        if found is None:
            raise NoSuchClass(name)
        return Choice(found, because)
    return Choice(_named_5(release, name), because)


def _choose_4(
    release: Release, tokenizer_config: Mapping[str, Any], model_config: Mapping[str, Any], use_fast: bool
) -> Choice:
    named, because = _text(tokenizer_config.get("tokenizer_class")), "tokenizer_config.json names it"
    remote = _remote(tokenizer_config)
    model_type = _text(model_config.get("model_type"))
    if named is None and model_type in release.model_types:
        named, because = _text(model_config.get("tokenizer_class")), "config.json names it"
        remote = _remote(model_config) or remote
    if named is not None:
        candidates = [named + "Fast"] if use_fast and not named.endswith("Fast") else []
        for name in (*candidates, named):
            found = release.by_name(name)
            if found is not None:
                return Choice(found, because, remote)
        if remote is None:
            raise NoSuchClass(named)
        return Choice(release.generic, f"{named} is the folder's own class", remote)
    if model_type is not None and model_type in release.model_types:
        name = release.model_types[model_type]
        found = None if use_fast else release.by_name(name.removesuffix("Fast"))
        found = found or release.by_name(name)
        if found is None:
            raise NoSuchClass(name)
        return Choice(found, f'config.json says "model_type": "{model_type}"', remote)
    return Choice(release.generic, "no file names a class", remote, unnamed=True)


def _choose_5(
    release: Release,
    tokenizer_config: Mapping[str, Any],
    model_config: Mapping[str, Any],
    path: str,
    byte_level: bool,
) -> Choice:
    in_tokenizer_config = _text(tokenizer_config.get("tokenizer_class"))
    in_config = _text(model_config.get("tokenizer_class"))
    model_type = _text(model_config.get("model_type")) or ""
    by_type = release.model_types.get(model_type)
    generic = release.generic
    remote = _remote(tokenizer_config)

    if remote is None:
        if "named-class-believed" in release.ways and any(fnmatch.fnmatch(path.lower(), p) for p in _GENERIC_BY_PATH):
            return Choice(generic, "transformers knows the folder's name")
        named = in_tokenizer_config or (in_config if "named-class-believed" in release.ways else None)
        wrong = model_type in release.wrong_on_the_hub or model_config.get("model_name") in release.wrong_on_the_hub
        if (
            "byte-level-llama-is-generic" in release.ways
            and named is not None
            and _stem(named) == "LlamaTokenizer"
            and not wrong
            and byte_level
        ):
            return Choice(generic, f"{named} is named, but tokenizer.json is byte-level")
        if named is not None and by_type is not None and _stem(by_type) != _stem(named):
            because = f'config.json says "model_type": "{model_type}", which {named} is not the class of'
            if "named-class-believed" in release.ways and by_type != generic.name:
                believed = _named_5(release, by_type if wrong else named)
                if believed is not generic:
                    return Choice(believed, because if wrong else "tokenizer_config.json names it")
            return Choice(generic, because)
    elif model_type in release.wrong_on_the_hub:
        remote = None

    if in_tokenizer_config is not None:
        known = _known_5(release, _stem(in_tokenizer_config))
        if known is None and remote is not None:
            return Choice(generic, f"{in_tokenizer_config} is the folder's own class", remote)
        return Choice(known or generic, "tokenizer_config.json names it", remote)
    if in_config is not None:
        return Choice(_named_5(release, in_config), "config.json names it", remote)
    by_config = release.unnamed.get(model_type, by_type)
    if by_config is not None:
        return Choice(_named_5(release, by_config), f'config.json says "model_type": "{model_type}"', remote)
    return Choice(generic, "no file names a class", remote, unnamed=True)


def _known_5(release: Release, name: str) -> TokenizerClass | None:
    for candidate in (name, name + "Fast", name.removesuffix("Fast")):
        found = release.by_name(candidate)
        if found is not None:
            return release.generic if found.name == "PythonBackend" else found
    return None


def _named_5(release: Release, name: str) -> TokenizerClass:
    return _known_5(release, name) or release.generic


def _remote(config: Mapping[str, Any]) -> str | None:
    """The class that the folder itself brings along, as `module.Class`."""
    auto_map = config.get("auto_map")
    if isinstance(auto_map, Mapping):
        auto_map = auto_map.get("AutoTokenizer")
    if isinstance(auto_map, str):
        return auto_map
    if isinstance(auto_map, list | tuple):
        # The fast one stands second; transformers takes it where there is one.
        return next((entry for entry in reversed(auto_map) if isinstance(entry, str)), None)
    return None


def _stem(name: str) -> str:
    return name.removesuffix("Fast")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _row(name: str, row: Mapping[str, Any]) -> TokenizerClass:
    return TokenizerClass(
        name,
        fast=row["fast"],
        padding_side=row["side"],
        recipe=row.get("recipe"),
        specials={f"{key}_token": row[key] or None for key in _NAMED_IN_ROW if key in row},
        clean_up=row.get("clean_up", False),
        add_bos=row.get("add_bos", False),
        add_eos=row.get("add_eos", False),
        from_slow=row.get("from_slow", False),
    )


def _pairs(groups: Mapping[str, list[str]], like: Mapping[str, str]) -> dict[str, str]:
    """`value = [names]` turned round to name → value, over what the release is like."""
    pairs = {name: value for name, value in like.items() if name not in groups.get("absent", ())}
    pairs.update({name: value for value, names in groups.items() if value != "absent" for name in names})
    return pairs


def _numbers(version: str) -> tuple[int, int]:
    major, minor = ([*version.split("."), "0"])[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)
