"""A baseline: ignores for everything that is found now, written to the configuration, so that only what is new is reported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from padcheck.configuration import stable_fingerprint
from padcheck.diagnostics import Finding, relative_posix

_HEADER = re.compile(r"\s*\[{1,2}\s*([^\]]*?)\s*\]{1,2}\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*(?:ignore|"ignore"|'ignore')\s*=\s*(?=\[)""")
_STRING = re.compile(r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*', re.DOTALL)


def entries_for(findings: Iterable[Finding], root: Path) -> list[dict[str, str]]:
    """One entry per finding that has a path, each once; `root` is the configuration's folder. padcheck's own findings have none."""
    found = []
    for finding in findings:
        if finding.rule.startswith("LNT") or finding.place.path is None:
            continue
        entry = {
            "path": relative_posix(Path(finding.place.path).resolve(), root), "rule": finding.rule,
            "fingerprint": stable_fingerprint(finding, root), "reason": "baseline",
        }  # fmt: skip
        if entry not in found:
            found.append(entry)
    return found


def with_entries(text: str, entries: Sequence[Mapping[str, str]], *, pyproject: bool) -> str | None:
    """A configuration's text with these entries: as tables at its end or, where `ignore` is a list of rules, in that list.

    None where they cannot be put there; nothing else of the text is changed.
    """
    import tomllib

    old = _ignores(tomllib.loads(text), pyproject)
    if old is None or (old and all(isinstance(part, dict) for part in old) and not _list_span(text, pyproject)):
        name = "tool.padcheck.ignore" if pyproject or "[tool.padcheck" in text else "ignore"
        blocks = [
            f"[[{name}]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in entry.items()) for entry in entries
        ]
        new = text + ("" if not text or text.endswith("\n") else "\n") + ("\n" if text else "") + "\n".join(blocks)
    else:
        span = _list_span(text, pyproject)
        if span is None:
            return None
        body = text[span[0] : span[1]].rstrip()
        comma = "" if not _without_strings(body).rstrip() or _without_strings(body).rstrip().endswith(",") else ","
        if comma and "#" in body.rpartition("\n")[2]:
            comma = "\n" + comma  # behind a comment it would be one
        lines = [
            "  { " + ", ".join(f"{key} = {_toml(value)}" for key, value in entry.items()) + " },\n" for entry in entries
        ]
        new = text[: span[0]] + body + comma + "\n" + "".join(lines) + text[span[1] :]
    try:
        kept = _ignores(tomllib.loads(new), pyproject)
    except tomllib.TOMLDecodeError:
        return None
    return new if kept == [*(old or []), *map(dict, entries)] else None


def _toml(value: str) -> str:
    """A TOML string: JSON's, as far as these values go."""
    return json.dumps(value, ensure_ascii=False)


def _ignores(data: Mapping[str, Any], pyproject: bool) -> list[Any] | None:
    tool = data.get("tool")
    table = tool.get("padcheck") if isinstance(tool, dict) else None
    if table is None:
        table = {} if pyproject else data
    value = table.get("ignore") if isinstance(table, dict) else None
    return value if isinstance(value, list) else None


def _list_span(text: str, pyproject: bool) -> tuple[int, int] | None:
    """Where the inside of `ignore = […]` lies in padcheck's own table."""
    section, offset = "", 0
    for line in text.splitlines(keepends=True):
        header = _HEADER.fullmatch(line.rstrip("\r\n"))
        key = _KEY.match(line)
        if key and section in ({"tool.padcheck"} if pyproject else {"", "tool.padcheck"}):
            start = offset + key.end() + 1
            return next(((start, at) for at in _closing(text, start)), None)
        if header and not key:
            section = header[1].replace('"', "").replace(" ", "")
        offset += len(line)
    return None


def _closing(text: str, start: int) -> Iterator[int]:
    """The bracket that closes the list whose inside begins at `start`."""
    depth, at = 1, start
    while at < len(text):
        skipped = _STRING.match(text, at)
        if skipped:
            at = skipped.end()
            continue
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(text[at], 0)
        if not depth:
            yield at
            return
        at += 1


def _without_strings(body: str) -> str:
    """The body with strings shortened and comments left out, so that a comma at its end is seen."""
    return _STRING.sub(lambda found: "" if found[0].startswith("#") else '""', body)
