"""`model.generate` while a guard holds the model: rows that were turned to the right are not what a model can go on behind."""

from __future__ import annotations

import inspect
from threading import RLock
from types import CodeType, FunctionType
from typing import Any

from padcheck.guards import contexts
from padcheck.guards.redirecting import stubbed


class _Generation:
    """The functions behind `generate` of the models that are held, redirected by their code as call sites are.

    Nothing is put on the model: a copy of it that is made meanwhile is an ordinary one.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._held: dict[FunctionType, tuple[int, CodeType, CodeType]] = {}

    def acquire(self, model: Any) -> FunctionType | None:
        """Watch the model's `generate`. Returns what `release` needs; None where it has none, or one that cannot be watched."""
        function = inspect.getattr_static(type(model), "generate", None)
        if not isinstance(function, FunctionType) or "generate" in getattr(model, "__dict__", {}):
            return None
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            return None
        with self._lock:
            if function in self._held:
                holders, own, stub = self._held[function]
            else:
                holders, own, stub = 0, function.__code__, stubbed(function, _handler)
                function.__code__ = stub
            self._held[function] = holders + 1, own, stub
        return function

    def release(self, function: FunctionType | None) -> None:
        if function is None:
            return
        with self._lock:
            holders, own, stub = self._held.pop(function)
            if holders > 1:
                self._held[function] = holders - 1, own, stub
            elif function.__code__ is stub:  # nobody exchanged it after us
                function.__code__ = own


def _handler(original: FunctionType) -> Any:
    def handle(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        ids = args[1] if len(args) > 1 else kwargs.get("inputs", kwargs.get("input_ids"))
        if ids is not None:
            for watch in contexts.watches.get():
                if watch.open:
                    watch.columns.generated(ids)
        return original(*args, **kwargs)

    return handle


GENERATION = _Generation()
"""`generate` of this process's models, while guards hold them."""
