"""Checks Python text: which rules a file concerns, one parse, one walk, and findings."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator, Set
from contextlib import contextmanager

# Each of these modules declares its rules when it is imported.
from padcheck.checks.code import batch_rules, guess_rules, position_rules, side_rules, state_rules, text_rules  # noqa: F401
from padcheck.checks.code.notebooks import cells
from padcheck.checks.code.reading import Source, Unreadable
from padcheck.checks.code.rule import ALWAYS_RECORDED, RULES, CodeRule, File, Report, Words
from padcheck.checks.code.scopes import Scope, Walker, start_of
from padcheck.diagnostics import Finding, Place, Related, Severity
from padcheck.rulebook import find


def rules_for(text: str, select: Set[str] | None = None) -> list[CodeRule]:
    """The rules whose words occur in a text, and of these the selected ones."""
    words = Words(text)
    return [rule for rule in RULES.values() if (select is None or rule.id in select) and rule.concerns(words)]


def check_source(text: str, path: str, *, cell: int | None = None, select: frozenset[str] | None = None) -> list[Finding]:
    """Findings in Python text, by place. Never raises: text that is not Python is LNT104, a rule that crashes LNT101.

    A text that names none of the words that the selected rules need is not parsed. `cell`: of the notebook it is from.
    """
    active = rules_for(text, select)
    if not active:
        return []
    with _no_collection():
        source = Source(text, path, cell)
        try:
            tree = source.parse()
        except Unreadable as error:
            return [_unreadable(error, path, cell)] if select is None or "LNT104" in select else []
        wanted = ALWAYS_RECORDED.union(*(rule.nodes for rule in active))
        try:
            return _findings(File(source, Walker(wanted).walk(tree)), active)
        except Exception as error:  # what holds for every rule failed: say so, go on with other files
            return [_crashed("the walk", error, path, cell)]


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection meanwhile: a tree is thousands of small objects and no garbage, and is dropped as a whole."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def check_notebook(text: str, path: str, *, select: frozenset[str] | None = None) -> list[Finding]:
    """Findings in a notebook (.ipynb), cell by cell; places carry the cell's number, from 1, and the line in the cell."""
    try:
        found = cells(text)
    except Unreadable as error:
        return [_unreadable(error, path, None)] if select is None or "LNT104" in select else []
    return [finding for cell in found for finding in check_source(cell.text, path, cell=cell.number, select=select)]


def _findings(file: File, active: list[CodeRule]) -> list[Finding]:
    names = _Names(file.scopes)
    seen: dict[tuple[str, int, int], None] = {}
    counts: dict[str, int] = {}
    result: list[Finding] = []
    for rule in active:
        try:
            reports = list(rule.run(file))
        except Exception as error:  # a broken rule is a finding, not silence
            result.append(_crashed(rule.id, error, file.source.path, file.source.cell))
            continue
        for report in reports:
            where = (rule.id, *start_of(report.node))
            if where in seen:
                continue
            seen[where] = None
            key = f"{rule.id} {names.at(report.node)}: {file.text(report.node, 200)}"
            counts[key] = counts.get(key, 0) + 1
            result.append(_finding(rule, report, file, key if counts[key] == 1 else f"{key} #{counts[key]}"))
    result.sort(key=lambda finding: (finding.place.line or 0, finding.place.column or 0, finding.rule))
    return result


class _Names:
    """The innermost function around a node, for keys that survive when lines move."""

    def __init__(self, scopes: list[Scope]) -> None:
        self._scopes = [scope for scope in scopes if not isinstance(scope.node, ast.Module)]

    def at(self, node: ast.expr | ast.stmt) -> str:
        inside = [
            scope for scope in self._scopes
            if not isinstance(scope.node, ast.Module) and scope.node.lineno <= node.lineno <= (scope.node.end_lineno or 0)
        ]  # fmt: skip
        return max(inside, key=lambda scope: start_of(scope.node)).qualname if inside else "module"  # type: ignore[arg-type]


def _finding(rule: CodeRule, report: Report, file: File, key: str) -> Finding:
    page = find(rule.id)
    severity: Severity = report.severity or page.severity
    return Finding(
        rule=page.id,
        name=page.name,
        severity=severity,
        message=report.message,
        confidence=report.confidence,
        place=file.source.place_of(report.node),
        remedy=report.remedy,
        message_zh=page.message_zh,
        related=tuple(Related(message, file.source.place_of(node)) for message, node in report.related),
        evidence={"key": key, **report.evidence},
        fix=report.fix,
    )


def _unreadable(error: Unreadable, path: str, cell: int | None) -> Finding:
    page = find("LNT104")
    severity: Severity = (
        "warning" if error.too_deep or cell is not None else page.severity
    )  # notebooks hold snippets as well
    return Finding(
        rule=page.id,
        name=page.name,
        severity=severity,
        message=f"Not checked: {error.reason}." if error.too_deep else f"Not valid Python: {error.reason}.",
        place=Place(path, error.line, error.column, cell=cell),
        remedy="Mend the file, or exclude it in the configuration.",
        message_zh=page.message_zh,
        evidence={"key": f"LNT104 {error.reason}"},
    )


def _crashed(rule_id: str, error: Exception, path: str | None, cell: int | None) -> Finding:
    page = find("LNT101")
    return Finding(
        rule=page.id,
        name=page.name,
        severity=page.severity,
        message=f"{rule_id} stopped with {type(error).__name__}: {error}. This is a bug in padcheck, not in your file.",
        place=Place(path, cell=cell),
        remedy="Leave the rule out with --ignore until it is mended.",
        message_zh=page.message_zh,
        evidence={"key": f"LNT101 {rule_id}", "rule": rule_id, "exception": f"{type(error).__name__}: {error}"},
    )
