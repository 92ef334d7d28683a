"""Where the subject truly stands in a row: two oracles, and the test that decides which of them may speak.

The first oracle reads the tokenizer's offsets on the *whole* row. The subject's last token is the **last** non-special token
whose character span contains the subject's last non-space character: in byte-level vocabularies several tokens share one
character (東京 in GPT-2), and `char_to_token` names the first of them, which is wrong.

Offsets can lie (Llama-3's did in tokenizers before 0.20.1: zero-width spans under `ignore_merges`), so they are tested on
each row: spans of non-special tokens are not empty, starts and ends never go back, two spans overlap only inside one
character that can be shared (not an ASCII one, which has one byte, except with a separator ▁ that stands alone; none at all,
if the normaliser inserts text), and no visible character lies between two spans (only a
combining mark may, which a normaliser has composed with the letter before it). Where the test fails, the second oracle decodes growing prefixes of the row's ids until they show the subject's
last character. Where neither can be trusted the answer is "none" and says so.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from padcheck.sources.token_readers import Encoded, TokenReader

Oracle = Literal["offsets", "decode", "none"]


@dataclass(slots=True)
class Measured:
    """One row, encoded alone and measured. Columns are 0-based in the *unpadded* row.

    Attributes:
        text: the row's text.
        n: number of tokens, special ones included.
        lead, tail: special tokens at the row's start (BOS, CLS, `[gMASK]sop`) and end (EOS, SEP).
        first: column of the first token of the subject, None where no oracle can be trusted.
        last: column of the last token of the subject.
        prompt_last: column of the last token of the prompt (target text does not count).
        last_end: one past the last character of the token at `last` (-1 where the offsets are not trusted).
        oracle: which oracle spoke.
    """

    text: str
    n: int
    lead: int
    tail: int
    first: int | None
    last: int | None
    prompt_last: int | None
    last_end: int
    oracle: Oracle
    encoded: Encoded

    @property
    def ids(self) -> list[int]:
        """Token ids of the row, special tokens included."""
        return self.encoded.ids

    def shifted(self, text: str, tokens: int, characters: int, reader: TokenReader) -> Measured:
        """The measure of a row that differs by so many tokens and characters before everything that is measured."""
        return Measured(
            text, self.n + tokens, self.lead, self.tail,
            None if self.first is None else self.first + tokens,
            None if self.last is None else self.last + tokens,
            None if self.prompt_last is None else self.prompt_last + tokens,
            self.last_end + characters, self.oracle, _Later(text, reader),
        )  # fmt: skip


class _Later:
    """An encoding that is made when somebody looks at it: rows that are only shifted are rarely shown."""

    __slots__ = ("_encoded", "_reader", "_text")

    def __init__(self, text: str, reader: TokenReader) -> None:
        self._text = text
        self._reader = reader
        self._encoded: Encoded | None = None

    def _made(self) -> Encoded:
        if self._encoded is None:
            (self._encoded,) = self._reader.encode_batch([self._text])
        return self._encoded

    @property
    def ids(self) -> list[int]:
        return self._made().ids

    @property
    def offsets(self) -> list[tuple[int, int]]:
        return self._made().offsets

    @property
    def special_tokens_mask(self) -> list[int]:
        return self._made().special_tokens_mask

    @property
    def tokens(self) -> list[str]:
        return self._made().tokens


def _blank(text: str, start: int, end: int) -> bool:
    """Whether no visible character lies in `text[start:end]`: spaces, which tokens may leave out, and composed accents."""
    return all(character.isspace() or unicodedata.combining(character) for character in text[start:end])


def _may_share(encoded: Encoded, column: int, text: str, previous_end: int, reader: TokenReader) -> bool:
    """Whether the token at `column` may begin inside the span of the one before it: only inside one character that both share.

    An ASCII character has one byte, so only a separator ▁ that stands alone (SentencePiece) shares the one behind it.
    """
    start = encoded.offsets[column][0]
    if previous_end - start > 1 or not reader.keeps_text:
        return False
    return text[start] >= "\x80" or encoded.tokens[column - 1] == "▁" or start == 0


def last_visible(text: str, start: int, end: int) -> int:
    """Index of the last non-space character of `text[start:end]`; -1 if there is none."""
    while end > start:
        end -= 1
        if not text[end].isspace():
            return end
    return -1


def first_visible(text: str, start: int, end: int) -> int:
    """Index of the first non-space character of `text[start:end]`; -1 if there is none."""
    while start < end:
        if not text[start].isspace():
            return start
        start += 1
    return -1


def measure(encoded: Encoded, text: str, start: int, end: int, prompt_end: int, reader: TokenReader) -> Measured:
    """Find the subject `text[start:end]` and the end of the prompt `text[:prompt_end]` in the encoded row."""
    ids = encoded.ids
    n = len(ids)
    special = encoded.special_tokens_mask
    lead = 0
    while lead < n and special[lead]:
        lead += 1
    stop = n
    while stop > lead and special[stop - 1]:
        stop -= 1

    first_char = first_visible(text, start, end)
    last_char = last_visible(text, start, end)
    prompt_char = last_visible(text, 0, prompt_end)
    first = last = prompt_last = None
    last_end = -1
    honest = reader.has_offsets
    if honest:
        offsets = encoded.offsets
        previous_start = previous_end = 0
        for column in range(lead, stop):
            token_start, token_end = offsets[column]
            if (
                token_start >= token_end
                or token_start < previous_start
                or token_end < previous_end
                or (token_start < previous_end and not _may_share(encoded, column, text, previous_end, reader))
                or (token_start > previous_end and not _blank(text, previous_end, token_start))
            ):
                honest = False
                break
            previous_start = token_start
            previous_end = token_end
            if token_start <= last_char < token_end:
                last = column
                last_end = token_end
            if first is None and token_start <= first_char < token_end:
                first = column
            if token_start <= prompt_char < token_end:
                prompt_last = column
        if honest and last is None and last_char > start and unicodedata.combining(text[last_char]):
            return measure(encoded, text, start, last_char, prompt_end, reader)  # the accent was composed with its letter
        # A normaliser may delete characters; a subject without any token cannot be found by offsets.
        honest = honest and (last is not None or last_char < 0) and (first is not None or first_char < 0)
    if honest:
        return Measured(text, n, lead, n - stop, first, last, prompt_last, last_end, "offsets", encoded)
    columns = by_decoding(reader, ids[lead:stop], text, (first_char, last_char, prompt_char))
    if columns is None:
        return Measured(text, n, lead, n - stop, None, None, None, -1, "none", encoded)
    first_span, last_span, prompt_span = columns
    return Measured(
        text, n, lead, n - stop, lead + first_span[0], lead + last_span[1], lead + prompt_span[1], -1, "decode", encoded
    )


def by_decoding(
    reader: TokenReader, ids: Sequence[int], text: str, characters: Sequence[int]
) -> list[tuple[int, int]] | None:
    """First and last token of each of the `characters` (indices into `text`), by decoding growing prefixes of `ids`.

    White space is left out of the count: decoders drop, add and tidy it. Returns None where the decoded row is not the text
    otherwise (a normaliser changed it, or tokens are unknown), or where the text itself holds `�`: then decoding proves nothing.
    A character that is absent (-1) gets (0, 0).

    Source: the incremental decoding that streaming generators use; `�` at the end of a prefix is an unfinished character.
    """
    whole = reader.decode(ids)
    visible = _visible_before(whole)
    rank = _visible_before(text)
    if "".join(whole.split()) != "".join(text.split()) or "�" in text:
        return None
    shown: list[int] = []
    touched: list[int] = []
    for length in range(1, len(ids) + 1):
        piece = reader.decode(ids[:length])
        full = piece.rstrip("�")
        while not whole.startswith(full):  # clean-up of spaces before punctuation may differ at the very end
            full = full[:-1]
        shown.append(visible[len(full)])
        touched.append(visible[min(len(full) + (len(piece) > len(full)), len(whole))])
    result: list[tuple[int, int]] = []
    for character in characters:
        if character < 0:
            result.append((0, 0))
            continue
        # Tokens before the text's first character can only be a dummy prefix, whose span the offsets give to it as well.
        first = 0 if character == 0 else next((k for k, covered in enumerate(touched) if covered > rank[character]), None)
        last = next((k for k, covered in enumerate(shown) if covered > rank[character]), None)
        if first is None or last is None:
            return None
        result.append((first, last))
    return result


def _visible_before(text: str) -> list[int]:
    """How many characters of `text[:i]` are no white space, for each i."""
    return [0, *accumulate(not character.isspace() for character in text)]
