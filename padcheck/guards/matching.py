"""Which functions of the running program are call sites that `rules/editors` knows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

from padcheck.positions.editors import Editor, Side, editor_ids, load_editor
from padcheck.positions.sites import Site


@dataclass(frozen=True, slots=True)
class Place:
    """A call site in the running program: the framework and the site."""

    editor: Editor
    site: Site

    @property
    def name(self) -> str:
        """`models/rome/compute_v.py: compute_v`."""
        return f"{self.site.file}: {self.site.function}"

    @property
    def side(self) -> Side | None:
        """The side that the batches of this framework need."""
        return next((site.side for site in self.editor.sites if site.side is not None), None)


def places(module: ModuleType) -> Iterator[tuple[Place, FunctionType, Mapping[str, Any], str]]:
    """The call sites that a module defines: each with its function, and the namespace and the name that hold it. Where several frameworks have the same one, the one whose files lie around it."""
    path = getattr(module, "__dict__", {}).get("__file__")
    if not isinstance(path, str):
        return
    candidates = _by_name().get(os.path.basename(path))
    if not candidates:
        return
    posix = "/" + path.replace(os.sep, "/").lstrip("/")
    taken: set[FunctionType] = set()
    for editor, site, variables in candidates:  # the most telling first
        if not posix.endswith("/" + site.file):
            continue
        found = _function(module, site, variables)
        if found is None or found[0] in taken:
            continue
        function, holder = found
        root = path[: len(path) - len(site.file)]
        if all(os.path.exists(root + mark) for mark in editor.marks):
            taken.add(function)
            yield Place(editor, site), function, holder, site.function.rpartition(".")[2]


def _function(module: ModuleType, site: Site, variables: frozenset[str]) -> tuple[FunctionType, Mapping[str, Any]] | None:
    found: Any = module
    holder: Mapping[str, Any] = {}
    for name in site.function.split("."):
        holder = getattr(found, "__dict__", {})
        found = holder.get(name)
    while hasattr(found, "__wrapped__"):  # decorated
        found = found.__wrapped__
    if not isinstance(found, FunctionType):
        return None
    code = found.__code__
    known = {*code.co_varnames, *code.co_cellvars, *code.co_freevars}
    return (found, holder) if variables <= known else None


@cache
def files() -> frozenset[str]:
    """The names of files that hold call sites."""
    return frozenset(_by_name())


@cache
def _by_name() -> dict[str, list[tuple[Editor, Site, frozenset[str]]]]:
    """The sites of all frameworks, by the name of their file; longer paths first, then those with more files around them."""
    found: dict[str, list[tuple[Editor, Site, frozenset[str]]]] = {}
    for editor in map(load_editor, editor_ids()):
        for site in editor.sites:
            found.setdefault(os.path.basename(site.file), []).append((editor, site, site.variables))
    for sites in found.values():
        sites.sort(key=lambda item: (-len(item[1].file), -len(item[0].marks)))
    return found
