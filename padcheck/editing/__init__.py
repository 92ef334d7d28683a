"""Edits that padding cannot break: ROME, R-ROME, MEMIT, EMMET, PMET and AlphaEdit on lookup-aligned batches.

The public names are loaded when they are first used: importing this package imports neither torch nor transformers.
`__init__.pyi` tells type checkers what they are.
"""

from __future__ import annotations

_HOME = {
    "EditError": "padcheck.editing.errors",
    "EditHparams": "padcheck.editing.hparams",
    "EditResult": "padcheck.editing.result",
    "EditState": "padcheck.editing.state",
    "edit": "padcheck.editing.edits",
    "load_hparams": "padcheck.editing.hparams",
}

__all__ = ["EditError", "EditHparams", "EditResult", "EditState", "edit", "load_hparams"]


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
