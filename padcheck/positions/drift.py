"""Drift = editor − truth, row by row, on the padded batch; and why.

`Batches` gathers rows into the padded batches that the editor would build and compares, for every position that is read from
them, the editor's column with the true one. What differs becomes a `Reading` with its causes; what agrees is only counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from padcheck.positions.arithmetic import Expression
from padcheck.positions.editors import Batch, Raises, RunMode, Side, Span
from padcheck.positions.rows import Prepared, Row
from padcheck.positions.truth import Measured

Kind = Literal["lookup", "label", "kl", "key", "value", "current"]
Cause = Literal[
    "pads",
    "sign",
    "special_tokens",
    "merged",
    "boundary",
    "occurrence",
    "truncation",
    "retokenised",
    "braces",
    "suffix",
    "raises",
    "inconsistent",
]

_KIND_OF_BATCH: Mapping[str, Kind] = {
    "optimise": "lookup",
    "keys": "key",
    "value": "value",
    "current": "current",
    "train": "key",
}


@dataclass(slots=True)
class Reading:
    """One position that the editor reads in one row of one padded batch. Columns are 0-based in the padded row.

    `sound` is False where the row does not hold the tokens that the labels are: then no column can be right.
    """

    batch: Batch
    row: Row
    kind: Kind
    editor: int | None
    truth: int | None
    width: int
    pads: int
    left: bool
    causes: tuple[Cause, ...]
    arithmetic: str
    sound: bool = True

    @property
    def drift(self) -> int | None:
        return None if self.editor is None or self.truth is None else self.editor - self.truth


Observer = Callable[[Reading], None]


class Batches:
    """The padded batches of a run. `observe` sees every drifting reading, or every reading where `everything` is set.

    Counts: `checked` readings in all, `unknown` those without a trustworthy truth, `needs_right` and `needs_left` those of
    padded rows that only that side can make right (counted from the row's start, from its end).
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        *,
        side: Side,
        fact_token: str,
        hparams: Mapping[str, Any],
        group_size: int | None,
        observe: Observer,
        everything: bool = False,
        shifts: Mapping[tuple[int, str, int, str], int] | None = None,
    ) -> None:
        self._plans = [_Plan(batch, fact_token, hparams) for batch in batches]
        self._side = side
        self._group_size = group_size
        self._in_group = 0
        self._observe = observe
        self._everything = everything
        self._shifts = shifts
        self.checked = 0
        self.unknown = 0
        self.needs_right = 0
        self.needs_left = 0

    def add(self, prepared: Prepared) -> None:
        """Take one request's rows. Requests must come in order."""
        for plan in self._plans:
            rows = plan.rows_of(prepared)
            per = plan.batch.per
            if per == "row":
                for row in rows:
                    self._evaluate(plan, [row])
            elif per == "request":
                for chunk in _chunks(rows, plan.size):
                    self._evaluate(plan, chunk)
            else:
                plan.pending.extend(rows)
                while plan.size is not None and len(plan.pending) >= plan.size:
                    chunk, plan.pending = plan.pending[: plan.size], plan.pending[plan.size :]
                    self._evaluate(plan, chunk)
        self.skip()

    def skip(self) -> None:
        """A request at which the editor stops: it has its place in the group, but no rows."""
        self._in_group += 1
        if self._group_size is not None and self._in_group >= self._group_size:
            self.end_group()

    def end_group(self) -> None:
        """The editor's call ends: what is gathered across requests is forwarded."""
        self._in_group = 0
        for plan in self._plans:
            if plan.pending:
                chunk, plan.pending = plan.pending, []
                self._evaluate(plan, chunk)

    # -- comparing ---------------------------------------------------------------------------------------------------------------

    def _evaluate(self, plan: _Plan, rows: Sequence[Row]) -> None:
        width = max(row.mask for row in rows)
        if plan.pad_to is not None:
            width = max(width, plan.pad_to)
        left = self._side == "left"
        if plan.batch.name == "train":
            self._widths(plan, rows, width, left)
        for row in rows:
            pads = width - row.mask
            if plan.lookup is not None:
                self._lookup(plan, row, width, pads, left)
            if plan.labels is not None and not row.is_kl:
                self._label(plan, plan.labels, row, width, pads, left)

    def _lookup(self, plan: _Plan, row: Row, width: int, pads: int, left: bool) -> None:
        self.checked += 1
        entry = plan.last_lookup if row.fact_token == "last" and plan.batch.name != "train" else plan.lookup
        kind: Kind = "kl" if row.is_kl else plan.kind
        if isinstance(entry, Raises):
            truth = None if row.truth is None else row.truth + (pads if left else 0)
            self._report(Reading(plan.batch, row, kind, None, truth, width, pads, left, ("raises",), entry.message))
            return
        assert entry is not None
        value = entry.on_row(row, width, pads)
        if value >= 0:
            column = value
            if pads:
                self.needs_right += 1
        else:
            column = width + value
            if pads:
                self.needs_left += 1
        if self._shifts is not None:
            column += self._shifts.get((row.prepared.request.index, plan.batch.name, row.number, kind), 0)
        truth = row.truth if plan.batch.truth == "fact_token" else row.measured.n - row.measured.tail - 1
        if row.absent:
            self._report(Reading(plan.batch, row, kind, column, None, width, pads, left, ("merged",), entry.text))
            return
        if truth is None:
            self.unknown += 1
            if self._everything:
                self._report(Reading(plan.batch, row, kind, column, None, width, pads, left, (), entry.text))
            return
        if left:
            truth += pads
        if column != truth:
            causes = lookup_causes(row, value, column, truth, width, pads, left, entry.text)
            self._report(Reading(plan.batch, row, kind, column, truth, width, pads, left, causes, entry.text))
        elif self._everything:
            self._report(Reading(plan.batch, row, kind, column, truth, width, pads, left, (), entry.text))

    def _label(self, plan: _Plan, span: Span, row: Row, width: int, pads: int, left: bool) -> None:
        self.checked += 1
        if pads:
            if plan.labels_at_end:
                self.needs_left += 1
            else:
                self.needs_right += 1
        first = span.first.on_row(row, width, pads)
        last = span.last.on_row(row, width, pads)
        first = first if first >= 0 else width + first
        last = last if last >= 0 else width + last
        start = pads if left else 0
        text = f"{span.first.text} … {span.last.text}"
        if span.masked:
            text = f"all but {text}"
            # What is left: the real columns before the span and after it. Column 0 has no logits before it and is dropped.
            before = max(start, 1)
            first, last = before if before < first else max(last + 1, start), start + row.mask - 1
        if first > last:
            cut: Cause = "truncation" if row.mask < row.measured.n else "boundary"
            self._report(
                Reading(plan.batch, row, "label", None, None, width, pads, left, (cut,), f"{text}: no label is left")
            )
            return
        if self._shifts is not None:
            shift = self._shifts.get((row.prepared.request.index, plan.batch.name, row.number, "label"), 0)
            first, last = first + shift, last + shift
        truth = row.label_first
        if truth is None:
            self.unknown += 1
            if self._everything:
                self._report(Reading(plan.batch, row, "label", first, None, width, pads, left, (), text, row.labels_sound))
            return
        truth += start
        if plan.batch.name == "train":
            # One convention for all: the first labelled token. A label in column 0 has no logits before it and is dropped.
            if span.on == "slots":
                first, last = first + 1, last + 1
            first = max(first, 1)
        end = start + row.mask - 1
        whole = plan.batch.name != "train" or plan.batch.rows == "prompt" or end - row.measured.tail <= last <= end
        if not truth <= first <= truth + row.label_slack or not row.labels_sound or not whole:
            causes = label_causes(row, first, truth, pads, left, plan.batch, span)
            self._report(Reading(plan.batch, row, "label", first, truth, width, pads, left, causes, text, row.labels_sound))
        elif self._everything:
            self._report(Reading(plan.batch, row, "label", first, first, width, pads, left, (), text))

    def _report(self, reading: Reading) -> None:
        self._observe(reading)

    @staticmethod
    def _widths(plan: _Plan, rows: Sequence[Row], width: int, left: bool) -> None:
        """Widths of the batches of prompts and of targets that the method tokenises beside the rows."""
        own = [row for row in rows if not row.is_kl]
        prompt_width = max((row.prompt for row in own), default=0)
        target_width = max([row.target for row in own] + [plan.pad_to or 0])
        for row in own:
            row.prompt_width = prompt_width
            row.target_width = target_width
            row.target_pads = target_width - row.target if left else 0
            row.trailing = 0 if left else width - row.mask


class _Plan:
    """A batch with its arithmetic resolved for this run."""

    def __init__(self, batch: Batch, fact_token: str, hparams: Mapping[str, Any]) -> None:
        self.batch = batch
        self.kind: Kind = _KIND_OF_BATCH[batch.name]
        self.size = batch.size if isinstance(batch.size, int) else _hparam_size(batch.size, hparams)
        entries = batch.lookup.by_fact_token if batch.lookup else {}
        self.lookup: Expression | Raises | None = entries.get(fact_token)
        self.last_lookup: Expression | Raises | None = entries.get("last", self.lookup)
        self.labels = batch.labels
        self.labels_at_end = batch.labels is not None and anchored_at_row_end(batch.labels)
        self.pad_to = _hparam_size(batch.pad_to, hparams)
        self.pending: list[Row] = []

    def rows_of(self, prepared: Prepared) -> list[Row]:
        rows = self.batch.rows
        if rows == "templates":
            return prepared.base
        if rows == "bare":
            return prepared.bare
        if rows.startswith("templates+") and rows.endswith("kl"):
            return prepared.headed + prepared.kl
        return prepared.train


def _hparam_size(name: str | None, hparams: Mapping[str, Any]) -> int | None:
    value = hparams.get(name) if name else None
    return value if isinstance(value, int) and value > 0 else None


def _chunks(rows: Sequence[Row], size: int | None) -> Iterator[Sequence[Row]]:
    if size is None or len(rows) <= size:
        if rows:
            yield rows
        return
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


# -- causes ------------------------------------------------------------------------------------------------------------------------


def lookup_causes(
    row: Row, value: int, column: int, truth: int, width: int, pads: int, left: bool, arithmetic: str
) -> tuple[Cause, ...]:
    """Split the drift into what pads did and what would be wrong on the row alone."""
    alone = value if value >= 0 else row.mask + value
    true_alone = truth - (pads if left else 0)
    intrinsic = alone - true_alone
    causes: list[Cause] = []
    if column - truth != intrinsic:
        causes.append("pads" if value >= 0 else "sign")
    if intrinsic:
        causes.append(_intrinsic_cause(row, intrinsic, alone, arithmetic))
    return tuple(causes)


def _intrinsic_cause(row: Row, intrinsic: int, alone: int, arithmetic: str) -> Cause:
    measured = row.measured
    if row.mask < measured.n and alone >= row.mask - 1:
        return "truncation"
    if not arithmetic and alone in other_mentions(measured, row.prepared.filled.subject, row.subject_end):
        return "occurrence"
    if row.row != measured.n:
        return "braces"
    if measured.tail and intrinsic == measured.tail:
        return "special_tokens"
    prompt_last = measured.prompt_last
    if (
        prompt_last is not None
        and alone > prompt_last
        and measured.n - measured.tail - 1 > prompt_last
        and "part_" not in arithmetic
    ):
        return "suffix"
    if "part_" in arithmetic:
        extra = row.specials * (arithmetic.count("part_") - 1) + measured.tail
        if extra and intrinsic == extra:
            return "special_tokens"
    if 0 <= row.subject_end < measured.last_end and measured.text[row.subject_end : measured.last_end].strip():
        return "merged"
    return "boundary"


def other_mentions(measured: Measured, subject: str, end: int) -> Iterator[int]:
    """Columns of the unpadded row in which the subject's text ends elsewhere than at the character `end`."""
    if measured.oracle != "offsets" or not subject:
        return
    offsets = measured.encoded.offsets
    at = measured.text.find(subject)
    while at >= 0:
        stop = at + len(subject)
        if stop != end:
            holding = (column for column, (begin, beyond) in enumerate(offsets) if begin < stop <= beyond)
            yield from list(holding)[-1:]
        at = measured.text.find(subject, at + 1)


def label_causes(row: Row, first: int, truth: int, pads: int, left: bool, batch: Batch, span: Span) -> tuple[Cause, ...]:
    if batch.rows == "prompt" and not row.labels_sound:
        return ("inconsistent",)  # the row never holds the target whose ids are its labels
    causes: list[Cause] = []
    measured = row.measured
    intrinsic = first - truth + (pads if left else 0)
    anchored_at_end = anchored_at_row_end(span)
    if anchored_at_end:
        intrinsic = first - truth - (0 if left else pads)
    if first - truth != intrinsic:
        causes.append("sign" if anchored_at_end else "pads")
    special = {measured.tail, measured.tail - row.prepared.target_extra} - {0}  # what special tokens alone can do to a label
    if row.mask < measured.n:
        causes.append("truncation")
    elif intrinsic and row.target_width > row.target and first - truth == row.target - row.target_width:
        causes.append("pads")  # the pads of the shorter targets are labels too
    elif intrinsic in special:
        causes.append("special_tokens")
    elif not row.labels_sound:
        causes.append("retokenised")
    elif intrinsic:
        causes.append("boundary")
    # The first label is right and the last is not: pads behind the row are labelled too.
    return tuple(causes) or ("sign" if pads and not left else "boundary",)


def anchored_at_row_end(span: Span) -> bool:
    """Whether the columns are counted from the padded row's end (or past its leading pads), not from its first column."""
    names = {*span.first.names, *span.last.names}
    return not names.isdisjoint({"width", "pads"}) or span.first.text.lstrip().startswith("-")


def group_size(run: RunMode, hparams: Mapping[str, Any], batch_size: int | None) -> int | None:
    """How many requests one call of the editor takes: 1 for edit and sequential, `batch_size` (or all) for batch."""
    if run != "batch":
        return 1
    return batch_size or _hparam_size("batch_size", hparams)


def subject_shared(measured: Measured, subject_end: int) -> bool:
    """Whether the subject's last token also holds visible text that follows the subject."""
    return measured.last_end > subject_end and bool(measured.text[subject_end : measured.last_end].strip())
