"""`# padcheck: ignore[RULE] reason` and `# padcheck: ignore-file[RULE] reason`, as they stand in Python text."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from padcheck.checks.code.reading import Source
from padcheck.diagnostics import Place

_COMMENT = re.compile(r"#\s*padcheck:\s*ignore(?P<file>-file)?\s*\[(?P<rules>[^\]]*)\](?P<reason>[^#]*)")
_WORD = "padcheck:"


@dataclass(frozen=True, slots=True)
class Suppression:
    """One ignore comment."""

    line: int
    """1-based; the line of the comment."""
    rules: tuple[str, ...]
    """As written: ids or names; whether they exist is for the engine to say."""
    reason: str
    file_level: bool
    place: Place
    """The span of the comment itself, from its # on."""
    first_line: int = 0
    last_line: int = 0
    """What it covers: the lines of the statement it stands on or, alone on its line, of the statement below."""

    def covers(self, line: int | None) -> bool:
        return self.file_level or (line is not None and self.first_line <= line <= self.last_line)


def suppressions(text: str, path: str | None = None, cell: int | None = None) -> list[Suppression]:
    """The ignore comments of a Python text, in order. Text in strings is none. Free where the word does not occur."""
    if _WORD not in text:
        return []
    source = Source(text, path, cell)
    result = []
    for line, column, comment, first, last in _comments(source):
        for found in _COMMENT.finditer(comment):
            start = column + found.start()
            rules = tuple(word.strip() for word in found["rules"].split(",") if word.strip())
            place = source.place((line, start), (line, start + len(found[0].rstrip())))
            result.append(Suppression(line, rules, found["reason"].strip(), found["file"] is not None, place, first, last))
    return result


def _comments(source: Source) -> Iterator[tuple[int, int, str, int, int]]:
    """Each comment with the word: line, 0-based column, text, and the first and last line of what it covers."""
    text = "\n".join(source.lines)
    pending: list[tuple[int, int, str]] = []
    alone: list[tuple[int, int, str]] = []
    first = 0
    seen: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            line, column = token.start
            if token.type == tokenize.COMMENT:
                seen.add(line)
                if _WORD in token.string:
                    (pending if first else alone).append((line, column, token.string))
            elif token.type == tokenize.NEWLINE:
                for comment in (*alone, *pending):
                    yield (*comment, min(first, comment[0]), line)
                pending, alone, first = [], [], 0
            elif token.type not in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER) and not first:
                first = line
    except (tokenize.TokenError, SyntaxError):  # the file will not parse either; what can be read line by line still counts
        for comment in (*alone, *pending):
            yield (*comment, comment[0], comment[0])
        for line, content in enumerate(source.lines, 1):
            if _WORD in content and line not in seen and "#" in content:
                column = (
                    content.index("#", max(content.index(_WORD) - 10, 0)) if "#" in content[: content.index(_WORD)] else -1
                )
                if column >= 0:
                    yield line, column, content[column:], line, line
        return
    for comment in (*alone, *pending):
        yield (*comment, comment[0], comment[0])
