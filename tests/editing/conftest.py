"""What the editing tests share. They compare numbers of tiny models: one thread is fastest, above all on a busy machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
torch.set_num_threads(1)
