"""Settings: `[tool.padcheck]` of the nearest pyproject.toml or padcheck.toml, and the command line before it.

Also suppression for files that cannot hold comments: `[[tool.padcheck.ignore]]` entries, with a reason, unused ones reported.
A key, a value or a rule id that does not exist is an error with the nearest right one, never ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from padcheck.diagnostics import Finding, Place, relative_posix
from padcheck.records import MutableRecord, Record, field
from padcheck.reports import PreflightReport, Report
from padcheck.rulebook import UnknownRule, find, matching
from padcheck.sources.reading import SourceError

_CHOICES = {
    "fail-on": ("error", "warning", "note", "never"),
    "output-format": ("text", "concise", "json", "sarif", "github", "gitlab", "junit"),
    "profile": ("default", "strict", "lenient"),
}
_LISTS = ("select", "ignore", "exclude", "extend-exclude")
_FLAGS = ("statistics", "respect-gitignore", "force-exclude")
_TABLES = ("files", "per-file-ignores")
_KEYS = (*_LISTS, *_CHOICES, *_FLAGS, *_TABLES)
_IGNORE_KEYS = ("path", "rule", "key", "case_id", "fingerprint", "reason")
_FILE_KEYS = ("kind", "method", "framework")
KINDS = ("hparams", "requests", "tokenizer", "model", "python", "notebook", "other")
"""What a file can be, also as a value in `[tool.padcheck.files]`."""

DEFAULT_EXCLUDES = (
    ".bzr",
    ".direnv",
    ".eggs",
    ".git",
    ".git-rewrite",
    ".hg",
    ".ipynb_checkpoints",
    ".mypy_cache",
    ".nox",
    ".pants.d",
    ".pyenv",
    ".pytest_cache",
    ".pytype",
    ".ruff_cache",
    ".svn",
    ".tox",
    ".venv",
    ".vscode",
    "__pypackages__",
    "_build",
    "buck-out",
    "dist",
    "node_modules",
    "site-packages",
    "venv",
)


class Ignore(MutableRecord):
    """One `[[tool.padcheck.ignore]]` entry. `place`: where it stands; `used`: how many findings it hid."""

    path: str | None
    rules: frozenset[str]
    key: str | None
    case_id: str | None
    fingerprint: str | None
    reason: str | None
    place: Place
    root: Path
    used: int = 0

    def hides(self, finding: Finding) -> bool:
        if finding.rule not in self.rules or not self.about(finding.place.path):
            return False
        if self.case_id is not None and (finding.request is None or str(finding.request.case_id) != self.case_id):
            return False
        if self.fingerprint is not None and self.fingerprint != stable_fingerprint(finding, self.root):
            return False
        return self.key is None or finding.evidence.get("key") == self.key

    def about(self, path: str | None) -> bool:
        """Whether the entry speaks of this file: relative to the configuration's folder, or as the report names it."""
        if self.path is None:
            return True
        if path is None:
            return False
        return covers(self.path, Path(path), self.root)


def stable_fingerprint(finding: Finding, root: Path) -> str:
    """The fingerprint with the path seen from the configuration's folder, wherever padcheck is run."""
    path = finding.place.path
    if path is None or path.startswith(("-", "<")):
        return finding.fingerprint
    return finding.replace(place=finding.place.replace(path=relative_posix(Path(path).resolve(), root))).fingerprint


class FileRule(Record):
    """An entry of `[tool.padcheck.files]`: what the files that a pattern covers are."""

    pattern: str
    kind: str
    method: str | None = None
    framework: str | None = None


class Settings(MutableRecord):
    """What is in force. `source`: the file it was read from, None for none; `root`: what its patterns are relative to."""

    source: str | None = None
    root: Path = field(default_factory=Path.cwd)
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    fail_on: str = "error"
    output_format: str = "text"
    statistics: bool = False
    profile: str = "default"
    exclude: tuple[str, ...] = DEFAULT_EXCLUDES
    extend_exclude: tuple[str, ...] = ()
    respect_gitignore: bool = True
    force_exclude: bool = False
    files: tuple[FileRule, ...] = ()
    per_file_ignores: tuple[tuple[str, frozenset[str]], ...] = ()
    no_ignores: bool = False
    ignores: list[Ignore] = field(default_factory=list)
    _enabled: frozenset[str] | None = None
    _excluded: tuple[re.Pattern[str], tuple[str, ...]] | None = None

    def as_toml(self) -> str:
        lines = [f"# from {self.source or 'the defaults and the command line'}", "[tool.padcheck]"]
        lists = (
            ("select", self.select),
            ("ignore", self.ignore),
            ("exclude", self.exclude),
            ("extend-exclude", self.extend_exclude),
        )
        lines += [f"{name} = {json.dumps(list(value))}" for name, value in lists]
        lines += [f'fail-on = "{self.fail_on}"', f'output-format = "{self.output_format}"', f'profile = "{self.profile}"']
        flags = (
            ("statistics", self.statistics),
            ("respect-gitignore", self.respect_gitignore),
            ("force-exclude", self.force_exclude),
        )
        lines += [f"{name} = {str(value).lower()}" for name, value in flags]
        if self.files:
            lines += [
                "",
                "[tool.padcheck.files]",
                *(f"{json.dumps(rule.pattern)} = {json.dumps(rule.kind)}" for rule in self.files),
            ]
        if self.per_file_ignores:
            lines += ["", "[tool.padcheck.per-file-ignores]"]
            lines += [f"{json.dumps(pattern)} = {json.dumps(sorted(ids))}" for pattern, ids in self.per_file_ignores]
        return "\n".join([*lines, f"# {len(self.ignores)} ignores"])

    def enabled(self) -> frozenset[str]:
        """The ids of the rules that run."""
        if self._enabled is None:
            from padcheck.rulebook import rules

            chosen = matching(self.select) if self.select else set(rules())
            self._enabled = frozenset(chosen - matching(self.ignore))
        return self._enabled

    def excludes(self, path: Path) -> bool:
        """Whether a pattern of `exclude` or `extend-exclude` names this file or folder. Folders above it are for the caller to ask."""
        if self._excluded is None:
            patterns = (*self.exclude, *self.extend_exclude)
            names = "|".join(
                f"(?:{glob_to_regex(each.rstrip('/')).pattern})" for each in patterns if "/" not in each.rstrip("/")
            )
            self._excluded = re.compile(names or r"(?!)"), tuple(each for each in patterns if "/" in each.rstrip("/"))
        names_, paths = self._excluded
        return names_.fullmatch(path.name) is not None or any(covers(pattern, path, self.root) for pattern in paths)

    def file_rule(self, path: Path) -> FileRule | None:
        """The entry of `[tool.padcheck.files]` for this file; the last one that covers it counts."""
        return next((rule for rule in reversed(self.files) if covers(rule.pattern, path, self.root)), None)


def settings_for(target: Path, options: Mapping[str, Any]) -> Settings:
    """The settings for a file: the nearest configuration above it, then the command line.

    Raises SourceError for an unknown key, value or rule id, with the nearest right one.
    """
    settings = Settings()
    if options.get("config"):
        path = Path(options["config"])
        if not path.is_file():
            raise SourceError("the configuration does not exist", path=path.as_posix(), remedy="Check --config.")
        _read(path, settings)
    elif not options.get("isolated"):
        nearest = nearest_configuration(target)
        if nearest is not None:
            _read(nearest, settings)
    for name in ("select", "ignore"):
        if options.get(name):
            setattr(settings, name, tuple(part.strip() for part in str(options[name]).split(",") if part.strip()))
    for name in ("fail_on", "output_format", "profile"):
        if options.get(name):
            setattr(settings, name, options[name])
    settings.statistics = settings.statistics or bool(options.get("statistics"))
    settings.force_exclude = settings.force_exclude or bool(options.get("force_exclude"))
    settings.no_ignores = bool(options.get("no_ignores"))
    if settings.profile == "strict" and not options.get("fail_on"):
        settings.fail_on = "warning"
    for flag, selectors in (("--select", settings.select), ("--ignore", settings.ignore)):
        _checked(selectors, flag if options.get(flag[2:]) else settings.source or flag)
    return settings


class SettingsPerFolder:
    """The settings of each file's nearest configuration; one `Settings` per configuration, read once."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._by_source: dict[Path | None, Settings] = {}
        self._by_folder: dict[Path, Settings] = {}

    def of(self, folder: Path) -> Settings:
        """The settings for what lies in a folder. Raises SourceError as `settings_for` does."""
        known = self._by_folder.get(folder)
        if known is None:
            fixed = self._options.get("config") or self._options.get("isolated")
            source = None if fixed else nearest_configuration(folder)
            known = self._by_source.get(source)
            if known is None:
                known = self._by_source[source] = settings_for(folder, self._options)
            self._by_folder[folder] = known
        return known

    def of_file(self, path: str | Path, *, is_folder: bool = False) -> Settings:
        """The settings for a file, or for a folder that is one thing."""
        absolute = Path(path).absolute()
        return self.of(absolute if is_folder else absolute.parent)

    def all(self) -> Iterable[Settings]:
        return self._by_source.values()


def sift(findings: Iterable[Finding], settings: Settings) -> list[Finding]:
    """Leave out what is not enabled, mark what is ignored."""
    enabled = settings.enabled()
    kept = []
    for finding in findings:
        if finding.rule not in enabled or (settings.profile == "lenient" and finding.severity != "error"):
            continue
        path = finding.place.path
        if path and any(
            finding.rule in ids and covers(pattern, Path(path), settings.root) for pattern, ids in settings.per_file_ignores
        ):
            continue
        hiding = next((ignore for ignore in settings.ignores if ignore.hides(finding)), None)
        if hiding is not None:
            hiding.used += 1
            finding = finding if settings.no_ignores else finding.replace(suppressed=True)
        kept.append(finding)
    return kept


def unused(settings: Settings, paths: Collection[str], ran: Collection[str]) -> list[Finding]:
    """LNT102 for entries about one of `paths` that hid nothing although all their rules are among those that `ran`."""
    rule = find("LNT102")
    if rule.id not in settings.enabled():
        return []
    return [
        Finding(
            rule.id,
            rule.name,
            rule.severity,
            f"This ignore of {', '.join(sorted(ignore.rules))} hides nothing.",
            place=ignore.place,
            remedy="Remove it.",
            message_zh=rule.message_zh,
            evidence={"key": str(ignore.place)},
        )
        for ignore in settings.ignores
        if not ignore.used and ignore.rules <= set(ran) and any(ignore.about(path) for path in paths)
    ]


STATIC_ONLY = re.compile(r"COD|STA|ENV|(HPR|TOK)1[1-9]\d")
"""Rules that only `padcheck check` runs."""


def apply(settings: Settings, report: Report) -> None:
    """Leave out what is not selected, mark what is ignored, report ignores that hide nothing (for `preflight`)."""
    report.findings = sift(report.findings, settings)
    if isinstance(report, PreflightReport):
        paths = [path for path in (report.hparams_path, report.requests_path, report.tokenizer_path) if path]
        ran = {rule for rule in settings.enabled() if not STATIC_ONLY.match(rule)}
        report.findings += unused(settings, paths, ran)
        if report.verdict == "fail" and not any(finding.severity == "error" for finding in report.visible()):
            report.verdict = "incomplete" if report.errors else "pass"


def covers(pattern: str, path: Path, root: Path) -> bool:
    """Whether a glob covers a file or folder: one without a slash by any part of its path, one with a slash from `root` on."""
    relative = relative_posix(path if path.is_absolute() else path.absolute(), root)
    if "/" not in pattern.rstrip("/"):
        compiled = glob_to_regex(pattern.rstrip("/"))
        parts = relative.strip("/").split("/") if not Path(relative).is_absolute() else [path.name]
        return any(compiled.fullmatch(part) for part in parts)
    compiled = glob_to_regex(pattern.removeprefix("./").strip("/"))
    return bool(compiled.fullmatch(relative)) or any(
        compiled.fullmatch(parent.as_posix()) for parent in Path(relative).parents
    )


@cache
def glob_to_regex(pattern: str) -> re.Pattern[str]:
    """A glob with ** as a regular expression over POSIX paths."""
    result, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            result, at = result + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            result, at = result + ".*", at + 2
        elif pattern[at] == "*":
            result, at = result + "[^/]*", at + 1
        elif pattern[at] == "?":
            result, at = result + "[^/]", at + 1
        elif pattern[at] == "[" and "]" in pattern[at + 2 :]:
            end = pattern.index("]", at + 2)
            body = pattern[at + 1 : end].replace("\\", "\\\\")
            result, at = result + "[" + ("^" + body[1:] if body[0] in "!^" else body) + "]", end + 1
        elif pattern[at] == "\\" and at + 1 < len(pattern):
            result, at = result + re.escape(pattern[at + 1]), at + 2
        else:
            result, at = result + re.escape(pattern[at]), at + 1
    return re.compile(result)


def nearest_configuration(target: Path) -> Path | None:
    """The configuration file of the nearest folder that has one."""
    start = target.resolve()
    for folder in (start, *start.parents) if start.is_dir() else start.parents:
        own = folder / "padcheck.toml"
        if own.is_file():
            return own
        project = folder / "pyproject.toml"
        if project.is_file() and b"tool.padcheck" in project.read_bytes():
            return project
    return None


def _read(path: Path, settings: Settings) -> None:
    import tomllib

    shown = path.as_posix()
    try:
        text = path.read_text("utf-8")
        data = tomllib.loads(text)
    except UnicodeDecodeError:
        raise SourceError("the configuration is not UTF-8", path=shown, remedy="Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise SourceError(f"this is not TOML: {error}", path=shown, remedy="Mend the file.") from None
    tool = data.get("tool")
    table = tool.get("padcheck") if isinstance(tool, dict) else None
    if table is None:
        table = {} if path.name == "pyproject.toml" else data
    if not isinstance(table, dict):
        raise SourceError(
            "padcheck is a table of settings", path=shown, line=_line(text, "tool"), remedy="Write [tool.padcheck]."
        )
    settings.source, settings.root = shown, path.resolve().parent
    for key, value in table.items():
        if key == "ignore":
            _read_ignore(value, text, shown, settings)
        elif key not in _KEYS:
            raise SourceError(f"unknown key {key!r}", path=shown, line=_line(text, key), remedy=_suggest(key, _KEYS))
        elif key == "files":
            settings.files = tuple(
                _file_rule(pattern, entry, text, shown) for pattern, entry in _table(value, key, text, shown).items()
            )
        elif key == "per-file-ignores":
            table_ = _table(value, key, text, shown)
            settings.per_file_ignores = tuple(
                (pattern, _checked(_strings(ids, pattern, text, shown), shown, _line(text, pattern)))
                for pattern, ids in table_.items()
            )
        elif key in _CHOICES and value not in _CHOICES[key]:
            raise SourceError(
                f"{key} cannot be {value!r}", path=shown, line=_line(text, key), remedy=_suggest(str(value), _CHOICES[key])
            )
        elif key in _FLAGS and not isinstance(value, bool):
            raise SourceError(
                f"{key} is true or false, not {value!r}", path=shown, line=_line(text, key), remedy=f"Write {key} = true."
            )
        else:
            setattr(settings, key.replace("-", "_"), _strings(value, key, text, shown) if key in _LISTS else value)
            if key == "select":
                _checked(settings.select, shown, _line(text, key))


def _read_ignore(value: Any, text: str, shown: str, settings: Settings) -> None:
    """`ignore` holds rules, entries (`[[tool.padcheck.ignore]]`, or tables among the rules), or both."""
    parts = value if isinstance(value, list) else [value]
    entries = [part for part in parts if isinstance(part, dict)]
    rules = [part for part in parts if not isinstance(part, dict)] if isinstance(value, list) else value
    if rules or not entries:
        settings.ignore = _strings(rules, "ignore", text, shown)
        _checked(settings.ignore, shown, _line(text, "ignore"))
    places = _entry_lines(text, len(entries))
    settings.ignores = [
        _ignore(entry, Place(shown, line), settings.root) for entry, line in zip(entries, places, strict=True)
    ]


def _entry_lines(text: str, count: int) -> list[int | None]:
    """Where the entries begin: their headers, or the tables in a list that begin with a path or a rule."""
    lines = list(enumerate(text.splitlines(), 1))
    headers = [at for at, line in lines if re.fullmatch(r"\[\[\s*(tool\.padcheck\.)?ignore\s*\]\]\s*(#.*)?", line.strip())]
    tables = [at for at, line in lines if re.match(r"\s*(ignore\s*=\s*\[\s*)?\{.*\brule\s*=", line)]
    found = headers if len(headers) == count else tables if len(tables) == count else []
    return list(found) or [None] * count


def _table(value: Any, key: str, text: str, shown: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SourceError(
            f"{key} is a table of patterns", path=shown, line=_line(text, key), remedy=f"Write [tool.padcheck.{key}]."
        )
    return value


def _strings(value: Any, key: str, text: str, shown: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        example = value if isinstance(value, str) else "…"
        raise SourceError(
            f"{key} is a list of strings", path=shown, line=_line(text, key), remedy=f'Write {key} = ["{example}"].'
        )
    return tuple(value)


def _file_rule(pattern: str, entry: Any, text: str, shown: str) -> FileRule:
    table = {"kind": entry} if isinstance(entry, str) else entry
    if not isinstance(table, dict):
        raise SourceError(
            "a pattern of files is given a kind",
            path=shown,
            line=_line(text, pattern),
            remedy=f"Kinds are {', '.join(KINDS)}.",
        )
    unknown = [key for key in table if key not in _FILE_KEYS]
    if unknown:
        raise SourceError(
            f"unknown key {unknown[0]!r}", path=shown, line=_line(text, pattern), remedy=_suggest(unknown[0], _FILE_KEYS)
        )
    kind = table.get("kind", "hparams")
    wrong = next((key for key in _FILE_KEYS if not isinstance(table.get(key, ""), str)), None)
    if wrong is not None:
        raise SourceError(
            f"{wrong} of {pattern!r} is not text",
            path=shown,
            line=_line(text, pattern),
            remedy=f'Write {wrong} = "{table[wrong]}".',
        )
    if kind not in KINDS:
        raise SourceError(
            f"there is no kind {kind!r} of file", path=shown, line=_line(text, pattern), remedy=_suggest(str(kind), KINDS)
        )
    return FileRule(pattern, kind, table.get("method"), table.get("framework"))


def _ignore(entry: Mapping[str, Any], place: Place, root: Path) -> Ignore:
    shown = place.path or ""
    unknown = [key for key in entry if key not in _IGNORE_KEYS]
    if unknown:
        raise SourceError(
            f"unknown key {unknown[0]!r} in an ignore",
            path=shown,
            line=place.line,
            remedy=_suggest(unknown[0], _IGNORE_KEYS),
        )
    if "rule" not in entry:
        raise SourceError(
            "an ignore names the rule that it hides", path=shown, line=place.line, remedy='Add rule = "PAD101".'
        )
    wrong = next(
        (key for key, value in entry.items() if not isinstance(value, str | int if key == "case_id" else str)), None
    )
    if wrong is not None:
        raise SourceError(f"{wrong} of an ignore is not text", path=shown, line=place.line, remedy=f'Write {wrong} = "…".')
    rules = _checked((entry["rule"],), shown, place.line)
    case_id = entry.get("case_id")
    return Ignore(
        entry.get("path"),
        rules,
        entry.get("key"),
        None if case_id is None else str(case_id),
        entry.get("fingerprint"),
        entry.get("reason"),
        place,
        root,
    )


def _checked(selectors: tuple[str, ...], where: str, line: int | None = None) -> frozenset[str]:
    try:
        return frozenset(matching(selectors))
    except UnknownRule as error:
        raise SourceError(str(error), path=where, line=line, remedy="`padcheck rules` lists them all.") from None


def _suggest(word: str, known: tuple[str, ...]) -> str:
    import difflib

    close = difflib.get_close_matches(word, known, 1, 0.5)
    return f"Did you mean {close[0]}?" if close else f"Known are {', '.join(known)}."


def _line(text: str, key: str) -> int | None:
    return next(
        (number for number, line in enumerate(text.splitlines(), 1) if line.lstrip().lstrip("\"'").startswith(key)), None
    )
