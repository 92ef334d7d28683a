"""JSON read value by value from text that arrives in pieces, with the place of every value.

`json.load` needs the whole text and all its objects at once. `JsonCursor` holds the pieces of one value at
most, so memory does not grow with the file, and it says in plain words what is wrong where the text is no
JSON. It accepts what `json.loads` accepts (NaN and Infinity too): that is what the editors read with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from padcheck.sources.reading import SourceError

_BLANK = " \t\n\r"
_BLANKS = re.compile(f"[{_BLANK}]*")
_WORD = re.compile(r"\w{1,24}")
_DECODER = json.JSONDecoder()
# Python refuses to make an int of more than 4300 digits; such a number is no concern of ours: it stays text.
_DECODER_OF_HUGE_INTEGERS = json.JSONDecoder(parse_int=str)

# Where text is cut inside a token, the decoder complains at most this far before the cut: the longest token
# that it names by its beginning is the escape of a surrogate pair, \uD83D\uDE00.
_LONGEST_CUT_TOKEN = 12


def parse_line(text: str, path: str, line: int) -> Any:
    """The one JSON value on `text`, line number `line` of the file; SourceError where there is none."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):  # decode it again, slowly, to say what is wrong and where
        cursor = JsonCursor((text.rstrip(_BLANK),), path, line=line, whole="line")
        value = cursor.value()
        cursor.finish()
        return value


class JsonCursor:
    """A place in JSON text that arrives in pieces; it moves forward only.

    `whole` says in messages what the text is: "file" or "line"; `line` is the number of its first line.
    Every fault is a SourceError with line and column. One that `parts` raises is passed on once all text
    before it has been read.
    """

    def __init__(self, parts: Iterable[str], path: str, *, line: int = 1, whole: str = "file") -> None:
        self._parts = iter(parts)
        self._path = path
        self._whole = whole
        self._text = ""
        self._at = 0
        self._line = line
        # Where the current line starts in _text, for the column; negative once that text has been dropped.
        self._line_start = 0
        self._ended = False
        self._fault: SourceError | None = None

    @property
    def line(self) -> int:
        """1-based line of the cursor; call `peek` first to stand on a token."""
        return self._line

    @property
    def column(self) -> int:
        """1-based column of the cursor, in code points."""
        return self._at - self._line_start + 1

    @property
    def found(self) -> str:
        """What stands at the cursor, in words for a message."""
        return self._found(self._at)

    def peek(self) -> str:
        """Step over white space; the character the cursor then stands on, or "" at the end of the text."""
        while True:
            char = self._text[self._at : self._at + 1]
            if char and char not in _BLANK:
                return char
            match = _BLANKS.match(self._text, self._at)
            self._step_to(match.end() if match else self._at)
            if self._at == len(self._text) and not self._more():
                return ""

    def value(self) -> Any:
        """The JSON value that starts here; the cursor then stands behind it."""
        self.peek()
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._may_be_cut(error) and self._more():
                    continue
                raise self._in_plain_words(error) from None
            except RecursionError:
                raise self.fault("The value that starts here is nested too deeply.") from None
            # 12 may be the beginning of 123, or of 12.5 where the piece ends in "12.", or of 12e+3 in "12e+"; text,
            # lists and objects carry their own end.
            if end + 2 >= len(self._text) and not isinstance(value, (dict, list, str)) and self._more():
                continue
            self._step_to(end)
            return value

    def items(self) -> Iterator[tuple[int, int, Any]]:
        """The members of the list that starts here, each as (line, column, value), one at a time."""
        self.peek()
        opened = self._line
        self._at += 1
        found = self.peek()
        while found != "]":
            if found:
                line, column = self._line, self._at - self._line_start + 1
                value = self.value()
                yield line, column, value
                found = self.peek()
            if found == ",":
                comma = self._line, self._at - self._line_start + 1
                self._at += 1
                found = self.peek()
                if found == "]":
                    self._refuse_trailing_comma(*comma, "]")
            elif found and found != "]":
                raise self.fault(
                    f"Found {self.found} where a comma or the closing ] should stand.",
                    "Put a comma between two records.",
                )
            if not found:
                raise self.fault(
                    f"The {self._whole} ends before the list that opens in line {opened} is closed.",
                    "Add the closing ], or get the rest of the file.",
                )
        self._at += 1

    def enter(self, key: str) -> None:
        """Move from the { of an object, known to be valid and to have `key`, to that key's value."""
        self.peek()
        self._at += 1
        while True:
            name = self.value()
            self.peek()
            self._at += 1  # the colon
            self.peek()
            if name == key:
                return
            self.value()
            self.peek()
            self._at += 1  # the comma

    def finish(self) -> None:
        """Make sure that nothing but white space follows."""
        if self.peek():
            raise self.fault(
                f"Found {self.found} after the end of the value, where the {self._whole} should end.",
                "Put one record on each line, or all of them into one list."
                if self._whole == "file"
                else "Put each record on a line of its own, without a comma behind it.",
            )

    def fault(self, message: str, remedy: str = "") -> SourceError:
        """A SourceError at the cursor's place."""
        return SourceError(message, path=self._path, line=self.line, column=self.column, remedy=remedy)

    def _step_to(self, end: int) -> None:
        newlines = self._text.count("\n", self._at, end)
        if newlines:
            self._line += newlines
            self._line_start = self._text.rfind("\n", self._at, end) + 1
        self._at = end

    def _more(self) -> bool:
        """Drop what lies behind the cursor and at least double what lies ahead; False at the end of the text.

        Doubling keeps a value that spans many pieces from being decoded again for each of them.
        """
        if self._ended:
            if self._fault is not None:
                raise self._fault
            return False
        ahead = [self._text[self._at :]]
        wanted = max(1, len(ahead[0]))
        got = 0
        try:
            while got < wanted:
                part = next(self._parts)
                ahead.append(part)
                got += len(part)
        except StopIteration:
            self._ended = True
        except SourceError as fault:
            self._ended = True
            self._fault = fault
        if not got:
            return self._more()  # False, or the fault
        self._text = "".join(ahead)
        self._line_start -= self._at
        self._at = 0
        return True

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        # A text without its closing quote is reported at its start, which may lie far back. It cannot swallow
        # a file of many lines: the decoder refuses a line break inside a text.
        near_the_cut = error.pos >= len(self._text) - _LONGEST_CUT_TOKEN
        return near_the_cut or error.msg.startswith("Unterminated string")

    def _found(self, at: int) -> str:
        char = self._text[at : at + 1]
        if not char:
            return f"the end of the {self._whole}"
        if char in "\r\n":
            return "the end of the line"
        word = _WORD.match(self._text, at)
        if word:
            return f"'{word.group()}'"
        visible = char.isprintable() and not char.isspace()
        return f"'{char}'" if visible else f"the character U+{ord(char):04X}"

    def _refuse_trailing_comma(self, line: int, column: int, closing: str) -> NoReturn:
        raise SourceError(
            f"A comma stands before the closing {closing}.",
            path=self._path,
            line=line,
            column=column,
            remedy="Remove the comma.",
        )

    def _in_plain_words(self, error: json.JSONDecodeError) -> SourceError:
        """What the decoder found, said without its jargon, at the place where a person would mend it."""
        what, at = error.msg, error.pos
        behind = self._text[self._at : at].rstrip(_BLANK)
        char = self._text[at : at + 1]
        if what.startswith("Illegal trailing comma"):  # Python 3.13 points at the comma itself
            behind, char = self._text[self._at : at + 1], self._text[at + 1 :].lstrip(_BLANK)[:1]
        if char and char in "]}" and behind.endswith(","):
            self._step_to(self._at + len(behind) - 1)
            self._refuse_trailing_comma(self.line, self.column, char)
        self._step_to(at)
        found = self._found(at)
        if what.startswith("Unterminated string"):
            return self.fault("The text that starts here is never closed by a double quote.", 'Add the missing ".')
        if not char:
            return self.fault(f"The {self._whole} ends in the middle of a value.", f"Get the rest of the {self._whole}.")
        if what.startswith("Invalid control character"):
            if char in "\r\n":
                return self.fault(
                    "A text in double quotes is not closed before its line ends.",
                    r'Close it with ", or write a line break inside a text as \n.',
                )
            return self.fault(f"Found {found} inside a text.", f"Write it as \\u{ord(char):04x}.")
        if what.startswith("Invalid \\u"):
            return self.fault(r"Found \u without four hexadecimal digits after it.", r"Write a backslash itself as \\.")
        if what.startswith("Invalid \\escape"):
            return self.fault(
                f"Found '{self._text[at : at + 2]}' inside a text, which is no escape of JSON.",
                r"Write a backslash itself as \\.",
            )
        should = "a value"
        remedy = "Write text in double quotes."
        if what.startswith("Expecting property name"):
            should, remedy = "a key in double quotes", "Write keys in double quotes."
        elif what.startswith("Expecting ':'"):
            should, remedy = "a colon", "Put a colon between a key and its value, and close the key's quotes."
        elif what.startswith("Expecting ','"):
            should = "a comma or a closing bracket"
            remedy = r"Put a comma before it; inside a text, write a double quote as \"."
        if char in "/#":
            remedy = "JSON has no comments: remove it."
        elif found in ("'True'", "'False'", "'None'"):
            remedy = "JSON writes true, false and null: write the file with json.dump, not str()."
        elif char == "'":
            remedy = "JSON has double quotes only: write the file with json.dump, not str()."
        return self.fault(f"Found {found} where {should} should stand.", remedy)


def _decode(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _DECODER_OF_HUGE_INTEGERS.raw_decode(text, at)
