"""Records: values with named fields, as dataclasses have them, whose definition writes no code.

A dataclass compiles its methods whenever the program starts, 0.6 ms for a plain one and more for a frozen one with slots; the
classes that `padcheck check` needs for one small file would cost it as much time as reading YAML does. Defining a record costs a
tenth of that, making one costs the same. Type checkers see a dataclass (PEP 681).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

_T = TypeVar("_T")


class _Anew:
    """A default that is made for each record."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], object]) -> None:
        self.make = make


def field(*, default_factory: Callable[[], _T]) -> _T:
    """A field whose default is made anew for each record: a list, a dict, the current folder."""
    return cast(_T, _Anew(default_factory))


class _Fields:
    """What both kinds of records share. Fields are the annotated names of the class and its bases, in that order."""

    _names: ClassVar[tuple[str, ...]] = ()
    _known: ClassVar[frozenset[str]] = frozenset()
    _required: ClassVar[tuple[str, ...]] = ()
    _anew: ClassVar[dict[str, Callable[[], object]]] = {}

    def __init_subclass__(cls) -> None:
        own = [name for name, kind in cls.__annotations__.items() if not str(kind).startswith("ClassVar")]
        cls._names = (*cls._names, *(name for name in own if name not in cls._names))
        cls._known = frozenset(cls._names)
        cls._required = tuple(name for name in cls._names if not hasattr(cls, name))
        cls._anew = cls._anew | {name: value.make for name in own if isinstance(value := cls.__dict__.get(name), _Anew)}

    def __init__(self, *args: Any, **given: Any) -> None:
        own = self.__dict__
        own.update(zip(self._names, args, strict=False))
        own.update(given)
        if len(own) != len(args) + len(given) or not self._known.issuperset(given):
            raise TypeError(f"{type(self).__name__} takes {', '.join(self._names)}, each once")
        for name in self._required:
            if name not in own:
                raise TypeError(f"{type(self).__name__} needs {name}")
        for name, make in self._anew.items():
            if name not in own:
                own[name] = make()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and values(self) == values(other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in values(self).items())})"


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Record(_Fields):
    """A value: it cannot be changed, and two with equal fields are equal. `replace` makes another one."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set: make another record with replace()")

    def __hash__(self) -> int:
        return hash((type(self), *values(self).values()))

    def replace(self, **changes: Any) -> Self:
        """This record with other values in some fields."""
        return type(self)(**{**self.__dict__, **changes})


@dataclass_transform(field_specifiers=(field,))
class MutableRecord(_Fields):
    """A record whose fields can be set."""

    __hash__ = None  # type: ignore[assignment]


def names(kind: type[_Fields]) -> tuple[str, ...]:
    """The names of a record's fields."""
    return kind._names


def values(record: _Fields) -> dict[str, Any]:
    """The fields of a record by name, in their order."""
    return {name: getattr(record, name) for name in record._names}
