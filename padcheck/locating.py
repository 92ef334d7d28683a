"""`locate`: where the subjects stand in a padded batch, and what would make an index miss them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from padcheck.positions.cuts import cuts_of
from padcheck.positions.drift import Cause, lookup_causes, subject_shared
from padcheck.positions.editors import Side
from padcheck.positions.filling import Filled
from padcheck.positions.rows import Prepared, Row
from padcheck.positions.truth import Measured, Oracle, measure
from padcheck.sources.requests import Request
from padcheck.sources.token_readers import TokenReader, wrap

CHUNK = 1024
_ARITHMETIC = "prefix_subject - 1"


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens of one subject in its row of the padded batch. Columns are 0-based; None where the subject cannot be found.

    Attributes:
        text, subject: the row and the subject as given (a `{}` in the text filled in).
        start, end: the subject's characters, `text[start:end]`.
        first, last: columns of its first and last token.
        after: column of the token after it; `last` itself where nothing but spaces follows.
        length, pads, width: real tokens of the row, its pads, columns of the batch.
        naive: the column that `len(encode(text before the subject + subject)) - 1` names, as most editors count.
        causes: why `naive` is not `last` (empty where it is): pads, special_tokens, merged, boundary, truncation; or
            why nothing is found: absent. "occurrence" is added where the subject occurs more than once, "shared" where
            its last token also holds text that follows.
        oracle: "offsets", "decode" (the offsets failed their self-test), or "none" (no position can be trusted).
    """

    text: str
    subject: str
    start: int | None
    end: int | None
    first: int | None
    last: int | None
    after: int | None
    length: int
    pads: int
    width: int
    naive: int | None
    causes: tuple[str, ...]
    oracle: Oracle

    @property
    def drift(self) -> int | None:
        """naive − last: how far a start-counted index is off in this row."""
        return None if self.naive is None or self.last is None else self.naive - self.last


def locate(
    tokenizer: Any,
    texts: Sequence[str],
    subjects: Sequence[str] | str,
    *,
    padding_side: Side | None = None,
    occurrence: int | None = None,
    max_length: int | None = None,
) -> list[Span]:
    """Find each subject in its text, in one padded batch.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, or a tokenizer of transformers (fast, slow or remote).
        texts: the rows; a text may hold one `{}` where its subject goes.
        subjects: one subject for all texts, or one for each.
        padding_side: the side on which the batch is padded; by default the tokenizer's own.
        occurrence: which occurrence of a repeated subject is meant, 0-based; by default the last one.
        max_length: rows are cut to so many tokens, on the right.

    Returns:
        One `Span` for each text, in order.

    Raises:
        ValueError: texts and subjects differ in number, or no side is given and the tokenizer has none.
    """
    wrapped = wrap(tokenizer)
    side = padding_side or wrapped.padding_side
    if side not in ("left", "right"):
        raise ValueError("give padding_side='left' or 'right': this tokenizer states none")
    names = [subjects] * len(texts) if isinstance(subjects, str) else list(subjects)
    if len(names) != len(texts):
        raise ValueError(f"{len(texts)} texts but {len(names)} subjects")
    places = [_place(text, subject, occurrence) for text, subject in zip(texts, names, strict=True)]
    measured = list(_measure_all(wrapped.reader, places))
    lengths = [item.n if max_length is None else min(item.n, max_length) for item in measured]
    width = max(lengths, default=0)
    counts = _counts(wrapped.reader, places, measured)
    return [
        _span(place, item, count, length, width, side == "left")
        for place, item, count, length in zip(places, measured, counts, lengths, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Place:
    text: str
    subject: str
    start: int
    end: int
    times: int


def _place(text: str, subject: str, occurrence: int | None) -> _Place:
    if text.count("{}") == 1:
        start = text.index("{}")
        filled = text.replace("{}", subject)
        return _Place(filled, subject, start, start + len(subject), max(1, filled.count(subject)) if subject else 1)
    starts = [] if not subject else _all(text, subject)
    if not starts or (occurrence is not None and not -len(starts) <= occurrence < len(starts)):
        return _Place(text, subject, -1, -1, len(starts))
    start = starts[-1 if occurrence is None else occurrence]
    return _Place(text, subject, start, start + len(subject), len(starts))


def _all(text: str, subject: str) -> list[int]:
    starts, at = [], text.find(subject)
    while at >= 0:
        starts.append(at)
        at = text.find(subject, at + 1)
    return starts


def _measure_all(reader: TokenReader, places: Sequence[_Place]) -> Iterator[Measured]:
    for begin in range(0, len(places), CHUNK):
        chunk = places[begin : begin + CHUNK]
        for place, encoded in zip(chunk, reader.encode_batch([place.text for place in chunk]), strict=True):
            yield measure(encoded, place.text, max(0, place.start), max(0, place.end), len(place.text), reader)


def _counts(reader: TokenReader, places: Sequence[_Place], measured: Sequence[Measured]) -> list[int]:
    """`len(encode(text before + subject))` of each row; read off the row where that is proven."""
    cuts = cuts_of(reader)
    counts: list[int] = [0] * len(places)
    open_: list[int] = []
    for number, (place, item) in enumerate(zip(places, measured, strict=True)):
        if place.start < 0:
            continue
        if (
            item.oracle == "offsets"
            and item.last is not None
            and item.last_end <= place.end
            and cuts.safe(place.text, place.end)
        ):
            counts[number] = item.last + 1 + item.tail
        else:
            open_.append(number)
    for begin in range(0, len(open_), CHUNK):
        chunk = open_[begin : begin + CHUNK]
        for number, encoded in zip(
            chunk, reader.encode_batch([places[n].text[: places[n].end] for n in chunk]), strict=True
        ):
            counts[number] = len(encoded.ids)
    return counts


def _span(place: _Place, item: Measured, count: int, length: int, width: int, left: bool) -> Span:
    pads = width - length
    shift = pads if left else 0
    if place.start < 0 or item.last is None or item.first is None:
        cause = ("absent",) if place.start < 0 else ()
        return Span(place.text, place.subject, None, None, None, None, None, length, pads, width, None, cause, item.oracle)
    follows = bool(place.text[place.end :].strip())
    row = _row(place, item, length)
    causes: list[Cause | str] = []
    last = item.last + shift
    naive = count - 1
    if item.last >= length:
        causes.append("truncation")
    elif naive != last:
        causes.extend(lookup_causes(row, naive, naive, last, width, pads, left, _ARITHMETIC))
    if place.times > 1:
        causes.append("occurrence")
    if subject_shared(item, place.end):
        causes.append("shared")
    cut = item.last >= length
    return Span(
        place.text,
        place.subject,
        place.start,
        place.end,
        None if item.first >= length else item.first + shift,
        None if cut else last,
        None if cut else min(last + (1 if follows else 0), shift + length - 1),
        length,
        pads,
        width,
        naive,
        tuple(causes),
        item.oracle,
    )


def _row(place: _Place, item: Measured, length: int) -> Row:
    request = Request(0, None, place.text, place.subject, "", None, None, {}, "easyedit")
    filled = Filled(request, place.text[: place.start], place.subject, place.text[place.end :], "", "", "")
    row = Row(Prepared(filled, [], 0, ""), 0, item, item.last, place.end)
    row.mask = length
    return row
