"""Rows of a re-enactment, the padded batch they lie in, and the bench the arithmetic is done on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .tokens import PublicTokenizer
from .truth import Reading, read_row

Side = Literal["left", "right"]
Run = Literal["edit", "sequential", "batch"]
BatchName = Literal["optimise", "keys", "value", "current", "train"]
Kind = Literal["lookup", "label", "kl", "key", "value", "current"]
Broken = Literal["pads_off_by_one", "bos_forgotten", "first_byte_token"]
Request = Mapping[str, Any]
Slot = tuple[int, int]
"""(column in the padded row, id the editor expects there)."""


@dataclass(frozen=True)
class Row:
    """One row of one padded batch. Columns are 0-based in the padded row.

    `editor` is None where the code raises (`raises` says with what) or labels nothing at all.
    Kind `label`: `editor` is the first slot: the logit column for locate methods, the column of the
    first labelled token in a `train` batch; `labels_right` is what decides whether the labels drift.
    """

    request: int
    batch: BatchName
    row: int
    kind: Kind
    editor: int | None
    truth: int | None
    width: int
    pads: int
    ids: tuple[int, ...]
    raises: str | None = None
    editor_labels: tuple[Slot, ...] = ()
    labels_right: bool | None = None
    bos_in_labels: bool = False
    """The expected ids begin with a BOS: a fault of its own, beside any drift."""

    @property
    def drifts(self) -> bool:
        if self.kind == "label" and self.raises is None:
            return not self.labels_right
        return self.editor is None or self.editor != self.truth


@dataclass(frozen=True)
class Disagreement:
    """A row on which the offsets and the incremental decoding name different tokens."""

    text: str
    char: int
    which: Literal["first", "last"]
    by_offsets: int | None
    by_decoding: int | None


@dataclass
class Reenactment:
    """What the editor did: rows in its own order, and the requests on which it raises (without rows)."""

    rows: list[Row] = field(default_factory=list)
    raised: dict[int, str] = field(default_factory=dict)
    disagreements: list[Disagreement] = field(default_factory=list)
    dishonest: int = 0
    """How many different rows had offsets that fail their self-test."""


class EditorRaises(Exception):
    """The editor's own code would raise here. `request` is the index of the request that causes it."""

    def __init__(self, reason: str, request: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.request = request


@dataclass(frozen=True)
class Padded:
    """`tok(texts, padding=True)`: every row encoded alone, then filled to the longest with pad ids."""

    texts: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    """Ids of each row, unpadded."""
    width: int
    side: Side
    pad: int
    _one_less: bool = False

    def pads(self, i: int) -> int:
        return self.width - len(self.rows[i])

    def left(self, i: int) -> int:
        """Pads before the first token of row i: what turns a place in the row into a column."""
        if self.side == "right":
            return 0
        return max(self.pads(i) - 1, 0) if self._one_less else self.pads(i)

    def ids(self, i: int) -> tuple[int, ...]:
        filler = (self.pad,) * self.pads(i)
        return filler + self.rows[i] if self.side == "left" else self.rows[i] + filler

    def mask_sum(self, i: int) -> int:
        return len(self.rows[i])

    def at(self, index: int) -> int:
        """The column that `tensor[index]` reads. Raises EditorRaises as torch raises IndexError."""
        column = index + self.width if index < 0 else index
        if not 0 <= column < self.width:
            raise EditorRaises(f"IndexError: index {index} is out of bounds for {self.width} columns")
        return column


class Bench:
    """A tokenizer, a side and a way of being broken: the calls the editors make."""

    def __init__(
        self,
        tok: PublicTokenizer,
        side: Side,
        hparams: Mapping[str, Any] | None = None,
        broken: Broken | None = None,
    ) -> None:
        self.tok = tok
        self.side: Side = side
        self.hparams: Mapping[str, Any] = hparams or {}
        self.broken = broken
        self.model_name = str(self.hparams.get("model_name") or "").lower()
        self._ids: dict[tuple[str, bool], list[int]] = {}
        self._readings: dict[str, Reading] = {}

    @property
    def pad(self) -> int:
        return self.tok.special.pad if self.tok.special.pad is not None else 0

    def with_tokenizer(self, tok: PublicTokenizer) -> Bench:
        return Bench(tok, self.side, self.hparams, self.broken)

    def with_side(self, side: Side) -> Bench:
        return Bench(self.tok, side, self.hparams, self.broken)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        key = (text, add_special_tokens)
        if key not in self._ids:
            self._ids[key] = self.tok.encode(text, add_special_tokens=add_special_tokens)
        return self._ids[key]

    def count(self, text: str) -> int:
        """`len(tok.encode(text))`, as the index arithmetic calls it."""
        return len(self.encode(text, add_special_tokens=self.broken != "bos_forgotten"))

    def decode(self, ids: Sequence[int]) -> str:
        return self.tok.decode(ids)

    def batch(self, texts: Iterable[str]) -> Padded:
        texts = tuple(texts)
        rows = tuple(tuple(self.encode(text)) for text in texts)
        width = max(map(len, rows))
        return Padded(texts, rows, width, self.side, self.pad, self.broken == "pads_off_by_one")

    def reading(self, text: str) -> Reading:
        """The independent reading of one row: which token holds which character."""
        if text not in self._readings:
            self._readings[text] = read_row(self.tok, text, self.broken == "first_byte_token")
        return self._readings[text]

    @property
    def readings(self) -> Mapping[str, Reading]:
        return self._readings


def target_of(request: Request, index: int | None = None) -> str:
    """The new target as a string: `{"str": ...}` in CounterFact and kmeng01, `target` in FastEdit."""
    target = request.get("target_new", request.get("target"))
    if target is None:
        raise EditorRaises("KeyError: 'target_new'", index)
    return str(target["str"] if isinstance(target, Mapping) else target)
