"""One guard at work, from entering to leaving: what its tokenizer is asked, what is counted, and what comes of it."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, Literal

from padcheck.correcting import right_head
from padcheck.guards import contexts, telling
from padcheck.guards.columns import Columns, in_row
from padcheck.guards.errors import DriftError, DriftWarning
from padcheck.guards.keeping import KEEPER, KeptTokenizer, caller, inside, pads
from padcheck.guards.matching import Place
from padcheck.guards.obeying import Corrections
from padcheck.guards.readings import Counted, Pair, Target, absent, continuation, label, lookup, truth_alone
from padcheck.guards.recording import VERSION, Record, tool, versions
from padcheck.guards.requests import NO_REQUEST, Requests, target_text
from padcheck.guards.rows import Built, RowReader, as_list
from padcheck.positions.drift import Kind, Reading
from padcheck.positions.editors import Side
from padcheck.positions.filling import Filled
from padcheck.positions.rows import Prepared
from padcheck.positions.sites import Site
from padcheck.renderers.wording import plural
from padcheck.sources.requests import Request

Policy = Literal["correct", "fail", "warn"]


@dataclass(slots=True, eq=False)
class Entered:
    """A call site while it runs.

    code      its code, by which its frame is found
    request   the request it works on (pads)
    built     the batch it built last (pads)
    head      the text that its decode of the target's ids was answered with
    waiting   the columns it was given, by the row's text, until the batches with these rows are built (reads)
    counted   the columns that were counted for rows of its batch, by the row's text (pads)
    side      the side that its padded calls are to have
    planned   whether the whole run was looked at when it began (edits)
    """

    watch: Watch
    place: Place
    code: CodeType
    request: Request | None = None
    built: Built | None = None
    kl: int = 0
    head: str | None = None
    waiting: dict[str, deque[Counted]] = field(default_factory=dict)
    counted: dict[str, Counted] = field(default_factory=dict)
    side: Side | None = None
    planned: bool = False

    def prompt_end(self, text: str, head: str) -> tuple[int, bool]:
        """Where the prompt ends in a row, and whether it is a KL row. `head`: the target's text in the other rows."""
        if self.built is not None and self.kl and text in list(self.built.texts or ())[-self.kl :]:
            return len(text), True
        return (len(text) - len(head) if head and text.endswith(head) else len(text)), False


class Watch:
    """What `with padcheck.guard(...) as watch` gives: `watch.report()` tells what was seen and done so far."""

    def __init__(
        self, tokenizer: Any, model: Any, policy: Policy, corrections: Corrections | None, outer: tuple[Watch, ...]
    ) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.policy = policy
        self.corrections = corrections
        self.outer = outer
        self.open = True
        self.record = Record()
        self.requests = Requests()
        self.sees_generation = False
        self._pending: dict[str, deque[Counted]] = {}
        self._warned: set[tuple[str, ...]] = set()
        self.kept: KeptTokenizer = KEEPER.hold(self)
        try:
            self.rows = RowReader(self.kept)
            around = self._around()
            self.columns: Columns = Columns(self.rows) if around is None else around.columns
            self._about = _about(self.kept)
        except BaseException:
            KEEPER.drop(self, aborted=True)
            raise

    # -- leaving ---------------------------------------------------------------------------------------------------------------

    def close(self, *, aborted: bool) -> None:
        """Put everything back, hand the record to the guard around this one, and say what could not be watched."""
        if not self.open:
            return
        self.open = False
        KEEPER.drop(self, aborted=aborted)
        around = self._around()
        if around is None:
            unchecked = list(self.columns.unchecked())
            self.record.unchecked = bool(unchecked)
            left = [*self._unwatched(), *unchecked, *self._unpassed()]
            if not self.sees_generation:
                left += self.columns.turned_unseen()
        else:  # which says the rest
            around.record.merge(self.record)
            left = list(self._unpassed())
        if aborted:
            return
        self.record.notes += left
        for text in left:
            warnings.warn(text, DriftWarning, stacklevel=_outside())

    def _around(self) -> Watch | None:
        """The guard of this tokenizer around this one."""
        outer = (watch for watch in reversed(self.outer) if watch.open)
        return next((watch for watch in outer if watch.tokenizer is self.tokenizer), None)

    def _unwatched(self) -> Iterator[str]:
        if self.record.padded_calls and not self.record.sites and not self.record.strangers and not self.columns.any:
            callers = ", ".join(name for name, _ in self.record.unwatched.most_common(3))
            yield (
                f"padcheck.guard saw {plural(self.record.padded_calls, 'padded call')} ({callers}), but no function that it knows to count "
                "columns: nothing was checked. If an editor of your own counts them, mark the function that does with "
                "@padcheck.checked_index."
            )
        if self.record.strangers:
            yield (
                f"padcheck.guard: {', '.join(sorted(self.record.strangers)[:3])} ran with another tokenizer than the guarded one: not "
                "checked. Guard the tokenizer that the editor uses (BaseEditor's is editor.tok)."
            )
        if self.record.elsewhere:
            callers = ", ".join(name for name, _ in self.record.elsewhere.most_common(3))
            yield (
                f"padcheck.guard: {plural(self.record.elsewhere.total(), 'padded call')} of the guarded tokenizer ({callers}) came from a "
                "thread or task that has not entered the guard: not checked. Enter it there, or run the function in "
                "contextvars.copy_context()."
            )
        if self.record.unknown:
            yield (
                f"padcheck.guard: {plural(self.record.unknown, 'position')} could not be checked: neither the tokenizer's offsets nor "
                "decoding can be trusted there, or the row is not what the editor's variables say."
            )

    def _unpassed(self) -> Iterator[str]:
        """Columns that a framework's function counted, and that nobody read."""
        left = [counted for waiting in self._pending.values() for counted in waiting]
        if left:
            yield (
                f"padcheck.guard: {plural(len(left), 'column')} counted by {left[0].where} (for example in {left[0].text!r}) for rows that "
                "no batch of this tokenizer held: not checked."
            )

    def report(self) -> dict[str, Any]:
        """What was seen and done, as a mapping that JSON can hold; see `padcheck/schemas/guard.schema.json`."""
        return {
            "version": VERSION,
            "tool": tool(),
            "versions": versions(),
            "policy": self.policy,
            "corrections": None if self.corrections is None else self.corrections.shown,
            "tokenizer": self._about,
            "model": None if self.model is None else _model(self.model),
            **self.record.as_dict(),
        }

    # -- the tokenizer's calls ---------------------------------------------------------------------------------------------------

    def tokenized(self, name: str, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that encodes or pads."""
        padded, given = pads(name, own, self.tokenizer, args, kwargs)
        here = self.here()
        one_row = here is not None and _takes_one_row(here.place.site) and given.get("return_tensors") is not None
        known = None if here is None or (here.place.site.kind == "edits" and here.side is None) else here
        if not (padded or one_row) or (known is None and contexts.marked.get()):
            return own(self.tokenizer, *args, **kwargs)
        texts = _texts(args[0] if args else given.get("text", given.get("batch_text_or_text_pairs")))
        asked: Side = given.get("padding_side") or self.kept.own_side()
        pad_id = getattr(self.tokenizer, "pad_token_id", None)
        if padded:
            self.record.padded_calls += 1
        if known is None:
            return self._free(name, own, args, kwargs, texts, asked, pad_id)
        wanted = self._wanted(known)
        used = asked
        if self.policy == "correct" and wanted is not None and wanted != asked:
            used = wanted
            result = self._on_side(wanted, own, args, kwargs)
        else:
            result = own(self.tokenizer, *args, **kwargs)
        built = Built(texts, result, asked, used, pad_id)
        self._obeyed(_named(known), built)
        self._seen(known, built, padded)
        return result

    def _free(
        self, name: str, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], texts: list[str] | None,
        asked: Side, pad_id: int | None,
    ) -> Any:  # fmt: skip
        """A batch of no known call site: columns of functions that are marked with `checked_index` may be read in it."""
        again = _kept_whole(name, args, kwargs)
        result = own(self.tokenizer, *args, **kwargs)
        built = Built(texts, result, asked, asked, pad_id, caller())
        if self.policy == "correct":
            side = self.columns.side_for(self, built)
            if side != asked:
                result = self._on_side(side, own, *again)
                built = Built(texts, result, asked, side, pad_id, built.caller)
                self._obeyed("a function marked with checked_index", built)
                self.columns.turned(built)
        if not self.columns.built(self, built):
            self.record.unwatched[built.caller] += 1
        return result

    def _obeyed(self, who: str, built: Built) -> None:
        if built.used != built.asked and built.side_of_pads() not in (None, built.used):
            raise DriftError(
                f"{who} needs {built.used} padding, and this tokenizer ({type(self.tokenizer).__name__}) pads on the {built.asked} "
                "whatever it is told."
            )

    def decoded(self, name: str, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of `decode`: at a site that appends the target's ids but the last, decoded, the text must give these ids."""
        text = own(self.tokenizer, *args, **kwargs)
        here = self.here()
        site = here.place.site if here is not None else None
        if here is None or site is None or site.target is None or site.head_is_text or site.head is not None:
            return text  # where other ids than the target's are decoded, the text is worked on before it is appended (EAMET)
        if self.policy != "correct" or not isinstance(text, str):
            return text
        variables = self.variables(here)
        target = variables.get(site.target)
        asked = args[0] if args else kwargs.get("token_ids")
        if target is None or not len(as_list(target)) or as_list(asked) != as_list(target)[:-1]:
            return text
        request = self.request_of(here, variables)
        if here.head is None and request is not None:
            here.head = self._head(request, as_list(target), text)
        return text if here.head is None else here.head

    def _head(self, request: Request, target: list[int], text: str) -> str:
        """The text that is read again as `target[:-1]` behind the prompt; the decoded one where it is (or none is)."""
        if self.corrections is not None:
            return self.corrections.head(request, text)
        prompt = request.prompt.replace("{}", request.subject)
        own, joined = self.rows.encode([prompt, prompt + text])
        if _real(joined) == _real(own) + target[:-1]:
            return text
        filled = Filled(request, prompt, "", "", prompt, "", request.target_new)
        with self.kept.asking():
            found = right_head(Prepared(filled, target, len(target), text), self.rows.reader)
        return text if found is None else found

    def _wanted(self, here: Entered) -> Side | None:
        """The side that the batch of a call site needs; None if it may be either."""
        if here.place.site.kind in ("pads", "reads", "generates"):
            if here.place.site.unless is not None and self.variables(here).get(here.place.site.unless):
                return None
            return self.corrections.side if self.corrections is not None else here.place.site.side
        return here.side

    def _on_side(self, side: Side, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs.get("padding_side") is not None:
            kwargs = {**kwargs, "padding_side": side}
        elif len(args) > 1:
            signature = inspect.signature(own)
            bound = signature.bind(self.tokenizer, *args, **kwargs)
            if bound.arguments.get("padding_side") is not None:
                bound.arguments["padding_side"] = side
                args, kwargs = bound.args[1:], bound.kwargs
        token = contexts.forced_side.set((self.tokenizer, side))
        try:
            return own(self.tokenizer, *args, **kwargs)
        finally:
            contexts.forced_side.reset(token)

    # -- batches -------------------------------------------------------------------------------------------------------------------

    def _seen(self, here: Entered, built: Built, padded: bool) -> None:
        kind = here.place.site.kind
        self.record.called(here.place.name, here.place, built.asked, built.used)
        if kind == "pads":
            here.built = built
            self._labels(here, built)
            self._waited(here, built, self._pending)
        elif kind == "reads":
            self._waited(here, built, here.waiting)
        elif kind == "generates" and built.texts is not None and padded:
            self._prompts(here, built, built.texts)

    def _labels(self, here: Entered, built: Built) -> None:
        """The target's slots in a batch that was just built."""
        site = here.place.site
        if site.target is None:
            return
        variables = self.variables(here)
        here.request = self.request_of(here, variables)
        here.kl = len(variables.get(site.kl or "") or ())
        target = variables.get(site.target)
        if target is None or here.request is None or site.labels is None:
            return
        if built.texts is None:  # padded from ids: where the prompt ends is not known
            unknown = [Pair(here.request, False) for _ in built.ids[: len(built.ids) - here.kl]]
            self.judge(here.place.name, here.place, unknown)
            return
        counted = isinstance(target, int)
        ids = None if counted else as_list(target)
        count = target if counted else len(as_list(target))
        here.head = self.head_of(here, variables, built.texts[:1])
        wanted = Target(ids, int(count), here.head, site.head_is_text, site.labels)
        prompts = [text.removesuffix(here.head) for text in built.texts]
        self.rows.encode([*built.texts, *prompts])  # all in one call
        pairs = [
            label(wanted, here.request, text, built, number, self.rows, site.source)
            for number, text in enumerate(built.texts[: len(built.texts) - here.kl])
        ]
        self.judge(here.place.name, here.place, pairs)

    def _waited(self, here: Entered, built: Built, waiting: dict[str, deque[Counted]]) -> None:
        """Columns that were counted before the batch with their rows was built."""
        if built.texts is not None:
            rows = [(number, text) for number, text in enumerate(built.texts) if text in waiting]
        else:
            rows = [(number, text) for text in list(waiting) for number in built.rows_of(text, self.rows)]
        self.rows.encode([text for _, text in rows])  # all in one call
        kind: Kind = "lookup" if here.place.site.kind == "pads" else "key"
        pairs = []
        for number, text in rows:
            if queue := waiting.get(text):
                pairs.append(self._lookup(queue.popleft(), built, number, kind, here.place.site.source))
                if not queue:
                    del waiting[text]
        self.judge(here.place.name, here.place, pairs)

    def _prompts(self, here: Entered, built: Built, texts: Sequence[str]) -> None:
        pairs = [
            continuation(NO_REQUEST, text, built, number, self.rows, here.place.site.source)
            for number, text in enumerate(texts)
        ]
        self.judge(here.place.name, here.place, pairs)

    # -- columns -------------------------------------------------------------------------------------------------------------------

    def counted(self, counted: Counted) -> int:
        """A column was counted by a function of a framework: what it is to be instead."""
        here = self.here()
        built = here.built if here is not None and here.place.site.kind == "pads" else None
        side = built.used if built is not None else self._side_for(counted)
        counted.given = self.correct(counted, side) if self.policy == "correct" else counted.value
        rows = built.rows_of(counted.text, self.rows) if built is not None else []
        if here is not None and built is not None and rows:
            kind: Kind = "kl" if counted.is_kl else "lookup"
            here.counted[counted.text] = counted
            pair = self._lookup(counted, built, rows[0], kind, here.place.site.source)
            self.judge(here.place.name, here.place, [pair])
        else:
            self._pending.setdefault(counted.text, deque()).append(counted)
        return counted.given

    def checked(self, mentions: Sequence[Counted], *, left: bool = False) -> int:
        """A column was counted by a function that is marked with `checked_index`: what it is to be instead.

        `mentions`: the column as that of each mention of the subject that may be meant; `left`: it is one of several that are
        true in a batch padded on the left.
        """
        with self.kept.lock:
            return self.columns.count(self, mentions, left=left)

    def correct(self, counted: Counted, side: Side) -> int:
        """The true column for a batch that is padded on `side`; the value as it is where it is that, or nothing can be said."""
        measured = self.rows.measure(counted.text, counted.start, counted.end, counted.prompt_end)
        truth = truth_alone(counted, measured)
        if truth is None or absent(counted, measured):
            return counted.value
        right = truth if side == "right" else truth - measured.n
        return counted.value if counted.value == right else right

    def agrees(self, counted: Counted) -> bool:
        """Whether a column that was answered already is what it is to be."""
        if self.policy != "correct":
            return True
        here = self.here()
        built = here.built if here is not None and here.place.site.kind == "pads" else None
        return self.correct(counted, built.used if built is not None else self._side_for(counted)) == counted.value

    def pass_on(self, text: str, value: int) -> Counted | None:
        """The column that was counted for this row and given as this value, and is now handed to a function that reads there."""
        queue = self._pending.get(text, ())
        for counted in queue:
            if counted.given == value:
                self._pending[text].remove(counted)
                if not self._pending[text]:
                    del self._pending[text]
                return counted
        # A row without target text may be one of the batch that was optimised, too.
        for site in reversed(contexts.entered.get()):
            if site.watch is self and text in site.counted and site.counted[text].given == value:
                return site.counted[text]
        return None

    def _side_for(self, counted: Counted) -> Side:
        """The side that the batch will have in which a column is read."""
        return self.corrections.side if self.corrections is not None else counted.side

    def lookup(self, counted: Counted, built: Built, number: int) -> Pair:
        """The position of a column that a marked function counted, in row `number` of a batch."""
        return self._lookup(counted, built, number, "lookup", counted.where)

    def _lookup(self, counted: Counted, built: Built, number: int, kind: Kind, source: str) -> Pair:
        counted = in_row(counted, built, number)
        return lookup(counted, built, number, kind, self.rows, source, told=self.corrections is not None)

    # -- judging -------------------------------------------------------------------------------------------------------------------

    def judge(
        self, where: str, place: Place | None, pairs: Sequence[Pair], *, rows: int | None = None, remedy: str | None = None
    ) -> None:
        """Count the positions, and do what the policy says about those that drift.

        For columns of marked functions (`place` is None): `rows` of their batch, and what else can be done about them.
        """
        if not pairs:
            return
        for pair in pairs:
            self.record.position(where, place, pair)
        title = f"{place.editor.title}, {where}" if place is not None else where
        if self.policy == "correct":
            if self.corrections is not None:
                self.corrections.check(pairs, title)
            left = [pair.used for pair in pairs if pair.used is not None and pair.used.causes]
            if left:
                otherwise = "No padding side and no column makes this right: the editor's own code has to change."
                raise telling.drift_error(title, left, len(pairs), remedy or otherwise, rows)
            return
        drifting = [pair.asked for pair in pairs if pair.asked is not None and pair.asked.causes]
        if not drifting:
            return
        correct = telling.CORRECT if place is not None else telling.CORRECT_COLUMNS
        what = " ".join(filter(None, (remedy, correct)))
        if self.policy == "fail":
            raise telling.drift_error(title, drifting, len(pairs), what, rows)
        self.warn(title, drifting, len(pairs), what, rows)

    def warn(
        self, title: str, drifting: Sequence[Reading], checked: int, remedy: str = telling.CORRECT, rows: int | None = None
    ) -> None:
        """Once for each cause and place."""
        fresh = [reading for reading in drifting if (title, *reading.causes) not in self._warned]
        self._warned.update((title, *reading.causes) for reading in drifting)
        if fresh:
            warnings.warn(telling.told(title, fresh, checked, remedy, rows), DriftWarning, stacklevel=_outside())

    # -- call sites ------------------------------------------------------------------------------------------------------------------

    def here(self) -> Entered | None:
        """The innermost call site that is running, of this guard; functions that only count columns build no batch."""
        for site in reversed(contexts.entered.get()):
            if site.watch is self:
                return site
        return None

    @contextmanager
    def entering(self, here: Entered) -> Iterator[None]:
        token = contexts.entered.set((*contexts.entered.get(), here))
        try:
            yield
        finally:
            contexts.entered.reset(token)

    def variables(self, here: Entered) -> Mapping[str, Any]:
        """The variables of a call site that is running."""
        frame = sys._getframe(1)
        while frame is not None and frame.f_code is not here.code:
            frame = frame.f_back  # type: ignore[assignment]
        return {} if frame is None else frame.f_locals

    def head_of(self, here: Entered, variables: Mapping[str, Any], rows: Sequence[str] = ()) -> str:
        """The text that stands for the target in the rows of a site: as it was answered, or as `decode` gives it."""
        site = here.place.site
        if here.head is not None:
            return here.head
        if site.head_is_text:
            request = variables.get(site.request or "")
            return target_text(request) if isinstance(request, Mapping) else ""
        decoded = []
        for name in filter(None, (site.head, site.target)):
            ids = as_list(variables.get(name, ()))
            decoded.append(self.rows.decode(ids[:-1]) if len(ids) > 1 else "")
        return next((head for head in decoded if all(row.endswith(head) for row in rows)), decoded[0] if decoded else "")

    def request_of(self, here: Entered, variables: Mapping[str, Any]) -> Request | None:
        request = variables.get(here.place.site.request or "")
        return self.requests.know(request) if isinstance(request, Mapping) else None


def _takes_one_row(site: Site) -> bool:
    """Whether the function forwards a row that is not padded (MEMIT-FE's later layers)."""
    return site.kind == "pads" and site.target is None


def _real(encoded: Any) -> list[int]:
    pairs = zip(encoded.ids, encoded.special_tokens_mask, strict=True)
    return [token for token, special in pairs if not special]


def _texts(value: Any) -> list[str] | None:
    """The texts of a call; None where it is given anything else (pairs, ids)."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return list(value)
    return None


def _kept_whole(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments for a second call: `pad` changes a single row in place."""
    if name != "pad":
        return args, kwargs
    given = args[0] if args else kwargs.get("encoded_inputs")
    if not isinstance(given, Mapping):
        return args, kwargs
    whole = {**given}
    return ((whole, *args[1:]), kwargs) if args else (args, {**kwargs, "encoded_inputs": whole})


def _named(here: Entered) -> str:
    return f"{here.place.editor.title}, {here.place.name},"


def _outside() -> int:
    """The stack level of the user's code, for warnings."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and inside(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _about(kept: KeptTokenizer) -> dict[str, Any]:
    tokenizer = kept.tokenizer
    return {
        "class": kept.own_class.__name__,
        "is_fast": bool(getattr(tokenizer, "is_fast", False)),
        "name_or_path": str(getattr(tokenizer, "name_or_path", "") or ""),
        "padding_side": kept.own_side(),
        "pad_token": None if getattr(tokenizer, "pad_token", None) is None else str(tokenizer.pad_token),
    }


def _model(model: Any) -> dict[str, Any]:
    config = getattr(model, "config", None)
    return {"class": type(model).__name__, "model_type": getattr(config, "model_type", None)}
