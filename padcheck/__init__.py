"""padcheck finds the bugs that make a model edit go to the wrong token, before the edit is run.

The public names are loaded when they are first used (PEP 562), so that `import padcheck` costs nothing and needs neither
torch nor transformers. `__init__.pyi` tells type checkers what they are.
"""

from __future__ import annotations

__version__ = "0.1.0"

_HOME = {
    "DriftError": "padcheck.guarding",
    "DriftWarning": "padcheck.guarding",
    "checked_index": "padcheck.guarding",
    "guard": "padcheck.guarding",
    "locate": "padcheck.locating",
    "preflight": "padcheck.preflighting",
}
"""Public name → the module that defines it. No module may bear a public name: once imported it would replace it."""

__all__ = ["DriftError", "DriftWarning", "__version__", "checked_index", "guard", "locate", "preflight"]


def __getattr__(name: str) -> object:
    """The public object `name`, imported now. Raises AttributeError for every other name."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
