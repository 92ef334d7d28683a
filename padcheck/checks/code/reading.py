"""Python text as the rules see it: lines, places, exact spans, and a tree where the text can be parsed at all."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from functools import cached_property

from padcheck.diagnostics import Place, TextEdit

_LINE_BREAK = re.compile(r"\r\n|\r|\n")  # not str.splitlines: to Python a form feed or U+2028 ends no line
_FLAGS = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_BOM = "\ufeff"


class Unreadable(Exception):
    """Text that is not valid Python: the reason, and the 1-based place where reading stopped (None if it has none)."""

    def __init__(self, reason: str, line: int | None = None, column: int | None = None, *, too_deep: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        self.column = column
        self.too_deep = too_deep
        """The text may be valid, but it is nested beyond what the parser can hold."""


def decode_source(data: bytes) -> str:
    """The text of a Python file by PEP 263: its byte order mark, its coding comment, else UTF-8.

    Raises `Unreadable` for an unknown encoding or bytes that are not in the encoding.
    """
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise Unreadable(f"the text cannot be decoded: {error}", 1, 1) from error


class Source:
    """One file, or one cell of a notebook."""

    def __init__(self, text: str, path: str | None, cell: int | None = None) -> None:
        self.text = text
        self.path = path
        self.cell = cell
        self._bom = text.startswith(_BOM)

    @cached_property
    def lines(self) -> list[str]:
        """The lines without their ends; a byte order mark is not part of the first."""
        return _LINE_BREAK.split(self.text[1:] if self._bom else self.text)

    @cached_property
    def line_end(self) -> str:
        """How this file ends its lines."""
        found = _LINE_BREAK.search(self.text)
        return found[0] if found else "\n"

    def parse(self) -> ast.Module:
        """The tree. Raises `Unreadable`; never a crash, whatever the text is."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # SyntaxWarning for an invalid escape is the interpreter's business
                tree = compile(self.text[1:] if self._bom else self.text, "<source>", "exec", _FLAGS, dont_inherit=True)
        except SyntaxError as error:
            line = min(error.lineno, len(self.lines)) if error.lineno else None
            raise Unreadable(error.msg or "invalid syntax", line, max(error.offset or 1, 1) if line else None) from error
        except (RecursionError, MemoryError) as error:
            raise Unreadable("nested too deeply to be parsed", too_deep=True) from error
        except ValueError as error:  # a null byte, or a lone surrogate that has no UTF-8
            raise Unreadable(str(error)) from error
        assert isinstance(tree, ast.Module)
        return tree

    def column(self, line: int, offset: int) -> int:
        """0-based code points for the UTF-8 byte `offset` of a 1-based line."""
        text = self.lines[line - 1]
        return offset if text.isascii() else len(text.encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "ignore"))

    def start(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """1-based line and 0-based column, in code points, where `node` begins."""
        return node.lineno, self.column(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """1-based line and 0-based column, in code points, behind the last character of `node`."""
        line, offset = node.end_lineno, node.end_col_offset
        assert line is not None
        assert offset is not None
        return line, self.column(line, offset)

    def place(self, start: tuple[int, int], end: tuple[int, int]) -> Place:
        """The span between two positions as returned by `start` and `end`."""
        return Place(self.path, start[0], start[1] + 1, end[0], end[1] + 1, self.cell)

    def place_of(self, node: ast.expr | ast.stmt) -> Place:
        """The span of `node`; of a compound statement only its first line."""
        start, end = self.start(node), self.end(node)
        if end[0] != start[0] and isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.For, ast.While)
        ):
            end = (start[0], len(self.lines[start[0] - 1].rstrip()))
        return self.place(start, end)

    def slice(self, start: tuple[int, int], end: tuple[int, int]) -> str:
        """The text between two positions; lines are joined as the file ends them."""
        if start[0] == end[0]:
            return self.lines[start[0] - 1][start[1] : end[1]]
        lines = [self.lines[start[0] - 1][start[1] :], *self.lines[start[0] : end[0] - 1], self.lines[end[0] - 1][: end[1]]]
        return self.line_end.join(lines)

    def segment(self, node: ast.expr | ast.stmt) -> str:
        """The text of `node`."""
        return self.slice(self.start(node), self.end(node))

    def edit(self, start: tuple[int, int], end: tuple[int, int], replacement: str) -> TextEdit:
        """Replace the text between two positions. The replacement's line ends become the file's."""
        return TextEdit(self.place(start, end), replacement.replace("\n", self.line_end))


def indentation(line: str) -> str:
    """The blanks at the beginning of a line."""
    return line[: len(line) - len(line.lstrip())]
