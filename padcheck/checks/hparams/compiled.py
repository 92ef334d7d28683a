"""What a build works out once, so that no start has to: the facts of every framework and the published models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from padcheck.checks.hparams.frameworks import compute
from padcheck.checks.hparams.models import read_profiles
from padcheck.positions.editors import editor_ids


def facts() -> dict[str, Mapping[str, Any]]:
    """Name, as `caching.remembered` knows it → value."""
    return {"profiles": read_profiles(), **{f"framework-{each}": compute(each) for each in editor_ids()}}
