"""What importing padcheck costs and may pull in, each time in a fresh interpreter."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

import padcheck

HEAVY = {"torch", "transformers", "numpy", "jsonschema"}


def submodules() -> Iterator[str]:
    yield from (
        module.name for module in pkgutil.walk_packages(padcheck.__path__, "padcheck.") if "._data" not in module.name
    )


def top_level_after(program: str) -> set[str]:
    """The top-level modules that are loaded once `program` has run in an interpreter of its own."""
    program += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_padcheck_loads_nothing_but_itself() -> None:
    bare = top_level_after("")
    assert top_level_after("import padcheck; dir(padcheck); padcheck.__version__") - bare <= {"padcheck", "__future__"}


@pytest.mark.parametrize(
    "statement",
    [
        "import padcheck",
        "import padcheck.cli",
        "from padcheck import rulebook; rulebook.page(rulebook.find('PAD101'))",
        "import padcheck; [getattr(padcheck, name) for name in padcheck.__all__]",
    ],
)
def test_the_static_path_is_light(statement: str) -> None:
    assert not HEAVY & top_level_after(statement)


def test_reading_the_rules_needs_no_command_line_library() -> None:
    assert not {"click", "tokenizers"} & top_level_after("from padcheck import rulebook; rulebook.rules()")


def test_every_submodule_is_importable() -> None:
    for name in submodules():
        importlib.import_module(name)


def test_no_submodule_shadows_a_public_name() -> None:
    """Once imported, a submodule `padcheck.guard` would replace the function `padcheck.guard`."""
    for name in submodules():
        importlib.import_module(name)
    for name in set(padcheck.__all__) - {"__version__"}:
        value = getattr(padcheck, name)
        assert isinstance(value, Callable | type), f"padcheck.{name} is {value!r}"
        assert not {f"padcheck.{name}"} & set(submodules())


def test_dir_and_unknown_names() -> None:
    assert set(padcheck.__all__) <= set(dir(padcheck))
    with pytest.raises(AttributeError, match="has no attribute 'gaurd'"):
        padcheck.gaurd  # noqa: B018


def test_the_stub_declares_what_is_public() -> None:
    """Type checkers read `__init__.pyi`; it must not drift from what `__getattr__` gives."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(padcheck.__path__[0], "__init__.pyi").read_text(encoding="utf-8"))
    declared = {
        alias.asname: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert declared == padcheck._HOME
    assert {"__version__", *declared} == set(padcheck.__all__)
