"""A tokenizer folder, read as transformers 4 or 5 would read it, and without transformers wherever that is proven equal.

The same folder is not the same tokenizer under every generation of transformers: the classes pad on other sides, 5 ignores
`add_bos_token` where there is a tokenizer.json, and builds the normaliser of the Llama classes anew. `open_tokenizer` gives
what would really be loaded, says how it got there, and what the other generation would make of the folder.
"""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from padcheck.diagnostics import Place
from padcheck.resources import rules_dir
from padcheck.sources.jsonstream import JsonCursor
from padcheck.sources.reading import SourceError, decoded, open_source, pieces
from padcheck.sources.token_readers import FastReader, Side, TokenReader
from padcheck.sources.tokenizer_classes import (
    Choice,
    Generation,
    NoSuchClass,
    Release,
    TokenizerClass,
    age,
    choose,
    releases,
    releases_meant,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from padcheck.sources.tokenizer_recipes import FolderFiles, Reading

PositionScheme = Literal["absolute", "absolute-from-mask", "rotary", "alibi", "relative", "recurrent"]

TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
_SPECIAL_TOKENS_MAP = "special_tokens_map.json"
_ADDED_TOKENS = "added_tokens.json"
_MODEL_CONFIG = "config.json"
_OTHER_TOKENIZER_FILES = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "qwen.tiktoken",
    "tekken.json",
    "tiktoken.model",
    "ice_text.model",
)
_NO_LIMIT = 1_000_000
"""transformers writes 10^30 where a model has no maximal length."""
_PROBES = ("a", "0", "b", "a b \U000a1234")
"""The last holds what no vocabulary has: a class that does not fit its vocabulary stops there."""


class Note(str):
    """A fact about the folder that is worth saying: a sentence without capital and full stop, and a stable key.

    Keys: remote-class, class-unnamed, ignored-add-bos-token, ignored-add-eos-token, rebuilt, added-tokens,
    newer-transformers.
    """

    __slots__ = ("key",)
    key: str

    def __new__(cls, key: str, text: str) -> Note:
        note = super().__new__(cls, text)
        note.key = key
        return note

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # for copies and pickles
        return self.key, str(self)


class OtherGeneration(NamedTuple):
    """What the other generation of transformers makes of the same folder, where that differs.

    class_name, padding_side    None where it would refuse the folder
    differs   what is not the same: side, bos, eos, normalizer, pre_tokenizer, decoder, tidy, refused
    because   one sentence without full stop
    """

    generation: Generation
    class_name: str | None
    padding_side: Side | None
    differs: tuple[str, ...]
    because: str


@dataclass(frozen=True, slots=True)
class TokenizerFolder:
    """A tokenizer as an editor would have it right after loading.

    path                   the folder, or the tokenizer.json that was named
    generation, generation_because    which transformers is meant, and why
    class_name, is_fast    the class that is loaded, and whether the tokenizers library does its work
    backend_is_fast_class  isinstance(tok, PreTrainedTokenizerFast)
    reader                 encodes and decodes as that class does
    how                    how it was read
    padding_side           the side before any editor touches it; _because: one sentence; _place: the value in
                           tokenizer_config.json, if it states one
    model_max_length       tokens; None where there is no limit
    prefix_specials, suffix_specials    ids that encode() puts before and after every text
    model_type, position_scheme, max_positions    from config.json, None where there is none
    """

    path: Path
    generation: Generation
    generation_because: str
    class_name: str
    is_fast: bool
    backend_is_fast_class: bool
    reader: TokenReader
    how: str
    padding_side: Side
    padding_side_because: str
    padding_side_place: Place | None
    model_max_length: int | None
    bos_token: str | None
    bos_id: int | None
    eos_token: str | None
    eos_id: int | None
    unk_token: str | None
    unk_id: int | None
    pad_token: str | None
    pad_id: int | None
    prefix_specials: tuple[int, ...]
    suffix_specials: tuple[int, ...]
    model_type: str | None
    position_scheme: PositionScheme | None
    notes: tuple[Note, ...]
    other_generation: OtherGeneration | None
    max_positions: int | None = None

    @property
    def left_pads_shift(self) -> bool | None:
        """Whether pads on the left move every token of a model that is called without position_ids; None: not known."""
        if self.position_scheme in (None, "recurrent"):
            return None
        return self.position_scheme == "absolute"


def open_tokenizer(
    folder: Path,
    *,
    generation: Generation | None = None,
    trust_remote_code: bool = False,
    class_override: str | None = None,
    use_fast: bool | None = None,
) -> TokenizerFolder:
    """Read a tokenizer folder (or the tokenizer.json of one) as transformers would.

    generation         4 or 5; default: that of the installed transformers, and 5 where none is installed
    trust_remote_code  whether a class that the folder brings along may be run
    class_override     the editor calls this class's from_pretrained in place of AutoTokenizer's
    use_fast           what the editor passes to AutoTokenizer; only transformers 4 heeds it

    Raises SourceError with place and remedy.
    """
    installed = _installed("transformers")
    meant, because = _generation(generation, installed)
    contents = _Contents.of(folder)
    candidates = releases_meant(meant, installed)
    with_transformers = installed is not None and installed.startswith(f"{meant}.")

    plans = [_plan(contents, release, class_override, use_fast) for release in candidates]
    plan = plans[-1]
    reason = _why_not_static(contents, plans, trust_remote_code)
    if reason is None and age(installed, meant) == "older":
        reason = f"it is older than {plan.release.version}, the first that padcheck was compared with"
    notes = _notes_on_choice(plan, ran_remote=trust_remote_code)
    if age(installed, meant) == "newer":
        text = f"transformers {installed} is newer than {plan.release.version}, the last that padcheck was compared with"
        notes.append(Note("newer-transformers", text))
    if reason is None:
        from padcheck.sources.tokenizer_recipes import NotStatic

        try:
            return _read_statically(contents, plan, because, notes)
        except NotStatic as why:
            reason = str(why)
    if not with_transformers:
        raise SourceError(
            f"Only transformers {meant} can read this tokenizer, because {reason}.",
            path=str(contents.path),
            remedy=_remedy(meant, installed),
        )
    from padcheck.sources.transformers_reading import load

    loaded = load(contents.folder, trust_remote_code=trust_remote_code, class_override=class_override, use_fast=use_fast)
    side_because, side_place = _why_side(contents, plan, loaded.padding_side)
    if loaded.padding_side != contents.config.get("padding_side", plan.row.padding_side):
        side_because, side_place = f"{loaded.class_name} sets it itself when it is loaded", None
    return _told(
        contents,
        plan,
        because,
        reader=loaded.reader,
        class_name=loaded.class_name,
        is_fast=loaded.is_fast,
        is_fast_class=loaded.is_fast_class,
        how=f"transformers {installed}, {class_override or 'AutoTokenizer'}, because {reason}",
        side=(loaded.padding_side, side_because, side_place),
        limit=loaded.model_max_length,
        named=loaded.named,
        notes=notes,
        other=None,
    )


def read_from_files(path: Path, generation: Generation) -> TokenizerFolder:
    """The folder as the newest known release of a generation reads it, from its files alone, whatever is installed.

    Raises SourceError where the files cannot be read, `tokenizer_recipes.NotStatic` with the reason where only transformers can tell.
    """
    from padcheck.sources.tokenizer_recipes import NotStatic

    contents = _Contents.of(path)
    release = [each for each in releases() if each.generation == generation][-1]
    plan = _plan(contents, release, None, None)
    reason = _why_not_static(contents, [plan], False)
    if reason is not None:
        raise NotStatic(reason)
    return _read_statically(contents, plan, f"read as transformers {generation}", _notes_on_choice(plan, ran_remote=False))


def _told(
    contents: _Contents,
    plan: _Plan,
    because: str,
    *,
    reader: TokenReader,
    class_name: str,
    is_fast: bool,
    is_fast_class: bool,
    how: str,
    side: tuple[Side, str, Place | None],
    limit: Any,
    named: Mapping[str, tuple[str, int] | None],
    notes: Sequence[Note],
    other: OtherGeneration | None,
) -> TokenizerFolder:
    nothing = (None, None)
    (bos, bos_id), (eos, eos_id) = named["bos"] or nothing, named["eos"] or nothing
    (unk, unk_id), (pad, pad_id) = named["unk"] or nothing, named["pad"] or nothing
    try:
        prefix, suffix = _around(reader)
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise SourceError(
            f"{class_name} does not fit this vocabulary: encoding stops with {str(error)!r}.",
            path=str(contents.path),
            remedy=f"Check tokenizer_class in {TOKENIZER_CONFIG} and model_type in {_MODEL_CONFIG}.",
        ) from None
    model_type = (contents.model_config or {}).get("model_type")
    return TokenizerFolder(
        path=contents.path,
        generation=plan.release.generation,
        generation_because=because,
        class_name=class_name,
        is_fast=is_fast,
        backend_is_fast_class=is_fast_class,
        reader=reader,
        how=how,
        padding_side=side[0],
        padding_side_because=side[1],
        padding_side_place=side[2],
        model_max_length=int(limit) if isinstance(limit, int | float) and 0 < limit <= _NO_LIMIT else None,
        bos_token=bos,
        bos_id=bos_id,
        eos_token=eos,
        eos_id=eos_id,
        unk_token=unk,
        unk_id=unk_id,
        pad_token=pad,
        pad_id=pad_id,
        prefix_specials=prefix,
        suffix_specials=suffix,
        model_type=model_type if isinstance(model_type, str) else None,
        position_scheme=position_scheme(contents.model_config or {}),
        notes=tuple(notes),
        other_generation=other,
        max_positions=max_positions(contents.model_config or {}),
    )


# --- The files ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Contents:
    """The small files of a folder, parsed; tokenizer.json is only looked for."""

    path: Path
    folder: Path
    names: frozenset[str]
    config: Mapping[str, Any]
    config_text: str
    special_tokens_map: Mapping[str, Any] | None
    added_tokens: Mapping[str, int] | None
    model_config: Mapping[str, Any] | None

    @classmethod
    def of(cls, path: Path) -> _Contents:
        folder = path
        if path.is_file():
            if path.suffix != ".json":
                raise SourceError(
                    "This is a file, and no tokenizer.json.",
                    path=str(path),
                    remedy="Name the tokenizer's folder.",
                )
            if path.name != TOKENIZER_JSON:
                raise SourceError(
                    "A tokenizer is read from its folder or from a file called tokenizer.json.",
                    path=str(path),
                    remedy="Name the folder.",
                )
            folder = path.parent
        elif not path.is_dir():
            parent = path.parent
            remedy = f"There is no folder {str(parent)!r} either." if not parent.is_dir() else _near(path)
            raise SourceError("There is no such tokenizer folder.", path=str(path), remedy=remedy)
        try:
            names = frozenset(child.name for child in folder.iterdir())
        except OSError as error:
            raise SourceError(
                f"The folder cannot be read: {error.strerror or error}.", path=str(path), remedy="Check its permissions."
            ) from None
        if TOKENIZER_JSON not in names and not names & set(_OTHER_TOKENIZER_FILES) and TOKENIZER_CONFIG not in names:
            raise SourceError(
                "The folder holds no tokenizer: neither tokenizer.json nor tokenizer_config.json is in it.",
                path=str(path),
                remedy="Name the folder that AutoTokenizer.from_pretrained would be given.",
            )
        config_text = _text(folder / TOKENIZER_CONFIG) if TOKENIZER_CONFIG in names else "{}"
        return cls(
            path=path,
            folder=folder,
            names=names,
            config=_object(config_text, folder / TOKENIZER_CONFIG),
            config_text=config_text,
            special_tokens_map=_object_of(folder, _SPECIAL_TOKENS_MAP, names),
            added_tokens=_object_of(folder, _ADDED_TOKENS, names),
            model_config=_object_of(folder, _MODEL_CONFIG, names),
        )

    def byte_level(self) -> bool:
        """Whether tokenizer.json holds "ByteLevel"; transformers 5 looks for just these characters."""
        return TOKENIZER_JSON in self.names and b'"ByteLevel"' in (self.folder / TOKENIZER_JSON).read_bytes()


def _near(path: Path) -> str:
    import difflib

    near = difflib.get_close_matches(path.name, [child.name for child in path.parent.iterdir() if child.is_dir()], n=1)
    return f"Did you mean {str(path.parent / near[0])!r}?" if near else "Check the path; padcheck downloads nothing."


def _text(path: Path) -> str:
    with open_source(path) as binary:
        return "".join(decoded(pieces(binary), str(path)))


def _object(text: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        cursor = JsonCursor([text], str(path))
        cursor.value()  # says in plain words what is wrong
        cursor.finish()
        raise SourceError("The file is no JSON.", path=str(path)) from None
    if not isinstance(value, dict):
        raise SourceError("The file should hold one JSON object.", path=str(path), line=1, column=1)
    return value


def _object_of(folder: Path, name: str, names: frozenset[str]) -> dict[str, Any] | None:
    return _object(_text(folder / name), folder / name) if name in names else None


def _load_backend(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises nothing more specific
        fault = str(error)
    _object(_text(path), path)  # a file that is no JSON at all is said so, in plain words
    place = re.search(r" at line (\d+) column (\d+)$", fault)
    raise SourceError(
        f"tokenizers {_installed('tokenizers')} cannot read the file: {fault.removesuffix(place.group() if place else '')}.",
        path=str(path),
        line=int(place.group(1)) if place else None,
        column=int(place.group(2)) if place else None,
        remedy="Update tokenizers, or save the tokenizer again with save_pretrained().",
    )


# --- Which transformers, which class --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one release would do with the folder. Two releases with equal plans read it alike."""

    row: TokenizerClass
    tidy_bpe: bool
    choice: Choice
    release: Release
    class_override: str | None
    use_fast: bool | None

    def equals(self, other: _Plan) -> bool:
        return self.row == other.row and self.tidy_bpe == other.tidy_bpe


def _installed(package: str) -> str | None:
    """The version of an installed package, without importing it."""
    import importlib.metadata  # late: it costs more than all the rest of this module

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _generation(asked: Generation | None, installed: str | None) -> tuple[Generation, str]:
    if asked is not None:
        return asked, f"transformers {asked} was asked for"
    if installed is not None and installed.split(".")[0] in ("4", "5"):
        return (4 if installed.startswith("4.") else 5), f"transformers {installed} is installed"
    return 5, "no transformers is installed, so the newest generation is assumed"


def _plan(contents: _Contents, release: Release, class_override: str | None, use_fast: bool | None) -> _Plan:
    named = str(contents.config.get("tokenizer_class") or "")
    try:
        choice = choose(
            release,
            contents.config,
            contents.model_config,
            path=str(contents.folder),
            byte_level=named.removesuffix("Fast") == "LlamaTokenizer" and contents.byte_level(),
            class_override=class_override,
            use_fast=use_fast is not False,
        )
    except NoSuchClass as error:
        raise SourceError(
            f"transformers {release.generation} has no class {error.name!r} and refuses this folder.",
            path=str(contents.folder / TOKENIZER_CONFIG),
            **_line_and_column(contents, "tokenizer_class"),
            remedy=f"Say --transformers 5 if that is what will run, or set tokenizer_class to {release.generic.name!r}.",
        ) from None
    tidies = bool(contents.config.get("clean_up_tokenization_spaces", choice.chosen.clean_up))
    tidies_bpe = tidies and "bpe-kept-untidied" not in release.ways
    return _Plan(choice.chosen, tidies_bpe, choice, release, class_override, use_fast)


def _why_not_static(contents: _Contents, plans: Sequence[_Plan], trust_remote_code: bool) -> str | None:
    """Why the folder cannot be read without transformers, as the end of a sentence; None: it can be tried."""
    choice = plans[-1].choice
    if choice.remote is not None and trust_remote_code:
        return f"the folder's own class {choice.remote} is trusted and run"
    if choice.remote is not None and TOKENIZER_JSON not in contents.names:
        raise SourceError(
            f"The folder has no tokenizer.json, only its own tokenizer class {choice.remote}, which is code.",
            path=str(contents.path),
            remedy="Read that code, and pass --trust-remote-code if you trust it.",
        )
    if not all(plan.equals(plans[0]) for plan in plans):
        between = " and ".join(plan.release.version for plan in plans)
        return f"transformers {between} read it differently and what is installed lies between them"
    if "tekken.json" in contents.names and importlib.util.find_spec("mistral_common") is not None:
        return "mistral-common is installed and may read tekken.json in place of tokenizer.json"
    row, release = plans[-1].row, plans[-1].release
    slow = not row.fast and row.recipe is None and release.by_name(f"{row.name}Fast") is not None
    if slow and not contents.names & set(_OTHER_TOKENIZER_FILES):
        raise SourceError(
            f"{row.name} of transformers {release.generation} is a slow class, which does not read {TOKENIZER_JSON}, "
            "and its own vocabulary file is not in the folder.",
            path=str(contents.path),
            remedy="Load it with use_fast=True, or add the vocabulary file (tokenizer.model, vocab.txt …).",
        )
    if row.recipe is None:
        what = "is a slow class" if not row.fast else "makes its tokenizer in a way that padcheck does not follow"
        return f"{row.name} {what}"
    return None


def _remedy(generation: Generation, installed: str | None) -> str:
    if installed is None and generation == 5:
        return "Install padcheck[edit], which brings transformers 5."
    if installed is None:
        return "Install transformers 4.57, or say --transformers 5 if that is what will run."
    other = 9 - generation
    return f"Say --transformers {other} ({installed} is installed), or run padcheck where transformers {generation} is."


# --- Reading without transformers -----------------------------------------------------------------------------------


def _read_statically(contents: _Contents, plan: _Plan, because: str, notes: Sequence[Note]) -> TokenizerFolder:
    from tokenizers import models

    from padcheck.sources import tokenizer_recipes as recipes

    generation = plan.release.generation
    there = TOKENIZER_JSON in contents.names
    reads_it = there and plan.row.recipe != "gpt2-slow"
    files = recipes.FolderFiles(
        folder=contents.folder,
        backend=_load_backend(contents.folder / TOKENIZER_JSON) if there else None,
        config=contents.config,
        special_tokens_map=contents.special_tokens_map,
        added_tokens=contents.added_tokens,
    )
    reading = recipes.read(files, plan.row, generation)
    stated_there = files.backend.padding["direction"] if reads_it and files.backend and files.backend.padding else None
    side: Side = contents.config.get("padding_side", stated_there or plan.row.padding_side)
    if side not in ("left", "right"):
        raise SourceError(
            f'padding_side is {json.dumps(side)}; it should be "left" or "right".',
            path=str(contents.folder / TOKENIZER_CONFIG),
            **_line_and_column(contents, "padding_side"),
            remedy='Write "left" or "right".',
        )
    other = _other_generation(contents, plan, files, reading, side)
    notes = [*notes, *_notes_on_reading(files, plan, reading)]
    before = len(files.backend.get_added_tokens_decoder()) if reads_it and files.backend else None
    backend = recipes.build(files, plan.row, generation, reading)
    after = backend.get_added_tokens_decoder()
    if before is not None and len(after) > before and plan.row.recipe != "gpt2-slow":
        new = [str(token) for _, token in sorted(after.items())][before:]
        shown = ", ".join(repr(text) for text in new[:3]) + (" …" if len(new) > 3 else "")
        notes.append(Note("added-tokens", f"{len(new)} tokens are added that tokenizer.json does not list: {shown}"))

    tidy = bool(contents.config.get("clean_up_tokenization_spaces", plan.row.clean_up))
    if isinstance(backend.model, models.BPE):
        tidy = plan.tidy_bpe
    reader = FastReader(backend, tidy=tidy)
    side_because, side_place = _why_side(contents, plan, side, in_tokenizer_json=stated_there is not None)
    source = TOKENIZER_JSON if reads_it else "vocab.json and merges.txt"
    return _told(
        contents,
        plan,
        because,
        reader=reader,
        class_name=plan.row.name,
        is_fast=plan.row.fast,
        is_fast_class=plan.row.fast,
        how=f"{source}, read as transformers {plan.release.version} reads {plan.row.name}",
        side=(side, side_because, side_place),
        limit=contents.config.get("model_max_length", contents.config.get("max_len")),
        named={name: _special(backend, reading, f"{name}_token") for name in ("bos", "eos", "unk", "pad")},
        notes=notes,
        other=other,
    )


def _special(backend: Tokenizer, reading: Reading, key: str) -> tuple[str, int] | None:
    text = reading.text(key)
    found = None if text is None else backend.token_to_id(text)
    return None if text is None or found is None else (text, found)


def _around(reader: TokenReader) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that encode() puts before and after a text."""
    for encoded in reader.encode_batch(_PROBES):
        mask = encoded.special_tokens_mask
        if 0 in mask:
            head, tail = mask.index(0), mask[::-1].index(0)
            ids = tuple(encoded.ids)
            return ids[:head], ids[len(ids) - tail :]
    return (), ()


# --- Saying why -----------------------------------------------------------------------------------------------------


def _line_and_column(contents: _Contents, key: str) -> dict[str, int | None]:
    place = _place(contents, key)
    return {"line": place.line if place else None, "column": place.column if place else None}


def _place(contents: _Contents, key: str) -> Place | None:
    """Where tokenizer_config.json gives a value to `key`."""
    if key not in contents.config:
        return None
    cursor = JsonCursor([contents.config_text], str(contents.folder / TOKENIZER_CONFIG))
    cursor.enter(key)
    line, column = cursor.line, cursor.column
    cursor.value()
    return Place(str(contents.folder / TOKENIZER_CONFIG), line, column, cursor.line, cursor.column)


def _why_side(contents: _Contents, plan: _Plan, side: Side, *, in_tokenizer_json: bool = False) -> tuple[str, Place | None]:
    if contents.config.get("padding_side"):
        return f'{TOKENIZER_CONFIG} says "padding_side": "{side}"', _place(contents, "padding_side")
    if in_tokenizer_json:
        return (
            f'the "padding" section of {TOKENIZER_JSON} says {side}, and {TOKENIZER_CONFIG} says nothing',
            None,
        )
    release = plan.release
    return (
        f"no file states a side, and {plan.row.name} pads on the {side} in transformers {release.generation}",
        None,
    )


def _notes_on_choice(plan: _Plan, *, ran_remote: bool) -> list[Note]:
    choice, notes = plan.choice, []
    if choice.remote is not None and not ran_remote:
        notes.append(
            Note(
                "remote-class",
                f"the folder's own class {choice.remote} (auto_map) is remote code and was not run; it may tokenize and "
                "pad in its own way (--trust-remote-code runs it)",
            )
        )
    if choice.unnamed and plan.release.generation == 4:
        notes.append(
            Note(
                "class-unnamed",
                "neither tokenizer_config.json nor config.json names a class, so AutoTokenizer of transformers 4 would "
                f"refuse the folder; it was read as {plan.row.name}",
            )
        )
    return notes


def _notes_on_reading(files: FolderFiles, plan: _Plan, reading: Reading) -> list[Note]:
    from padcheck.sources import tokenizer_recipes as recipes

    notes, generation = [], plan.release.generation
    if generation == 5 and files.backend is not None:
        written = recipes.adds(reading, plan.row, generation) or (None, None)
        for key, really in zip(("add_bos_token", "add_eos_token"), written, strict=True):
            said = files.config.get(key)
            if said is None:
                continue
            if really is None:
                really = _adds(files, reading, key)
            if bool(said) != really:
                what = "added all the same" if really else "not added"
                notes.append(
                    Note(
                        f"ignored-{key.replace('_', '-')}",
                        f'{TOKENIZER_CONFIG} says "{key}": {json.dumps(said)}, which transformers 5 ignores where there '
                        f"is a {TOKENIZER_JSON}: {reading.text(key.removeprefix('add_')) or 'the token'} is {what}",
                    )
                )
    if files.backend is not None and generation == 5 and plan.row.recipe != "as-is":
        own = recipes.Parts(files.backend.normalizer, files.backend.pre_tokenizer, files.backend.decoder)
        built = recipes.Parts(reading.parts.normalizer, reading.parts.pre_tokenizer, reading.parts.decoder)
        rebuilt = [name.replace("_", "-") for name in own.differing(built)]
        if rebuilt:
            notes.append(
                Note(
                    "rebuilt",
                    f"{plan.row.name} of transformers 5 does not take the {' and the '.join(rebuilt)} of {TOKENIZER_JSON} "
                    "but builds its own",
                )
            )
    return notes


def _adds(files: FolderFiles, reading: Reading, key: str) -> bool:
    """Whether the file's own post-processor adds this token."""
    text = reading.text(key.removeprefix("add_"))
    return text is not None and json.dumps(text, ensure_ascii=False) in _state(reading.parts.post_processor)


def _state(part: Any) -> str:
    return "" if part is None else part.__getstate__().decode("utf-8")


def _other_generation(
    contents: _Contents, plan: _Plan, files: FolderFiles, reading: Reading, side: Side
) -> OtherGeneration | None:
    """Compare with the newest release of the other generation, from the files alone."""
    from padcheck.sources import tokenizer_recipes as recipes

    generation: Generation = 5 if plan.release.generation == 4 else 4
    release = [release for release in releases() if release.generation == generation][-1]
    try:
        other = _plan(contents, release, plan.class_override, plan.use_fast)
    except SourceError as error:
        return OtherGeneration(generation, None, None, ("refused",), error.message)
    stated = contents.config.get("padding_side") or ((files.backend and files.backend.padding) or {}).get("direction")
    other_side: Side = stated or other.row.padding_side
    differs: list[str] = ["side"] if other_side != side else []
    texts = [f"pads on the {other_side}"] if other_side != side else []
    try:
        there = recipes.read(files, other.row, generation)
    except recipes.NotStatic:
        there = None
    if there is not None:
        here_adds, there_adds = _what_is_added(files, reading, plan), _what_is_added(files, there, other)
        for name, here_one, there_one in zip(("bos", "eos"), here_adds, there_adds, strict=True):
            if here_one != there_one:
                differs.append(name)
                texts.append(f"{'adds' if there_one else 'does not add'} {there.text(f'{name}_token') or name}")
        parts = [name for name in reading.parts.differing(there.parts) if name != "post_processor"]
        if parts:
            differs += parts
            texts.append(f"has another {' and '.join(name.replace('_', '-') for name in parts)}")
        if other.tidy_bpe != plan.tidy_bpe:
            differs.append("tidy")
            texts.append(f"{'removes' if other.tidy_bpe else 'keeps'} spaces before punctuation when decoding")
    if not texts:
        return None
    text = f"transformers {generation} loads {other.row.name}, which {', '.join(texts)}"
    return OtherGeneration(generation, other.row.name, other_side, tuple(differs), text)


def _what_is_added(files: FolderFiles, reading: Reading, plan: _Plan) -> tuple[bool, bool]:
    from padcheck.sources import tokenizer_recipes as recipes

    written = recipes.adds(reading, plan.row, plan.release.generation)
    if written is not None:
        return written
    return _adds(files, reading, "add_bos_token"), _adds(files, reading, "add_eos_token")


# --- Positions of the model -----------------------------------------------------------------------------------------


@cache
def _schemes() -> dict[str, PositionScheme]:
    data = tomllib.loads((rules_dir() / "models" / "position_schemes.toml").read_text(encoding="utf-8"))
    return {model_type: scheme for scheme, model_types in data["schemes"].items() for model_type in model_types}


def max_positions(model_config: Mapping[str, Any]) -> int | None:
    """How many positions the model has, by the names that the families' config.json give it."""
    values = (
        model_config.get(key) for key in ("max_position_embeddings", "n_positions", "seq_length", "n_ctx", "max_seq_len")
    )
    return next((value for value in values if isinstance(value, int) and value > 0), None)


def position_scheme(model_config: Mapping[str, Any]) -> PositionScheme | None:
    """How a model knows where a token stands, from its config.json; None where that is not tabulated."""
    model_type = model_config.get("model_type")
    if model_type == "falcon" and model_config.get("alibi"):
        return "alibi"
    return _schemes().get(model_type) if isinstance(model_type, str) else None
