"""The JSON Schemas of hparams in rules/schemas/hparams: one file per framework and method, one variant per class that loads it.

Besides what JSON Schema says, a variant carries: `x-source` (file and line of the class), `x-numeric-strings` (its loader turns
numeric strings into floats), `x-aliases` (former names that it renames), `x-filled` (keys that it fills in), `x-head` (how it looks
up the output embedding: "parameter" by its name among the parameters, "module"), and on a property `x-ignored` (never read).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal

from padcheck.records import Record
from padcheck.resources import rules_dir

Fault = Literal["type", "range", "choice", "pattern"]


class Variant(Record):
    """One class that loads hparams of a method."""

    framework: str
    method: str
    name: str
    source: str
    properties: Mapping[str, Mapping[str, Any]]
    required: tuple[str, ...]
    numeric_strings: bool
    aliases: Mapping[str, str]
    filled: tuple[str, ...]
    head: Literal["parameter", "module"] | None

    @property
    def locates(self) -> bool:
        """Whether the method looks for the subject's token."""
        return "fact_token" in self.properties

    def ignored(self) -> list[str]:
        return [name for name, schema in self.properties.items() if schema.get("x-ignored")]

    def missing(self, keys: Mapping[str, Any]) -> list[str]:
        """Required keys that are absent, aliases and filled ones aside."""
        absent = [key for key in self.required if key not in keys]
        for alias, key in self.aliases.items():
            if key not in keys and alias not in keys and key in self.properties and key not in absent:
                absent.append(key)
        if self.filled and not any(key in keys for key in self.filled):
            absent.append(self.filled[0])
        return [key for key in absent if key not in self.filled or not any(other in keys for other in self.filled)]

    def unknown(self, keys: Mapping[str, Any]) -> list[str]:
        return [key for key in keys if key not in self.properties]

    def distance(self, keys: Mapping[str, Any]) -> int:
        return len(self.missing(keys)) + len(self.unknown(keys))


@cache
def variants(framework: str, method: str) -> tuple[Variant, ...]:
    """The classes of a method; KeyError where rules/schemas/hparams has no such file."""
    path = rules_dir() / "schemas" / "hparams" / f"{framework}-{method}.json"
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise KeyError(f"{framework}-{method}") from None
    return tuple(
        Variant(
            framework,
            method,
            each["title"],
            each["x-source"],
            each["properties"],
            tuple(each["required"]),
            each["x-numeric-strings"],
            each.get("x-aliases", {}),
            tuple(each.get("x-filled", ())),
            each.get("x-head"),
        )
        for each in document["anyOf"]
    )


def nearest_variant(candidates: Sequence[Variant], keys: Mapping[str, Any]) -> Variant:
    """The class that complains least about these keys."""
    return min(candidates, key=lambda variant: variant.distance(keys))


def converted(values: Mapping[str, Any], variant: Variant | None) -> dict[str, Any]:
    """The values after the loader's own conversion: numeric strings at the top level become floats where it does that."""
    if variant is None or not variant.numeric_strings:
        return dict(values)
    return {key: _number(value) if isinstance(value, str) else value for key, value in values.items()}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def faults(value: Any, schema: Mapping[str, Any], where: str = "") -> Iterator[tuple[Fault, str, str]]:
    """What is wrong with a value: the kind of fault, the place inside it ("[2]"), and the words for it."""
    types = schema.get("type")
    allowed = [types] if isinstance(types, str) else types
    if allowed and not any(_is(value, each) for each in allowed):
        yield "type", where, f"is {kind_of(value)}, not {' or '.join(_WORDS[each] for each in allowed)}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield "choice", where, f"is none of {', '.join(str(each) for each in schema['enum'])}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            yield "range", where, f"is below {schema['minimum']}"
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
            yield "range", where, f"is not above {schema['exclusiveMinimum']}"
        if "maximum" in schema and value > schema["maximum"]:
            yield "range", where, f"is above {schema['maximum']}"
    if isinstance(value, str) and schema.get("pattern") == r"\{\}" and value.count("{}") != 1:
        yield "pattern", where, "does not hold {} for the layer exactly once"
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0) or len(value) > schema.get("maxItems", math.inf):
            count = schema.get("minItems")
            yield "range", where, f"has {len(value)} members" + (f", not {count}" if count == schema.get("maxItems") else "")
        for number, member in enumerate(value):
            yield from faults(member, schema.get("items", {}), f"{where}[{number}]")


_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


def _is(value: Any, kind: str) -> bool:
    if kind == "null":
        return value is None
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "array": list, "object": dict}[kind])


def kind_of(value: Any) -> str:
    """A value in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, list):
        return "a list"
    return "a mapping" if isinstance(value, dict) else f"the number {value!r}"
