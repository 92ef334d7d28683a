"""Nothing here runs without torch. Models this small are fastest on one thread, above all on a busy machine."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
torch.set_num_threads(1)


@pytest.fixture
def shipped() -> Path:
    """The folder of the shipped models."""
    return Path(__file__).resolve().parents[2] / "fixtures" / "shipped" / "models"
