"""Reading an hparams file: EasyEdit's YAML and kmeng01's JSON, with the place of every key.

YAML is composed with PyYAML as the frameworks read it (YAML 1.1: `5e-1` is a string to them, and stays one here).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from padcheck.diagnostics import Place
from padcheck.records import Record, field
from padcheck.sources.reading import SourceError, parse_json, read_text


class Hparams(Record):
    """An hparams file as it is. `places`: the place of each top-level key's value; `duplicates`: keys written more than once."""

    path: str
    values: Mapping[str, Any]
    places: Mapping[str, Place] = field(default_factory=dict)
    duplicates: tuple[tuple[str, Place], ...] = ()

    def place(self, key: str) -> Place:
        return self.places.get(key, Place(path=self.path))


def read_hparams(path: Path, shown_as: str | None = None) -> Hparams:
    """The hparams of a YAML or JSON file.

    Raises:
        SourceError: the file is missing, is a folder, is not UTF-8, or is not a mapping; with the line where it breaks.
    """
    shown = shown_as or path.as_posix()
    text = read_text(path, shown, "the hparams file")
    return parse_hparams(text, shown, as_json=path.suffix.lower() == ".json")


def parse_hparams(text: str, shown: str, *, as_json: bool = False) -> Hparams:
    """The hparams in `text`; see `read_hparams`."""
    import yaml

    values: Any
    if as_json:
        values = parse_json(text, shown)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        node = loader.get_single_node()
        if not as_json:
            values = loader.construct_document(node) if node is not None else None
    except yaml.YAMLError as error:
        if as_json:
            return Hparams(shown, _mapping(values, shown))
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise SourceError(
            f"this is not YAML: {problem}",
            path=shown,
            line=mark.line + 1 if mark else None,
            column=mark.column + 1 if mark else None,
            remedy=_open_quote(text, mark.line if mark else 0) or "Mend the file at that place.",
        ) from None
    finally:
        loader.dispose()
    mapping = _mapping(values, shown)
    places: dict[str, Place] = {}
    duplicates: list[tuple[str, Place]] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value)
            if name in places:
                duplicates.append((name, _place(shown, key)))
            places[name] = _place(shown, value)
    return Hparams(shown, mapping, places, tuple(duplicates))


def _open_quote(text: str, end: int) -> str | None:
    """Where a quotation mark that is not closed may have led astray: the first line before `end` (0-based) with an odd one."""
    for number, line in enumerate(text.splitlines()[:end], 1):
        content = line.partition(" #")[0]
        if not line.lstrip().startswith("#") and (content.count('"') % 2 or content.count("'") % 2):
            return f"Is the quotation mark on line {number} closed?"
    return None


def _mapping(values: Any, shown: str) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        kind = "is empty" if values is None else f"holds a {type(values).__name__}"
        raise SourceError(
            f"an hparams file maps names to values, but this one {kind}", path=shown, remedy="Is it the right file?"
        )
    return {str(key): value for key, value in values.items()}


def _place(shown: str, node: Any) -> Place:
    start, end = node.start_mark, node.end_mark
    return Place(shown, start.line + 1, start.column + 1, end.line + 1, end.column + 1)
