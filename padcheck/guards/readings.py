"""Positions read in rows that were really built: the column in use, the true one, and why they differ.

A position is looked at twice: as it would be without the guard (the side that was asked for, the column that the editor
counted) and as it is (the side that the batch has, the column that the editor was given).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from padcheck.guards.rows import Built, RowReader, fit
from padcheck.positions.arithmetic import Expression
from padcheck.positions.drift import Kind, Reading, label_causes, lookup_causes
from padcheck.positions.editors import Batch, BatchName, Rows, Side, Span
from padcheck.positions.filling import Filled
from padcheck.positions.rows import Prepared, Row, fact_column
from padcheck.positions.truth import Measured
from padcheck.sources.requests import Request


@dataclass(slots=True)
class Counted:
    """A column that an editor's function returned, or passes on.

    where       who counted it, for people
    text        the row; `text[start:end]` is the subject, `text[:prompt_end]` the row without target text
    fact_token  which token is meant; None where the editor does not say it, and the column itself is what is meant
    value       what it counted; negative from the row's end
    given       what it was given instead
    side        the side that the editor's batches need
    """

    where: str
    text: str
    start: int
    end: int
    prompt_end: int
    fact_token: str | None
    value: int
    given: int
    arithmetic: str
    request: Request
    is_kl: bool = False
    side: Side = "right"


def truth_alone(counted: Counted, measured: Measured) -> int | None:
    """The true column of the unpadded row; None where no oracle can be trusted."""
    if counted.fact_token is None:
        return counted.value if counted.value >= 0 else measured.n + counted.value
    return fact_column(measured, counted.fact_token, counted.end, counted.prompt_end)


def alone(truth: int | None, n: int) -> tuple[int, ...]:
    """The true column of an unpadded row of `n` tokens, counted from its start and from its end."""
    return () if truth is None else (truth, truth - n)


def absent(counted: Counted, measured: Measured) -> bool:
    """Whether the row has no such token: one token holds the subject's end and all that follows in the prompt."""
    if counted.fact_token != "subject_first_after_last":
        return False
    truth = truth_alone(counted, measured)
    return truth is not None and measured.prompt_last is not None and truth > measured.prompt_last


@dataclass(slots=True)
class Pair:
    """One position: `asked` without the guard, `used` with it.

    Both are None where there is nothing to tell: the column is the true one either way, or nothing is `known`.
    """

    request: Request
    known: bool
    asked: Reading | None = None
    used: Reading | None = None


@dataclass(slots=True)
class Stand:
    """Where the token that is meant stands in a row of a batch.

    measured  the row as the batch holds it, with or without special tokens
    truth     its column in the unpadded row; None where that cannot be said
    gone      whether the row has no such token
    pads      of the row, in the batch of `width` columns
    """

    measured: Measured
    truth: int | None
    gone: bool
    pads: int
    width: int

    @property
    def known(self) -> bool:
        return self.truth is not None or self.gone

    def column(self, side: Side) -> int | None:
        """Its column where the batch is padded on `side`; None where it has none."""
        if self.truth is None or self.gone or self.truth >= self.width - self.pads:
            return None
        return self.truth + (self.pads if side == "left" else 0)

    def moved(self, value: int) -> bool:
        """Whether a column is another than the true one of the unpadded row."""
        return value not in alone(self.truth, self.width - self.pads)

    def holds(self, value: int, side: Side) -> bool:
        """Whether a column is the true one where the batch is padded on `side`."""
        column = self.column(side)
        return column is not None and value in (column, column - self.width)


def stand(counted: Counted, built: Built, number: int, reader: RowReader) -> Stand:
    """Where the token that a column is counted for stands in row `number` of a batch."""
    ids = built.ids[number]
    measured = reader.measure(counted.text, counted.start, counted.end, counted.prompt_end)
    whole = fit(ids, measured)
    if whole == "other":
        bare = reader.measure(counted.text, counted.start, counted.end, counted.prompt_end, specials=False)
        if fit(ids, bare) != "other":
            measured, whole = bare, fit(ids, bare)
    truth = truth_alone(counted, measured) if whole != "other" else None
    return Stand(measured, truth, absent(counted, measured), built.width - len(ids), built.width)


def lookup(
    counted: Counted, built: Built, number: int, kind: Kind, reader: RowReader, source: str, *, told: bool = False
) -> Pair:
    """The position of a counted column in row `number` of a batch. `told`: with its readings, even if it is right."""
    ids = built.ids[number]
    where = stand(counted, built, number, reader)
    measured, truth, gone = where.measured, where.truth, where.gone
    width, n = built.width, len(ids)
    pads = width - n
    if truth is None and not gone:
        return Pair(counted.request, False)
    if not told and where.holds(counted.value, built.asked) and where.holds(counted.given, built.used):
        return Pair(counted.request, True)
    filled = Filled(
        counted.request, counted.text[: counted.start], counted.text[counted.start : counted.end],
        counted.text[counted.end : counted.prompt_end], "", "", counted.request.target_new,
    )  # fmt: skip
    row = Row(Prepared(filled, [], 0, ""), number, measured, truth, counted.end)
    row.mask, row.is_kl, row.fact_token, row.absent = n, counted.is_kl, counted.fact_token, gone
    batch = _batch("optimise" if kind in ("lookup", "kl") else "keys", "templates", source)

    def reading(value: int, side: Side) -> Reading:
        left = side == "left"
        column = value if value >= 0 else width + value
        true = None if truth is None or gone else truth + (pads if left else 0)
        causes: tuple[Any, ...] = ()
        if gone:
            causes = ("merged",)
        elif true is not None and column != true:
            causes = lookup_causes(row, value, column, true, width, pads, left, counted.arithmetic)
        elif truth is not None and truth >= n:
            causes = ("truncation",)
        return Reading(batch, row, kind, column, true, width, pads, left, causes, counted.arithmetic)

    return Pair(counted.request, True, reading(counted.value, built.asked), reading(counted.given, built.used))


@dataclass(slots=True)
class Target:
    """The target in the rows of one batch: its ids (or only their count), and the text that was appended for it."""

    ids: Sequence[int] | None
    count: int
    head: str
    is_text: bool
    labels: Expression


def label(target: Target, request: Request, text: str, built: Built, number: int, reader: RowReader, source: str) -> Pair:
    """The position of the first scored column in a row that ends in the target's head."""
    if not text.endswith(target.head):
        return Pair(request, False)
    prompt_end = len(text) - len(target.head)
    ids = built.ids[number]
    for specials in (True, False):
        whole = reader.measure(text, 0, 0, prompt_end, specials=specials)
        if fit(ids, whole) != "other":
            break
    else:
        return Pair(request, False)
    filled = Filled(request, text[:prompt_end], "", "", "", "", request.target_new)
    prepared = Prepared(filled, list(target.ids or ()), target.count, target.head)
    row = Row(prepared, number, whole, None, 0)
    row.mask = len(ids)
    truth: int | None
    if target.is_text:
        truth = _last_before(whole, prompt_end)
    else:
        (own,) = reader.encode([text[:prompt_end]], specials=specials)
        own_ids, rest = _without_tail(own), whole.ids[: whole.n - whole.tail]
        row.labels_sound = rest == [*own_ids, *(target.ids or ())[:-1]]
        truth = len(own_ids) - 1 if rest[: len(own_ids)] == own_ids else whole.prompt_last
    row.label_first = truth
    width, pads = built.width, built.width - len(ids)
    first = target.labels.on_row(row, width, pads)
    first = first if first >= 0 else width + first
    if truth is None and row.labels_sound:
        return Pair(request, False)
    if row.labels_sound and built.asked == built.used and first == (truth or 0) + (pads if built.used == "left" else 0):
        return Pair(request, True)
    span = Span(target.labels, target.labels, "slots")
    batch = _batch("optimise", "templates+target, kl" if target.is_text else "templates+head, kl", source, span)

    def reading(side: Side) -> Reading:
        left = side == "left"
        true = None if truth is None else truth + (pads if left else 0)
        causes: tuple[Any, ...] = ()
        if not row.labels_sound or first != true:
            causes = label_causes(row, first, true if true is not None else first, pads, left, batch, span)
        return Reading(batch, row, "label", first, true, width, pads, left, causes, target.labels.text, row.labels_sound)

    return Pair(request, True, reading(built.asked), reading(built.used))


def _last_before(whole: Measured, prompt_end: int) -> int | None:
    """The slot whose logits are scored against the first token that holds a character behind the prompt."""
    if whole.oracle != "offsets":
        return whole.prompt_last
    offsets = whole.encoded.offsets
    beyond = (at for at in range(whole.lead, whole.n - whole.tail) if offsets[at][1] > prompt_end)
    first = next(beyond, None)
    return None if first is None else first - 1


def continuation(request: Request, text: str, built: Built, number: int, reader: RowReader, source: str) -> Pair:
    """Where a continuation of a prompt is put: behind as many columns as the prompt has tokens."""
    ids = built.ids[number]
    counted = Counted("", text, 0, len(text), len(text), None, len(ids) - 1, len(ids) - 1, "mask - 1", request)
    return lookup(counted, built, number, "lookup", reader, source)


def _without_tail(encoded: Any) -> list[int]:
    ids, special = list(encoded.ids), encoded.special_tokens_mask
    stop = len(ids)
    while stop and special[stop - 1]:
        stop -= 1
    return ids[:stop]


def _batch(name: BatchName, rows: Rows, source: str, labels: Span | None = None) -> Batch:
    return Batch(name, rows, "request", None, None, labels, None, source)
