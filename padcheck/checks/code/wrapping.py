"""Fixes that put statements into `try` … `finally`, by insertions alone: no character of the code between is rewritten."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from padcheck.checks.code.reading import Source, indentation
from padcheck.checks.code.rule import insertion
from padcheck.diagnostics import TextEdit


def restored_in_finally(
    source: Source, switch: ast.stmt, restore: ast.stmt, siblings: Sequence[ast.stmt]
) -> tuple[TextEdit, ...]:
    """Edits after which `restore` runs in a `finally`. Empty where the statements do not stand on lines of their own."""
    between = _between(siblings, switch, restore)
    if not between or not _own_lines(source, [switch, *between, restore]):
        return ()
    indent = indentation(source.lines[switch.lineno - 1])
    unit = _unit(indent)
    first, last = _end(switch) + 1, restore.lineno - 1
    edits = [insertion(source, first, f"{indent}try:\n")]
    edits += _indented(source, first, last, unit, between)
    edits.append(insertion(source, restore.lineno, f"{indent}finally:\n"))
    edits += _indented(source, restore.lineno, _end(restore), unit, [restore])
    return _merged(edits)


def switched_for_the_rest(
    source: Source, switch: ast.stmt, tokenizer: str, siblings: Sequence[ast.stmt]
) -> tuple[TextEdit, ...]:
    """Edits after which the side is remembered before `switch` and restored at the end of the statements around it."""
    position = next((index for index, each in enumerate(siblings) if each is switch), len(siblings))
    rest = siblings[position + 1 :]
    if not rest or not _own_lines(source, [switch, *rest]):
        return ()
    indent = indentation(source.lines[switch.lineno - 1])
    unit = _unit(indent)
    end = _end(rest[-1])
    edits = [insertion(source, switch.lineno, f"{indent}padding_side_before = {tokenizer}.padding_side\n")]
    edits.append(insertion(source, _end(switch) + 1, f"{indent}try:\n"))
    edits += _indented(source, _end(switch) + 1, end, unit, rest)
    behind = (end, len(source.lines[end - 1]))
    edits.append(
        source.edit(behind, behind, f"\n{indent}finally:\n{indent}{unit}{tokenizer}.padding_side = padding_side_before")
    )
    return _merged(edits)


def _between(siblings: Sequence[ast.stmt], first: ast.stmt, last: ast.stmt) -> Sequence[ast.stmt]:
    places = {id(each): index for index, each in enumerate(siblings)}
    if id(first) not in places or id(last) not in places:
        return ()
    return siblings[places[id(first)] + 1 : places[id(last)]]


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _unit(indent: str) -> str:
    return "\t" if "\t" in indent else "    "


def _own_lines(source: Source, statements: Sequence[ast.stmt]) -> bool:
    """No two statements share a line, and none follows a colon, a backslash or a semicolon."""
    previous = 0
    for each in statements:
        first = min([each.lineno, *(d.lineno for d in getattr(each, "decorator_list", []))])
        line = source.lines[first - 1]
        if first <= previous or (first == each.lineno and line[: source.start(each)[1]].strip()):
            return False
        end = source.end(each)
        if source.lines[end[0] - 1][end[1] :].lstrip().startswith(";"):
            return False
        previous = _end(each)
    return True


def _indented(source: Source, first: int, last: int, unit: str, statements: Sequence[ast.stmt]) -> list[TextEdit]:
    """Indent lines by one unit, but not those that begin inside a string."""
    inside: set[int] = set()
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, (ast.Constant, ast.JoinedStr)) and (node.end_lineno or 0) > node.lineno:
                inside.update(range(node.lineno + 1, (node.end_lineno or 0) + 1))
    return [
        insertion(source, line, unit)
        for line in range(first, last + 1)
        if line not in inside and source.lines[line - 1].strip()
    ]


def _merged(edits: list[TextEdit]) -> tuple[TextEdit, ...]:
    """Insertions at one place become one, in the order given."""
    result: list[TextEdit] = []
    for edit in edits:
        if result and result[-1].place == edit.place:
            result[-1] = TextEdit(edit.place, result[-1].replacement + edit.replacement)
        else:
            result.append(edit)
    return tuple(result)
