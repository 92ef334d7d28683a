"""Assertions on token positions, for tests of editing, steering and probing code; with or without pytest.

The pytest plugin (`padcheck.pytest_plugin`) gives them as fixtures, and builds `pytest --padcheck` from the modules here.
"""

from padcheck.testing.comparing import TEXTS, assert_same_everywhere
from padcheck.testing.drifting import no_drift
from padcheck.testing.sides import Padding

__all__ = ["TEXTS", "Padding", "assert_same_everywhere", "no_drift"]
