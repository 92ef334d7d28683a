"""Where padcheck's data lies: in `padcheck/_data` of an installation, beside the package in a checkout."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


class ResourceMissing(RuntimeError):
    """An installation without its own data: nothing that a user did."""


@cache
def data_root() -> Path:
    """The folder that holds `rules` and `fixtures`."""
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        if (root / "rules").is_dir():
            return root
    raise ResourceMissing(
        "padcheck's rules are missing from this installation: reinstall it (pip install --force-reinstall padcheck)"
    )


def install(extra: str) -> str:
    """The command that adds an extra: in a checkout with its pinned versions, since the newest torch brings gigabytes of GPU
    libraries."""
    if data_root() == _PACKAGE.parent:
        return f"python -m pip install -c constraints.txt -e '.[{extra}]'"
    return f"pip install 'padcheck[{extra}]'"


def rules_dir() -> Path:
    """`rules/`: rule pages, editors, models, schemas."""
    return data_root() / "rules"


def shipped_dir() -> Path:
    """`fixtures/shipped/`: demo data, small tokenizers, probe batches."""
    root = data_root()
    return root / "fixtures" / "shipped"
