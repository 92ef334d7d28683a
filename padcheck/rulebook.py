"""The rules as data: metadata from the compiled index, pages read only when somebody asks for one.

A rule is one page, `rules/<ID>-<name>.md`: YAML front matter (the metadata) and the text for people. A build compiles the
front matter of all pages into one `index.json`; a checkout has no index and reads the pages themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from padcheck.diagnostics import SEVERITIES, Severity
from padcheck.records import Record, names
from padcheck.resources import rules_dir

INDEX_NAME = "index.json"
INDEX_VERSION = 1

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "PAD": "padding side and convention",
        "IDX": "lookup index",
        "TGT": "targets and labels",
        "TOK": "tokenizer files",
        "HPR": "hyper-parameters",
        "REQ": "edit requests",
        "COD": "Python code",
        "ENV": "library versions",
        "STA": "statistics and caches",
        "EDT": "running edits",
        "LNT": "padcheck itself",
    }
)
"""Family → what it is about, in the order in which rules are listed."""

# Compiled when first used: an installation reads the index and needs none of them.
_ID = r"([A-Z]{3})\d{3}"
_NAME = r"[a-z0-9]+(-[a-z0-9]+)+"
_PREFIX = r"[A-Z]{3}\d{0,2}"
_FENCE = "---\n"


class Rule(Record):
    """What padcheck says of a rule without opening its page."""

    id: str
    name: str
    family: str
    severity: Severity
    """The gravest severity of its findings; a finding carries its own."""
    summary: str
    """One English sentence."""
    message_zh: str
    """One short Chinese sentence that says the finding."""
    since: str
    """The version of padcheck that brought it."""
    page: str
    """File name of the page in `rules/`."""
    example: str = "check"
    """How tests run the page's blocks marked `bad` and `good`: a command, a tokenizer of fixtures/shipped, options; or `none:` and why."""
    redirects: tuple[str, ...] = ()
    """Former ids and names that lead here. An id is never used again for another rule."""

    @property
    def title(self) -> str:
        """`PAD101 (lookup-shifted-by-pads)`"""
        return f"{self.id} ({self.name})"


class UnknownRule(LookupError):
    """No rule, family or prefix is called `given`. `nearest` is the rule whose id or name comes closest, if any does."""

    def __init__(self, given: str, nearest: Rule | None) -> None:
        hint = f"did you mean {nearest.title}?" if nearest else "`padcheck rules` lists them."
        super().__init__(f"There is no rule {given!r}: {hint}")
        self.given = given
        self.nearest = nearest


class RulePageError(ValueError):
    """A rule page that cannot be compiled; the message names the file and what is wrong in it."""


@cache
def rules() -> Mapping[str, Rule]:
    """Every rule by its id, by family and then by number. Read-only.

    Reads the compiled index; in a checkout, where there is none, it compiles the pages (and only then needs PyYAML).
    """
    folder = rules_dir()
    try:
        index = json.loads((folder / INDEX_NAME).read_bytes())
    except FileNotFoundError:
        index = compile_index(folder)
    compiled = (Rule(**entry | {"redirects": tuple(entry["redirects"])}) for entry in index["rules"])
    return MappingProxyType({rule.id: rule for rule in compiled})


def find(rule_id_or_name: str) -> Rule:
    """The rule of this id or name, or of this former id or name; upper and lower case are the same. Raises `UnknownRule`."""
    try:
        return _by_any_name()[rule_id_or_name.strip().lower()]
    except KeyError:
        raise UnknownRule(rule_id_or_name, _nearest(rule_id_or_name)) from None


def matching(selectors: Iterable[str]) -> set[str]:
    """The ids that `selectors` name: an id (PAD101), a name, a family (PAD) or the beginning of an id (PAD1).

    Raises `UnknownRule` for a selector that names nothing: a typo in `--ignore` must not silently ignore nothing.
    """
    selected: set[str] = set()
    for selector in selectors:
        prefix = selector.strip().upper()
        hits = {rule_id for rule_id in rules() if rule_id.startswith(prefix)} if re.fullmatch(_PREFIX, prefix) else set()
        # A family without a rule yet is known, so it selects nothing rather than being a typo.
        selected |= hits or (set() if prefix in FAMILIES else {find(selector).id})
    return selected


def page(rule: Rule) -> str:
    """The rule's page as a person reads it, in Markdown: what the front matter says, then the text."""
    text = _split((rules_dir() / rule.page).read_text(encoding="utf-8"), rule.page)[1]
    return f"# {rule.title}\n\n{rule.summary}\n{rule.message_zh}\n\nSeverity: {rule.severity}. Since {rule.since}.\n\n{text}"


def compile_index(folder: Path) -> dict[str, Any]:
    """The index of the pages in `folder`: `{"version": 1, "rules": [fields of Rule, …]}`, ready for JSON.

    Raises `RulePageError` where a page's front matter is incomplete or wrong, or two pages claim one id or name.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = []
    for path in sorted(folder.glob("*.md")):
        front = _split(path.read_text(encoding="utf-8"), path.name)[0]
        try:
            metadata = yaml.load(front, Loader=loader)  # a safe loader, in C where there is one
        except yaml.YAMLError as error:
            raise RulePageError(f"{path.name}: the front matter is not YAML: {error}") from error
        entries.append(_checked(metadata, path))
    _refuse_duplicates(entries)
    families = list(FAMILIES)
    entries.sort(key=lambda entry: (families.index(entry["family"]), entry["id"]))
    return {"version": INDEX_VERSION, "rules": entries}


def _split(text: str, where: str) -> tuple[str, str]:
    """Front matter and text of a page."""
    if text.startswith(_FENCE):
        front, fence, body = text[len(_FENCE) :].partition("\n" + _FENCE)
        if fence:
            return front, body.lstrip("\n")
    raise RulePageError(f"{where}: a rule page begins with front matter between two lines of ---")


def _checked(metadata: object, path: Path) -> dict[str, Any]:
    """`metadata` as an entry of the index, or RulePageError."""

    def refuse(reason: str) -> RulePageError:
        return RulePageError(f"{path.name}: {reason}")

    if not isinstance(metadata, dict):
        raise refuse("the front matter is not a mapping")
    allowed = set(names(Rule)) - {"page"}
    missing, unknown = allowed - {"redirects", "example"} - metadata.keys(), metadata.keys() - allowed
    if missing or unknown:
        raise refuse(f"missing keys {sorted(missing)}, unknown keys {sorted(map(str, unknown))}")
    redirects = metadata.get("redirects", [])
    if not isinstance(redirects, list):
        raise refuse("redirects is not a list")
    texts = [*redirects, *(value for key, value in metadata.items() if key != "redirects")]
    if not all(isinstance(text, str) and text.strip() == text != "" for text in texts):
        raise refuse("every value is a non-empty string without spaces around it (quote what YAML reads as something else)")
    identifier = re.fullmatch(_ID, metadata["id"])
    if identifier is None or identifier[1] != metadata["family"] or metadata["family"] not in FAMILIES:
        raise refuse(f"id {metadata['id']!r} is not three digits after one of the families {', '.join(FAMILIES)}")
    if not re.fullmatch(_NAME, metadata["name"]):
        raise refuse(f"name {metadata['name']!r} is not in kebab-case")
    if metadata["severity"] not in SEVERITIES:
        raise refuse(f"severity {metadata['severity']!r} is not one of {', '.join(SEVERITIES)}")
    if path.name != f"{metadata['id']}-{metadata['name']}.md":
        raise refuse(f"the file should be called {metadata['id']}-{metadata['name']}.md")
    return cast("dict[str, Any]", metadata) | {"redirects": redirects, "page": path.name}


def _refuse_duplicates(entries: list[dict[str, Any]]) -> None:
    """Ids, names and redirects share one space, so that `find` is never ambiguous."""
    owner: dict[str, str] = {}
    for entry in entries:
        for word in (entry["id"], entry["name"], *entry["redirects"]):
            other = owner.setdefault(word.lower(), entry["page"])
            if other != entry["page"]:
                raise RulePageError(f"{entry['page']}: {word} is already taken by {other}")


@cache
def _by_any_name() -> dict[str, Rule]:
    """Lower-case id, name or redirect → rule."""
    return {word.lower(): rule for rule in rules().values() for word in (rule.id, rule.name, *rule.redirects)}


def _nearest(given: str) -> Rule | None:
    """The rule whose id or name looks most like `given`."""
    from difflib import get_close_matches

    close = get_close_matches(given.strip().lower(), _by_any_name(), n=1, cutoff=0.5)
    return _by_any_name()[close[0]] if close else None
