"""One guard at work, from entering to leaving: what its tokenizer is asked, what is counted, and what comes of it."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import CodeType
from typing import Any, Literal

from padcheck.correcting import right_head
from padcheck.guards import contexts, telling
from padcheck.guards.errors import DriftError, DriftWarning
from padcheck.guards.keeping import KEEPER, KeptTokenizer
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

_RECENT = 16
"""Padded batches that a `checked_index` function which comes after its batch may look back on."""


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
        self._pending: dict[str, deque[Counted]] = {}
        self._checked: list[Counted] = []
        self._recent: deque[Built] = deque(maxlen=_RECENT)
        self._warned: set[tuple[str, ...]] = set()
        self.kept: KeptTokenizer = KEEPER.hold(self)
        try:
            self.rows = RowReader(self.kept)
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
        for outer in reversed(self.outer):
            if outer.tokenizer is self.tokenizer and outer.open:
                outer.record.merge(self.record)
                break
        if aborted:
            return
        for text in self._unwatched():
            self.record.notes.append(text)
            warnings.warn(text, DriftWarning, stacklevel=_outside())

    def _unwatched(self) -> Iterator[str]:
        if self.record.padded_calls and not self.record.sites and not self.record.strangers:
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
        left = [counted for waiting in self._pending.values() for counted in waiting] + self._checked
        if left:
            yield (
                f"padcheck.guard: {plural(len(left), 'column')} counted by {left[0].where} (for example in {left[0].text!r}) for rows that "
                "no batch of this tokenizer held: not checked."
            )
        if self.record.unknown:
            yield (
                f"padcheck.guard: {plural(self.record.unknown, 'position')} could not be checked: neither the tokenizer's offsets nor "
                "decoding can be trusted there, or the row is not what the editor's variables say."
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
        given = kwargs if len(args) <= 1 else _bound(own, self.tokenizer, args, kwargs)
        here = self.here()
        padding = given.get("padding", name == "pad")
        padded = bool(padding) and str(getattr(padding, "value", padding)) != "do_not_pad"
        one_row = here is not None and _takes_one_row(here.place.site) and given.get("return_tensors") is not None
        if not padded and not one_row:
            return own(self.tokenizer, *args, **kwargs)
        texts = _texts(args[0] if args else given.get("text", given.get("batch_text_or_text_pairs")))
        asked: Side = given.get("padding_side") or self.kept.own_side()
        wanted = self._wanted(here, texts)
        used = asked
        if self.policy == "correct" and wanted is not None and wanted != asked:
            used = wanted
            result = self._on_side(wanted, own, args, kwargs)
        else:
            result = own(self.tokenizer, *args, **kwargs)
        built = Built(texts, result, asked, used, getattr(self.tokenizer, "pad_token_id", None))
        if used != asked and built.side_of_pads() not in (None, used):
            raise DriftError(
                f"{_named(here)} needs {used} padding, and this tokenizer ({type(self.tokenizer).__name__}) pads on the {asked} "
                "whatever it is told."
            )
        if padded:
            self.record.padded_calls += 1
        self._seen(here, built, padded)
        return result

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

    def _wanted(self, here: Entered | None, texts: Sequence[str] | None) -> Side | None:
        """The side that the batch of the present call needs; None if it may be either."""
        if here is not None and here.place.site.kind in ("pads", "reads", "generates"):
            if here.place.site.unless is not None and self.variables(here).get(here.place.site.unless):
                return None
            return self.corrections.side if self.corrections is not None else here.place.site.side
        if here is not None and here.side is not None:
            return here.side
        sides = {side_of(counted.value) for counted in self._checked if _held(counted.text, texts or ())}
        if len(sides) > 1:
            raise DriftError(
                "Columns counted from the row's start and from its end are read in one batch: no padding side is right for both."
            )
        return next(iter(sides), None)

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

    def _seen(self, here: Entered | None, built: Built, padded: bool) -> None:
        kind = here.place.site.kind if here is not None else None
        if here is None or kind == "edits":
            if here is not None and here.side is not None:
                self.record.called(here.place.name, here.place, built.asked, built.used)
            elif not self._late(built):
                self.record.unwatched[_caller()] += 1
            return
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

    def _late(self, built: Built) -> bool:
        """Columns of functions marked with `checked_index`, whose batch this is."""
        self._recent.append(built)
        pairs: dict[str, list[Pair]] = {}
        left = []
        for counted in self._checked:
            rows = self._rows_of(counted.text, built)
            for number in rows:
                pairs.setdefault(counted.where, []).append(self._lookup(counted, built, number, "lookup", counted.where))
            if not rows:
                left.append(counted)
        self._checked = left
        for where, found in pairs.items():
            self.record.called(where, None, built.asked, built.used)
            self.judge(where, None, found)
        return bool(pairs)

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

    def checked(self, candidates: Sequence[Counted]) -> int:
        """A column was counted by a function that is marked with `checked_index`: what it is to be instead.

        `candidates`: the column as that of each mention of the subject that may be meant; the first if it is none of them.
        """
        for built in reversed(self._recent):
            rows = self._rows_of(candidates[0].text, built)
            if rows:
                pairs = [(one, self._lookup(one, built, rows[0], "lookup", one.where)) for one in candidates]
                counted, pair = min(pairs, key=lambda found: _off(found[1]))
                if self.policy == "correct" and pair.asked is not None and pair.asked.truth is not None:
                    counted.given = pair.asked.truth
                    pair = self._lookup(counted, built, rows[0], "lookup", counted.where)
                self.record.called(counted.where, None, built.asked, built.used)
                self.judge(counted.where, None, [pair])
                return counted.given
        side = side_of(candidates[0].value)
        counted = next((one for one in candidates if self.correct(one, side) == one.value), candidates[0])
        counted.given = self.correct(counted, side) if self.policy == "correct" else counted.value
        self._checked.append(counted)
        return counted.given

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

    def _rows_of(self, text: str, built: Built) -> list[int]:
        return built.rows_of(text, self.rows) if built.texts is None else _held(text, built.texts)

    def _lookup(self, counted: Counted, built: Built, number: int, kind: Kind, source: str) -> Pair:
        if built.texts is not None and built.texts[number] != counted.text:
            counted = replace(counted, text=built.texts[number])  # the row goes on behind the prompt
        return lookup(counted, built, number, kind, self.rows, source, told=self.corrections is not None)

    # -- judging -------------------------------------------------------------------------------------------------------------------

    def judge(self, where: str, place: Place | None, pairs: Sequence[Pair]) -> None:
        """Count the positions, and do what the policy says about those that drift."""
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
                remedy = "No padding side and no column makes this right: the editor's own code has to change."
                raise telling.drift_error(title, left, len(pairs), remedy)
            return
        drifting = [pair.asked for pair in pairs if pair.asked is not None and pair.asked.causes]
        if not drifting:
            return
        if self.policy == "fail":
            raise telling.drift_error(title, drifting, len(pairs), telling.CORRECT)
        self.warn(title, drifting, len(pairs))

    def warn(self, title: str, drifting: Sequence[Reading], checked: int) -> None:
        """Once for each cause and place."""
        fresh = [reading for reading in drifting if (title, *reading.causes) not in self._warned]
        self._warned.update((title, *reading.causes) for reading in drifting)
        if fresh:
            warnings.warn(telling.told(title, fresh, checked, telling.CORRECT), DriftWarning, stacklevel=_outside())

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


def side_of(value: int) -> Side:
    """The side on which a column of this sign is right."""
    return "right" if value >= 0 else "left"


def _real(encoded: Any) -> list[int]:
    pairs = zip(encoded.ids, encoded.special_tokens_mask, strict=True)
    return [token for token, special in pairs if not special]


def _off(pair: Pair) -> int:
    """0 for a column that is right, 1 for one that only the padding puts wrong, 2 for any other."""
    if pair.asked is None or not pair.asked.causes:
        return 0
    return 1 if set(pair.asked.causes) <= {"pads", "sign"} else 2


def _held(text: str, texts: Sequence[str]) -> list[int]:
    """The rows that are this text; else those that begin with it (a prompt, where the rows end in a target)."""
    same = [number for number, row in enumerate(texts) if row == text]
    return same or [number for number, row in enumerate(texts) if row.startswith(text)]


def _texts(value: Any) -> list[str] | None:
    """The texts of a call; None where it is given anything else (pairs, ids)."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return list(value)
    return None


def _bound(own: Callable[..., Any], tokenizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
    try:
        return inspect.signature(own).bind_partial(tokenizer, *args, **kwargs).arguments
    except TypeError:
        return kwargs


def _named(here: Entered | None) -> str:
    return "a function marked with checked_index" if here is None else f"{here.place.editor.title}, {here.place.name},"


def _caller() -> str:
    """`file.py: function` of the code outside padcheck and the tokenizer's library that makes the present call."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _inside(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    code = frame.f_code
    return f"{'/'.join(code.co_filename.replace(chr(92), '/').rsplit('/', 2)[-2:])}: {code.co_qualname}"


def _outside() -> int:
    """The stack level of the user's code, for warnings."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _inside(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _inside(module: str) -> bool:
    return module.partition(".")[0] in ("padcheck", "transformers", "contextlib")


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
