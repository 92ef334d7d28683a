"""A model that computes nothing: it notes what it is given and which tokens are read."""

from __future__ import annotations

from typing import Any


class Parameter:
    """A parameter without numbers."""

    def __init__(self) -> None:
        self.requires_grad = True

    def requires_grad_(self, wanted: bool) -> Parameter:
        self.requires_grad = wanted
        return self


class Tape:
    """Stands for the model. `reads`: what was read, for what, as (row's tokens, token) pairs.

    `forwards` counts forward passes; `on_forward` is called at each.
    """

    def __init__(self, tok: Any) -> None:
        self.tok = tok
        self.forwards = 0
        self.on_forward: Any = None
        self.reads: list[tuple[str, list[str], str]] = []
        self.labels: list[tuple[list[str], list[str]]] = []
        self.training = True
        self._parameters = {"weight": Parameter(), "bias": Parameter()}
        self._forward_hooks: dict[int, Any] = {}

    def modules(self) -> list[Tape]:
        return [self]

    def parameters(self) -> list[Parameter]:
        return list(self._parameters.values())

    def forward(self, batch: Any) -> list[list[str]]:
        """The rows' tokens, pads as they are."""
        self.forwards += 1
        if self.on_forward is not None:
            self.on_forward()
        return [self.tok.convert_ids_to_tokens(row) for row in _plain(batch["input_ids"])]

    def read(self, what: str, rows: list[list[str]], columns: list[int]) -> None:
        for row, column in zip(rows, columns, strict=True):
            self.reads.append((what, row, row[column]))

    def score(self, rows: list[list[str]], firsts: list[int], target: list[str]) -> None:
        """Labels begin at these slots: what stands in the row behind each slot but the last?"""
        for row, first in zip(rows, firsts, strict=True):
            self.labels.append((row[first + 1 : first + len(target)], target[:-1]))


def _plain(ids: Any) -> list[list[int]]:
    return ids.tolist() if hasattr(ids, "tolist") else [list(row) for row in ids]
