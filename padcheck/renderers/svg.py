"""A picture of a terminal that shows a coloured report: the README's picture is real output, not a drawing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from xml.sax.saxutils import escape as xml_text

from padcheck.renderers.ansi import CODES
from padcheck.renderers.width import clusters, display_width

_SGR = re.compile("\x1b\\[([0-9;]*)m")
_OTHER_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ISOLATES = re.compile("[\u2066-\u2069]")
_STYLES = {code: name for name, code in CODES.items()}

_PALETTE = {
    "black": "#15181e",
    "white": "#ffffff",
    "red": "#ff7b72",
    "green": "#7ee787",
    "yellow": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#76d7e0",
}
_GROUNDS = {"on-red": "#c5362b", "on-green": "#56d364", "on-yellow": "#e3b341", "on-blue": "#1f6feb"}
_WINDOW, _BAR, _INK = "#15181e", "#23272f", "#dfe3ea"
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Noto Sans Mono CJK SC', monospace"
_SIZE, _CELL, _LINE, _MARGIN, _TOP = 14, 8.43, 20, 18, 40
"""Font size, width of a column, height of a line, margin and height of the title bar, in pixels."""


@dataclass(frozen=True, slots=True)
class _Look:
    """The styles in force: a colour, a ground (names of `ansi.CODES`), and how it is set."""

    ink: str | None = None
    ground: str | None = None
    bold: bool = False
    dim: bool = False
    underline: bool = False

    def after(self, code: int) -> _Look:
        name = _STYLES.get(code)
        if name is None:
            return _Look() if code == 0 else self
        if name in _PALETTE:
            return replace(self, ink=name)
        if name in _GROUNDS:
            return replace(self, ground=name)
        return replace(
            self,
            bold=self.bold or name == "bold",
            dim=self.dim or name == "dim",
            underline=self.underline or name == "underline",
        )


def terminal_svg(text_with_ansi: str, title: str) -> str:
    """An SVG of a dark terminal window, `title` in its bar, that shows `text_with_ansi` (the styles of `ansi.CODES`).

    Every run of text is stretched to the columns it fills in a terminal, so that the picture is aligned with any font.
    """
    lines = text_with_ansi.rstrip("\n").expandtabs().split("\n")
    columns = max([display_width(_SGR.sub("", line)) for line in lines] + [display_width(title) + 16])
    width, height = round(columns * _CELL + 2 * _MARGIN), len(lines) * _LINE + _TOP + _MARGIN
    size = f'width="{width}" height="{height}"'
    heading = xml_text(_OTHER_CONTROLS.sub("", title))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}" role="img">',
        f"<title>{heading}</title>",
        f'<rect {size} rx="10" fill="{_WINDOW}"/>',
        f'<path d="M0 30V10A10 10 0 0 1 10 0H{width - 10}A10 10 0 0 1 {width} 10V30Z" fill="{_BAR}"/>',
        *(
            f'<circle cx="{x}" cy="15" r="5.5" fill="{fill}"/>'
            for x, fill in ((20, "#ff5f57"), (38, "#febc2e"), (56, "#28c840"))
        ),
        f'<g font-family="{_FONT}" font-size="{_SIZE}" fill="{_INK}" style="white-space:pre" xml:space="preserve">',
        f'<text x="{width / 2:g}" y="20" text-anchor="middle" fill="#9aa3b2">{heading}</text>',
    ]
    look = _Look()
    for number, line in enumerate(lines):
        column = 0
        for text, run_look in _runs(line, look):
            look = run_look
            for piece in _pieces(text):
                parts += _drawn(piece, look, _MARGIN + column * _CELL, _TOP + number * _LINE)
                column += display_width(piece)
    return "\n".join([*parts, "</g>", "</svg>", ""])


def _runs(line: str, look: _Look) -> Iterator[tuple[str, _Look]]:
    """The stretches of one look in a line. The last one may be empty: it hands its look to the next line."""
    start = 0
    for code in _SGR.finditer(line):
        if code.start() > start:
            yield line[start : code.start()], look
        for number in code[1].split(";"):
            look = look.after(int(number or 0))
        start = code.end()
    yield line[start:], look


def _pieces(text: str) -> Iterator[str]:
    """`text` in pieces that are placed one by one: ASCII up to the next gap of spaces (viewers fold gaps), every other
    character for itself (its font may have another width), right-to-left words whole (their letters join)."""
    for part in re.split("(\u2068[^\u2069]*\u2069| {2,})", _OTHER_CONTROLS.sub("", text)):
        if part.startswith("\u2068"):
            yield _ISOLATES.sub("", part)
            continue
        for ascii_only, group in groupby(clusters(part), key=str.isascii):
            if ascii_only:
                yield "".join(group)
            else:
                yield from group


def _drawn(text: str, look: _Look, x: float, top: float) -> Iterator[str]:
    wide = display_width(text) * _CELL
    if look.ground:
        yield f'<rect x="{x:.2f}" y="{top:g}" width="{wide:.2f}" height="{_LINE}" fill="{_GROUNDS[look.ground]}"/>'
    if not text.strip():
        return
    ink = f' fill="{_PALETTE[look.ink]}"' if look.ink else ""
    bold = ' font-weight="700"' if look.bold else ""
    dim = ' opacity="0.6"' if look.dim else ""
    line = ' text-decoration="underline"' if look.underline else ""
    lead = len(text) - len(text.lstrip(" "))  # leading spaces are moved over, not drawn: some viewers drop them
    body = text.strip(" ")
    length = f' textLength="{display_width(body) * _CELL:.2f}" lengthAdjust="spacingAndGlyphs"'
    yield f'<text x="{x + lead * _CELL:.2f}" y="{top + 14.5:g}"{length}{ink}{bold}{dim}{line}>{xml_text(body)}</text>'
