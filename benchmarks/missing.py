"""Empty modules in the place of packages that EasyEdit imports and that editing never uses."""

from __future__ import annotations

import types
from importlib.machinery import ModuleSpec
from typing import Any


class _Kind(type):
    """A class that has every attribute, each such a class again."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Kind(
            name, (), {"__init__": lambda self, *a, **k: None, "__call__": lambda self, *a, **k: a[0] if a else self}
        )

    def __getitem__(cls, key: Any) -> Any:
        return cls

    def __or__(cls, other: Any) -> Any:
        return cls

    __ror__ = __or__


class _Empty(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(_Kind("missing", (), {}), name)


class Missing:
    """A finder for the end of `sys.meta_path`, where only what is really missing arrives: empty modules of the packages in `names`."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in self.names else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> Any:
        module = _Empty(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: Any) -> None:
        pass
