"""The pytest plugin: `--padcheck`, the marker and the fixtures.

pytest loads this module wherever padcheck is installed. It imports nothing that pytest has not imported already: what an
option, a hook or a fixture needs is imported from `padcheck.testing` when it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from padcheck.testing.collecting import PadcheckFile
    from padcheck.testing.comparing import Comparison
    from padcheck.testing.sides import Padding
    from padcheck.testing.tiny_models import TinyCausalLM


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("padcheck").addoption(
        "--padcheck",
        action="store_true",
        help="Also collect what `padcheck check` checks (hparams, tokenizer folders, requests, Python code): an item for each "
        "file, named FILE::padcheck and marked padcheck. [tool.padcheck] applies.",
    )
    parser.addini(
        "padcheck_sides",
        "Ways to pad of the marker and fixture padding_sides [default: left right unpadded].",
        "args",
        ["left", "right", "unpadded"],
    )
    parser.addini(
        "padcheck_models",
        "Models of the fixture tiny_causal_lm [default: llama-facts gpt2-facts].",
        "args",
        ["llama-facts", "gpt2-facts"],
    )
    parser.addini("padcheck_rtol", "Relative tolerance of assert_same_everywhere [default: by dtype].", "string", "")
    parser.addini("padcheck_atol", "Absolute tolerance of assert_same_everywhere [default: by dtype].", "string", "")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "padding_sides(*sides): run once for each of these ways to pad, left, right, unpadded [default: padcheck_sides].",
    )
    config.addinivalue_line(
        "markers", "padcheck: what --padcheck collected, an item for each file; -m padcheck selects them."
    )


# --- --padcheck -------------------------------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("padcheck"):
        from padcheck.testing import collecting

        collecting.check_all(session)  # before pytest-xdist starts its workers, which then find the results cached


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> PadcheckFile | None:
    if not parent.config.getoption("padcheck"):
        return None
    from padcheck.testing import collecting

    return collecting.collect(file_path, parent)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    if session.config.getoption("padcheck"):
        from padcheck.testing import collecting

        items += collecting.items_of_configurations(session)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("padcheck"):
        from padcheck.testing import collecting

        collecting.summarise(terminalreporter)


# --- The marker and the fixtures --------------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("padding_sides") or _takes_ours(metafunc, "padding_sides"):
        from padcheck.testing import sides

        sides.parametrize(metafunc)
    if _takes_ours(metafunc, "tiny_causal_lm"):
        from padcheck.testing import tiny_models

        tiny_models.parametrize(metafunc)


def _takes_ours(metafunc: pytest.Metafunc, name: str) -> bool:
    """Whether a test takes the fixture of this name, and it is this module's, not one that a project has put in its place."""
    if name not in metafunc.fixturenames:
        return False
    definitions = metafunc.definition._fixtureinfo.name2fixturedefs.get(name)
    return definitions is not None and definitions[-1].func.__module__ == __name__


@pytest.fixture
def padding_sides(request: pytest.FixtureRequest) -> Iterator[Padding]:
    """The test runs three times, under left, right and no padding: `padding_sides.batches(tokenizer, texts)` gives its batches.

    `padding_sides.name` is "left", "right" or "unpadded", and `padding_sides.side` None where nothing is padded. The marker
    padding_sides("left", "right") and the ini option padcheck_sides choose.
    """
    from padcheck.testing.sides import Padding

    if not hasattr(request, "param"):
        pytest.fail("padding_sides must be an argument of the test itself", pytrace=False)
    with Padding.of(request.param) as padding:
        yield padding


@pytest.fixture
def assert_same_everywhere(request: pytest.FixtureRequest) -> Comparison:
    """`assert_same_everywhere(fn, tokenizer, texts)`: fn(batch) gives every real token the same, padded or alone.

    `batch` has input_ids and attention_mask, [B, T] each; fn returns [B, T, ...], such as logits or hidden states. In a test
    that uses tiny_causal_lm the tokenizer may be left out. Also: sides=("left", "right"), rtol=, atol=.
    """
    from padcheck.testing import comparing

    return comparing.for_test(request)


@pytest.fixture
def no_drift() -> Any:
    """`no_drift(tokenizer, texts, subjects, indices)`: each index is the column of its subject's last token.

    For a batch that is not what tokenizer(texts, padding=True) makes, give it: `no_drift(..., batch=batch)`. Also:
    padding_side="left" for a tokenizer that states none, occurrence=0 for the first mention instead of the last.
    """
    from padcheck.testing import drifting

    return drifting.no_drift


@pytest.fixture
def tiny_causal_lm(request: pytest.FixtureRequest) -> Iterator[TinyCausalLM]:
    """`model, tokenizer = tiny_causal_lm`: a small trained model, read-only (a test that leaves it changed fails), and its tokenizer.

    The test runs once for each model of the ini option padcheck_models. `tiny_causal_lm.facts` is what the model knows,
    `tiny_causal_lm.folder` where it lies. Needs torch and transformers.
    """
    from padcheck.testing import tiny_models

    yield from tiny_models.lent(request)
