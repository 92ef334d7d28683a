"""Settings: `[tool.padcheck]` of the nearest pyproject.toml or padcheck.toml, and the command line before it.

Also suppression for files that cannot hold comments: `[[tool.padcheck.ignore]]` entries, with a reason, unused ones reported.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from padcheck.diagnostics import Finding, Place, Severity
from padcheck.reports import PreflightReport, Report
from padcheck.rulebook import UnknownRule, find, matching
from padcheck.sources.reading import SourceError

_KEYS = ("select", "ignore", "fail-on", "output-format", "statistics", "profile")
_IGNORE_KEYS = ("path", "rule", "key", "case_id", "reason")
_CHOICES = {
    "fail-on": ("error", "warning", "note", "never"),
    "output-format": ("text", "concise", "json", "sarif", "github", "gitlab", "junit"),
    "profile": ("default", "strict", "lenient"),
}


@dataclass(slots=True)
class Ignore:
    """One `[[tool.padcheck.ignore]]` entry. `place`: where it stands; `used`: how many findings it hid."""

    path: str | None
    rules: frozenset[str]
    key: str | None
    case_id: str | None
    reason: str | None
    place: Place
    used: int = 0

    def hides(self, finding: Finding) -> bool:
        if finding.rule not in self.rules:
            return False
        if self.path is not None and not fnmatch.fnmatch(finding.place.path or "", self.path):
            return False
        if self.case_id is not None and (finding.request is None or str(finding.request.case_id) != self.case_id):
            return False
        return self.key is None or finding.evidence.get("key") == self.key


@dataclass(slots=True)
class Settings:
    """What is in force. `source`: the file it was read from, None for none."""

    source: str | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    fail_on: str = "error"
    output_format: str = "text"
    statistics: bool = False
    profile: str = "default"
    no_ignores: bool = False
    ignores: list[Ignore] = field(default_factory=list)

    def as_toml(self) -> str:
        lines = [f"# from {self.source or 'the defaults and the command line'}", "[tool.padcheck]"]
        lines += [f"{name} = {json.dumps(list(value))}" for name, value in (("select", self.select), ("ignore", self.ignore))]
        lines += [f'fail-on = "{self.fail_on}"', f'output-format = "{self.output_format}"']
        lines += [f"statistics = {str(self.statistics).lower()}", f'profile = "{self.profile}"', f"# {len(self.ignores)} ignores"]
        return "\n".join(lines)


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
        nearest = _nearest(target)
        if nearest is not None:
            _read(nearest, settings)
    for name in ("select", "ignore"):
        if options.get(name):
            setattr(settings, name, tuple(part.strip() for part in str(options[name]).split(",") if part.strip()))
    for name in ("fail_on", "output_format", "profile"):
        if options.get(name):
            setattr(settings, name, options[name])
    settings.statistics = settings.statistics or bool(options.get("statistics"))
    settings.no_ignores = bool(options.get("no_ignores"))
    if settings.profile == "strict" and not options.get("fail_on"):
        settings.fail_on = "warning"
    for flag, selectors in (("--select", settings.select), ("--ignore", settings.ignore)):
        _checked(selectors, flag if options.get(flag[2:]) else settings.source or flag)
    return settings


def apply(settings: Settings, report: Report) -> None:
    """Leave out what is not selected, mark what is ignored, report ignores that hide nothing."""
    selected = matching(settings.select) if settings.select else None
    ignored = matching(settings.ignore) if settings.ignore else frozenset()
    kept = []
    for finding in report.findings:
        if (selected is not None and finding.rule not in selected) or finding.rule in ignored:
            continue
        if settings.profile == "lenient" and finding.severity != "error":
            continue
        hiding = next((ignore for ignore in settings.ignores if ignore.hides(finding)), None)
        if hiding is not None:
            hiding.used += 1
            finding = finding if settings.no_ignores else replace(finding, suppressed=True)
        kept.append(finding)
    rule = find("LNT102")
    for ignore in settings.ignores:
        if not ignore.used and rule.id not in ignored and (selected is None or rule.id in selected):
            kept.append(
                Finding(
                    rule.id, rule.name, cast(Severity, rule.severity), f"This ignore of {', '.join(sorted(ignore.rules))} hides nothing.",
                    place=ignore.place, remedy="Remove it.", message_zh=rule.message_zh, evidence={"key": str(ignore.place)},
                )
            )  # fmt: skip
    report.findings = kept
    if isinstance(report, PreflightReport) and report.verdict == "fail":
        if not any(finding.severity == "error" for finding in report.visible()):
            report.verdict = "incomplete" if report.errors else "pass"


def _nearest(target: Path) -> Path | None:
    start = target.resolve()
    for folder in (start, *start.parents) if start.is_dir() else start.parents:
        own = folder / "padcheck.toml"
        if own.is_file():
            return own
        project = folder / "pyproject.toml"
        if project.is_file() and b"[tool.padcheck" in project.read_bytes() or project.is_file() and b"[[tool.padcheck" in project.read_bytes():
            return project
    return None


def _read(path: Path, settings: Settings) -> None:
    shown = path.as_posix()
    text = path.read_text("utf-8")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SourceError(f"this is not TOML: {error}", path=shown, remedy="Mend the file.") from None
    table = data.get("tool", {}).get("padcheck", {}) if path.name == "pyproject.toml" else data.get("tool", {}).get("padcheck", data)
    settings.source = shown
    for key, value in table.items():
        if key == "ignore" and isinstance(value, list) and value and isinstance(value[0], dict):
            settings.ignores = [_ignore(entry, number, text, shown) for number, entry in enumerate(value)]
        elif key == "files":
            continue
        elif key not in _KEYS:
            raise SourceError(f"unknown key {key!r}", path=shown, line=_line(text, key), remedy=_suggest(key, _KEYS))
        elif key in _CHOICES and value not in _CHOICES[key]:
            raise SourceError(f"{key} cannot be {value!r}", path=shown, line=_line(text, key), remedy=_suggest(str(value), _CHOICES[key]))
        else:
            setattr(settings, key.replace("-", "_"), tuple(value) if isinstance(value, list) else value)


def _ignore(entry: Mapping[str, Any], number: int, text: str, shown: str) -> Ignore:
    line = [at for at, content in enumerate(text.splitlines(), 1) if content.strip() in {"[[tool.padcheck.ignore]]", "[[ignore]]"}]
    place = Place(shown, line[number] if number < len(line) else None)
    unknown = [key for key in entry if key not in _IGNORE_KEYS]
    if unknown:
        raise SourceError(f"unknown key {unknown[0]!r} in an ignore", path=shown, line=place.line, remedy=_suggest(unknown[0], _IGNORE_KEYS))
    if "rule" not in entry:
        raise SourceError("an ignore names the rule that it hides", path=shown, line=place.line, remedy='Add rule = "PAD101".')
    rules = _checked((str(entry["rule"]),), shown, place.line)
    case_id = entry.get("case_id")
    return Ignore(entry.get("path"), rules, entry.get("key"), None if case_id is None else str(case_id), entry.get("reason"), place)


def _checked(selectors: tuple[str, ...], where: str, line: int | None = None) -> frozenset[str]:
    try:
        return frozenset(matching(selectors))
    except UnknownRule as error:
        raise SourceError(str(error), path=where, line=line, remedy="`padcheck rules` lists them all.") from None


def _suggest(word: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, 1, 0.5)
    return f"Did you mean {close[0]}?" if close else f"Known are {', '.join(known)}."


def _line(text: str, key: str) -> int | None:
    return next((number for number, line in enumerate(text.splitlines(), 1) if line.lstrip().startswith(key)), None)
