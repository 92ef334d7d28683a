"""What holds for the code that is running, in this thread or task: who guards it, and which call sites it has entered.

Context variables: a thread starts with none of it, a task inherits what held where it was made.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from padcheck.guards.watching import Entered, Watch
    from padcheck.sources.token_readers import Side

watches: ContextVar[tuple[Watch, ...]] = ContextVar("padcheck_watches", default=())
"""The guards entered and not left, outermost first. One that was left elsewhere is closed: see `watch_of`."""

entered: ContextVar[tuple[Entered, ...]] = ContextVar("padcheck_entered", default=())
"""The call sites that are running, outermost first."""

forced_side: ContextVar[tuple[object, Side] | None] = ContextVar("padcheck_forced_side", default=None)
"""A tokenizer and the side that it pads on during the present call, whatever its attribute says."""

counted_inside: ContextVar[set[str] | None] = ContextVar("padcheck_counted_inside", default=None)
"""The rows whose columns were looked at by functions that the running one has called (one that counts calls another)."""

ours: ContextVar[bool] = ContextVar("padcheck_ours", default=False)
"""True while a tokenizer works for padcheck, or for itself inside a call that is already seen."""


marked: ContextVar[bool] = ContextVar("padcheck_marked", default=False)
"""True while a function runs that is marked with `checked_index`: what it pads to count by is not the batch."""


def watch_of(tokenizer: object) -> Watch | None:
    """The innermost guard that looks after this tokenizer here."""
    for watch in reversed(watches.get()):
        if watch.tokenizer is tokenizer and watch.open:
            return watch
    return None


def innermost() -> Watch | None:
    """The innermost guard here, whatever its tokenizer."""
    return next((watch for watch in reversed(watches.get()) if watch.open), None)


def stranger(name: str) -> None:
    """A function that counts columns was called with a tokenizer that nobody guards here."""
    watch = innermost()
    if watch is not None:
        watch.record.strangers.add(name)
