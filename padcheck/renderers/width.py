"""How wide text is on a terminal, and what must be done to foreign text before a terminal may see it.

Tokens and prompts are hostile input: they hold newlines, escape sequences, half an emoji or text that runs from right to
left. `escape` makes all of that visible, `isolate` keeps right-to-left text inside its own cell, and the other functions
measure, cut and fold what is left by display columns instead of code points.

Widths follow Unicode's East Asian Width (UAX 11; an ambiguous width counts as one column, as terminals do by default) and
its emoji sequences (UTS 51): a ZWJ sequence, a flag, a keycap or an emoji with a skin tone fills two columns.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

ELLIPSIS = "…"

_ZWJ = "\u200d"
_TEXT_STYLE, _EMOJI_STYLE = "\ufe0e", "\ufe0f"
_KEYCAP = "\u20e3"
_DOTTED_CIRCLE = "\u25cc"
_FIRST_STRONG_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"
_SHORT_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def escape(text: str) -> str:
    r"""`text` with everything that a terminal would obey, hide or reorder made visible: `\n`, `\x1b`, `\u202e`.

    Joiners and variation selectors stay where they do their work, inside an emoji. A mark without a letter to stand on
    gets a dotted circle. The result has one line and `escape` leaves it as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(text, at) for at in range(len(text)))


def _escaped(text: str, at: int) -> str:
    char = text[at]
    category = unicodedata.category(char)
    if char == _ZWJ and 0 < at < len(text) - 1 and _pictures_before(text, at) and _is_picture(text[at + 1]):
        return char
    if char in (_TEXT_STYLE, _EMOJI_STYLE) and at and _takes_style(text[at - 1]):
        return char
    if category in _UNSEEN or char in (_TEXT_STYLE, _EMOJI_STYLE) or (category == "Cn" and not _is_picture(char)):
        return _SHORT_ESCAPES.get(char) or _code_point(char)
    if category in ("Mn", "Me", "Mc") and (at == 0 or unicodedata.category(text[at - 1])[0] in "CZ"):
        return _DOTTED_CIRCLE + char
    return char


def _code_point(char: str) -> str:
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def isolate(text: str) -> str:
    """`text` with every right-to-left run in a Unicode isolate, so that it cannot reorder what stands around it."""
    if text.isascii():
        return text
    pieces: list[str] = []
    start = end = -1  # the run so far: from its first to just behind its last right-to-left character
    kept = 0  # `text[:kept]` has been written
    for at, char in enumerate(text):
        direction = unicodedata.bidirectional(char)
        if direction in ("R", "AL"):
            start, end = (at if start < 0 else start), at + 1
        elif start >= 0 and direction in ("AN", "NSM") and at == end:
            end = at + 1
        elif start >= 0 and direction == "L":
            pieces += [text[kept:start], _FIRST_STRONG_ISOLATE, text[start:end], _POP_ISOLATE]
            start, kept = -1, end
    if start >= 0:
        pieces += [text[kept:start], _FIRST_STRONG_ISOLATE, text[start:end], _POP_ISOLATE]
        kept = end
    return "".join(pieces) + text[kept:]


def display_width(text: str) -> int:
    """The number of terminal columns that `text` (without control characters) fills."""
    if text.isascii():
        return len(text)
    return sum(_cluster_width(cluster) for cluster in clusters(text))


def clusters(text: str) -> Iterator[str]:
    """What a reader takes for one character: a letter with its marks, a whole emoji, a flag. Joined they give `text`."""
    start = 0
    for at in range(1, len(text)):
        if not _continues(text, start, at):
            yield text[start:at]
            start = at
    if text:
        yield text[start:]


def _continues(text: str, start: int, at: int) -> bool:
    """True if the character at `at` belongs to the cluster that began at `start`."""
    char, before = text[at], text[at - 1]
    if _is_skin_tone(char):
        return _is_picture(before) or before == _EMOJI_STYLE
    if _is_flag_letter(char):
        return at - start == 1 and _is_flag_letter(before)
    return _is_zero_width(char) or (before == _ZWJ and _is_picture(char))


def _cluster_width(cluster: str) -> int:
    first = cluster[0]
    if _is_zero_width(first):
        return 0
    if len(cluster) > 1 and (_is_flag_letter(first) or (cluster[1] == _EMOJI_STYLE and _takes_style(first))):
        return 2
    return 2 if _is_wide(first) else 1


def _is_wide(char: str) -> bool:
    if unicodedata.category(char) == "Cn":  # newer than this Python's Unicode; what comes is mostly emoji and CJK
        return _is_picture(char) or unicodedata.east_asian_width(char) in "WF"
    return unicodedata.east_asian_width(char) in "WF"


def _is_zero_width(char: str) -> bool:
    # Hangul vowels and finals are drawn into the syllable that their initial opens.
    return unicodedata.category(char) in ("Mn", "Me", "Cf") or "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7fb"


def _is_picture(char: str) -> bool:
    """Roughly Extended_Pictographic: the blocks where emoji live (Python's tables do not have the property itself)."""
    number = ord(char)
    return (0x1F000 <= number <= 0x1FAFF and not _is_flag_letter(char)) or (_takes_style(char) and number >= 0x80)


def _takes_style(char: str) -> bool:
    """True if a variation selector may follow `char`: symbols, and the digits of keycaps."""
    return char in "#*0123456789" or (ord(char) >= 0x80 and unicodedata.category(char) in ("So", "Sm", "Po", "Sk"))


def _pictures_before(text: str, at: int) -> bool:
    before = text[at - 1]
    return _is_picture(before) or before == _EMOJI_STYLE


def _is_skin_tone(char: str) -> bool:
    return "\U0001f3fb" <= char <= "\U0001f3ff"


def _is_flag_letter(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def clip(text: str, width: int) -> str:
    """`text` in at most `width` columns: its beginning, an ellipsis, and its end."""
    if display_width(text) <= width:
        return text
    if width < 1:
        return ""
    parts = list(clusters(text))
    room = width - 1
    head = _fitting(parts, room - room // 3)
    tail = _fitting(parts[head:][::-1], room - sum(map(_cluster_width, parts[:head])))
    return "".join(parts[:head]) + ELLIPSIS + "".join(parts[len(parts) - tail :])


def _fitting(parts: list[str], room: int) -> int:
    """How many of `parts`, from the first on, fit into `room` columns."""
    used = 0
    for count, part in enumerate(parts):
        used += _cluster_width(part)
        if used > room:
            return count
    return len(parts)


def pad(text: str, width: int) -> str:
    """`text` and the spaces that fill it up to `width` columns."""
    return text + " " * (width - display_width(text))


def fold(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` columns, broken at spaces, inside a word only where the word is too long or wide
    (Chinese and Japanese have no spaces)."""
    lines: list[str] = []
    line, used = "", 0
    for word in text.split(" "):
        needed = display_width(word)
        if line and used + 1 + needed <= width:
            line, used = f"{line} {word}", used + 1 + needed
            continue
        breakable = needed > width or (needed > len(word) // 2 and any(_is_wide(char) for char in word))
        if line and breakable and used + 3 <= width:
            line, used = line + " ", used + 1
        elif line:
            lines.append(line)
            line, used = "", 0
        for part in clusters(word) if breakable else [word]:
            size = display_width(part)
            if line and used + size > width:
                lines.append(line.rstrip(" "))
                line, used = "", 0
            line, used = line + part, used + size
    return [*lines, line] if line or not lines else lines
