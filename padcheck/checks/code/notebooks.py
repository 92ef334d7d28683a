"""Notebooks: code cells as Python text, with IPython's own syntax blanked out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from padcheck.checks.code.reading import Unreadable

_MAGIC = re.compile(r"^(\s*)([%!?].*|\S+\?{1,2}\s*)$")
_ASSIGNED = re.compile(r"^(\s*[\w.,\s\[\]'\"]+=\s*)([%!].*)$")
_PYTHON_CELLS = frozenset({"%%time", "%%timeit", "%%capture", "%%prun", "%%python", "%%python3"})


@dataclass(frozen=True, slots=True)
class Cell:
    """A code cell: its number among all cells of the notebook, from 1, its text as Python, and as it is written."""

    number: int
    text: str
    raw: str


def cells(text: str) -> list[Cell]:
    """The Python cells of a notebook, lines and columns kept. Raises `Unreadable` for what is not a notebook."""
    try:
        document = json.loads(text.lstrip("\ufeff"))
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON: {error.msg}", error.lineno, error.colno) from error
    except RecursionError as error:
        raise Unreadable("nested too deeply to be read", too_deep=True) from error
    if not isinstance(document, dict):
        raise Unreadable("not a notebook: the document is not an object", 1, 1)
    language = _language(document)
    if language not in (None, "python"):
        return []
    found = document.get("cells")
    if found is None:  # nbformat 3 keeps its cells in worksheets
        found = [
            each for sheet in document.get("worksheets", []) if isinstance(sheet, dict) for each in sheet.get("cells", [])
        ]
    if not isinstance(found, list):
        raise Unreadable("not a notebook: cells is not a list", 1, 1)
    result = []
    for number, cell in enumerate(found, 1):
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = cell.get("source", cell.get("input", ""))
            raw = "".join(part for part in source if isinstance(part, str)) if isinstance(source, list) else source
            if isinstance(raw, str):
                result.append(Cell(number, python_of(raw), raw))
    return result


def with_cells(text: str, changed: Mapping[int, str]) -> str:
    """The notebook with other text in some cells (by number). Nothing but the sources of these cells is written anew."""
    spans = dict(enumerate(_cell_spans(text), 1))
    for number, new in sorted(changed.items(), reverse=True):
        start, end = _member(text, spans[number], "source") or _member(text, spans[number], "input") or (0, 0)
        text = text[:start] + _source(text[start:end], new) + text[end:]
    return text


def _source(old: str, new: str) -> str:
    """A cell's text as JSON, written as the old one is: one string or a list of lines, escaped or not, with its indentation."""
    ascii_only = old.isascii()
    if not old.startswith("["):
        return json.dumps(new, ensure_ascii=ascii_only)
    lines = [json.dumps(line, ensure_ascii=ascii_only) for line in re.findall(r"[^\n]*\n|[^\n]+", new)]
    parts = _elements(old, (0, len(old)))
    if not parts:
        return f"[{', '.join(lines)}]"
    before, behind = old[1 : parts[0][0]], old[parts[-1][1] : -1]
    between = old[parts[0][1] : parts[1][0]] if len(parts) > 1 else "," + (before or " ")
    return f"[{before}{between.join(lines)}{behind}]"


_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n\ufeff]*")


def _cell_spans(text: str) -> list[tuple[int, int]]:
    """Where the cells of a notebook begin and end, in the order in which `cells` counts them."""
    whole = (_skip(text, 0), len(text))
    span = _member(text, whole, "cells")
    if span is not None:
        return _elements(text, span)
    sheets = _member(text, whole, "worksheets")
    inside = [_member(text, sheet, "cells") for sheet in _elements(text, sheets)] if sheets else []
    return [cell for each in inside if each is not None for cell in _elements(text, each)]


def _member(text: str, span: tuple[int, int], name: str) -> tuple[int, int] | None:
    """Where the value of a key lies in the object at `span`."""
    at = _skip(text, span[0] + 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        end = _DECODER.raw_decode(text, start)[1]
        if key == name:
            return start, end
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at
    return None


def _elements(text: str, span: tuple[int, int]) -> list[tuple[int, int]]:
    """Where the elements of the list at `span` lie."""
    result = []
    at = _skip(text, span[0] + 1)
    while text[at] != "]":
        end = _DECODER.raw_decode(text, at)[1]
        result.append((at, end))
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at
    return result


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _language(document: dict[str, Any]) -> str | None:
    metadata = document.get("metadata")
    kernel = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    language = kernel.get("language") if isinstance(kernel, dict) else None
    return language.lower() if isinstance(language, str) else None


def python_of(text: str) -> str:
    """A cell without magics and shell commands: each becomes `pass`, or None where its value is assigned."""
    lines = text.split("\n")
    first = next((line.strip() for line in lines if line.strip()), "")
    if first.startswith("%%") and first.split()[0] not in _PYTHON_CELLS:
        return ""
    result = []
    continued = False
    for line in lines:
        if continued:
            continued = line.rstrip().endswith("\\")
            result.append("")
            continue
        magic = _MAGIC.match(line)
        assigned = None if magic else _ASSIGNED.match(line)
        if magic and not (magic[2].startswith("%") and _continues(result)):
            result.append(f"{magic[1]}pass")
            continued = line.rstrip().endswith("\\")
        elif assigned:
            result.append(f"{assigned[1]}None")
            continued = line.rstrip().endswith("\\")
        else:
            result.append(line)
    return "\n".join(result)


def _continues(before: list[str]) -> bool:
    """Whether a line that begins with % goes on with an expression: `x = (a\\n % b)`."""
    text = "\n".join(before)
    return text.count("(") > text.count(")") or text.count("[") > text.count("]") or text.rstrip().endswith("\\")
