"""Colour by ANSI escape codes, and nothing else of a terminal."""

from __future__ import annotations

from collections.abc import Callable

CODES = {
    "bold": 1,
    "dim": 2,
    "underline": 4,
    "red": 31,
    "green": 32,
    "yellow": 33,
    "blue": 34,
    "magenta": 35,
    "cyan": 36,
    "black": 30,
    "white": 97,
    "on-red": 41,
    "on-green": 42,
    "on-yellow": 43,
    "on-blue": 44,
}

Painter = Callable[..., str]


def painter(color: bool) -> Painter:
    """A function `paint(text, *styles)`: the text in these styles (names of `CODES`), or as it is without colour.

    The text must have been through `width.escape`: an escape code inside it would end the style or worse.
    """

    def paint(text: str, *styles: str) -> str:
        if not color or not text or not styles:
            return text
        return f"\x1b[{';'.join(str(CODES[style]) for style in styles)}m{text}\x1b[0m"

    return paint
