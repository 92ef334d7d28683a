"""Records: what a dataclass would do, without its compiled methods."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import ClassVar

import pytest

from padcheck.diagnostics import Place
from padcheck.records import MutableRecord, Record, field, names, values


class Point(Record):
    """A value."""

    kind: ClassVar[str] = "point"
    x: int
    y: int = 2


class Named(Point):
    name: str = "n"


class Bag(MutableRecord):
    items: list[int] = field(default_factory=list)
    size: int = 0


def test_fields_defaults_and_order() -> None:
    assert names(Point) == ("x", "y")
    assert names(Named) == ("x", "y", "name")
    assert values(Named(1, name="m")) == {"x": 1, "y": 2, "name": "m"}
    assert repr(Point(1)) == "Point(x=1, y=2)"


def test_equal_by_type_and_fields() -> None:
    assert Point(1, 2) == Point(x=1)
    assert Point(1) != Point(2)
    assert Point(1) != Named(1)
    assert len({Point(1), Point(1, 2), Point(1, 3)}) == 2
    assert Bag([1]) == Bag([1])
    with pytest.raises(TypeError):
        hash(Bag())


@pytest.mark.parametrize("wrong", [lambda: Point(), lambda: Point(1, 2, 3), lambda: Point(1, z=3), lambda: Point(1, x=1)])  # type: ignore[call-arg,misc]
def test_wrong_arguments(wrong: object) -> None:
    with pytest.raises(TypeError):
        wrong()  # type: ignore[operator]


def test_values_do_not_change_and_replace_makes_another() -> None:
    point = Named(1, name="m")
    with pytest.raises(AttributeError, match="cannot be set"):
        point.x = 3  # type: ignore[misc]
    other = point.replace(y=5)
    assert (other, point) == (Named(1, 5, "m"), Named(1, 2, "m"))
    with pytest.raises(TypeError):
        point.replace(z=1)


def test_defaults_made_anew() -> None:
    one, other = Bag(), Bag()
    one.items.append(1)
    one.size = 4
    assert (other.items, other.size) == ([], 0)


@pytest.mark.parametrize("value", [Place("a.yaml", 1, 2), Named(3, name="x")])
def test_copies_and_pickles(value: Record) -> None:
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == copy.copy(value) == value


def test_the_light_path_defines_no_dataclass() -> None:
    """What `check` loads for one file is records: a dataclass there would cost every start a millisecond."""
    program = (
        "import sys, dataclasses; import padcheck.checking, padcheck.checks.hparams, padcheck.renderers.text, padcheck.commands\n"
        "print([name for name, module in sorted(sys.modules.items()) if name.startswith('padcheck') for each in vars(module).values()\n"
        " if isinstance(each, type) and each.__module__ == name and dataclasses.is_dataclass(each)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
