"""Random texts that are hard on tokenizers, and where the tokens of a row truly stand.

`Spelled` needs neither offsets nor decoding: it spells the row's tokens out in bytes from the vocabulary's own notation
(byte-level letters, ▁ and <0xE4>, ##), joins them, and counts.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.running import PROBES, TOKENIZERS


@cache
def _words() -> list[str]:
    texts = [
        item
        for path in PROBES
        for record in json.loads(path.read_text("utf-8"))
        for item in (record["prompt"], record["target_new"])
    ]
    found = {word for text in texts for word in re.findall(r"\S+", text) if "{" not in word}
    return sorted(found)


_NASTY = [
    " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "'s", "'", "’s", "n't", " 's", "''", '"', ".", ",", "...",
    "?!", " .", " ,", "-", "–", "(", ")", "1", "19", "1969", "450000", "3.14", "½", "²", "東京", "北京大学", "龔", "的", "ー", "パリ",
    "ｶﾞ", "🍎", "🖋️", "👨‍👩‍👧", "🇫🇷", "é", "e\u0301", "Å", "a\u0308\u0323", "ñ", "ß", "ﬁ", "İ", "مصر", "مُحَمَّد", "ё", "Ł", "▁", "_", "##a", "x",
    "A", "�", "{", "}", "@", "\u200b", "\u200d", "\ufeff", "0x41", "<", ">", "|",
]  # fmt: skip


def texts(*extra: str, max_pieces: int = 12) -> st.SearchStrategy[str]:
    """Words of the probes, nasty pieces, single characters; spaces between most of them. `extra`: more pieces."""
    piece = st.one_of(
        st.sampled_from(_words()),
        st.sampled_from(_words()).map(lambda word: " " + word),
        st.sampled_from(_words()).map(lambda word: " " + word),
        st.sampled_from([*_NASTY, *extra]),
        st.characters(exclude_categories=["Cs", "Cn", "Cc", "Co"]),
    )
    return st.lists(piece, min_size=1, max_size=max_pieces).map("".join)


@st.composite
def texts_and_subjects(draw: st.DrawFn, *extra: str) -> tuple[str, int, int]:
    """(text, start, end) with a visible character in `text[start:end]`."""
    text = draw(texts(*extra).filter(lambda candidate: bool(candidate.strip())))
    inside = draw(st.sampled_from([at for at, character in enumerate(text) if not character.isspace()]))
    start = draw(st.integers(max(0, inside - 12), inside))
    end = draw(st.integers(inside + 1, min(len(text), inside + 12)))
    return text, start, end


def visible(text: str) -> str:
    return "".join(character for character in text if not character.isspace())


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable Latin-1 stands for itself, the others follow from 256 on."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {chr(byte): byte for byte in own}
    letters.update({chr(256 + number): byte for number, byte in enumerate(byte for byte in range(256) if byte not in own)})
    return letters


_LETTERS = _byte_letters()
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
NFC = {"qwen-shape"}
"""Fixtures whose normaliser composes characters."""


@cache
def load(name: str) -> Any:
    return Tokenizer.from_file(str(TOKENIZERS / name / "tokenizer.json"))


@cache
def _spelling(path: Path) -> str:
    raw = json.loads(path.read_text("utf-8"))
    if raw["model"]["type"] == "WordPiece":
        return "wordpiece"
    return "pieces" if "▁" in json.dumps(raw["model"]["vocab"], ensure_ascii=False) else "bytes"


@cache
def _unknown(path: Path) -> int | None:
    """The id of the unknown token, which some models show as the text that they do not know."""
    model = json.loads(path.read_text("utf-8"))["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    return model["vocab"].get(model["unk_token"]) if model.get("unk_token") else None


@dataclass
class Spelled:
    """A row spelled out. `ends[k]`: visible bytes up to and with the k-th non-special token, which stands in `columns[k]`."""

    columns: list[int]
    ends: list[int]
    whole: bytes

    def last(self, upto: int) -> int:
        """Column of the token that holds the last of the first `upto` visible bytes."""
        return self.columns[next(k for k, end in enumerate(self.ends) if end >= upto)]

    def first(self, before: int) -> int:
        """Column of the token that holds the byte after the first `before` visible bytes."""
        return self.columns[next(k for k, end in enumerate(self.ends) if end > before)]


def spell(name: str, tokenizer: Any, encoded: Any) -> Spelled:
    """Spell the row's tokens out; white space is left out of the count."""
    kind = _spelling(TOKENIZERS / name / "tokenizer.json")
    unknown = _unknown(TOKENIZERS / name / "tokenizer.json")
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    columns = [at for at, special in enumerate(encoded.special_tokens_mask) if not special]
    parts = []
    for column in columns:
        token = encoded.tokens[column]
        if encoded.ids[column] == unknown:
            part = b"\xff"  # no text has this byte
        elif token in added:
            part = token.encode()
        elif kind == "bytes":
            part = bytes(_LETTERS[letter] for letter in token)
        elif kind == "wordpiece":
            part = token.removeprefix("##").encode()
        elif match := _BYTE.fullmatch(token):
            part = bytes([int(match[1], 16)])
        else:
            part = token.replace("▁", " ").encode()
        parts.append(part)
    # White space of more than one byte may be split between tokens: it is taken out of the joined bytes, keeping count.
    joined = b"".join(parts)
    keep = bytearray(len(joined))
    at = 0
    for character in joined.decode("utf-8", "surrogateescape"):
        size = len(character.encode("utf-8", "surrogateescape"))
        keep[at : at + size] = bytes([0 if character.isspace() else 1]) * size
        at += size
    ends, position = [], 0
    for part in parts:
        position += len(part)
        ends.append(sum(keep[:position]))
    whole = bytes(byte for byte, kept in zip(joined, keep, strict=True) if kept)
    return Spelled(columns, ends, whole)


def form(name: str, text: str) -> str:
    return unicodedata.normalize("NFC", text) if name in NFC else text


def bytes_before(name: str, text: str, end: int) -> int | None:
    """Visible bytes of `text[:end]` as the tokenizer has them; None where a character reaches over `end`."""
    before, whole = form(name, text[:end]), form(name, text)
    return len(visible(before).encode()) if whole.startswith(before) else None
