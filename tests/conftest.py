"""What several test modules share. Nothing here loads torch or transformers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that would download something fails instead
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # quiet when a test starts a process after tokenising

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parent.parent
"""The checkout, or the unpacked sdist."""


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real tokenizers and requests beside the project. They are never shipped: a test that wants them may be skipped."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no real tokenizers and requests in ../shared")
    return folder
