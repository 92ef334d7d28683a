"""The batches that a guard has seen, for columns that are counted after them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from padcheck.guards.rows import Built, RowReader
from padcheck.positions.filling import is_cjk

_RECENT = 16
"""Batches kept as they were made, and searched for rows that go on behind a text. Of older ones the tokens are kept."""

_TOKENS = 500_000
"""Tokens of older batches that are kept."""


class Batches:
    """Padded batches in the order in which they were built, each found by its rows."""

    def __init__(self, rows: RowReader) -> None:
        self._rows = rows
        self._recent: deque[tuple[int, Built]] = deque()
        self._older: deque[tuple[int, Built]] = deque()
        self._tokens = 0
        self._without_texts = False
        self._holding: dict[str | tuple[int, ...], list[tuple[int, Built]]] = {}
        self.count = 0

    def add(self, built: Built) -> None:
        entry = self.count, built
        self.count += 1
        self._recent.append(entry)
        self._without_texts |= built.texts is None
        for key in _keys(built):
            self._holding.setdefault(key, []).append(entry)
        if len(self._recent) > _RECENT:
            old = self._recent.popleft()
            old[1].settle()
            self._older.append(old)
            self._tokens += sum(map(len, old[1].ids))
        while self._tokens > _TOKENS:
            self._forget(self._older.popleft())

    def holding(self, text: str, since: int = 0) -> list[tuple[Built, list[int]]]:
        """The batches with this row, the newest first, from number `since` on; each with the numbers of the rows."""
        if self.count <= since:
            return []
        found = {number: built for number, built in self._holding.get(text, ()) if number >= since}
        if self._without_texts:
            for specials in (True, False):
                (made,) = self._rows.encode([text], specials=specials)
                found |= {number: built for number, built in self._holding.get(tuple(made.ids), ()) if number >= since}
        for number, built in self._recent:
            if number < since or number in found or built.texts is None:
                continue
            if any(goes_on(text, row) for row in built.texts):
                found[number] = built
        return [(built, self.rows_of(text, built)) for _, built in sorted(found.items(), key=lambda item: -item[0])]

    def rows_of(self, text: str, built: Built) -> list[int]:
        """The rows that are this text; else those that begin with it (a prompt, where the rows end in a target)."""
        same = built.rows_of(text, self._rows)
        if same or built.texts is None:
            return same
        return [number for number, row in enumerate(built.texts) if goes_on(text, row)]

    def _forget(self, entry: tuple[int, Built]) -> None:
        self._tokens -= sum(map(len, entry[1].ids))
        for key in _keys(entry[1]):
            self._holding[key].remove(entry)
            if not self._holding[key]:
                del self._holding[key]


def _keys(built: Built) -> Iterable[str | tuple[int, ...]]:
    """What a batch is found by: its rows' texts, else their tokens."""
    return set(built.texts) if built.texts is not None else {tuple(row) for row in built.ids}


def goes_on(text: str, row: str) -> bool:
    """Whether a row is this text with more behind it. `Lyonnaise` is another word than `Lyon`, and no continuation of it."""
    if not text or len(row) <= len(text) or not row.startswith(text):
        return False
    last, following = text[-1], row[len(text)]
    return not (last.isalnum() and following.isalnum()) or is_cjk(last) or is_cjk(following)
