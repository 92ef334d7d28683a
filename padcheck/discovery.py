"""Which files there are, and what each of them is.

Folders are searched with ruff's default excludes and, inside a Git repository, its .gitignore files. A file that is named is
taken as it comes (a pre-commit hook hands over anything); what is not ours is counted and not complained about.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from padcheck.configuration import FileRule, SettingsPerFolder, glob_to_regex
from padcheck.records import Record
from padcheck.resources import rules_dir

HEAD = 64 * 1024
"""Bytes by which a file of requests is recognised."""
LARGE = 50 * 1024 * 1024
"""Bytes above which a file is only read when it is named."""

PYTHON = frozenset({".py", ".pyw", ".pyi"})
YAML = frozenset({".yaml", ".yml"})
TABLES = frozenset({".json", ".jsonl", ".csv", ".tsv"})
TOKENIZER_FILES = frozenset({"tokenizer.json", "tokenizer_config.json"})
_BESIDE_A_TOKENIZER = TOKENIZER_FILES | {
    "special_tokens_map.json",
    "generation_config.json",
    "config.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "preprocessor_config.json",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
}
_TELLING = frozenset({"layers", "fact_token", "v_lr", "rewrite_module_tmp"})
_YAML_KEY = re.compile(r"^[\"']?([A-Za-z_]\w*)[\"']?[ \t]*:(?=\s)", re.MULTILINE)
_JSON_KEY = re.compile(r'"(\w+)"\s*:')
_PROMPTS = frozenset({"prompt", "prompts", "src", "requested_rewrite", "question"})
_TARGETS = frozenset({"target_new", "target", "alt", "requested_rewrite", "new_answer"})


class Candidate(Record):
    """A file or a tokenizer's folder that may be ours. `named`: on the command line; `rule`: what the configuration says of it."""

    path: Path
    named: bool = False
    rule: FileRule | None = None
    folder_kind: str | None = None
    """ "tokenizer" or "model" for a folder that is one thing."""


class Recognised(Record):
    """What a file is, and the reason to show."""

    kind: str
    reason: str


class Missing(Exception):
    """A path that was named and does not exist."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.as_posix())
        self.path = path


def discover(
    paths: Iterable[str | Path], settings: SettingsPerFolder, left_out: Callable[[Path], bool] | None = None
) -> Iterator[Candidate | Missing]:
    """The files below `paths` that may be ours, each once, in order of their names.

    `left_out` tells of a file or folder that is found, not named, whether it is passed over.
    """
    seen: set[str] = set()
    for given in paths:
        path = Path(given)
        found: Iterable[Candidate | Missing]
        if path.is_dir():
            kind = _folder_kind({entry.name for entry in path.iterdir()})
            found = _walk(path, settings, _Ignored.above(path.absolute(), settings), left_out, named_kind=kind)
        elif path.exists():
            found = _named(path, settings)
        else:
            found = [Missing(path)]
        for candidate in found:
            if isinstance(candidate, Missing):
                yield candidate
                continue
            identity = os.path.abspath(candidate.path)
            if identity not in seen:
                seen.add(identity)
                yield candidate


def _named(path: Path, settings: SettingsPerFolder) -> Iterator[Candidate]:
    """A file that is named: never excluded without --force-exclude; a tokenizer's file stands for its folder."""
    own = settings.of_file(path)
    if own.force_exclude and any(
        own.excludes(part) for part in (path.absolute(), *path.absolute().parents) if own.root in part.parents
    ):
        return
    if path.name in TOKENIZER_FILES:
        yield Candidate(path.parent, True, folder_kind="tokenizer")
    elif path.name in ("config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json"):
        kind = _folder_kind({entry.name for entry in path.absolute().parent.iterdir()})
        yield (
            Candidate(path.parent, True, folder_kind=kind) if kind else Candidate(path, True, own.file_rule(path.absolute()))
        )
    else:
        yield Candidate(path, True, own.file_rule(path.absolute()))


def _folder_kind(names: set[str]) -> str | None:
    if names & TOKENIZER_FILES:
        return "tokenizer"
    return "model" if "config.json" in names else None


def _walk(
    folder: Path,
    settings: SettingsPerFolder,
    ignored: _Ignored,
    left_out: Callable[[Path], bool] | None,
    named_kind: str | None = None,
) -> Iterator[Candidate]:
    own = settings.of(folder.absolute())
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError:
        return
    names = {entry.name for entry in entries}
    if own.respect_gitignore and ".git" in names:
        ignored = _Ignored.at_root(folder.absolute())
    ignored = ignored.with_files_of(folder.absolute(), names) if own.respect_gitignore else _Ignored()
    kind = named_kind or _folder_kind(names)
    if kind:
        yield Candidate(folder, folder_kind=kind)
    for entry in entries:
        path = Path(entry.path)
        absolute = path.absolute()
        is_folder = entry.is_dir(follow_symlinks=False)
        suffix = path.suffix.lower()
        if suffix == ".gz":
            suffix = Path(path.stem).suffix.lower()
        rule = None if is_folder else own.file_rule(absolute)
        if not is_folder and rule is None:
            if suffix not in PYTHON | YAML | TABLES | {".ipynb"} or (kind and entry.name in _BESIDE_A_TOKENIZER):
                continue
            if not entry.is_file():
                continue
        if own.excludes(absolute) or ignored.ignores(str(absolute), is_folder) or (left_out and left_out(absolute)):
            continue
        if is_folder:
            yield from _walk(path, settings, ignored, left_out)
        else:
            yield Candidate(path, rule=rule)


# --- What a file is ---------------------------------------------------------------------------------------------------------


def recognise(path: Path, text: str, rule: FileRule | None = None) -> Recognised:
    """What the file with this beginning (all of it, except for large files) is."""
    suffix = path.suffix.lower()
    if rule is not None:
        return Recognised(rule.kind, f"the configuration maps {rule.pattern!r} to it")
    if suffix in PYTHON:
        return Recognised("python", "its name ends in " + suffix)
    if suffix == ".ipynb":
        return Recognised("notebook", "its name ends in .ipynb")
    if suffix in YAML:
        return _hparams(frozenset(_YAML_KEY.findall(text)), "YAML") or Recognised("other", "no key of an editing method")
    if suffix == ".json" and text.lstrip("\ufeff \t\r\n").startswith("{"):
        found = _hparams(_json_keys(text), "JSON")
        if found:
            return found
    if suffix in TABLES or suffix == ".gz":
        return _requests(path, text) or Recognised("other", "neither hparams nor requests")
    return Recognised("other", f"padcheck reads no {suffix or 'such'} files")


def _json_keys(text: str) -> frozenset[str]:
    """The top-level keys of a JSON object; of a broken one, all keys."""
    if len(text) <= HEAD:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return frozenset(_JSON_KEY.findall(text))
        return frozenset(value) if isinstance(value, dict) else frozenset()
    return frozenset()


def _hparams(keys: frozenset[str], language: str) -> Recognised | None:
    for key in ("alg_name", "alg"):
        if key in keys and (key == "alg_name" or len(keys & known_keys()) >= 3):
            return Recognised("hparams", f"{language} with {key}")
    known = keys & known_keys()
    telling = sorted(known & _TELLING)
    if len(known) >= 3 and telling:
        return Recognised("hparams", f"{language} with {len(known)} keys of editing methods, {telling[0]} among them")
    return None


def _requests(path: Path, text: str) -> Recognised | None:
    head = text[:HEAD]
    if path.suffix.lower() in (".csv", ".tsv") or path.name.endswith((".csv.gz", ".tsv.gz")):
        columns = {name.strip().strip('"').lower() for name in re.split(r"[,\t;]", head.partition("\n")[0])}
    else:
        columns = set(_JSON_KEY.findall(head))
    if "subject" in columns and columns & _PROMPTS and columns & _TARGETS:
        return Recognised("requests", f"its first {HEAD // 1024} KB have subject and {min(columns & _TARGETS)}")
    return None


@cache
def _index() -> Mapping[str, Any]:
    value: Mapping[str, Any] = json.loads((rules_dir() / "schemas" / "hparams.json").read_bytes())
    return value


@cache
def known_keys() -> frozenset[str]:
    """Every key of every method's schema."""
    return frozenset(_index()["keys"])


def schema_methods() -> Mapping[str, list[str]]:
    """Framework → methods that have a schema in rules/schemas/hparams."""
    methods: Mapping[str, list[str]] = _index()["methods"]
    return methods


# --- .gitignore -------------------------------------------------------------------------------------------------------------


class _Pattern(Record):
    base: str
    """The folder of its file, with a slash."""
    regex: re.Pattern[str]
    negated: bool
    folders_only: bool


class _Ignored(Record):
    """The patterns of the .gitignore and .ignore files from the repository's root down to a folder; the last match counts."""

    patterns: tuple[_Pattern, ...] = ()
    in_repository: bool = False

    @classmethod
    def above(cls, folder: Path, settings: SettingsPerFolder) -> _Ignored:
        """The patterns that hold in `folder` because of the folders above it."""
        root = next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)
        if root is None or root == folder:
            return cls()
        result = cls.at_root(root)
        for parent in reversed([folder, *folder.parents]):
            if (root == parent or root in parent.parents) and parent != folder:
                result = result.with_files_of(parent, {".gitignore", ".ignore"})
        return result

    @classmethod
    def at_root(cls, root: Path) -> _Ignored:
        return cls((), True)._read(root, root / ".git" / "info" / "exclude")

    def with_files_of(self, folder: Path, names: set[str]) -> _Ignored:
        result = self
        if self.in_repository and ".gitignore" in names:
            result = result._read(folder, folder / ".gitignore")
        return result._read(folder, folder / ".ignore") if ".ignore" in names else result

    def _read(self, base: Path, path: Path) -> _Ignored:
        try:
            lines = path.read_text("utf-8", "replace").splitlines()
        except OSError:
            return self
        new = tuple(pattern for line in lines if (pattern := _pattern(line, base)) is not None)
        return _Ignored(self.patterns + new, self.in_repository)

    def ignores(self, path: str, is_folder: bool) -> bool:
        """Whether the patterns leave out this file or folder (an absolute path)."""
        path = path.replace(os.sep, "/")
        for pattern in reversed(self.patterns):
            if pattern.folders_only and not is_folder:
                continue
            if path.startswith(pattern.base) and pattern.regex.fullmatch(path, len(pattern.base)):
                return not pattern.negated
        return False


def _pattern(line: str, base: Path) -> _Pattern | None:
    """A line of a .gitignore file."""
    line = re.sub(r"(?<!\\)\s+$", "", line)
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    line = line.removeprefix("!")
    folders_only = line.endswith("/")
    line = line.rstrip("/")
    if not line:
        return None
    anchored = "/" in line
    return _Pattern(
        base.as_posix().rstrip("/") + "/",
        glob_to_regex(line.lstrip("/") if anchored else f"**/{line}"),
        negated,
        folders_only,
    )
