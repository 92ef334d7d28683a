"""Functions whose calls go through a handler, whoever holds a reference to them, and are themselves again afterwards.

A function is redirected by its code, not by its name: `__code__` is exchanged for a few instructions that call the handler.
Replacing the attributes of modules would miss references that lie elsewhere (EasyEdit keeps its methods in a dictionary),
and would leave the replacement behind in every module that is imported meanwhile and takes the function by name.
"""

from __future__ import annotations

import inspect
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from threading import RLock
from types import CodeType, FunctionType, ModuleType
from typing import Any

Handler = Callable[[tuple[Any, ...], dict[str, Any]], Any]
"""Takes the place of a call: handler(args, kwargs)."""


@dataclass(frozen=True, slots=True)
class Found:
    """A function that is to be redirected: the function, where its module holds it, and what makes its handler of it as it was."""

    function: FunctionType
    holder: Mapping[str, Any]
    name: str
    make: Callable[[FunctionType], Handler]


Find = Callable[[ModuleType], Iterable[Found]]
"""The functions of a module that are to be redirected."""

_NO_NAMES: Mapping[str, Any] = {}
_PLACE = "padcheck: the handler stands here"


def _stub(*args: Any, **kwargs: Any) -> Any:
    handler: Any = "padcheck: the handler stands here"
    return handler(args, kwargs)


@dataclass(slots=True)
class _Ready:
    """A function with both its codes. `held`: what its module holds under its name (the function, or what decorates it)."""

    function: FunctionType
    own: CodeType
    stub: CodeType
    holder: Mapping[str, Any]
    name: str
    held: Any

    @property
    def current(self) -> bool:
        """Whether the module still holds it, with its own code."""
        return self.holder.get(self.name) is self.held and self.function.__code__ is self.own


class Redirections:
    """Functions redirected while anybody holds them, in the modules that are loaded and in those that are loaded meanwhile.

    `files`: the names of files in which such functions may stand; modules of other files are not looked at. What was found
    is remembered, so that to hold again costs little.
    """

    def __init__(self, find: Find, files: Callable[[], frozenset[str]]) -> None:
        self._find = find
        self._files = files
        self._lock = RLock()
        self._holders = 0
        self._modules: tuple[int, str | None] = 0, None
        self._without: set[str] = set()
        """The names of modules of other files: a program has thousands of them."""
        self._found: dict[str, tuple[weakref.ref[ModuleType], list[_Ready]]] = {}
        self._redirected: dict[FunctionType, _Ready] = {}
        self._finder = _Finder(self)

    def acquire(self) -> None:
        """Redirect; once more for every call. Undone by as many calls of `release`."""
        with self._lock:
            self._holders += 1
            if self._holders == 1:
                try:
                    sys.meta_path.insert(0, self._finder)
                    self._look_everywhere()
                except BaseException:
                    self.release()
                    raise

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
            if self._finder in sys.meta_path:
                sys.meta_path.remove(self._finder)
            while self._redirected:
                _, ready = self._redirected.popitem()
                if ready.function.__code__ is ready.stub:  # nobody exchanged it after us
                    ready.function.__code__ = ready.own

    def look_at(self, module: ModuleType) -> None:
        """Redirect what a module holds that was just imported."""
        with self._lock:
            if self._holders:
                self._look(module.__name__, module)

    def wants(self, name: str) -> bool:
        """Whether a module of this name may hold functions to redirect."""
        return f"{name.rpartition('.')[2]}.py" in self._files()

    def _look_everywhere(self) -> None:
        modules = sys.modules
        for name, (known, functions) in list(self._found.items()):
            module = modules.get(name)
            if module is None or known() is not module:
                del self._found[name]
            elif all(ready.current for ready in functions):
                for ready in functions:
                    self._redirect(ready)
            else:
                self._look(name, module)
        # A name that is new stands last.
        state = len(modules), next(reversed(modules), None)
        if state != self._modules:
            for name in modules.keys() - self._without - self._found.keys():
                if name in modules:
                    self._look(name, modules[name])
            self._modules = state

    def _look(self, name: str, module: ModuleType) -> None:
        path = getattr(module, "__dict__", _NO_NAMES).get("__file__")
        if not isinstance(path, str) or path[path.rfind(os.sep) + 1 :] not in self._files():
            self._without.add(name)
            return
        self._without.discard(name)
        functions = []
        for found in self._find(module):
            function = found.function
            if function in self._redirected or inspect.iscoroutinefunction(function):
                continue
            ready = _Ready(
                function,
                function.__code__,
                stubbed(function, found.make),
                found.holder,
                found.name,
                found.holder[found.name],
            )
            self._redirect(ready)
            functions.append(ready)
        self._found[name] = weakref.ref(module), functions

    def _redirect(self, ready: _Ready) -> None:
        self._redirected[ready.function] = ready
        ready.function.__code__ = ready.stub


def stubbed(function: FunctionType, make: Callable[[FunctionType], Handler]) -> CodeType:
    """The code that calls the handler in a function's place. `make`: the handler of the function as it was."""
    own = function.__code__
    original = FunctionType(own, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    original.__kwdefaults__ = function.__kwdefaults__
    original.__qualname__ = function.__qualname__
    handler = make(original)
    template = _stub.__code__
    return template.replace(
        co_consts=tuple(handler if const == _PLACE else const for const in template.co_consts),
        co_name=own.co_name,
        co_qualname=own.co_qualname,
        co_filename=own.co_filename,
        co_firstlineno=own.co_firstlineno,
        co_freevars=own.co_freevars,
    )


class _Finder:
    """Lets a module be imported as it would be, and looks at it as soon as it has run."""

    def __init__(self, redirections: Redirections) -> None:
        self._redirections = redirections

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not self._redirections.wants(name):
            return None
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(name, path, target)
            if spec is not None:
                self._look_afterwards(spec)
                return spec
        return None

    def _look_afterwards(self, spec: ModuleSpec) -> None:
        loader: Any = spec.loader
        run = getattr(loader, "exec_module", None)
        own: Mapping[str, Any] = getattr(loader, "__dict__", {})
        if run is None or "exec_module" in own:
            return

        def exec_module(module: ModuleType) -> None:
            loader.__dict__.pop("exec_module", None)
            run(module)
            self._redirections.look_at(module)

        try:
            loader.exec_module = exec_module  # on this loader alone, and only once
        except AttributeError:
            return
