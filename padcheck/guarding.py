"""`guard`: someone else's editor made right without changing its code, or stopped with a reason.

Inside the block padcheck sees every call of one tokenizer, and the functions of the editors it knows (`rules/editors`,
`[guard]`). A batch whose columns such a function counts gets the side that its counting needs; columns that no side makes
right are exchanged; everything else, evaluation and generation among it, keeps the tokenizer's own side.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, TypeVar, cast, get_args, overload

from padcheck.guards import contexts
from padcheck.guards.entering import REDIRECTIONS, like, mentions, nested, numbers
from padcheck.guards.errors import DriftError as DriftError
from padcheck.guards.errors import DriftWarning as DriftWarning
from padcheck.guards.obeying import Corrections, read_corrections
from padcheck.guards.readings import Counted
from padcheck.guards.watching import Policy, Watch
from padcheck.positions.editors import FACT_TOKENS
from padcheck.sources.reading import SourceError

_F = TypeVar("_F", bound=Callable[..., Any])


class Guard:
    """What `guard` returns: a context manager that may be entered again, also while it is entered, and from any thread."""

    def __init__(self, tokenizer: Any, model: Any, policy: Policy, corrections: Corrections | None) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._policy: Policy = policy
        self._corrections = corrections
        self._lock = RLock()
        self._watches: list[Watch] = []

    def __enter__(self) -> Watch:
        outer = tuple(watch for watch in contexts.watches.get() if watch.open)
        REDIRECTIONS.acquire()
        try:
            watch = Watch(self._tokenizer, self._model, self._policy, self._corrections, outer)
        except BaseException:
            REDIRECTIONS.release()
            raise
        with self._lock:
            self._watches.append(watch)
        contexts.watches.set((*outer, watch))
        return watch

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        watch = self._innermost()
        if watch is None:
            raise RuntimeError("this guard was left more often than it was entered")
        try:
            watch.close(aborted=kind is not None)
        finally:
            contexts.watches.set(tuple(other for other in contexts.watches.get() if other.open))
            REDIRECTIONS.release()

    def _innermost(self) -> Watch | None:
        """The watch to close: the innermost of this guard here; one entered elsewhere (another thread, a generator) else."""
        here = [watch for watch in contexts.watches.get() if watch in self._watches]
        with self._lock:
            watch = here[-1] if here else self._watches[-1] if self._watches else None
            if watch is not None:
                self._watches.remove(watch)
            return watch


def guard(
    tokenizer: Any,
    model: Any = None,
    policy: Policy = "correct",
    corrections: str | Path | None = None,
) -> Guard:
    """Watch the editors that run inside the block, and make their positions right (or stop them).

        with padcheck.guard(tokenizer, model=model) as watch:
            editor.edit(...)
        watch.report()

    Args:
        tokenizer: the tokenizer of transformers (fast, slow or remote) that the editor uses.
        model: the edited model, if its switches (`requires_grad`, `training`; after an exception also hooks) are to be
            put back on leaving. Its weights are the editor's affair. If it is to `generate` behind a batch that was padded on the
            right for the columns of a `checked_index` function, DriftError; without a model, that batch is told on leaving.
        policy: "correct": batches get the side, and positions the column, that the editor's counting needs; where that is
            not possible, DriftError. "fail": nothing is changed, and a batch that would drift raises DriftError before
            anything is computed with it; an edit that is bound to drift is stopped before its first forward pass.
            "warn": nothing is changed, DriftWarning once for each cause and place.
        corrections: the file that `padcheck preflight --fix` wrote: its side and its columns are used, and whatever
            contradicts it raises DriftError.

    Returns:
        A context manager. Entering gives a `Watch`, whose `report()` tells what was seen and done. On leaving, also by an
        exception, the tokenizer's class, sides and backend and the model's switches are as they were found. Guards may be
        nested (the innermost counts), entered again, and used in several threads with one tokenizer; a thread that has not
        entered one sees the tokenizer and the editors as they are.

    Raises:
        TypeError: `tokenizer` is none of transformers (raised on entering).
        ValueError: an unknown policy; corrections that cannot be read, or with another policy than "correct".
    """
    if policy not in get_args(Policy):
        raise ValueError(f"policy is {policy!r}, and must be one of {', '.join(get_args(Policy))}")
    if corrections is None:
        return Guard(tokenizer, model, policy, None)
    if policy != "correct":
        raise ValueError(f'corrections are carried out by policy "correct", and policy is {policy!r}')
    try:
        return Guard(tokenizer, model, policy, read_corrections(corrections))
    except SourceError as error:
        raise ValueError(str(error)) from None


# -- functions of one's own --------------------------------------------------------------------------------------------------------

_TEXT = ("text", "prompt", "sentence", "row", "context", "template", "texts", "prompts", "sentences", "rows", "contexts",
         "templates", "context_templates")  # fmt: skip
_SUBJECT = ("subject", "word", "entity", "subjects", "words", "entities")
_TOKENIZER = ("tok", "tokenizer")


@overload
def checked_index(function: _F, /) -> _F: ...
@overload
def checked_index(
    *, text: str | None = None, subject: str | None = None, token: str = "subject_last"
) -> Callable[[_F], _F]: ...
def checked_index(
    function: _F | None = None, /, *, text: str | None = None, subject: str | None = None, token: str = "subject_last"
) -> _F | Callable[[_F], _F]:
    """Mark a function of your own editor that returns the column of a subject (or of each of several) in its row.

        @padcheck.checked_index
        def find_index(tok, prompt, subject): ...

    Inside a `guard` the column is compared with the padded batches that hold the row, built before or afterwards. Policy
    "correct" gives the true column of that batch; where it is yet to be built, it is padded on the side for which all its columns
    are right (a column counted from the row's start: right), and so is every later batch with these rows. A column that is right
    as it is stays as it is, and so does the side. "fail" raises DriftError, "warn" warns. Outside a guard the function is as it
    was. Where a row with `{}` mentions the subject elsewhere too, only the one in place of `{}` is right; in a row without `{}` each
    mention is, and a column beside all of them is never guessed at: DriftError.

    The function may be a coroutine function; it returns a column, a list (tuple, array, tensor) of one for each row, or these
    nested. Anything else is left alone, and told on leaving. What it pads itself to count by is not taken for the batch.

    Args:
        text: the parameter that holds the row or rows; they may hold `{}` in the subject's place. Recognised by name: text,
            prompt, sentence, row, context, template, and their plurals.
        subject: the parameter that holds the subject or subjects. Recognised: subject, word, entity, and their plurals.
        token: which token is meant: subject_last, subject_first, subject_first_after_last or last (the prompt's); or the
            parameter that says so. Of a parameter named `subtoken`, the values are last, first and first_after_last.

    Raises:
        TypeError: no parameter of such a name, or a generator function (when the function is defined).
    """

    def mark(function: _F) -> _F:
        if isinstance(function, (staticmethod, classmethod)):
            return cast(_F, type(function)(mark(cast(_F, function.__func__))))
        marked = _Marked(function, text, subject, token)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            with _running():
                value = function(*args, **kwargs)
            return marked.answer(value, args, kwargs)

        @functools.wraps(function)
        async def checked_later(*args: Any, **kwargs: Any) -> Any:
            with _running():
                value = await function(*args, **kwargs)
            return marked.answer(value, args, kwargs)

        return cast(_F, checked_later if marked.awaited else checked)

    return mark if function is None else mark(function)


@contextmanager
def _running() -> Iterator[None]:
    """While a marked function runs, what it pads to count by is not the batch."""
    token = contexts.marked.set(True)
    try:
        yield
    finally:
        contexts.marked.reset(token)


class _Marked:
    """A function that is marked with `checked_index`, and what its parameters and results mean."""

    def __init__(self, function: Callable[..., Any], text: str | None, subject: str | None, token: str) -> None:
        if not callable(function):
            raise TypeError(f"checked_index marks functions, and {function!r} is none")
        bare: Any = function
        while isinstance(bare, functools.partial):
            bare = bare.func
        name = getattr(bare, "__qualname__", None) or type(bare).__qualname__
        kinds = [function, getattr(function, "__call__", None)]  # noqa: B004 - what it is, not whether
        if any(inspect.isgeneratorfunction(kind) or inspect.isasyncgenfunction(kind) for kind in kinds):
            raise TypeError(f"{name} is a generator function: checked_index marks functions that return columns")
        self.awaited = any(inspect.iscoroutinefunction(kind) for kind in kinds)
        self.where = f"{bare.__module__}.{name}"
        self._signature = signature = inspect.signature(function)
        self._text = _parameter(name, signature, text, _TEXT, "text")
        self._subject = (
            None if token == "last" and subject is None else _parameter(name, signature, subject, _SUBJECT, "subject")
        )
        if token not in FACT_TOKENS and token not in signature.parameters:
            raise TypeError(f"{name}: token is {token!r}, neither one of {', '.join(FACT_TOKENS)} nor a parameter")
        self._token = token
        self._tokenizer = next((name for name in _TOKENIZER if name in signature.parameters), None)

    def answer(self, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the function returned, as it is to be."""
        if not contexts.watches.get():
            return value
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        named = given.get(self._tokenizer) if self._tokenizer is not None else None
        watch = contexts.innermost() if named is None else contexts.watch_of(named)
        if watch is None:
            contexts.stranger(self.where)
            return value
        meant = self._token if self._token in FACT_TOKENS else _named_token(self._token, given[self._token])
        if meant not in FACT_TOKENS:
            watch.columns.leave(self.where, f"{self._token}={given[self._token]!r} names no token that is known")
            return value
        rows, subjects = given[self._text], None if self._subject is None else given[self._subject]
        return self._rows(watch, rows, subjects, meant, value)

    def _rows(self, watch: Watch, rows: Any, subjects: Any, meant: str, value: Any) -> Any:
        one = isinstance(rows, str)
        texts = [rows] if one else list(rows) if isinstance(rows, (list, tuple)) else []
        if not texts or not all(isinstance(text, str) for text in texts):
            watch.columns.leave(self.where, f"{self._text} was no text and no list of texts")
            return value
        names = [subjects] * len(texts) if subjects is None or isinstance(subjects, str) else _listed(subjects)
        values = [value] if one else _listed(value)
        if len(values) != len(texts) or len(names) != len(texts):
            watch.columns.leave(self.where, "it was not one column for each row")
            return value
        counted = [
            self._counted(watch, text, name, meant, own) for text, name, own in zip(texts, names, values, strict=True)
        ]
        left = len(counted) > 1 and all(counted) and watch.columns.counted_for_left_padding(counted)
        answers = [watch.checked(mentions, left=left) if mentions else None for mentions in counted]
        given = [
            own if answer is None else nested(own, lambda _, answer=answer: answer)  # type: ignore[misc]
            for own, answer in zip(values, answers, strict=True)
        ]
        if one:
            return given[0]
        if isinstance(value, (list, tuple)):
            return like(value, given)
        flat = (number for own in given for number in numbers(own) if number is not None)
        return nested(value, lambda _: next(flat))

    def _counted(self, watch: Watch, row: str, subject: Any, meant: str, value: Any) -> list[Counted]:
        """The column of one row, as that of each mention of its subject that may be meant; none if it is not understood."""
        columns = set(numbers(value))
        (own,) = columns if len(columns) == 1 else (None,)
        if own is None:
            many = len(columns) > 1 and None not in columns
            watch.columns.leave(self.where, "it was several columns for one row" if many else "it was no column")
            return []
        spans = [(row, 0, len(row))] if subject is None else list(mentions(row, subject)) if isinstance(subject, str) else []
        if not spans:
            watch.columns.leave(self.where, f"the subject {subject!r} does not stand in the row {row!r}")
            return []
        request = watch.requests.of_row(spans[0][0], subject or "")
        return [Counted(self.where, text, start, end, len(text), meant, own, own, "", request) for text, start, end in spans]


def _listed(value: Any) -> list[Any]:
    """A list, tuple, array or tensor as a list of what it holds for each row; empty for anything else."""
    return list(value) if isinstance(value, (list, tuple)) or getattr(value, "shape", None) else []


def _parameter(function: str, signature: inspect.Signature, given: str | None, known: Sequence[str], what: str) -> str:
    if given is not None:
        if given not in signature.parameters:
            raise TypeError(f"{function} has no parameter {given!r}, which {what}= names")
        return given
    found = next((name for name in known if name in signature.parameters), None)
    if found is None:
        raise TypeError(
            f"{function}: no parameter is known to hold the {what}; name it with @padcheck.checked_index({what}=...)"
        )
    return found


def _named_token(parameter: str, value: Any) -> str:
    """The fact token that a parameter's value names. A `subtoken` is one of the subject's, and is said without it."""
    return f"subject_{value}" if parameter == "subtoken" else str(value)
