"""Rows as a person looks at them: the padded tokens with the editor's and the true column marked."""

from __future__ import annotations

from padcheck.positions.drift import Reading
from padcheck.reports import Mark, RowView, TokenCell


def row_view(reading: Reading) -> RowView:
    """The whole padded row of a reading. Pads are shown as `<pad>`, whatever token the run pads with."""
    row, measured = reading.row, reading.row.measured
    leading = reading.pads if reading.left else 0
    cells: list[TokenCell] = []
    tokens, special = measured.encoded.tokens, measured.encoded.special_tokens_mask
    for column in range(reading.width):
        alone = column - leading
        mark: Mark | None = None
        if column == reading.editor:
            mark = "both" if column == reading.truth else "editor"
        elif column == reading.truth:
            mark = "truth"
        if 0 <= alone < min(row.mask, len(tokens)):
            cells.append(TokenCell(column, tokens[alone], special=bool(special[alone]), mark=mark))
        else:
            cells.append(TokenCell(column, "<pad>", pad=True, mark=mark))
    request = row.prepared.request
    return RowView(
        request=request.index,
        case_id=request.case_id,
        batch=reading.batch.name,
        row=row.number,
        kind=reading.kind,
        editor=reading.editor,
        truth=reading.truth,
        drift=reading.drift,
        cause=reading.causes[0] if reading.causes else None,
        oracle=measured.oracle,
        width=reading.width,
        pads=reading.pads,
        text=measured.text,
        cells=tuple(cells),
        note=_note(reading),
    )


def _note(reading: Reading) -> str | None:
    if "raises" in reading.causes:
        return f"the method {reading.arithmetic}"
    if "retokenised" in reading.causes:
        prepared = reading.row.prepared
        return (
            f"the target {prepared.filled.target!r} was decoded to {prepared.head!r} and read again: the row does not hold the tokens "
            f"that are trained ({len(prepared.target_ids)} ids)"
        )
    return None
