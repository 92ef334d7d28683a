"""A padded row as a strip of readable tokens: what each column says, and which columns to show where all do not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

from padcheck.renderers import wording
from padcheck.renderers.width import clip, escape
from padcheck.reports import Mark, RowView, TokenCell

SPACE = "␣"
"""Stands for a space: unlike the middle dot it is no punctuation of any language (Chinese names are written with ·)."""

PAD = "[pad]"
"""Stands for every pad: the pad's own text (often <|endoftext|>) would say something else."""

LEGEND = f"{SPACE} is a space, {PAD} is padding: it only fills the row up"

_PAD_WEIGHT = 4
"""How much farther away a pad counts than a word, when the columns to show have to be chosen."""

_BYTE_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Strip:
    """A row made readable.

    Byte-level tokens (`Ġis`, `æĿ±`) are read back into text, and SentencePiece's `▁` becomes a space. A token that is only
    part of a character stays in bytes: `<E6 9D>`.

    Attributes:
        labels: what each column says, safe for a terminal, at most `limit` display columns each.
    """

    def __init__(self, view: RowView, limit: int) -> None:
        self.view = view
        self._pieces = _bytes(view.cells)
        self.labels = [
            PAD if cell.pad else clip(_label(cell.text, piece), limit)
            for cell, piece in zip(view.cells, self._pieces, strict=True)
        ]

    # --- Who points where ---

    @property
    def agrees(self) -> bool:
        """True if the editor's column is the true one."""
        return self.view.editor is not None and self.view.editor == self.view.truth

    def mark(self, column: int) -> Mark | None:
        """Who points at a column: as its cell says, else by the row's two columns."""
        if self.view.cells[column].mark:
            return self.view.cells[column].mark
        if column == self.view.editor:
            return "both" if self.agrees else "editor"
        return "truth" if column == self.view.truth else None

    @property
    def editor(self) -> int | None:
        """The editor's column, None where the row has no such column."""
        return self._within(self.view.editor)

    @property
    def truth(self) -> int | None:
        """The true column, None where the row has no such column."""
        return self._within(self.view.truth)

    def _within(self, column: int | None) -> int | None:
        return column if column is not None and 0 <= column < len(self.labels) else None

    def captions(self) -> list[tuple[Mark, int | None, str]]:
        """The words under the row: who speaks, the column they stand under (None: under the row), and the words."""
        view = self.view
        verb = wording.kind(view.kind).editor
        if view.editor is None:
            said = "the editor finds no column in this row"
        elif self.editor is None:
            said = f"the editor {verb} column {view.editor}, but the row has {len(self.labels)} columns"
        else:
            said = f"editor {verb} here (column {view.editor}: {self._named(view.editor)})"
            if self.agrees:
                return [("both", self.editor, f"{said}, and that is right")]
        if view.truth is None or self.truth is None:
            true = "true: this row has no such token"
        else:
            true = f"true: {self._named(view.truth)} (column {view.truth})"
        return [("editor", self.editor, said), ("truth", self.truth, true)]

    def _named(self, column: int) -> str:
        cell = self.view.cells[column]
        if cell.pad:
            return f"{escape(cell.text) or PAD}, padding"
        char = self.part_of(column)
        return f'"{self.labels[column]}"' + (f", bytes of {char}" if char else "")

    def part_of(self, column: int) -> str | None:
        """The character that the token of a column is only some bytes of; None for whole characters."""
        pieces = self._pieces
        if not _is_broken(pieces[column]):
            return None
        first = last = column
        while first and _is_broken(pieces[first - 1]):
            first -= 1
        while last < len(pieces) - 1 and _is_broken(pieces[last + 1]):
            last += 1
        start = sum(len(piece or b"") for piece in pieces[first:column])
        end = 0
        for char in b"".join(piece or b"" for piece in pieces[first : last + 1]).decode(errors="replace"):
            end += len(char.encode())
            if end > start:
                return None if char == "\ufffd" else escape(char)
        return None

    # --- What to show ---

    def columns(self, fits: Callable[[Sequence[int]], bool]) -> list[int]:
        """The columns to show, in order: all if they fit, else the marked ones, their neighbours, both ends, and so on.

        `fits` says whether a selection has room. The marked columns are shown in any case.
        """
        columns = list(range(len(self.labels)))
        if not columns or fits(columns):
            return columns
        marked = [column for column in columns if self.mark(column)]
        anchors = marked or columns[:1]

        def importance(column: int) -> tuple[float, int]:
            distance = min(abs(column - anchor) for anchor in anchors)
            if distance == 1:
                return 1, column
            if column in (columns[0], columns[-1]):
                return 1.5, column
            return distance * (_PAD_WEIGHT if self.view.cells[column].pad else 1), column

        shown = marked
        for column in sorted(set(columns) - set(marked), key=importance):
            longer = sorted([*shown, column])
            if not fits(longer):
                break
            shown = longer
        return shown


def title(view: RowView) -> str:
    """`request 17 (case_id 42), optimise row 3: lookup`."""
    case = "" if view.case_id is None else f" (case_id {view.case_id})"
    return f"request {view.request}{case}, {view.batch} row {view.row}: {wording.kind(view.kind).title}"


def drift(view: RowView, minus: str = "-") -> str:
    """`drift -7`; empty where one of the two columns does not exist."""
    if view.drift is None:
        return ""
    if view.drift == 0:
        return "no drift"
    return f"drift {view.drift:+d}".replace("-", minus)


# --- Tokens to text ---


def _label(text: str, piece: bytes | None) -> str:
    if piece is None:
        return escape(text)
    if _is_broken(piece):
        return f"<{piece.hex(' ').upper()}>"
    return escape(piece.decode()).replace(" ", SPACE)


def _is_broken(piece: bytes | None) -> bool:
    """True for bytes that are not whole characters."""
    try:
        (piece or b"").decode()
    except UnicodeDecodeError:
        return True
    return False


def _bytes(cells: Sequence[TokenCell]) -> list[bytes | None]:
    """The bytes that each token stands for; None for pads and special tokens."""
    plain = [None if cell.special or cell.pad else cell.text for cell in cells]
    alphabet = _byte_alphabet()
    if _is_byte_level("".join(text for text in plain if text is not None)):
        return [None if text is None else bytes(alphabet[char] for char in text) for text in plain]
    return [None if text is None else _sentencepiece_bytes(text) for text in plain]


def _sentencepiece_bytes(text: str) -> bytes:
    """A token of SentencePiece, or decoded text (where a lone surrogate may stand)."""
    byte = _BYTE_FALLBACK.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("▁", " ").encode(errors="backslashreplace")


@cache
def _byte_alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: printable Latin-1 stands for itself, the other bytes for the letters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + at): byte for at, byte in enumerate(others)}


def _is_byte_level(joined: str) -> bool:
    """True if a row's text can only be byte-level tokens: it has letters above Latin-1 and its bytes are valid UTF-8.

    (Maltese has a real Ġ, Turkish a real ğ; in decoded text they stand beside spaces, or are no valid UTF-8 as bytes.)
    """
    alphabet = _byte_alphabet()
    if not any(char >= "\u0100" for char in joined) or not all(char in alphabet for char in joined):
        return False
    return not _is_broken(bytes(alphabet[char] for char in joined))
