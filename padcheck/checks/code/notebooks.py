"""Notebooks: code cells as Python text, with IPython's own syntax blanked out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from padcheck.checks.code.reading import Unreadable

_MAGIC = re.compile(r"^(\s*)([%!?].*|\S+\?{1,2}\s*)$")
_ASSIGNED = re.compile(r"^(\s*[\w.,\s\[\]'\"]+=\s*)([%!].*)$")
_PYTHON_CELLS = frozenset({"%%time", "%%timeit", "%%capture", "%%prun", "%%python", "%%python3"})


@dataclass(frozen=True, slots=True)
class Cell:
    """A code cell: its number among all cells of the notebook, from 1, and its text."""

    number: int
    text: str


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
                result.append(Cell(number, python_of(raw)))
    return result


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
