"""One hparams file as the rules see it: its values, its method's class, the model, and how rules are declared."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from padcheck.checks.hparams.models import Model
from padcheck.checks.hparams.schemas import Variant
from padcheck.diagnostics import Finding, Fix, Place, TextEdit
from padcheck.records import Record, field
from padcheck.sources.hparams import Hparams


class Case(Record):
    """A file and what is known about it. `values` are those after the loader's conversion; the file's own stand in `hparams`."""

    hparams: Hparams
    text: str
    framework: str | None
    method: str | None
    because: str
    """How framework and method are known."""
    sure: bool
    """Whether the file itself says so."""
    variant: Variant | None
    model: Model | None
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return self.hparams.path

    @property
    def title(self) -> str:
        """ "EasyEdit's ROME" """
        names = {
            "easyedit": "EasyEdit",
            "unified": "unified-model-editing",
            "rebuilding-rome": "rebuilding-rome",
            "alphaedit": "AlphaEdit",
            "pmet": "PMET",
        }
        return f"{names.get(self.framework or '', (self.framework or '').replace('kmeng01-', 'kmeng01/'))}'s {self.method}"

    @property
    def model_name(self) -> str | None:
        value = self.values.get("model_name")
        return value if isinstance(value, str) else None

    @property
    def spreads(self) -> bool:
        """Whether the method spreads the edit over several layers (MEMIT and its family)."""
        return (
            self.variant is not None
            and self.variant.locates
            and self.variant.head is not None
            and self.method not in {"UnKE", "UnKE_ARE"}
        )

    @property
    def reads_own_logits(self) -> bool:
        """Whether the loss comes from the model's own logits (ROME), so that v_loss_layer does not matter."""
        return (
            self.variant is not None
            and self.variant.locates
            and self.variant.head is None
            and "v_loss_layer" in self.variant.properties
        )

    def reads(self, key: str) -> bool:
        """Whether the method's class has the key and the method reads it."""
        return (
            self.variant is not None and key in self.variant.properties and not self.variant.properties[key].get("x-ignored")
        )

    def layers(self) -> list[int]:
        """The edited layers that are whole numbers."""
        value = self.values.get("layers")
        return (
            [each for each in value if isinstance(each, int) and not isinstance(each, bool)]
            if isinstance(value, list)
            else []
        )

    def place(self, key: str) -> Place:
        return self.hparams.place(key)

    def key_place(self, key: str, occurrence: int = -1) -> Place:
        """Where the key itself stands (not its value); of a repeated key, the last one, or the one asked for."""
        found = list(
            re.finditer(rf"^(?P<lead>[ \t]*(?:\{{[ \t]*)?[\"']?){re.escape(key)}[\"']?[ \t]*:", self.text, re.MULTILINE)
        )
        if not found or occurrence >= len(found):
            return self.place(key)
        match = found[occurrence]
        line = self.text.count("\n", 0, match.start()) + 1
        column = len(match["lead"]) + 1
        return Place(self.path, line, column, line, column + len(key))

    def replace_value(self, key: str, value: str, message: str, *, safe: bool = False) -> Fix | None:
        """A fix that writes another value; None where the value's span is not known exactly."""
        place = self.hparams.places.get(key)
        if place is None or place.line != place.end_line:
            return None
        return Fix(message, (TextEdit(place, value),), "safe" if safe else "unsafe")

    def written(self, key: str) -> str:
        """A value as it stands in the file."""
        place = self.hparams.places.get(key)
        if (
            place is None
            or place.line is None
            or place.line != place.end_line
            or place.column is None
            or place.end_column is None
        ):
            return repr(self.hparams.values.get(key))
        return self.text.splitlines()[place.line - 1][place.column - 1 : place.end_column - 1]


def quoted_like(case: Case, key: str, value: str) -> str:
    """`value` in the quotes that the file uses for this key."""
    written = case.written(key)
    quote = written[:1] if written[:1] in "\"'" else '"' if case.path.endswith(".json") else ""
    return f"{quote}{value}{quote}"


Check = Callable[[Case], Iterator[Finding]]
CHECKS: dict[Check, tuple[str, ...]] = {}
"""Every check and the rules that it may report."""


def rule(*ids: str) -> Callable[[Check], Check]:
    """Declare a check with the ids of its rules: it runs where one of them is selected."""

    def register(check: Check) -> Check:
        CHECKS[check] = ids
        return check

    return register


def folder_parts(path: str) -> list[str]:
    """The names of the folders above a file, the nearest first."""
    return _folder_parts(os.path.dirname(path))


@cache
def _folder_parts(folder: str) -> list[str]:
    return list(reversed(Path(os.path.realpath(folder)).parts))


def near(word: str, known: Sequence[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """`difflib.get_close_matches`, imported when a word is misspelt."""
    from difflib import get_close_matches

    return get_close_matches(word, known, count, cutoff)
