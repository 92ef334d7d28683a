"""What a guard says about positions that drift: one sentence, the token table of the worst rows, the remedy."""

from __future__ import annotations

from collections.abc import Sequence

from padcheck.checks.drift_rules import pages
from padcheck.guards.errors import DriftError
from padcheck.passes import record
from padcheck.positions.drift import Reading
from padcheck.renderers import strips, wording
from padcheck.renderers.text import render_row
from padcheck.viewing import row_view

_SHOWN = 3
"""Rows whose tokens are shown."""

CORRECT = 'padcheck.guard(tokenizer, policy="correct") makes it right, or stops and says why it cannot.'

CORRECT_COLUMNS = (
    'padcheck.guard(tokenizer, model=model, policy="correct") pads the batch on the side that its columns need, or exchanges them, or '
    "stops and says why it cannot. A batch that the model is to generate behind has to stay padded on the left: take its columns from "
    'padcheck.locate(..., padding_side="left").'
)
"""For functions that are marked with `checked_index`: what their batches are used for is not known."""


def drift_error(where: str, drifting: Sequence[Reading], checked: int, remedy: str, rows: int | None = None) -> DriftError:
    """The error for positions that drift at `where`. `rows`: see `told`."""
    return DriftError(told(where, drifting, checked, remedy, rows), tuple(record(reading) for reading in drifting))


def told(where: str, drifting: Sequence[Reading], checked: int, remedy: str, rows: int | None = None) -> str:
    """The sentence, the rows and the remedy. `rows`: of the batch, where it is no request's, and its rows are told by number."""
    lines = [f"{where}: {sentence(drifting, checked)}"]
    lines.append(strips.LEGEND)
    lines += [_row(reading, rows) for reading in worst(drifting)[:_SHOWN]]
    more = pages((reading.kind, cause) for reading in drifting for cause in reading.causes)
    return "\n\n".join([*lines, *filter(None, (remedy, more))])


def _row(reading: Reading, rows: int | None) -> str:
    view = row_view(reading)
    shown = render_row(view)
    return shown if rows is None else shown.replace(strips.title(view), f"row {view.row} of a batch of {rows}", 1)


def sentence(drifting: Sequence[Reading], checked: int) -> str:
    """`4 of 23 positions are not on the tokens that are meant, under left padding (padding not counted)`."""
    side = "left" if drifting[0].left else "right"
    causes = ", ".join(dict.fromkeys(wording.cause(cause).label for reading in drifting for cause in reading.causes))
    if checked == 1:
        return f"a position is not on the token that is meant, under {side} padding ({causes})"
    verb = "is" if len(drifting) == 1 else "are"
    return f"{len(drifting)} of {checked} positions {verb} not on the tokens that are meant, under {side} padding ({causes})"


def worst(drifting: Sequence[Reading]) -> list[Reading]:
    """One reading of each kind, the furthest off; then the rest by distance."""
    ordered = sorted(drifting, key=lambda reading: -abs(reading.drift or 0))
    first: dict[str, Reading] = {}
    for reading in ordered:
        first.setdefault(reading.kind, reading)
    chosen = list(first.values())
    return chosen + [reading for reading in ordered if not any(reading is one for one in chosen)]
