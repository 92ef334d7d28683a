"""The shipped models, opened once, and a few context templates of unlike lengths."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

MODELS = Path(__file__).resolve().parents[2] / "fixtures" / "shipped" / "models"
TEMPLATES = (
    "{}",
    "The old map shows the road. {}",
    "Because the baker opens the door in the morning, the miller sings. {}",
    "In spring. {}",
)


@cache
def opened(name: str, attention: str = "sdpa") -> tuple[Any, Any]:
    """Model and tokenizer of a shipped folder; tests leave them as they are."""
    from padcheck.verifying.opening import open_model

    return open_model(MODELS / name, device="cpu", attention=attention)
