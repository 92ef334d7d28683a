"""`guard`: someone else's editor made right without changing its code, or stopped with a reason.

Inside the block padcheck sees every call of one tokenizer, and the functions of the editors it knows (`rules/editors`,
`[guard]`). A batch whose columns such a function counts gets the side that its counting needs; columns that no side makes
right are exchanged; everything else, evaluation and generation among it, keeps the tokenizer's own side.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, TypeVar, cast, get_args, overload

from padcheck.guards import contexts
from padcheck.guards.entering import REDIRECTIONS, mentions, nested
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
            put back on leaving. Its weights are the editor's affair.
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

    Inside a `guard` the column is compared with the padded batch that holds the row, built before or afterwards. Policy
    "correct" gives the true column of that batch; where it is yet to be built, it is padded on the side that the column's
    sign needs (a column counted from the row's start: right). "fail" raises DriftError, "warn" warns. Outside a guard the
    function is as it was. Where a row with `{}` mentions the subject elsewhere too, only the one in place of `{}` is right; in a
    row without `{}` each mention is, since nothing says which one is meant.

    Args:
        text: the parameter that holds the row or rows; they may hold `{}` in the subject's place. Recognised by name: text,
            prompt, sentence, row, context, template, and their plurals.
        subject: the parameter that holds the subject or subjects. Recognised: subject, word, entity, and their plurals.
        token: which token is meant: subject_last, subject_first, subject_first_after_last or last (the prompt's); or the
            parameter that says so. Of a parameter named `subtoken`, the values are last, first and first_after_last.

    Raises:
        TypeError: no parameter of such a name (when the function is defined).
    """

    def mark(function: _F) -> _F:
        signature = inspect.signature(function)
        text_name = _parameter(function, signature, text, _TEXT, "text")
        subject_name = (
            None if token == "last" and subject is None else _parameter(function, signature, subject, _SUBJECT, "subject")
        )
        if token not in FACT_TOKENS and token not in signature.parameters:
            raise TypeError(
                f"{function.__qualname__}: token is {token!r}, neither one of {', '.join(FACT_TOKENS)} nor a parameter"
            )
        tokenizer_name = next((name for name in _TOKENIZER if name in signature.parameters), None)
        where = f"{function.__module__}.{function.__qualname__}"

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            value = function(*args, **kwargs)
            if not contexts.watches.get():
                return value
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            named = given.get(tokenizer_name) if tokenizer_name is not None else None
            watch = contexts.innermost() if named is None else contexts.watch_of(named)
            if watch is None:
                contexts.stranger(where)
                return value
            meant = token if token in FACT_TOKENS else _named_token(token, given[token])
            return _checked(
                watch, where, given[text_name], None if subject_name is None else given[subject_name], meant, value
            )

        return cast(_F, checked)

    return mark if function is None else mark(function)


def _parameter(
    function: Callable[..., Any], signature: inspect.Signature, given: str | None, known: Sequence[str], what: str
) -> str:
    if given is not None:
        if given not in signature.parameters:
            raise TypeError(f"{function.__qualname__} has no parameter {given!r}, which {what}= names")
        return given
    found = next((name for name in known if name in signature.parameters), None)
    if found is None:
        raise TypeError(
            f"{function.__qualname__}: no parameter is known to hold the {what}; name it with @padcheck.checked_index({what}=...)"
        )
    return found


def _checked(watch: Watch, where: str, rows: Any, subjects: Any, meant: str, value: Any) -> Any:
    """The columns that a marked function returned, as they are to be."""
    if meant not in FACT_TOKENS:
        return value
    if isinstance(rows, str):
        return _checked_row(watch, where, rows, subjects, meant, value)
    texts = list(rows)
    names = [subjects] * len(texts) if subjects is None or isinstance(subjects, str) else list(subjects)
    if not hasattr(value, "__len__") or len(value) != len(texts) or len(names) != len(texts):
        return value
    answers = [
        _checked_row(watch, where, text, name, meant, own) for text, name, own in zip(texts, names, value, strict=True)
    ]
    if isinstance(value, (list, tuple)):
        return type(value)(answers)
    flat = _flat(answers)
    return nested(value, lambda _: next(flat))


def _flat(answers: Any) -> Iterator[int]:
    """The columns of arrays in arrays, one after the other."""
    for answer in answers:
        if getattr(answer, "shape", ()):
            yield from _flat(answer)
        else:
            yield int(answer)


def _named_token(parameter: str, value: Any) -> str:
    """The fact token that a parameter's value names. A `subtoken` is one of the subject's, and is said without it."""
    return f"subject_{value}" if parameter == "subtoken" else str(value)


def _checked_row(watch: Watch, where: str, row: str, subject: str | None, fact_token: str, value: Any) -> Any:
    spans = [(row, 0, len(row))] if subject is None else list(mentions(row, subject))
    if not spans:
        return value

    def one(own: int) -> int:
        request = watch.requests.of_row(spans[0][0], subject or "")
        return watch.checked(
            [Counted(where, text, start, end, len(text), fact_token, own, own, "", request) for text, start, end in spans]
        )

    return nested(value, one)
