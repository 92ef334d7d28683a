"""Running pytest with padcheck's plugin inside a test."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import padcheck.pytest_plugin
import padcheck.testing.tiny_models  # noqa: F401 (see _imported)
from padcheck.checking import Options, check
from tests.running import SHIPPED, TOKENIZERS

INSTALLED = any(point.value == "padcheck.pytest_plugin" for point in entry_points(group="pytest11"))
LOADED = ("-p", "no:hypothesispytest", "-p", "no:anyio", *(() if INSTALLED else ("-p", "padcheck.pytest_plugin")))
"""What loads the plugin and, to save time, leaves out those of others that happen to be installed."""

Run = Callable[..., pytest.RunResult]


@pytest.fixture(scope="session", autouse=True)
def _imported() -> None:
    """Import what `check` imports: pytester forgets the modules that a run inside a test imports, and yaml bears no second time."""
    check([SHIPPED / "demo", TOKENIZERS / "gpt2-shape", Path(__file__)], Options(jobs=1, cache=False))


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """pytest in this process, in pytester's folder."""
    monkeypatch.setenv("PADCHECK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def run(*arguments: str, **more: Any) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*LOADED, *arguments, **more)

    return run


@pytest.fixture(scope="session")
def models_imported() -> None:
    """As `_imported`, for what the shipped models need."""
    transformers = pytest.importorskip("transformers")
    for name in ("llama-facts", "gpt2-facts"):
        folder = SHIPPED / "models" / name
        model, tokenizer = (
            transformers.AutoModelForCausalLM.from_pretrained(folder),
            transformers.AutoTokenizer.from_pretrained(folder),
        )
        model(**tokenizer("Paris", return_tensors="pt")).logits.sum().backward()
