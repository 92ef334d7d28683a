"""Reading an hparams file: EasyEdit's YAML and kmeng01's JSON, with the place of every key.

YAML is composed with PyYAML as the frameworks read it (YAML 1.1: `5e-1` is a string to them, and stays one here).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from padcheck.diagnostics import Place
from padcheck.sources.reading import SourceError


@dataclass(frozen=True, slots=True)
class Hparams:
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
    if path.is_dir():
        raise SourceError("this is a folder, not an hparams file", path=shown, remedy="Name one file in it.")
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise SourceError("the hparams file does not exist", path=shown, remedy="Check the path.") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"the file is not UTF-8 (byte {error.start})", path=shown, remedy="Save it as UTF-8.") from None
    except OSError as error:
        raise SourceError(
            f"the file cannot be read: {error.strerror}", path=shown, remedy="Check its permissions."
        ) from None
    return parse_hparams(text, shown, as_json=path.suffix.lower() == ".json")


def parse_hparams(text: str, shown: str, *, as_json: bool = False) -> Hparams:
    """The hparams in `text`; see `read_hparams`."""
    import yaml

    values: Any
    if as_json:
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise SourceError(
                f"this is not JSON: {error.msg.lower()}",
                path=shown,
                line=error.lineno,
                column=error.colno,
                remedy="Mend the file at that place.",
            ) from None
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
            remedy="Mend the file at that place.",
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
