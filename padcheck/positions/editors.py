"""What padcheck knows about every editing framework, read from `rules/editors/*.toml`.

A framework has methods; a method builds batches; a batch has rows and an index (lookup) or a span (labels) for each of them.
All arithmetic is data: see `arithmetic`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from padcheck.positions.arithmetic import FLAGS, BadExpression, Expression, compile_expression
from padcheck.positions.sites import KEYS, Site
from padcheck.resources import rules_dir

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    _T = TypeVar("_T", bound=DataclassInstance)

Side = Literal["left", "right"]
FactToken = Literal["subject_last", "subject_first", "subject_first_after_last", "last"]
FACT_TOKENS: tuple[FactToken, ...] = get_args(FactToken)
BatchName = Literal["optimise", "keys", "value", "current", "train"]
Rows = Literal[
    "templates+head, kl",
    "templates+target, kl",
    "templates",
    "bare",
    "prompt+target",
    "prompt",
    "templates+target, locality",
    "target",
]
Per = Literal["row", "request", "run"]
Space = Literal["unless-blank", "unless-leading", "unless-leading-if-gpt", "never", "always"]
Specials = Literal["none", "none-strip-bos-or-unk", "kept", "strip-bos-or-unk", "kept-but-first-of-llama"]
RunMode = Literal["edit", "batch", "sequential"]


class EditorDataError(ValueError):
    """A file of rules/editors that cannot be read: names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class Raises:
    """The editor stops with an exception instead of computing an index."""

    message: str
    source: str


@dataclass(frozen=True, slots=True)
class Index:
    """Where an editor looks, per `fact_token`: an expression over token counts, or the exception it raises."""

    name: str
    source: str
    by_fact_token: Mapping[str, Expression | Raises]


@dataclass(frozen=True, slots=True)
class Span:
    """Columns `first`..`last` (inclusive) of the padded row.

    `on="slots"`: columns whose logits are scored against the target; `on="tokens"`: columns of the target's own tokens.
    `masked=True`: the span is *excluded* from the loss and all other real columns are labelled (LoRA, GRACE …).
    `foreign=True`: the row does not hold the target whose ids are its labels (QLoRA).
    """

    first: Expression
    last: Expression
    on: Literal["slots", "tokens"] = "slots"
    masked: bool = False
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """One call of the tokenizer with padding, and what is read from the result."""

    name: BatchName
    rows: Rows
    per: Per
    size: int | str | None
    """Rows at most in one padded batch: a number, the name of an hparam, or None for no limit."""
    lookup: Index | None
    labels: Span | None
    when: Expression | None
    source: str
    truncates: bool = False
    truth: Literal["fact_token", "row_last"] = "fact_token"
    """What the lookup should find: the fact token, or the row's last token (DEFER, MELO)."""
    pad_to: str | None = None
    """The hparam that names the width to which every row is padded (QLoRA)."""


@dataclass(frozen=True, slots=True)
class KlPrompt:
    """A row such as "{} is a"; `fact_token` where the editor reads it at another token than the others (FastEdit)."""

    text: str
    fact_token: str | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """One editing method of a framework."""

    name: str
    kind: Literal["locate", "train", "unpadded"]
    source: str
    space: Space = "never"
    """When a space is put before the target."""
    target_specials: Specials = "none"
    """What happens to the special tokens that the tokenizer puts around the target."""
    head: Literal["decode", "text"] = "decode"
    """How the target reaches the row: its ids but the last, decoded; or its text."""
    join: str = ""
    """What stands between prompt and target text (kind "train")."""
    templates: Literal["flat", "groups", "none"] = "none"
    kl_prompts: tuple[KlPrompt, ...] = ()
    fills_template: bool = True
    """Whether `{}` in a prompt is replaced by the subject; otherwise the braces are trained literally."""
    replaces_always: bool = False
    """Whether the subject is replaced by `{}` even where the prompt has one already."""
    requires_template: bool = False
    """Whether a prompt without `{}` stops the editor (kmeng01's code replaces nothing)."""
    needs_space_before_subject: bool = False
    needs: tuple[str, ...] = ()
    default_fact_token: str = "subject_last"
    batches: tuple[Batch, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    sets_side: Side | None = None
    """The side that the method itself sets around its batches, whatever the tokenizer says (DPO)."""
    note: str = ""
    base: str | None = None
    """The hparams key that names another method which does the work (SimIE)."""
    batchable: bool = True
    """Whether the framework takes several requests in one call (`--run batch`)."""
    own_loader: bool = False
    """Whether a script of its own loads model and tokenizer: the framework's families and side rules do not apply."""
    template_lengths: tuple[int, ...] = ()
    """Lengths in tokens of a fixed list of context templates, without the bare one."""


@dataclass(frozen=True, slots=True)
class SideRule:
    """A statement of the framework that sets the padding side."""

    set: Side
    because: str
    source: str
    methods: tuple[str, ...] = ()
    unless_methods: tuple[str, ...] = ()
    path_contains: tuple[str, ...] = ()
    fast_or_class: tuple[str, ...] = ()
    """Fires only for fast tokenizers (PreTrainedTokenizerFast) or one of these classes."""


@dataclass(frozen=True, slots=True)
class SidePlace:
    """Where a person can set the side."""

    kind: Literal["hparams", "tokenizer_config", "caller", "code"]
    text: str
    unless_ruled: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """What a framework does when model_name contains a substring."""

    contains: str
    tokenizer_class: str | None = None
    use_fast: bool | None = None
    pad: str | None = None
    unsupported: str | None = None


@dataclass(frozen=True, slots=True)
class Editor:
    """One framework."""

    id: str
    title: str
    repository: str
    commit: str
    hparams: Literal["yaml", "json"]
    method_key: str | None
    recognise_keys: tuple[str, ...]
    side_rules: tuple[SideRule, ...]
    side_places: tuple[SidePlace, ...]
    evaluation_side: Side | None
    families: tuple[Family, ...]
    unknown_family: Literal["error", "fine"]
    methods: Mapping[str, Method]
    pad: str | None = None
    sites: tuple[Site, ...] = ()
    """The functions at which `padcheck.guard` steps in."""
    marks: tuple[str, ...] = ()
    """Files that tell the framework's code from that of its relatives, relative to the folder its sites are relative to."""


def _keys(table: Mapping[str, Any], allowed: set[str], where: str, required: tuple[str, ...] = ()) -> None:
    missing = [key for key in required if key not in table]
    if missing:
        raise EditorDataError(f"{where}: {', '.join(missing)} is missing")
    unknown = sorted(set(table) - allowed)
    if unknown:
        raise EditorDataError(f"{where}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(allowed))}")


def _expression(text: Any, where: str, *flags: str) -> Expression:
    try:
        return compile_expression(str(text), flags) if flags else compile_expression(str(text))
    except BadExpression as error:
        raise EditorDataError(f"{where}: {error}") from None


def _index(name: str, table: Mapping[str, Any], where: str) -> Index:
    _keys(table, {"source", *FACT_TOKENS}, where, ("source",))
    entries: dict[str, Expression | Raises] = {}
    for token in FACT_TOKENS:
        if token in table:
            value = table[token]
            entries[token] = (
                Raises(value["raises"], value["source"])
                if isinstance(value, dict)
                else _expression(value, f"{where}.{token}")
            )
    return Index(name, table["source"], entries)


def _batch(table: Mapping[str, Any], indices: Mapping[str, Index], where: str) -> Batch:
    _keys(
        table,
        {"name", "rows", "per", "size", "lookup", "labels", "when", "source", "truncates", "truth", "pad_to"},
        where,
        ("name", "rows", "per", "source"),
    )
    for key, choices in (("name", get_args(BatchName)), ("rows", get_args(Rows)), ("per", get_args(Per))):
        if table[key] not in choices:
            raise EditorDataError(f"{where}.{key}: {table[key]!r} is none of {', '.join(choices)}")
    lookup = None
    if "lookup" in table:
        if table["lookup"] not in indices:
            raise EditorDataError(f"{where}.lookup: there is no [index.{table['lookup']}]")
        lookup = indices[table["lookup"]]
    labels = None
    if "labels" in table:
        span = table["labels"]
        _keys(span, {"first", "last", "on", "masked", "foreign"}, f"{where}.labels", ("first", "last"))
        _choice(span, "on", ("slots", "tokens"), f"{where}.labels")
        labels = Span(
            _expression(span["first"], f"{where}.labels.first"),
            _expression(span["last"], f"{where}.labels.last"),
            span.get("on", "slots"),
            span.get("masked", False),
            span.get("foreign", False),
        )
    when = _expression(table["when"], f"{where}.when", *FLAGS) if "when" in table else None
    _choice(table, "truth", ("fact_token", "row_last"), where)
    rest = {key: table[key] for key in ("truncates", "truth", "pad_to") if key in table}
    return Batch(
        table["name"], table["rows"], table["per"], table.get("size"), lookup, labels, when, table["source"], **rest
    )


def _method(name: str, tables: Mapping[str, Any], indices: Mapping[str, Index], where: str) -> Method:
    table = dict(tables[name])
    seen = [name]
    while "like" in table:
        parent = table.pop("like")
        if parent not in tables or parent in seen:
            raise EditorDataError(f"{where}.like: there is no other method {parent}")
        seen.append(parent)
        table = {**{key: value for key, value in tables[parent].items() if key != "note"}, **table}
    _keys(
        table,
        {
            "kind", "source", "space", "target_specials", "head", "join", "templates", "kl_prompts", "fills_template", "replaces_always", "requires_template",
            "needs_space_before_subject", "needs", "default_fact_token", "batches", "defaults", "sets_side", "note", "base",
            "batchable", "own_loader", "template_lengths",
        },
        where,
        ("kind", "source"),
    )  # fmt: skip
    for key, choices in _METHOD_CHOICES.items():
        _choice(table, key, choices, where)
    batches = tuple(
        _batch(batch, indices, f"{where}.batches[{number}]") for number, batch in enumerate(table.pop("batches", ()))
    )
    table["kl_prompts"] = tuple(
        KlPrompt(**entry) if isinstance(entry, dict) else KlPrompt(entry) for entry in table.get("kl_prompts", ())
    )
    for key in ("needs", "template_lengths"):
        table[key] = tuple(table.get(key, ()))
    return Method(name=name, batches=batches, **table)


_METHOD_CHOICES: Mapping[str, tuple[str, ...]] = {
    "kind": ("locate", "train", "unpadded"),
    "space": get_args(Space),
    "target_specials": get_args(Specials),
    "head": ("decode", "text"),
    "templates": ("flat", "groups", "none"),
    "default_fact_token": FACT_TOKENS,
    "sets_side": ("left", "right"),
}


def _sites(table: Mapping[str, Any], indices: Mapping[str, Index], where: str) -> Iterator[Site]:
    _keys(table, {"side", "marks", *KEYS}, where)
    _choice(table, "side", get_args(Side), where)
    for kind, (required, optional) in KEYS.items():
        for number, entry in enumerate(table.get(kind, ())):
            here = f"{where}.{kind}[{number}]"
            needed = ("files", "function", "source", *sorted(required))
            _keys(entry, {*needed, "tokenizer", *optional}, here, needed)
            _choice(entry, "side", get_args(Side), here)
            given = {key: value for key, value in entry.items() if key != "files"}
            if "side" in optional:
                given.setdefault("side", table.get("side"))
            if "labels" in given:
                given["labels"] = _expression(given["labels"], f"{here}.labels")
            if "index" in given:
                if given["index"] not in indices:
                    raise EditorDataError(f"{here}.index: there is no [index.{given['index']}]")
                entries = indices[given["index"]].by_fact_token
                given["index"] = {
                    token: item.text if isinstance(item, Expression) else item.message for token, item in entries.items()
                }
            for file in entry["files"]:
                yield Site(kind=kind, file=file, **given)


def _choice(table: Mapping[str, Any], key: str, choices: tuple[str, ...], where: str) -> None:
    if key in table and table[key] not in choices:
        raise EditorDataError(f"{where}.{key}: {table[key]!r} is none of {', '.join(choices)}")


def _record(kind: type[_T], table: Mapping[str, Any], where: str) -> _T:
    """A small dataclass from a table whose keys are its fields."""
    names = {item.name for item in fields(kind)}
    required = tuple(item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING)
    _keys(table, names, where, required)
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


def parse_editor(text: str, stem: str) -> Editor:
    """One framework from the text of `rules/editors/<stem>.toml`.

    Raises `EditorDataError` with the place inside the file for unknown keys, bad expressions and missing parts.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EditorDataError(f"rules/editors/{stem}.toml: {error}") from None
    where = f"rules/editors/{stem}.toml"
    _keys(
        data,
        {
            "id", "title", "repository", "commit", "hparams", "method_key", "recognise", "side", "family", "unknown_family", "index",
            "methods", "pad", "guard",
        },
        where,
        ("id", "title", "repository", "commit", "hparams", "methods"),
    )  # fmt: skip
    if data["id"] != stem:
        raise EditorDataError(f"{where}: id {data['id']!r} is not the file's name")
    indices = {name: _index(name, table, f"{where} [index.{name}]") for name, table in data.get("index", {}).items()}
    methods = {name: _method(name, data["methods"], indices, f"{where} [methods.{name}]") for name in data["methods"]}
    side = data.get("side", {})
    _keys(side, {"rules", "places", "evaluation"}, f"{where} [side]")
    return Editor(
        id=data["id"],
        title=data["title"],
        repository=data["repository"],
        commit=data["commit"],
        hparams=data["hparams"],
        method_key=data.get("method_key"),
        recognise_keys=tuple(data.get("recognise", {}).get("keys", ())),
        side_rules=tuple(
            _record(SideRule, rule, f"{where} [side] rules[{number}]") for number, rule in enumerate(side.get("rules", ()))
        ),
        side_places=tuple(
            _record(SidePlace, place, f"{where} [side] places[{number}]")
            for number, place in enumerate(side.get("places", ()))
        ),
        evaluation_side=side.get("evaluation", {}).get("side"),
        families=tuple(
            _record(Family, family, f"{where} [[family]] {number}") for number, family in enumerate(data.get("family", ()))
        ),
        unknown_family=data.get("unknown_family", "fine"),
        methods=methods,
        pad=data.get("pad"),
        sites=tuple(_sites(data.get("guard", {}), indices, f"{where} [guard]")),
        marks=tuple(data.get("guard", {}).get("marks", ())),
    )


@cache
def editor_ids() -> tuple[str, ...]:
    """The frameworks that padcheck knows: the stems of rules/editors/*.toml."""
    return tuple(sorted(path.stem for path in (rules_dir() / "editors").glob("*.toml")))


@cache
def load_editor(editor_id: str) -> Editor:
    """The framework with this id; `KeyError` if there is none."""
    if editor_id not in editor_ids():
        raise KeyError(editor_id)
    return parse_editor((rules_dir() / "editors" / f"{editor_id}.toml").read_text("utf-8"), editor_id)
