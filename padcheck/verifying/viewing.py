"""The rows of an edit's padded batch as a person looks at them: where the editor points, and where it should."""

from __future__ import annotations

from typing import Any

from padcheck.editing.rows import Fact
from padcheck.positions.rows import split_template
from padcheck.reports import Mark, RowView, TokenCell


def worst_rows(fact: Fact, kl: tuple[int, ...], templates: tuple[str, ...], tokenizer: Any) -> tuple[RowView, ...]:
    """The row of the left-padded batch (templates × prompt and target, and the row "{subject} is a") that is furthest off
    among those with an answer: its lookup, and the slot of the answer's first token. Both counted from the row's start.

    kl  all ids of the KL row
    """
    rows = [row.ids for row in fact.answered]
    width = max(map(len, (*rows, kl)))
    number = min(range(len(rows)), key=lambda row: len(rows[row]))
    pads = width - len(rows[number])
    before, after = split_template(templates[number])
    text = before + fact.request.prompt.replace("{}", fact.request.subject) + after
    tokens = tokenizer.convert_ids_to_tokens(list(rows[number]))
    special = set(getattr(tokenizer, "all_special_ids", None) or ())
    wanted = {"lookup": fact.answered[number].lookup, "label": fact.labels[number]}
    return tuple(
        RowView(
            request=fact.request.index,
            case_id=fact.request.case_id,
            batch="optimise",
            row=number,
            kind=kind,
            editor=counted,
            truth=counted + pads,
            drift=-pads,
            cause="pads" if pads else None,
            oracle="offsets",
            width=width,
            pads=pads,
            text=f"{text} → {fact.request.target_new}",
            cells=tuple(
                TokenCell(column, "<pad>", pad=True, mark=_mark(column, counted, pads))
                if column < pads
                else TokenCell(
                    column,
                    _text(tokens[column - pads]),
                    special=rows[number][column - pads] in special,
                    mark=_mark(column, counted, pads),
                )
                for column in range(width)
            ),
        )
        for kind, counted in wanted.items()
    )


def _mark(column: int, counted: int, pads: int) -> Mark | None:
    if column == counted:
        return "editor" if pads else "both"
    return "truth" if column == counted + pads else None


def _text(token: Any) -> str:
    """Some slow tokenizers have bytes (Qwen 1)."""
    return token.decode("utf-8", errors="replace") if isinstance(token, bytes) else str(token)
