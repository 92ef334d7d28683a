"""Nothing here runs without transformers; torch is needed only where a test says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("transformers")


@pytest.fixture
def rome() -> Iterator[Any]:
    """The house editor's ROME, without templates of an earlier test."""
    from tests.guarding.foreign.house.models.rome import rome_main

    rome_main.CONTEXT_TEMPLATES_CACHE = None
    yield rome_main
    rome_main.CONTEXT_TEMPLATES_CACHE = None
