"""Rows as the guarded tokenizer makes them, and batches as they were really built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from padcheck.guards.keeping import KeptTokenizer
from padcheck.positions.truth import Measured, measure
from padcheck.sources.token_readers import Encoded, Side, TokenReader, wrap

_REMEMBERED = 4096
"""Texts whose tokens are remembered: an editor asks for the same rows several times (per layer, per request)."""


class RowReader:
    """Encodes and measures texts with a guarded tokenizer, without that being seen as the editor's own use of it."""

    def __init__(self, kept: KeptTokenizer) -> None:
        self._kept = kept
        self._reader: TokenReader | None = None
        self._encoded: dict[tuple[str, bool], Encoded] = {}
        self._measured: dict[tuple[str, int, int, int, bool], Measured] = {}

    @property
    def reader(self) -> TokenReader:
        """Use it inside `kept.asking()`."""
        if self._reader is None:
            with self._kept.asking():
                self._reader = wrap(self._kept.tokenizer).reader
        return self._reader

    def encode(self, texts: Sequence[str], *, specials: bool = True) -> list[Encoded]:
        """The texts' tokens, unpadded."""
        missing = list({text: None for text in texts if (text, specials) not in self._encoded})
        if missing:
            if len(self._encoded) + len(missing) > _REMEMBERED:
                self._encoded.clear()
                self._measured.clear()
                missing = list(dict.fromkeys(texts))
            with self._kept.asking():
                made = self.reader.encode_batch(missing, add_special_tokens=specials)
            for text, encoded in zip(missing, made, strict=True):
                self._encoded[text, specials] = encoded
        return [self._encoded[text, specials] for text in texts]

    def measure(self, text: str, start: int, end: int, prompt_end: int, *, specials: bool = True) -> Measured:
        """Where `text[start:end]` and the end of the prompt `text[:prompt_end]` stand in the row."""
        key = text, start, end, prompt_end, specials
        if key not in self._measured:
            (encoded,) = self.encode([text], specials=specials)
            with self._kept.asking():
                self._measured[key] = measure(encoded, text, start, end, prompt_end, self.reader)
        return self._measured[key]

    def decode(self, ids: Sequence[int]) -> str:
        with self._kept.asking():
            return self.reader.decode(ids)


Fit = Literal["whole", "bare", "cut", "other"]


def fit(ids: Sequence[int], measured: Measured) -> Fit:
    """How the tokens of a row in a batch relate to those of its text: the same, or cut on the right, or others."""
    own = measured.ids
    if list(ids) == own:
        return "whole"
    return "cut" if len(ids) < len(own) and list(ids) == own[: len(ids)] else "other"


@dataclass(slots=True)
class Built:
    """A batch that the tokenizer built.

    texts   the rows' texts, None where the tokenizer was given ids
    asked   the side that it would have without the guard
    used    the side that it has
    caller  who built it, for people
    """

    texts: Sequence[str] | None
    result: Any
    asked: Side
    used: Side
    pad_id: int | None = None
    caller: str = ""
    _ids: list[list[int]] | None = field(default=None)
    _width: int = 0

    @property
    def ids(self) -> list[list[int]]:
        """The real tokens of each row."""
        self._read()
        assert self._ids is not None
        return self._ids

    @property
    def width(self) -> int:
        """Columns of the batch."""
        self._read()
        return self._width

    @property
    def padded(self) -> bool:
        return any(len(row) < self.width for row in self.ids)

    def settle(self) -> None:
        """Keep the tokens, and let go of what the tokenizer gave."""
        self._read()
        self.result = None

    def side_of_pads(self) -> Side | None:
        """The side on which its pads really stand; None if it has none."""
        for mask in lists(_get(self.result, "attention_mask")):
            if mask and not mask[0]:
                return "left"
            if mask and not mask[-1]:
                return "right"
        return None

    def padded_ids(self) -> list[list[int]]:
        """The rows as they stand in the batch, pads and all."""
        return lists(_get(self.result, "input_ids"))

    def rows_of(self, text: str, reader: RowReader) -> list[int]:
        """The rows that are this text: by the texts that the tokenizer was given, else by their tokens."""
        if self.texts is not None:
            return [number for number, row in enumerate(self.texts) if row == text]
        (whole,), (bare,) = reader.encode([text]), reader.encode([text], specials=False)
        return [number for number, row in enumerate(self.ids) if row in (list(whole.ids), list(bare.ids))]

    def _read(self) -> None:
        if self._ids is not None:
            return
        rows = lists(_get(self.result, "input_ids"))
        masks = lists(_get(self.result, "attention_mask")) or [self._mask(row) for row in rows]
        self._ids = [
            [token for token, real in zip(row, mask, strict=True) if real] for row, mask in zip(rows, masks, strict=True)
        ]
        self._width = max(map(len, rows), default=0)

    def _mask(self, row: Sequence[int]) -> list[int]:
        """Where the tokenizer gave no mask: the pads are the run of pad ids at the row's end (or start)."""
        inwards = list(row) if self.used == "left" else list(reversed(row))
        pads = next((at for at, token in enumerate(inwards) if token != self.pad_id), len(row))
        mask = [0] * pads + [1] * (len(row) - pads)
        return mask if self.used == "left" else mask[::-1]


def _get(result: Any, key: str) -> Any:
    if isinstance(result, Mapping) or hasattr(result, "get"):
        return result.get(key)
    return result if key == "input_ids" else None  # `encode` gives the ids alone


def lists(value: Any) -> list[list[int]]:
    """Ids or masks of one or more rows as lists, whatever holds them."""
    if value is None:
        return []
    plain = as_list(value)
    if plain and not isinstance(plain[0], (list, tuple)) and not hasattr(plain[0], "tolist"):
        plain = [plain]
    return [as_list(row) for row in plain]


def as_list(value: Any) -> list[Any]:
    """A list, tuple, array or tensor as a list."""
    made = value.tolist() if hasattr(value, "tolist") else value
    return list(made) if isinstance(made, (list, tuple)) else [made]
