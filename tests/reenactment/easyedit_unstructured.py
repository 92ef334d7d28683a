"""UnKE and UnKE_ARE: questions and long answers (EasyEdit 14cea82, paths below easyeditor/models/)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .easyedit_train import Group, Setup, question_and_answer
from .rows import Bench, EditorRaises, Padded, Row
from .truth import label_starts, prompt_end


def target_ids(bench: Bench, answer: str, index: int) -> list[int]:
    """With special tokens, a first BOS or unknown token cut: unke/compute_z.py:39-44,
    unke_ARE/compute_z.py:39-44.
    """
    ids = list(bench.encode(answer))
    if not ids:
        raise EditorRaises("IndexError: the answer has no tokens", index)
    return ids[1:] if ids[0] in (bench.tok.special.bos, bench.tok.special.unk) else ids


def optimise(bench: Bench, index: int, row: int, ids: Sequence[int], window: Sequence[int], starts: range) -> Iterator[Row]:
    """One row of ids laid end to end; slots and lookup are counted from its end by the window's length.

    `starts` are the places from which the window's first token may truly be predicted.
    unke/compute_z.py:45-62, unke_ARE/compute_z.py:72-95.
    """
    first = len(ids) - len(window)
    if not window or first < 0:
        raise EditorRaises(f"IndexError: {len(window)} labels on {len(ids)} tokens", index)
    truth = starts.start if starts else None
    right = first in starts and list(ids[first + 1 :]) == list(window[:-1])
    slots = tuple((first + at, token) for at, token in enumerate(window))
    lookup = Row(index, "optimise", row, "lookup", first, truth, len(ids), 0, tuple(ids))
    yield lookup
    yield replace(
        lookup,
        kind="label",
        truth=first if right else truth,
        editor_labels=slots,
        labels_right=right,
        bos_in_labels=window[0] == bench.tok.special.bos,
    )


def unke(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """z one row at a time; the keys of all questions in one padded batch, read at the mask's sum less one.

    unke/unke_main.py:26-27 (index), :107-125 (the batch the residual is added to), :168-170.
    """
    pairs = [question_and_answer(index, request) for index, request in group]
    for (index, _), (question, answer) in zip(group, pairs, strict=True):
        window = target_ids(bench, answer, index)
        starts = label_starts(bench.reading(question), question)
        yield from optimise(bench, index, 0, bench.encode(question) + window[:-1], window, starts)
    padded = bench.batch(question for question, _ in pairs)
    for i, ((index, _), (question, _)) in enumerate(zip(group, pairs, strict=True)):
        place = prompt_end(bench.reading(question), len(question))
        yield key(padded, i, index, 0, padded.mask_sum(i) - 1, place)


def unke_are(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """Window after window of the answer, then the same indexes on a padded batch of question + answer text.

    unke_ARE/compute_z.py:71-95, :207; unke_ARE/unke_ARE_main.py:17-47, :102-104, :173-176.
    """
    size = int(bench.hparams.get("window_size", 50))
    step = size - int(bench.hparams.get("overlap", 0))
    pairs = [question_and_answer(index, request) for index, request in group]
    indexes: list[list[int]] = []
    for (index, _), (question, answer) in zip(group, pairs, strict=True):
        answer_ids, laid = target_ids(bench, answer, index), list(bench.encode(question))
        starts = label_starts(bench.reading(question), question)
        indexes.append([])
        for row, start in enumerate(range(0, len(answer_ids), step)):
            window = answer_ids[start : start + size]
            new = window[size - step :] if start else window  # the rest lies there already
            ids = laid + (window[size - step : -1] if start else window[:-1])
            shifted = range(starts.start + start, starts.stop + start)
            yield from optimise(bench, index, row, ids, window, shifted)
            indexes[-1].append(len(ids) - len(window))
            laid = laid + new
    padded = bench.batch(question + answer for question, answer in pairs)
    for i, ((index, _), (question, _)) in enumerate(zip(group, pairs, strict=True)):
        end = prompt_end(bench.reading(padded.texts[i]), len(question))
        for row, editor in enumerate(indexes[i]):
            yield key(padded, i, index, row, editor, None if end is None else end + row * step)


def key(padded: Padded, i: int, index: int, row: int, editor: int, place: int | None) -> Row:
    try:
        read = padded.at(editor)
    except EditorRaises as error:
        raise EditorRaises(error.reason, index) from None
    truth = None if place is None else padded.left(i) + place
    return Row(index, "keys", row, "key", read, truth, padded.width, padded.pads(i), padded.ids(i))
