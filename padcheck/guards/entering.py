"""What happens when a call site is entered: one handler for each kind of function that `rules/editors` knows."""

from __future__ import annotations

import inspect
import operator
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

from padcheck.guards import contexts, planned
from padcheck.guards.matching import Place, files, places
from padcheck.guards.readings import Counted
from padcheck.guards.redirecting import Found, Handler, Redirections
from padcheck.guards.watching import Entered, Watch
from padcheck.positions.editors import FACT_TOKENS
from padcheck.positions.sites import Site

_MISSING: Any = object()


def found_at(path: str, variables: Mapping[str, Any]) -> Any:
    """The value of `a.b`: an attribute or a key `b` of the variable `a`; None where there is none."""
    first, *rest = path.split(".")
    value = variables.get(first, _MISSING)
    for name in rest:
        value = value.get(name, _MISSING) if isinstance(value, Mapping) else getattr(value, name, _MISSING)
    return None if value is _MISSING else value


class _Call:
    """A call of a site's function: its arguments by name, and what makes it."""

    def __init__(self, place: Place, original: FunctionType, bound: inspect.BoundArguments) -> None:
        self.place = place
        self.site: Site = place.site
        self.original = original
        self._bound = bound
        self.arguments = {**bound.arguments}

    def get(self, path: str | None) -> Any:
        return None if path is None else found_at(path, self.arguments)

    def make(self, **changes: Any) -> Any:
        self._bound.arguments.update(changes)
        return self.original(*self._bound.args, **self._bound.kwargs)

    def entered(self, watch: Watch) -> Entered:
        return Entered(watch, self.place, self.original.__code__)


def handler(place: Place, original: FunctionType) -> Handler:
    """What takes the place of a site's function: the function itself, where nobody guards its tokenizer."""
    enter = _ENTER[place.site.kind]
    known: list[inspect.Signature] = []  # made at the first call: most sites are never called

    def handle(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not contexts.watches.get():
            return original(*args, **kwargs)
        if not known:
            known.append(inspect.signature(original))
        try:
            bound = known[0].bind(*args, **kwargs)
        except TypeError:
            return original(*args, **kwargs)  # says itself what is wrong with the call
        bound.apply_defaults()
        call = _Call(place, original, bound)
        watch = contexts.watch_of(call.get(place.site.tokenizer))
        if watch is None:
            contexts.stranger(place.name)
            return call.make()
        return enter(watch, call)

    return handle


# -- the kinds ---------------------------------------------------------------------------------------------------------------------


def _pads(watch: Watch, call: _Call) -> Any:
    with watch.entering(call.entered(watch)):
        return call.make()


def _edits(watch: Watch, call: _Call) -> Any:
    here = call.entered(watch)
    site = call.site
    requests = call.get(site.requests)
    if site.prompts is not None:
        requests = planned.assembled(call.get(site.prompts), call.get(site.targets), call.get(site.subjects))
    elif isinstance(requests, Mapping):
        requests = [requests]
    if isinstance(requests, Sequence):
        known = [request for request in requests if isinstance(request, Mapping)]
        planned.before(watch, here, known, call.get(site.hparams), call.original.__globals__)
    with watch.entering(here):
        return call.make()


def _reads(watch: Watch, call: _Call) -> Any:
    here = call.entered(watch)
    site = call.site
    rows, columns = call.get(site.rows), call.get(site.columns)
    texts = [rows] if isinstance(rows, str) else rows
    if not isinstance(texts, Sequence) or not isinstance(columns, Sequence) or len(texts) != len(columns):
        with watch.entering(here):
            return call.make()
    given = [_passed_on(watch, here, text, own) for text, own in zip(texts, columns, strict=True)]
    with watch.entering(here):
        return call.make(**{site.columns or "": given}) if watch.policy == "correct" else call.make()


def _passed_on(watch: Watch, here: Entered, text: str, columns: Any) -> Any:
    """The columns of one row, as they are to be read."""

    def one(value: int) -> int:
        counted = watch.pass_on(text, value)
        if counted is None:
            last = value == -1
            counted = Counted(
                here.place.name, text, 0, len(text), len(text), "last" if last else None, value, value,
                str(value) if value < 0 else "counted from the row's start", watch.requests.of_row(text, ""),
            )  # fmt: skip
            if watch.policy == "correct":
                counted.given = watch.correct(counted, here.place.site.side or "right")
        here.waiting.setdefault(text, deque()).append(counted)
        return counted.given

    return nested(columns, one)


def _counts(watch: Watch, call: _Call) -> Any:
    site = call.site
    token = contexts.counted_inside.set(set())
    try:
        value = call.make()
    finally:
        inside = contexts.counted_inside.get() or set()
        contexts.counted_inside.reset(token)
    fact_token = f"{site.token_prefix}{call.get(site.token)}"
    rows, subjects = call.get(site.rows), call.get(site.subjects)
    if fact_token not in FACT_TOKENS:
        return value
    if isinstance(rows, str):
        return _one_row(watch, call, inside, rows, subjects, fact_token, value)
    if not isinstance(rows, Sequence) or not isinstance(value, Sequence) or len(rows) != len(value):
        return value
    names = [subjects] * len(rows) if isinstance(subjects, str) else list(subjects)
    spans = [spanned(row, subject) for row, subject in zip(rows, names, strict=True)]
    watch.rows.encode([span[0] for span in spans if span is not None])  # all in one call
    return [
        _one_row(watch, call, inside, row, subject, fact_token, own)
        for row, subject, own in zip(rows, names, value, strict=True)
    ]


def _one_row(watch: Watch, call: _Call, inside: set[str], row: str, subject: str, fact_token: str, value: Any) -> Any:
    """The columns of one row: as they were counted, or as they are to be."""
    site = call.site
    span = spanned(row, subject)
    if span is None:
        return value
    text, start, end = span
    prompt_end, is_kl = _prompt_end(watch, call, text)

    def one(own: int) -> int:
        counted = Counted(
            call.place.name, text, start, end, prompt_end, fact_token, own, own, (site.index or {}).get(fact_token, ""),
            watch.requests.of_row(text, subject), is_kl, call.place.side or "right",
        )  # fmt: skip
        outer = contexts.counted_inside.get()
        if outer is not None:
            outer.add(text)
        # A function that this one called has counted, and was answered, already.
        return own if text in inside and watch.agrees(counted) else watch.counted(counted)

    return nested(value, one)


def _prompt_end(watch: Watch, call: _Call, text: str) -> tuple[int, bool]:
    """Where the prompt ends in a row, and whether it is a KL row."""
    here = watch.here()
    if here is None or here.place.site.kind != "pads":
        return len(text), False
    variables = watch.variables(here)
    end, is_kl = here.prompt_end(text, watch.head_of(here, variables))
    told = call.get(call.site.prompt)
    if not is_kl and isinstance(told, str) and text.startswith(told):
        end = len(told)
    return end, is_kl


_ENTER: dict[str, Callable[[Watch, _Call], Any]] = {
    "pads": _pads,
    "generates": _pads,
    "edits": _edits,
    "reads": _reads,
    "counts": _counts,
}


# -- shared with checked_index -----------------------------------------------------------------------------------------------------


def nested(value: Any, one: Callable[[int], int]) -> Any:
    """`one` applied to every column in `value`: a number, lists of numbers, an array or a tensor; of the same shape and kind."""
    if isinstance(value, (list, tuple)):
        return like(value, [nested(item, one) for item in value])
    if getattr(value, "shape", None) and hasattr(value, "tolist"):
        made = value.clone() if hasattr(value, "clone") else value.copy()
        for number in range(len(value)):
            made[number] = nested(value[number], one)
        return made
    own = _column(value)
    if own is None:
        return value
    answer = one(own)
    return value if answer == own else _number_like(value, answer)


def numbers(value: Any) -> Iterator[int | None]:
    """Every column in `value`, as `nested` finds them; None for what is none."""
    if isinstance(value, (list, tuple)) or (getattr(value, "shape", None) and hasattr(value, "tolist")):
        for item in value:
            yield from numbers(item)
    else:
        yield _column(value)


def like(value: Any, items: list[Any]) -> Any:
    """`items` as a list or tuple of the kind of `value`, a named one among them."""
    make = getattr(type(value), "_make", type(value))
    return make(items)


def _column(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _number_like(value: Any, answer: int) -> Any:
    """A number of the kind of `value`: an int, numpy's, or a tensor or array of no dimension."""
    if hasattr(value, "clone"):
        return value.clone().fill_(answer)
    if type(value).__name__ == "ndarray":
        made = value.copy()
        made.fill(answer)
        return made
    return answer if type(value) is int else type(value)(answer)


def spanned(row: str, subject: str) -> tuple[str, int, int] | None:
    """A row and where its subject stands: in the place of `{}`, else where it occurs last; None where it does not occur."""
    return next(mentions(row, subject), None)


def mentions(row: str, subject: str) -> Iterator[tuple[str, int, int]]:
    """A row and each place where its subject may be meant: that of `{}` alone, else all that it has, the last one first."""
    if row.count("{}") == 1:
        before, after = row.split("{}")
        with suppress(IndexError, KeyError, ValueError):
            before, after = before.format(), after.format()  # doubled braces
        yield before + subject + after, len(before), len(before) + len(subject)
        return
    start = row.rfind(subject) if subject else -1
    while start >= 0:
        yield row, start, start + len(subject)
        start = row.rfind(subject, 0, start + len(subject) - 1)


# -- all of them -------------------------------------------------------------------------------------------------------------------


def _find(module: ModuleType) -> Iterator[Found]:
    for place, function, holder, name in places(module):
        yield Found(function, holder, name, partial(handler, place))


REDIRECTIONS = Redirections(_find, files)
"""The call sites of this process, redirected while anybody guards a tokenizer."""
