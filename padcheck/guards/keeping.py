"""Tokenizers and models as they were: seen while anybody guards them, and put back when the last one leaves.

A tokenizer is seen through its class: while it is guarded its class is a subclass made for it, of the same name, that hears
every call and every change of its sides. Nothing else about the object changes, other objects of its class are not touched,
and `isinstance`, `type(tok).__name__` and saving answer as before.
"""

from __future__ import annotations

import copyreg
import inspect
import sys
from collections.abc import Callable, Mapping
from threading import RLock
from typing import TYPE_CHECKING, Any

from padcheck.guards.contexts import forced_side, ours, watch_of
from padcheck.guards.generating import GENERATION

if TYPE_CHECKING:
    from padcheck.guards.watching import Watch

Call = Callable[..., Any]

_ENCODING = ("__call__", "encode", "encode_plus", "batch_encode_plus", "pad", "prepare_for_model")
_SIDES = ("padding_side", "truncation_side")
_ABSENT: Any = object()


class KeptTokenizer:
    """One guarded tokenizer.

    `lock`: held during each of its calls. A fast tokenizer leaves its padding in a backend that all threads share; a
    batch that has to have one side must not get that of another thread.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.own_class: type = type(tokenizer)
        self.lock = RLock()
        self.holders: list[Watch] = []
        self._at_entry: dict[int, dict[str, Any]] = {}
        self._found = self._sides()
        self._backend = _backend_state(tokenizer)
        object.__setattr__(tokenizer, "__class__", _seen_class(self))

    def hold(self, watch: Watch) -> None:
        self._at_entry[id(watch)] = self._sides()
        self.holders.append(watch)

    def drop(self, watch: Watch) -> None:
        """Undo what was changed since `watch` came, unless other threads still guard the tokenizer: then the last one does."""
        self.holders.remove(watch)
        found = self._at_entry.pop(id(watch))
        if not self.holders:
            with self.lock:
                object.__setattr__(self.tokenizer, "__class__", self.own_class)
                self._put_sides(self._found)
                _put_backend_state(self.tokenizer, self._backend)
        elif all(holder in watch.outer for holder in self.holders):
            self._put_sides(found)

    def own_side(self) -> Any:
        """The tokenizer's padding side as its attribute says."""
        return _get_side(self.tokenizer, self.own_class, "padding_side")

    def changed(self, tokenizer: Any, name: str, value: Any) -> None:
        """A side was set. Where nobody guards the tokenizer (another thread), that is how it is to be found afterwards."""
        if tokenizer is self.tokenizer and watch_of(tokenizer) is None:
            for found in (self._found, *self._at_entry.values()):
                found[name] = value

    def asking(self) -> _Asking:
        """While padcheck itself uses the tokenizer."""
        return _Asking(self.lock)

    def _sides(self) -> dict[str, Any]:
        return {name: vars(self.tokenizer).get(name, _ABSENT) for name in _SIDES}

    def _put_sides(self, sides: dict[str, Any]) -> None:
        for name, value in sides.items():
            if value is _ABSENT:
                vars(self.tokenizer).pop(name, None)
            else:
                vars(self.tokenizer)[name] = value


class _Asking:
    """Holds a tokenizer's lock, and its calls are not looked at. (A class: a generator costs three times as much.)"""

    __slots__ = ("_lock", "_token")

    def __init__(self, lock: RLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._token = ours.set(True)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        ours.reset(self._token)


class Keeper:
    """All that is guarded in this process, by identity, each kept once however many guards hold it."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._tokenizers: dict[int, KeptTokenizer] = {}
        self._models: dict[int, _KeptModel] = {}

    def hold(self, watch: Watch) -> KeptTokenizer:
        """Raises TypeError for an object that is no tokenizer of transformers."""
        with self._lock:
            kept = self._tokenizers.get(id(watch.tokenizer))
            if kept is None:
                _check(watch.tokenizer)
                kept = self._tokenizers[id(watch.tokenizer)] = KeptTokenizer(watch.tokenizer)
            kept.hold(watch)
            try:
                if hasattr(watch.model, "modules"):
                    self._model(watch.model).hold(watch)
                    watch.sees_generation = self._model(watch.model).generate is not None
            except BaseException:
                self._drop_tokenizer(kept, watch)
                self._forget(watch.model)
                raise
            return kept

    def _model(self, model: Any) -> _KeptModel:
        if id(model) not in self._models:
            self._models[id(model)] = _KeptModel(model)
        return self._models[id(model)]

    def drop(self, watch: Watch, *, aborted: bool) -> None:
        with self._lock:
            kept = self._tokenizers.get(id(watch.tokenizer))
            if kept is not None and watch in kept.holders:
                self._drop_tokenizer(kept, watch)
            model = self._models.get(id(watch.model))
            if model is not None and watch in model.holders:
                try:
                    model.drop(watch, aborted=aborted)
                finally:
                    self._forget(watch.model)

    def _forget(self, model: Any) -> None:
        """Let go of a model that nobody holds any more."""
        kept = self._models.get(id(model))
        if kept is not None and not kept.holders:
            del self._models[id(model)]
            GENERATION.release(kept.generate)

    def _drop_tokenizer(self, kept: KeptTokenizer, watch: Watch) -> None:
        try:
            kept.drop(watch)
        finally:
            if not kept.holders:
                del self._tokenizers[id(kept.tokenizer)]


KEEPER = Keeper()


def _check(tokenizer: Any) -> None:
    if callable(tokenizer) and hasattr(tokenizer, "padding_side") and hasattr(tokenizer, "decode"):
        return
    kind = type(tokenizer)
    raise TypeError(
        f"padcheck.guard needs the tokenizer of transformers that the editor uses, and {kind.__module__}.{kind.__qualname__} is none"
    )


# -- a tokenizer's class -----------------------------------------------------------------------------------------------------------


def _seen_class(kept: KeptTokenizer) -> type:
    """A subclass of the tokenizer's class whose calls and sides go through `kept`.

    To call it (`type(tok).from_pretrained(...)`) makes tokenizers of the own class.
    """
    own = kept.own_class
    meta = type(own)
    calling = type(meta.__name__, (meta,), {"__call__": lambda _, *args, **kwargs: own(*args, **kwargs)})
    namespace: dict[str, Any] = {
        "__slots__": (), "__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__,
        "__reduce_ex__": _reducing(own),
    }  # fmt: skip
    for name in _SIDES:
        namespace[name] = _side(kept, name)
    for name in _ENCODING:
        if hasattr(own, name):
            namespace[name] = _hearing(kept, name, "tokenized")
    namespace["decode"] = _hearing(kept, "decode", "decoded")
    made: type = calling(own.__name__, (own,), namespace)
    return made


def _hearing(kept: KeptTokenizer, name: str, event: str) -> Call:
    own: Call = getattr(kept.own_class, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if ours.get():
            return own(self, *args, **kwargs)
        watch = watch_of(self)
        token = ours.set(True)
        try:
            with kept.lock:
                if watch is None:
                    if self is kept.tokenizer and pads(name, own, self, args, kwargs)[0]:
                        who = caller()
                        for holder in tuple(kept.holders):
                            holder.record.elsewhere[who] += 1
                    return own(self, *args, **kwargs)
                return getattr(watch, event)(name, own, args, kwargs)
        finally:
            ours.reset(token)

    method.__name__ = name
    method.__qualname__ = getattr(own, "__qualname__", name)
    method.__doc__ = own.__doc__
    return method


def _side(kept: KeptTokenizer, name: str) -> property:
    def get(self: Any) -> Any:
        forced = forced_side.get()
        if forced is not None and name == "padding_side" and forced[0] is self:
            return forced[1]
        return _get_side(self, kept.own_class, name)

    def put(self: Any, value: Any) -> None:
        inherited = _property_of(kept.own_class, name)
        if inherited is not None:
            inherited.__set__(self, value)
        else:
            vars(self)[name] = value
        kept.changed(self, name, value)

    return property(get, put)


def _get_side(tokenizer: Any, own_class: type, name: str) -> Any:
    inherited = _property_of(own_class, name)
    if inherited is not None:
        return inherited.__get__(tokenizer, own_class)
    own = vars(tokenizer)
    return own[name] if name in own else getattr(own_class, name)


def _property_of(kind: type, name: str) -> Any:
    """What the class computes the attribute with, None for a plain one."""
    found = inspect.getattr_static(kind, name, None)
    return found if hasattr(found, "__set__") else None


def _reducing(own: type) -> Call:
    """Copies and pickles are of the tokenizer's own class: nobody would put them back."""

    def reduce(self: Any, protocol: Any) -> Any:
        made = super(type(self), self).__reduce_ex__(protocol)
        if not isinstance(made, tuple):
            return made
        arguments = tuple(own if item is type(self) else item for item in made[1])
        if made[0] is copyreg.__newobj__ and arguments == (own,):  # type: ignore[attr-defined]
            # pickle insists that __newobj__ makes an object of the class that it sees.
            return (copyreg._reconstructor, (own, object, None), *made[2:])  # type: ignore[attr-defined]
        return (made[0], arguments, *made[2:])

    return reduce


# -- its calls -----------------------------------------------------------------------------------------------------------------------


def pads(
    name: str, own: Call, tokenizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[bool, Mapping[str, Any]]:
    """Whether a call of `_ENCODING` pads, and its arguments by name (all but the first, where they are given by name)."""
    given = kwargs if len(args) <= 1 else _bound(own, tokenizer, args, kwargs)
    padding = given.get("padding", name == "pad")
    return bool(padding) and str(getattr(padding, "value", padding)) != "do_not_pad", given


def _bound(own: Call, tokenizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
    try:
        return inspect.signature(own).bind_partial(tokenizer, *args, **kwargs).arguments
    except TypeError:
        return kwargs


def caller() -> str:
    """`file.py: function` of the code outside padcheck and the tokenizer's library that makes the present call."""
    frame = sys._getframe(1)
    while frame.f_back is not None and inside(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    code = frame.f_code
    return f"{'/'.join(code.co_filename.replace(chr(92), '/').rsplit('/', 2)[-2:])}: {code.co_qualname}"


def inside(module: str) -> bool:
    """Whether a module is padcheck's, or of the tokenizer's library."""
    return module.partition(".")[0] in ("padcheck", "transformers", "contextlib")


# -- a fast tokenizer's backend ----------------------------------------------------------------------------------------------------


def _backend(tokenizer: Any) -> Any:
    return getattr(tokenizer, "_tokenizer", None) if getattr(tokenizer, "is_fast", False) else None


def _backend_state(tokenizer: Any) -> dict[str, Any] | None:
    backend = _backend(tokenizer)
    if backend is None or not hasattr(backend, "no_padding"):
        return None
    return {
        "padding": backend.padding,
        "truncation": backend.truncation,
        "encode_special_tokens": getattr(backend, "encode_special_tokens", None),
    }


def _put_backend_state(tokenizer: Any, state: dict[str, Any] | None) -> None:
    backend = _backend(tokenizer)
    if state is None or backend is None or _backend_state(tokenizer) == state:
        return
    if state["padding"] is None:
        backend.no_padding()
    else:
        backend.enable_padding(**state["padding"])
    if state["truncation"] is None:
        backend.no_truncation()
    else:
        backend.enable_truncation(**state["truncation"])
    if state["encode_special_tokens"] is not None:
        backend.encode_special_tokens = state["encode_special_tokens"]


# -- a model -----------------------------------------------------------------------------------------------------------------------


class _KeptModel:
    """A model's switches: which parameters want gradients, which modules train, which hooks they have.

    Hooks that are new are taken off only where a block ends with an exception: after an edit that came to its end they
    may be the edit (GRACE and other adapters).
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.holders: list[Watch] = []
        self._at_entry: dict[int, _Switches] = {}
        self._found = _Switches(model)
        self.generate = GENERATION.acquire(model)

    def hold(self, watch: Watch) -> None:
        self._at_entry[id(watch)] = _Switches(self._model) if self.holders else self._found
        self.holders.append(watch)

    def drop(self, watch: Watch, *, aborted: bool) -> None:
        """As for tokenizers: not while other threads go on."""
        self.holders.remove(watch)
        switches = self._at_entry.pop(id(watch))
        if not self.holders:
            self._found.put_back(hooks=aborted)
        elif all(holder in watch.outer for holder in self.holders):
            switches.put_back(hooks=aborted)


class _Switches:
    _HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

    def __init__(self, model: Any) -> None:
        self._training = [(module, module.training) for module in model.modules()]
        self._gradients = [
            (parameter, parameter.requires_grad)
            for module, _ in self._training
            for parameter in module._parameters.values()
            if parameter is not None
        ]
        self._hooks = [
            (hooks, frozenset(hooks))
            for module, _ in self._training
            for name in self._HOOKS
            if isinstance(hooks := module.__dict__.get(name), dict)
        ]

    def put_back(self, *, hooks: bool) -> None:
        for parameter, wanted in self._gradients:
            if parameter.requires_grad is not wanted:
                parameter.requires_grad_(wanted)
        for module, training in self._training:
            if module.training is not training:
                module.training = training
        if hooks:
            for present, known in self._hooks:
                for key in [key for key in present if key not in known]:
                    del present[key]
