"""The planned run: framework, method, fact token, tokenizer, padding side and templates, settled before any row is built.

Everything that cannot be settled raises `SourceError`: one sentence, the place, the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from padcheck.positions.editors import (
    FACT_TOKENS,
    Batch,
    Editor,
    FactToken,
    Family,
    Method,
    RunMode,
    Side,
    editor_ids,
    load_editor,
)
from padcheck.positions.rows import TokenFacts, active_batches
from padcheck.positions.side import ResultingSide, family_of, resulting_side
from padcheck.sources.hparams import Hparams, read_hparams
from padcheck.sources.reading import SourceError
from padcheck.sources.templates import PROFILES, Templates, asked_lengths, flatten, read_templates, stand_ins
from padcheck.sources.token_readers import wrap
from padcheck.sources.tokenizer_folder import TokenizerFolder, open_tokenizer


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line (or the caller of `preflight`) says."""

    framework: str | None = None
    method: str | None = None
    padding_side: Side | None = None
    passed_in: bool = False
    run: RunMode = "edit"
    batch_size: int | None = None
    context_templates: str | Path | Sequence[Any] | None = None
    transformers: Literal[4, 5] | None = None
    trust_remote_code: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about the run but its requests."""

    hparams: Hparams
    editor: Editor
    framework_because: str
    method: Method
    method_name: str
    fact_token: FactToken
    batches: tuple[Batch, ...]
    tokenizer: TokenizerFolder
    model_path: str
    family: Family | None
    family_known: bool
    side: ResultingSide
    profiles: tuple[Templates, ...]
    options: Options
    flags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def templates(self) -> Templates:
        return self.profiles[0]

    @property
    def zsre_target(self) -> Literal["alt", "answers"]:
        """The answer that this framework's own loader takes from a zsRE record."""
        return "alt" if self.editor.id in {"easyedit", "fastedit"} else "answers"

    @property
    def facts(self) -> TokenFacts:
        return TokenFacts(
            self.tokenizer.bos_id, self.tokenizer.unk_id, self.tokenizer.model_max_length, self.tokenizer.class_name
        )


class BadFactToken(SourceError):
    """A fact_token that no method knows: a finding about the hparams, not a job that could not be done."""


def settle(hparams: Hparams | str | Path | Mapping[str, Any], tokenizer: Any, options: Options) -> Plan:
    """Settle the run. Raises `SourceError` for what is missing or contradictory.

    `tokenizer`: a folder (or its tokenizer.json), a `TokenizerFolder`, or a loaded tokenizer of tokenizers or transformers.
    """
    if isinstance(hparams, Mapping):
        hparams = Hparams("<hparams>", dict(hparams))
    elif not isinstance(hparams, Hparams):
        hparams = read_hparams(Path(hparams), Path(hparams).as_posix())
    editor, because = _framework(hparams, options)
    method_name, method = _method(hparams, editor, options)
    fact_token = _fact_token(hparams, method, _base_values(hparams, editor.methods[method_name]))
    model_path = str(hparams.values.get("model_name") or "")
    dispatched = not (options.passed_in or method.own_loader)
    family = family_of(editor, model_path) if dispatched else None
    known = not dispatched or editor.unknown_family == "fine" or not model_path or family is not None
    if isinstance(tokenizer, (str, Path)):
        folder = open_tokenizer(
            Path(tokenizer),
            generation=options.transformers,
            trust_remote_code=options.trust_remote_code,
            class_override=family.tokenizer_class if family else None,
            use_fast=family.use_fast if family else None,
        )
    else:
        folder = tokenizer if isinstance(tokenizer, TokenizerFolder) else loaded_tokenizer(tokenizer)
    side = resulting_side(
        editor, method, method_name, folder, model_path, stated=options.padding_side, passed_in=not dispatched
    )
    base_values = _base_values(hparams, editor.methods[method_name])
    flags = {**method.defaults, **base_values, **hparams.values, "fact_token": fact_token}
    return Plan(
        hparams=hparams,
        editor=editor,
        framework_because=because,
        method=method,
        method_name=method_name,
        fact_token=fact_token,
        batches=active_batches(method, flags),
        tokenizer=folder,
        model_path=model_path,
        family=family,
        family_known=known,
        side=side,
        profiles=_profiles(flags, method, folder, options),
        options=options,
        flags=flags,
    )


def loaded_tokenizer(tokenizer: Any) -> TokenizerFolder:
    """A tokenizer that is in memory already, with the facts that a folder gives.

    Raises:
        SourceError: it is no tokenizer that padcheck can read.
    """
    try:
        wrapped = wrap(tokenizer)
    except TypeError as error:
        raise SourceError(str(error), path="tokenizer", remedy="Pass a folder, or a loaded tokenizer.") from None
    limit = getattr(tokenizer, "model_max_length", None)
    names = {
        name: getattr(tokenizer, name, None)
        for name in ("bos", "eos", "unk", "pad")
        for name in (f"{name}_token", f"{name}_token_id")
    }
    return TokenizerFolder(
        path=Path(str(getattr(tokenizer, "name_or_path", "") or "<loaded tokenizer>")),
        generation=5,
        generation_because="the tokenizer is loaded already",
        class_name=wrapped.class_name,
        is_fast=wrapped.is_fast,
        backend_is_fast_class=wrapped.is_fast,
        reader=wrapped.reader,
        how=f"the loaded {wrapped.class_name}",
        padding_side=wrapped.padding_side or "right",
        padding_side_because="the loaded tokenizer pads there" if wrapped.padding_side else "the tokenizer states no side: taken as right",
        padding_side_place=None,
        model_max_length=limit if isinstance(limit, int) and limit < 1_000_000 else None,
        bos_token=names["bos_token"], bos_id=names["bos_token_id"], eos_token=names["eos_token"], eos_id=names["eos_token_id"],
        unk_token=names["unk_token"], unk_id=names["unk_token_id"], pad_token=names["pad_token"], pad_id=names["pad_token_id"],
        prefix_specials=(), suffix_specials=(), model_type=None, position_scheme=None, notes=(), other_generation=None,
    )  # fmt: skip


def nearest(word: str, known: Sequence[str]) -> str:
    """ "Did you mean …?" or the list of what is known."""
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(folded), 1, 0.5)
    if close:
        return f"Did you mean {folded[close[0]]}?"
    return f"Known are {', '.join(known)}."


def _framework(hparams: Hparams, options: Options) -> tuple[Editor, str]:
    if options.framework is not None:
        if options.framework not in editor_ids():
            raise SourceError(
                f"there is no framework {options.framework!r}",
                path="--framework",
                remedy=nearest(options.framework, editor_ids()),
            )
        return load_editor(options.framework), "--framework"
    keys = set(hparams.values) | ({"alg_name"} if "alg" in hparams.values else set())
    editors = sorted(
        map(load_editor, editor_ids()), key=lambda editor: editor.method_key is None
    )  # a method's name says more than keys
    for editor in editors:
        if editor.recognise_keys and keys.issuperset(editor.recognise_keys):
            return editor, f"the hparams have {' and '.join(editor.recognise_keys)}"
    parts = [part.lower() for part in Path(hparams.path).parts]
    method = (options.method or next((part for part in reversed(parts[:-1]) if part in _BY_FOLDER), "")).lower()
    if method in _BY_FOLDER:
        return load_editor(_BY_FOLDER[method]), f"hparams without a framework's own keys, for {method.upper()}"
    raise SourceError(
        "the hparams do not say which framework they are for", path=hparams.path,
        remedy=f"Say it with --framework: {', '.join(editor_ids())}.",
    )  # fmt: skip


_BY_FOLDER: Mapping[str, str] = {
    "rome": "kmeng01-rome", "memit": "kmeng01-memit", "r-rome": "rebuilding-rome", "r_rome": "rebuilding-rome", "emmet": "unified",
    "alphaedit": "alphaedit", "pmet": "pmet", "fastedit": "fastedit",
}  # fmt: skip


def _method(hparams: Hparams, editor: Editor, options: Options) -> tuple[str, Method]:
    name = options.method
    place = "--method"
    if name is None and editor.method_key:
        value = hparams.values.get(editor.method_key, hparams.values.get("alg"))
        name = str(value) if value is not None else None
        place = hparams.path
    if name is None:
        folded = {method.lower(): method for method in editor.methods}
        parts = [part.lower() for part in Path(hparams.path).parts[:-1]]
        name = next((folded[part] for part in reversed(parts) if part in folded), None)
        if name is None and len(editor.methods) == 1:
            name = next(iter(editor.methods))
        if name is None:
            raise SourceError(
                f"{editor.title}'s hparams do not name their method", path=hparams.path,
                remedy=f"Say it with --method: {', '.join(editor.methods)}.",
            )  # fmt: skip
    if name not in editor.methods:
        folded = {method.lower(): method for method in editor.methods}
        if place == "--method" and name.lower() in folded:
            name = folded[name.lower()]
        else:
            at = hparams.places.get(editor.method_key or "") if place == hparams.path else None
            raise SourceError(
                f"{editor.title} has no method {name!r}", path=place, line=at.line if at else None, column=at.column if at else None,
                remedy=nearest(name, tuple(editor.methods)),
            )  # fmt: skip
    method = editor.methods[name]
    if method.base is not None:
        base = hparams.values.get(method.base)
        if base not in editor.methods:
            raise SourceError(
                f"{name} works through another method, and {method.base} names none that is known ({base!r})", path=hparams.path,
                remedy=f"Set {method.base}: {nearest(str(base), tuple(editor.methods))}",
            )  # fmt: skip
        method = editor.methods[str(base)]
    return name, method


def _base_values(hparams: Hparams, method: Method) -> Mapping[str, Any]:
    """The hparams of the method that does the work: SimIE reads the file at the same path below that method's folder."""
    if method.base is None:
        return {}
    base = str(hparams.values.get(method.base))
    parts = [base if part == method.name else part for part in Path(hparams.path).parts]
    path = Path(*parts)
    if path.as_posix() == Path(hparams.path).as_posix() or not path.is_file():
        return {}
    return read_hparams(path, path.as_posix()).values


def _fact_token(hparams: Hparams, method: Method, base_values: Mapping[str, Any]) -> FactToken:
    if method.kind != "locate":
        return cast(FactToken, method.default_fact_token)  # such a method reads no fact_token, whatever the file says
    value = hparams.values.get("fact_token", base_values.get("fact_token", method.default_fact_token))
    if value not in FACT_TOKENS:
        place = hparams.place("fact_token")
        raise BadFactToken(
            f"the fact_token {value!r} is not one that the editors know", path=hparams.path, line=place.line, column=place.column,
            remedy=nearest(str(value), FACT_TOKENS),
        )  # fmt: skip
    return cast(FactToken, value)


def _profiles(values: Mapping[str, Any], method: Method, folder: TokenizerFolder, options: Options) -> tuple[Templates, ...]:
    given = options.context_templates
    if given is not None:
        if isinstance(given, (str, Path)):
            return (read_templates(Path(given), Path(given).as_posix()),)
        texts = flatten(given)
        return (Templates(tuple(texts), f"{len(texts)} templates given by the caller"),)
    if method.templates == "none":
        return (Templates(("{}",), "none: the method uses no context templates"),)
    lengths = list(method.template_lengths) or asked_lengths(values, method.templates)
    if not lengths:
        return (Templates(("{}",), "only the bare prompt: the hparams ask for no others"),)
    return tuple(stand_ins(lengths, folder.reader, profile, options.seed) for profile in range(PROFILES))
