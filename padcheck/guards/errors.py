"""What a guard raises and warns of."""

from __future__ import annotations

from typing import Any


class DriftError(RuntimeError):
    """A position is not, or cannot be made, the one that is meant. Raised before anything is computed with it.

    Attributes:
        rows: the positions that drift, one mapping each, with the keys of `padcheck preflight --rows-out`.
    """

    def __init__(self, message: str, rows: tuple[dict[str, Any], ...] = ()) -> None:
        super().__init__(message)
        self.rows = rows

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.rows)


class DriftWarning(UserWarning):
    """Positions drift (policy "warn"), or something inside a guard could not be watched."""
