"""The columns that functions marked with `checked_index` return: what they are exchanged for, and every batch they meet.

A column that was counted before any batch held its row holds from then on, for each batch with that row: it decides the side on
which the batch is padded. One that was counted after such a batch is for that batch; in a later one it is expected to be
counted again, and if it is not, that is said on leaving.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from padcheck.guards.batches import Batches, goes_on
from padcheck.guards.errors import DriftError
from padcheck.guards.readings import Counted, Pair, Stand, absent, alone, stand, truth_alone
from padcheck.guards.rows import Built, RowReader, lists
from padcheck.positions.editors import Side
from padcheck.renderers.wording import plural

if TYPE_CHECKING:
    from padcheck.guards.watching import Watch

_TURNED_ROWS = 4096
"""Rows of batches turned to the right that are known again when the model is to continue them."""

_Key = tuple[str, str, str, str | None]


@dataclass(slots=True, eq=False)
class _Column:
    """A column that was returned, and given.

    mentions    it as that of each mention of the subject that may be meant
    meant       the mention that it is, as far as its value says
    late        it was counted after a batch with its row, for that batch
    fresh       no batch with its row was built since it was counted
    seen        a batch with its row was built
    elsewhere   who built a later batch with its row in which it is not the true column
    """

    mentions: Sequence[Counted]
    meant: Counted | None = None
    late: bool = False
    fresh: bool = True
    seen: bool = False
    elsewhere: str = ""

    @property
    def value(self) -> int:
        return self.mentions[0].value

    @property
    def given(self) -> int:
        return self.mentions[0].given

    @property
    def where(self) -> str:
        return self.mentions[0].where

    @property
    def text(self) -> str:
        return self.mentions[0].text

    @property
    def possible(self) -> Sequence[Counted]:
        """The mentions that it may be."""
        return self.mentions if self.meant is None else (self.meant,)

    def give(self, given: int) -> int:
        for mention in self.mentions:
            mention.given = given
        return given


@dataclass(slots=True, eq=False)
class _Held:
    """The columns of one subject in one row. `at`, `before`: how many batches there were when it was counted last, and before that."""

    columns: list[_Column] = field(default_factory=list)
    at: int = -1
    before: int = 0


class Columns:
    """All that marked functions returned inside a guard, and inside those around it of the same tokenizer."""

    def __init__(self, rows: RowReader) -> None:
        self._rows = rows
        self._batches = Batches(rows)
        self._held: dict[_Key, _Held] = {}
        self._by_text: dict[str, list[_Held]] = {}
        self._lengths: list[int] = []
        self._by_ids: dict[tuple[int, ...], set[str]] = {}
        self._not_by_ids: list[str] = []
        self._not_understood: Counter[tuple[str, str]] = Counter()
        self._turned: Counter[tuple[str, str]] = Counter()
        self._turned_rows: dict[tuple[int, ...], tuple[str, str]] = {}
        self.any = False
        """Whether a marked function ran."""

    # -- counting --------------------------------------------------------------------------------------------------------------

    def leave(self, where: str, why: str) -> None:
        """A marked function returned what is not understood as a column: said on leaving."""
        self.any = True
        self._not_understood[where, why] += 1

    def counted_for_left_padding(self, rows: Sequence[Sequence[Counted]]) -> bool:
        """Whether columns of several rows are the true ones of one batch that is padded on the left, whichever it will be."""
        widths: set[int] = set()
        lengths: set[int] = set()
        for mentions in rows:
            found = set()
            for one in mentions:
                measured = self._measured(one)
                truth = truth_alone(one, measured)
                if truth is not None and one.value - truth >= 0:
                    found.add(one.value - truth + measured.n)
                    lengths.add(measured.n)
            widths = found if not widths else widths & found
            if not widths:
                return False
        return len(lengths) > 1 and any(width >= max(lengths) for width in widths)

    def count(self, watch: Watch, mentions: Sequence[Counted], *, left: bool = False) -> int:
        """A column was counted: what it is to be instead. `left`: it is one of a batch that is padded on the left."""
        self.any = True
        first = mentions[0]
        key = first.where, first.text, first.text[first.start : first.end], first.fact_token
        held = self._held.get(key)
        if held is None:
            held = self._hold(key)
        now = self._batches.count
        again = next((column for column in held.columns if column.value == first.value), None)
        if held.at != now:
            held.at, held.before = now, max(held.at, 0)
        elif again is not None:
            return again.given
        batches = self._batches.holding(first.text, held.before)
        if again is not None and not (again.late and batches):
            again.fresh = True
            return again.given
        if not batches and held.columns:
            batches = self._batches.holding(first.text)
        if batches:  # those counted for earlier batches have been replaced
            held.columns = [column for column in held.columns if not column.late or column.fresh]
        column = _Column(mentions)
        held.columns.append(column)
        if not batches:
            return self._early(watch, column, left)
        column.late = column.seen = True
        return self._late(watch, column, batches)

    def _hold(self, key: _Key) -> _Held:
        text = key[1]
        if text not in self._by_text:
            self._by_text[text] = []
            self._not_by_ids.append(text)
            if len(text) not in self._lengths:
                self._lengths.append(len(text))
        held = self._held[key] = _Held()
        self._by_text[text].append(held)
        return held

    def _early(self, watch: Watch, column: _Column, left: bool) -> int:
        """Before the batch. Only what counts on the unpadded row is understood; anything else must be right in the batch."""
        value = column.value
        if left:
            return value
        for specials in (True, False):
            for one in column.mentions:
                measured = self._measured(one, specials=specials)
                truth = truth_alone(one, measured)
                if value in alone(truth, measured.n):
                    column.meant = one
                    return value
        (one, *others) = column.mentions
        measured = self._measured(one)
        truth = truth_alone(one, measured)
        if truth is None or absent(one, measured):
            column.meant = one if not others else None
        elif not others and -measured.n <= value < measured.n:
            column.meant = one
            if watch.policy == "correct":
                return column.give(truth if value >= 0 else truth - measured.n)
        return value

    def _late(self, watch: Watch, column: _Column, batches: Sequence[tuple[Built, list[int]]]) -> int:
        """After the batch (or several that hold the row)."""
        value = column.value
        stands = [
            (built, number, one, self._stand(one, built, number))
            for built, numbers in batches
            for number in numbers
            for one in column.mentions
        ]
        newest = batches[0][0]
        right = [
            entry for entry in stands
            # In an older batch only a column that padding has moved says that this is the batch that is meant.
            if entry[3].holds(value, entry[0].used) and (entry[0] is newest or entry[3].moved(value))
        ]  # fmt: skip
        if right:
            built, number, column.meant, where = right[0]
            wrong = [other for other in stands if other[2] is column.meant and _misses(other[3], value, other[0].used)]
            if wrong and not where.moved(value):
                column.elsewhere = wrong[0][0].caller
            self._judge(watch, built, [(column.meant, number)])
            return value
        column.meant = self._meant(column, stands)
        if column.meant is None:
            return self._unclear(watch, column, newest, batches[0][1][0])
        chosen = [entry for entry in stands if entry[2] is column.meant]
        built, number, one, where = chosen[0]
        if watch.policy == "correct":
            columns = {entry[3].column(entry[0].used) for entry in chosen if entry[3].known}
            if len(columns) > 1:
                raise self._ambiguous(column, chosen)
            given = next(iter(columns), None)
            if given is not None:
                column.give(given)
        elif older := next((entry for entry in chosen if entry[3].holds(value, entry[0].used)), None):
            column.elsewhere = built.caller
            built, number = older[0], older[1]
        self._judge(watch, built, [(one, number)])
        return column.given

    def _meant(self, column: _Column, stands: Sequence[tuple[Built, int, Counted, Stand]]) -> Counted | None:
        """The mention that a column is meant for which is right in no batch: by the unpadded row, or as the only one there is."""
        value = column.value
        for _, _, one, where in stands:
            if where.truth is not None and not where.moved(value):
                return one
        for one in column.mentions:
            measured = self._measured(one)
            if value in alone(truth_alone(one, measured), measured.n):
                return one
        if len(column.mentions) > 1:
            return None
        inside = any(
            not where.known
            or where.gone
            or -n <= value < n  # of the unpadded row
            or (built.used == "left" and where.pads <= value < where.width)
            for built, _, _, where in stands
            for n in [where.width - where.pads]
        )
        return column.mentions[0] if inside else None

    def _unclear(self, watch: Watch, column: _Column, built: Built, number: int) -> int:
        """A column that is none of the subject's tokens, and says not what it was meant for."""
        if column.value >= built.width or column.value < -built.width:
            column.elsewhere = built.caller  # the column of a batch that was not seen
            return column.value
        pairs = [watch.lookup(one, built, number) for one in column.mentions]
        watch.record.called(column.where, None, built.asked, built.used)
        nearest = min(pairs, key=lambda pair: abs(pair.asked.drift or 0) if pair.asked is not None else 0)
        remedy = _WHICH_MENTION if len(pairs) > 1 else _NOT_THAT_BATCH
        watch.judge(column.where, None, [nearest], rows=len(built.ids), remedy=remedy)
        return column.value

    def _ambiguous(self, column: _Column, stands: Sequence[tuple[Built, int, Counted, Stand]]) -> DriftError:
        places = dict.fromkeys(f"{where.column(built.used)} in a batch of {built.caller}" for built, _, _, where in stands)
        return DriftError(
            f"{column.where}: the column {column.value} for the row {column.text!r} is right in none of the batches that held this row, "
            f"and its true column is {', '.join(list(places)[:3])}: which one is meant cannot be known. Call the function right behind "
            "the batch that its columns are for."
        )

    # -- batches ---------------------------------------------------------------------------------------------------------------

    def side_for(self, watch: Watch, built: Built) -> Side:
        """The side on which a batch is to be padded, that was padded as the tokenizer or the call says.

        Raises DriftError where its columns need both.
        """
        deciding, _ = self._met(built)
        if not deciding:
            return built.asked
        other: Side = "left" if built.asked == "right" else "right"
        votes: Counter[Side] = Counter()
        fits: set[Side] = {built.asked, other}
        for column, number in deciding:
            right = self._sides(column, built, number)
            votes.update(right)
            if right:
                fits &= right
        if built.asked in fits:
            return built.asked
        if other in fits:
            return other
        if any(column.given != column.value for column, _ in deciding):
            return max((built.asked, other), key=lambda side: votes[side])
        names = ", ".join(dict.fromkeys(column.where for column, _ in deciding))
        raise DriftError(
            f"{names}: columns that need left padding (counted from the row's end, or for a padded row) and columns that need right "
            "padding (counted from the row's start) are read in one batch: no padding side is right for both."
        )

    def turned(self, built: Built) -> None:
        """A batch was padded on another side than it was asked for."""
        if built.used != "right":
            return  # from left padding a model may go on
        names = ", ".join(dict.fromkeys(column.where for column, _ in self._met(built)[0]))
        self._turned[built.caller, names] += 1
        for row, real in zip(built.padded_ids(), built.ids, strict=True):
            if len(real) < len(row):
                self._turned_rows[tuple(row)] = built.caller, names
        while len(self._turned_rows) > _TURNED_ROWS:
            del self._turned_rows[next(iter(self._turned_rows))]

    def built(self, watch: Watch, built: Built) -> bool:
        """A batch was built: judge the columns that are read in it. Whether there are any."""
        deciding, others = self._met(built)
        self._batches.add(built)
        by_place: dict[str, list[tuple[_Column, int]]] = {}
        for column, number in deciding:
            by_place.setdefault(column.where, []).append((column, number))
        for column, number in others:
            if any(_misses(self._stand(one, built, number), column.given, built.used) for one in column.possible):
                column.elsewhere = column.elsewhere or built.caller
        again = bool(deciding) and not any(column.fresh for column, _ in deciding)
        for column, _ in [*deciding, *others]:
            column.seen, column.fresh = True, False
        for entries in by_place.values():
            self._decided(watch, built, entries, again)
        return bool(by_place)

    def generated(self, ids: Any) -> None:
        """The model is asked to go on behind these rows.

        Raises DriftError where they are rows that a guard turned to the right.
        """
        if not self._turned_rows:
            return
        for row in lists(ids):
            if tuple(row) in self._turned_rows:
                caller, names = self._turned_rows[tuple(row)]
                raise DriftError(
                    f"{names}: its columns need right padding, and the model is to generate behind the batch of {caller} that was padded "
                    "on the right for them; generation needs left padding, so no side is right for both. Pad on the left, and take the "
                    'columns from padcheck.locate(tokenizer, texts, subjects, padding_side="left").'
                )

    def _met(self, built: Built) -> tuple[list[tuple[_Column, int]], list[tuple[_Column, int]]]:
        """The columns whose rows a batch holds: those that are read in it, and those that may have been meant for others.

        In each row those that were counted since the last batch with that row are read; where there are none, those counted before.
        """
        rows = self._rows_in(built)
        if not rows:
            return [], []
        every = [
            (column, number)
            for text, numbers in rows.items()
            for held in self._by_text[text]
            for column in held.columns
            for number in numbers
        ]
        early = [entry for entry in every if not entry[0].late]
        counted_anew = {number for column, number in early if column.fresh}
        deciding = [entry for entry in early if entry[0].fresh or entry[1] not in counted_anew]
        chosen = set(map(id, deciding))
        return deciding, [entry for entry in every if id(entry) not in chosen]

    def _rows_in(self, built: Built) -> dict[str, list[int]]:
        """The rows of a batch for which columns were counted, by the text that they were counted for."""
        if not self._by_text:
            return {}
        found: dict[str, list[int]] = {}
        if built.texts is None:
            self._index_ids()
            for number, ids in enumerate(built.ids):
                for text in self._by_ids.get(tuple(ids), ()):
                    found.setdefault(text, []).append(number)
            return found
        begun: dict[str, list[int]] = {}
        for number, row in enumerate(built.texts):
            if row in self._by_text:
                found.setdefault(row, []).append(number)
                continue
            for length in self._lengths:
                text = row[:length]
                if length < len(row) and text in self._by_text and goes_on(text, row):
                    begun.setdefault(text, []).append(number)
        return {**begun, **found}

    def _index_ids(self) -> None:
        texts, self._not_by_ids = self._not_by_ids, []
        for specials in (True, False):
            for text, made in zip(texts, self._rows.encode(texts, specials=specials), strict=True):
                self._by_ids.setdefault(tuple(made.ids), set()).add(text)

    def _sides(self, column: _Column, built: Built, number: int) -> set[Side]:
        """The sides on which a column is right in a batch. Where the row cannot be measured: those that its sign says."""
        found: set[Side] = set()
        for one in column.possible:
            where = self._stand(one, built, number)
            if not where.known and column.meant is not None:
                found.add("right" if column.given >= 0 else "left")
            found.update(side for side in _SIDES if where.holds(column.given, side))
        return found

    def _decided(self, watch: Watch, built: Built, entries: Sequence[tuple[_Column, int]], again: bool) -> None:
        """Columns of one function that are read in a batch that was just built."""
        chosen: list[tuple[Counted, int]] = []
        unclear = False
        exchanged = False
        for column, number in entries:
            stands = [(one, self._stand(one, built, number)) for one in column.possible]
            one = next((one for one, where in stands if where.holds(column.given, built.used)), None)
            if one is None:
                unclear |= len(stands) > 1
                exchanged |= any(other.given != other.value for other, _ in entries)
                one = stands[0][0]
            chosen.append((one, number))
        remedy = _WHICH_MENTION if unclear else _EXCHANGED if exchanged else self._specials(built, chosen)
        self._judge(watch, built, chosen, remedy or (_AGAIN if again else None))

    def _specials(self, built: Built, chosen: Sequence[tuple[Counted, int]]) -> str | None:
        """What to say of columns that are wrong only by the special tokens that the row has, or has not."""
        for one, number in chosen:
            where = self._stand(one, built, number)
            if not _misses(where, one.given, built.used):
                continue
            for specials in (True, False):
                measured = self._measured(one, specials=specials)
                truth = truth_alone(one, measured)
                if truth != where.truth and one.given in alone(truth, measured.n):
                    return _SPECIALS
        return None

    def _judge(self, watch: Watch, built: Built, chosen: Sequence[tuple[Counted, int]], remedy: str | None = None) -> None:
        where = chosen[0][0].where
        watch.record.called(where, None, built.asked, built.used)
        pairs: list[Pair] = [watch.lookup(one, built, number) for one, number in chosen]
        watch.judge(where, None, pairs, rows=len(built.ids), remedy=remedy)

    def _stand(self, counted: Counted, built: Built, number: int) -> Stand:
        return stand(in_row(counted, built, number), built, number, self._rows)

    def _measured(self, counted: Counted, *, specials: bool = True) -> Any:
        return self._rows.measure(counted.text, counted.start, counted.end, counted.prompt_end, specials=specials)

    # -- leaving ---------------------------------------------------------------------------------------------------------------

    def unchecked(self) -> Iterator[str]:
        """What could not be compared with a batch, sentence by sentence."""
        every = [column for held in self._held.values() for column in held.columns]
        unseen = [column for column in every if not column.seen]
        changed = [column for column in unseen if column.given != column.value]
        if changed:
            one = changed[0]
            yield (
                f"padcheck.guard: {plural(len(changed), 'column')} counted by {one.where} {_was(changed)} exchanged (for example {one.value} "
                f"for {one.given} in {one.text!r}), as counted on the unpadded row, for rows that no batch of this tokenizer held inside "
                "the guard: the exchange was never checked. Build the batch inside the guard."
            )
        left = [column for column in unseen if column.given == column.value]
        if left:
            yield (
                f"padcheck.guard: {plural(len(left), 'column')} counted by {left[0].where} (for example in {left[0].text!r}) for rows that "
                "no batch of this tokenizer held: not checked."
            )
        elsewhere = [column for column in every if column.seen and column.elsewhere]
        if elsewhere:
            one = elsewhere[0]
            yield (
                f"padcheck.guard: {plural(len(elsewhere), 'column')} counted by {one.where} for one batch {_was(elsewhere)} not counted again "
                f"for another that holds the same rows in other columns ({one.elsewhere}; for example {one.text!r}): not checked there. "
                "If they are read in it, call the function after it is built."
            )
        for (where, why), times in self._not_understood.items():
            yield f"padcheck.guard: {plural(times, 'result')} of {where} could not be checked: {why}."

    def turned_unseen(self) -> Iterator[str]:
        """Batches that were turned to the right, where it was not seen whether the model generates behind them."""
        for (caller, names), times in self._turned.items():
            yield (
                f"padcheck.guard padded {times} {'batch' if times == 1 else 'batches'} of {caller} on the right, as the columns of {names} need it. A model "
                "that generates behind such a batch gives other answers; padcheck.guard(tokenizer, model=model) watches that."
            )


_SIDES: tuple[Side, Side] = ("left", "right")

_NOT_THAT_BATCH = "The column is no token of this row: call the function right behind the batch that its columns are for."
_WHICH_MENTION = (
    "The subject stands in the row more than once and the column is none of its mentions, so which one is meant cannot be known: "
    "write the row with {} in the subject's place."
)
_EXCHANGED = (
    "padcheck.guard itself exchanged these columns, taking them for columns of the unpadded row, before it saw the batch, and that was "
    "wrong. Call the function right behind the batch that its columns are for."
)
_AGAIN = (
    "The columns were counted before an earlier batch that held these rows, and this one holds them too. Where they are not read in it "
    "(evaluation), build it outside of the guard; where they are, count them again."
)
_SPECIALS = (
    "The columns and the batch differ by the special tokens: make both with, or both without add_special_tokens, or call the function "
    "right behind the batch, where padcheck.guard can exchange its columns."
)


def _misses(where: Stand, value: int, side: Side) -> bool:
    return where.known and not where.holds(value, side)


def _was(several: Sequence[Any]) -> str:
    return "was" if len(several) == 1 else "were"


def in_row(counted: Counted, built: Built, number: int) -> Counted:
    """A column in the row that a batch holds: the row may go on behind the text that it was counted for."""
    if built.texts is None or built.texts[number] == counted.text:
        return counted
    return replace(counted, text=built.texts[number])
