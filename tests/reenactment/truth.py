"""Which token of a row holds a character, found in two ways that know no editor.

By decoding ever longer prefixes of the ids, and by the offsets of the whole row. Where decoding loses nothing
it is believed; `Reenactment.disagreements` lists where the two differ, as on honest tokenizers they must not.
A place is an index into the *unpadded* ids of the row. The definitions, done again from scratch:

* the last token of a character: the last non-special token whose span contains it. In byte-level vocabularies
  several tokens share a character.
* the first token of a character: the first non-special token whose span contains it. A piece that stands for
  a space that the text does not have (the dummy prefix of SentencePiece, before the row's first character)
  counts as part of that character, as the offsets have it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from .tokens import PublicTokenizer

_REPLACEMENT = "�"


def visible(text: str) -> str:
    """The text without its white space: decoding is not trusted with spaces."""
    return "".join(char for char in text if not char.isspace())


@dataclass
class Reading:
    """One unpadded row: its ids, which of them the tokenizer added around the text, and two oracles."""

    text: str
    ids: list[int]
    special: list[bool]
    spans: list[tuple[int, int]] | None
    complete: list[int] | None
    """complete[k] visible characters are whole after k plain tokens; None if decoding loses some."""
    started: list[bool]
    """started[k]: the first k plain tokens end in the middle of a character."""
    first_for_last: bool = False
    asked: list[tuple[Literal["first", "last"], int]] = field(default_factory=list)

    @property
    def plain(self) -> list[int]:
        return [place for place, special in enumerate(self.special) if not special]

    @property
    def end(self) -> int:
        """One after the last token that is not special."""
        return self.plain[-1] + 1 if self.plain else 0

    def last(self, char: int) -> int | None:
        """The last token that holds this character."""
        if self.first_for_last:
            return self._find("first", char)
        return self._find("last", char)

    def first(self, char: int) -> int | None:
        """The first token that holds this character."""
        return self._find("first", char)

    def _find(self, which: Literal["first", "last"], char: int) -> int | None:
        """Decoding speaks where it loses nothing, for offsets can lie without failing any test of their own.

        On whether a piece of bare space belongs to the character behind it, decoding has no opinion.
        """
        self.asked.append((which, char))
        by_decoding, by_offsets = self.by_decoding(which, char), self.by_offsets(which, char)
        if by_decoding is None:
            return by_offsets
        if by_offsets is not None and self.honest() and self.differ_by_space(by_decoding, by_offsets):
            return by_offsets
        return by_decoding

    def differ_by_space(self, one: int, other: int) -> bool:
        """Whether nothing visible lies between two places, the first of them included."""
        assert self.complete is not None
        plain = self.plain
        if one not in plain or other not in plain:
            return False
        first, second = sorted((plain.index(one), plain.index(other)))
        return self.complete[first] == self.complete[second] and not any(self.started[first + 1 : second + 1])

    def honest(self) -> bool:
        """The offsets' self-test.

        Non-special spans have a width, never run backwards, share no more than one character with
        their neighbour, stay inside the text and cover every visible character of it.
        """
        if self.spans is None:
            return False
        spans = [self.spans[place] for place in self.plain]
        if any(end <= start for start, end in spans):
            return False
        for (start, end), (next_start, next_end) in pairwise(spans):
            if next_start < start or next_end < end or end - next_start > 1:
                return False
        if spans and spans[-1][1] > len(self.text):
            return False
        held = {char for start, end in spans for char in range(start, end)}
        return all(char in held for char, letter in enumerate(self.text) if not letter.isspace())

    def by_offsets(self, which: Literal["first", "last"], char: int) -> int | None:
        if self.spans is None:
            return None
        holders = [place for place in self.plain if self.spans[place][0] <= char < self.spans[place][1]]
        if not holders:
            return None
        return holders[0] if which == "first" else holders[-1]

    def by_decoding(self, which: Literal["first", "last"], char: int) -> int | None:
        if self.complete is None:
            return None
        before = len(visible(self.text[:char]))
        if which == "last":
            return self._covering(before + 1)
        plain = self.plain
        k = next(k for k, done in enumerate(self.complete) if done >= before)
        if k > 0 and (self.complete[k] > before or self.started[k]):
            return plain[k - 1]  # the token that ends the character before already begins this one
        if char > 0 and self.text[char - 1].isspace():
            while k + 1 < len(self.complete) and self.complete[k + 1] == before and not self.started[k + 1]:
                k += 1  # a token of nothing but the space that the text has here
        return plain[k] if k < len(plain) else None

    def _covering(self, goal: int) -> int | None:
        assert self.complete is not None
        for k, done in enumerate(self.complete):
            if done >= goal:
                return self.plain[k - 1] if k else None
        return None


def read_row(tok: PublicTokenizer, text: str, first_for_last: bool = False) -> Reading:
    """Read one row. The special tokens are those that `add_special_tokens=False` leaves out."""
    ids = tok.encode(text)
    plain = tok.encode(text, add_special_tokens=False)
    front = next((n for n in range(len(ids) - len(plain) + 1) if ids[n : n + len(plain)] == plain), None)
    if front is None:  # the template reshapes the text itself: then nothing can be told apart
        front, plain = 0, ids
    special = [not front <= place < front + len(plain) for place in range(len(ids))]
    prefixes = [tok.decode(plain[:k]) for k in range(len(plain) + 1)]
    whole = [prefix.rstrip(_REPLACEMENT) for prefix in prefixes]
    lossless = visible(prefixes[-1]) == visible(text)
    return Reading(
        text=text,
        ids=ids,
        special=special,
        spans=tok.offsets(text),
        complete=[len(visible(prefix)) for prefix in whole] if lossless else None,
        started=[len(prefix) > len(kept) for prefix, kept in zip(prefixes, whole, strict=True)],
        first_for_last=first_for_last,
    )


# --- what the passes ask ------------------------------------------------------------------------------------


def last_visible(text: str) -> int | None:
    """Index of the last character that is no white space."""
    return len(text.rstrip()) - 1 if text.strip() else None


def prompt_end(reading: Reading, chars: int) -> int | None:
    """The place of the prompt's last token, where the prompt is the row's first `chars` characters."""
    char = last_visible(reading.text[:chars])
    return None if char is None else reading.last(char)


def label_starts(reading: Reading, prompt: str) -> range:
    """Places whose logit may predict the target's first token: the prompt's last token, or bare spaces that
    end it.
    """
    last = prompt_end(reading, len(prompt))
    if last is None:
        return range(0)
    if prompt == prompt.rstrip():
        return range(last, last + 1)
    first = _first_after(reading, len(prompt))
    return range(last, max(last + 1, reading.end if first is None else first))


def target_starts(reading: Reading, chars: int) -> range:
    """Places of the first labelled token: after the prompt's last token, up to the target's first visible
    one.
    """
    last = prompt_end(reading, chars)
    if last is None:
        return range(0)
    first = _first_after(reading, chars)
    return range(last + 1, max(last + 2, last + 2 if first is None else first + 1))


def _first_after(reading: Reading, chars: int) -> int | None:
    char = next((at for at in range(chars, len(reading.text)) if not reading.text[at].isspace()), None)
    return None if char is None else reading.first(char)
