"""`# padcheck: ignore[RULE] reason` comments, whatever language they stand in: what they hide, and whether they still do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from padcheck.diagnostics import Finding, Fix, Place, TextEdit
from padcheck.records import MutableRecord
from padcheck.rulebook import UnknownRule, find, matching

_WORD = "padcheck:"
_COMMENT = re.compile(r"#\s*padcheck:\s*ignore(?P<file>-file)?\s*\[(?P<rules>[^\]]*)\](?P<reason>[^#]*)")
_CODE_COMMENT_KINDS = frozenset({"python", "notebook"})


class Comment(MutableRecord):
    """One ignore comment. It covers `first`..`last` (1-based lines of `place`'s file or cell), or the whole file."""

    words: tuple[str, ...]
    """Ids or names, as written."""
    place: Place
    first: int
    last: int
    whole_file: bool = False
    used: int = 0

    def covers(self, finding: Finding) -> bool:
        place = finding.place
        if place.path != self.place.path:
            return False
        if self.whole_file:
            return True
        return place.line is not None and place.cell == self.place.cell and self.first <= place.line <= self.last


def comments(text: str, path: str, kind: str) -> list[Comment]:
    """The ignore comments of a file of this kind. Free where the word does not occur; JSON has no comments."""
    if _WORD not in text:
        return []
    if kind in _CODE_COMMENT_KINDS:
        return list(_of_code(text, path, kind))
    return list(_of_yaml(text, path)) if path.endswith((".yaml", ".yml")) else []


def _of_code(text: str, path: str, kind: str) -> Iterator[Comment]:
    from padcheck.checks.code import suppressions

    parts: Iterable[tuple[str, int | None]] = [(text, None)]
    if kind == "notebook":
        from padcheck.checks.code.notebooks import cells
        from padcheck.checks.code.reading import Unreadable

        try:
            parts = [(cell.text, cell.number) for cell in cells(text)]
        except Unreadable:
            return
    for part, cell in parts:
        for found in suppressions(part, path, cell):
            yield Comment(found.rules, found.place, found.first_line, found.last_line, found.file_level)


def _of_yaml(text: str, path: str) -> Iterator[Comment]:
    """A comment behind a key covers its line; one alone on its line covers the next line that is no comment."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if _WORD not in line:
            continue
        start = _comment_start(line)
        found = _COMMENT.search(line, start) if start is not None else None
        if found is None:
            continue
        first = number
        if not line[:start].strip():
            rest = (
                at
                for at, later in enumerate(lines[number:], number + 1)
                if later.strip() and not later.lstrip().startswith("#")
            )
            first = next(rest, number)
        rules = tuple(word.strip() for word in found["rules"].split(",") if word.strip())
        place = Place(path, number, found.start() + 1, number, found.start() + 1 + len(found[0].rstrip()))
        yield Comment(rules, place, first, first, found["file"] is not None)


def _comment_start(line: str) -> int | None:
    """Where the comment of a YAML line begins: a # at the start or after a space, outside quotes."""
    quote = ""
    for at, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#" and (at == 0 or line[at - 1] in " \t"):
            return at
    return None


def hide(findings: Iterable[Finding], known: list[Comment], *, show: bool = False) -> list[Finding]:
    """Mark what the comments hide (with `show` only count it)."""
    ids: list[tuple[Comment, frozenset[str]]] = []
    for comment in known:
        named: set[str] = set()
        for word in comment.words:
            try:
                named |= matching([word])
            except UnknownRule:
                continue
        ids.append((comment, frozenset(named)))
    result = []
    for finding in findings:
        hiding = next((comment for comment, rules in ids if finding.rule in rules and comment.covers(finding)), None)
        if hiding is not None:
            hiding.used += 1
            finding = finding if show else finding.replace(suppressed=True)
        result.append(finding)
    return result


def about_comments(known: Iterable[Comment], enabled: frozenset[str], line: str | None = None) -> Iterator[Finding]:
    """LNT103 for ids that do not exist, LNT102 for comments that hide nothing although their rules ran."""
    for comment in known:
        named: set[str] = set()
        for word in comment.words:
            try:
                named |= matching([word])
            except UnknownRule as error:
                yield _finding(
                    "LNT103", str(error), comment, remedy=f"Did you mean {error.nearest.id}?" if error.nearest else None
                )
        if not comment.words:
            yield _finding("LNT103", "An ignore names the rules that it hides: # padcheck: ignore[RULE] reason.", comment)
        elif named and not comment.used and named <= enabled:
            place = comment.place
            fix = Fix("Remove the comment", (TextEdit(place, ""),), "safe")
            yield _finding(
                "LNT102", f"This ignore of {', '.join(sorted(comment.words))} hides nothing.", comment, "Remove it.", fix
            )


def _finding(rule_id: str, message: str, comment: Comment, remedy: str | None = None, fix: Fix | None = None) -> Finding:
    rule = find(rule_id)
    key = f"{rule_id}:{','.join(comment.words)}"
    return Finding(
        rule.id,
        rule.name,
        rule.severity,
        message,
        place=comment.place,
        remedy=remedy,
        message_zh=rule.message_zh,
        evidence={"key": key},
        fix=fix,
    )
