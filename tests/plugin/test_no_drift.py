"""`no_drift` against columns counted from the tokenizer's offsets by the test itself."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from padcheck.testing import no_drift
from tests.running import TOKENIZERS, run

FAMILIES = ["gpt2-shape", "llama3-shape", "llama2-metaspace", "qwen-shape"]
BEFORE = ["", "The capital of ", "中国的首都是 ", "Once upon a time, far from here, ", "ß and é: "]
SUBJECTS = ["Paris", "Eiffel Tower", "東京", "Frédéric Chopin", "US"]
AFTER = ["", " is", " is said to be the most visited monument that one pays for", "，在哪里？"]
TEXT = st.tuples(st.sampled_from(BEFORE), st.sampled_from(SUBJECTS), st.sampled_from(AFTER))


@cache
def tokenizer(name: str) -> Any:
    return Tokenizer.from_file(str(TOKENIZERS / name / "tokenizer.json"))


def columns(name: str, rows: list[tuple[str, str, str]], side: str) -> tuple[list[int], list[int], int]:
    """Column of each subject's last token and pads of its row, and the width: from offsets, row by row."""
    found, lengths = [], []
    for before, subject, after in rows:
        encoding = tokenizer(name).encode(before + subject + after)
        last_character = len(before + subject) - 1
        found.append(max(at for at, (start, end) in enumerate(encoding.offsets) if start <= last_character < end))
        lengths.append(len(encoding.ids))
    width = max(lengths)
    pads = [width - length for length in lengths]
    return [at + pad if side == "left" else at for at, pad in zip(found, pads, strict=True)], pads, width


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FAMILIES), st.lists(TEXT, min_size=1, max_size=5), st.sampled_from(["left", "right"]), st.data())
def test_right_columns_pass_and_any_other_fails(
    name: str, rows: list[tuple[str, str, str]], side: Any, data: st.DataObject
) -> None:
    texts, subjects = ["".join(row) for row in rows], [row[1] for row in rows]
    true, _, width = columns(name, rows, side)
    no_drift(tokenizer(name), texts, subjects, true, padding_side=side)
    no_drift(tokenizer(name), texts, subjects, [column - width for column in true], padding_side=side)
    at = data.draw(st.integers(0, len(rows) - 1))
    wrong = data.draw(st.integers(-width, width - 1).filter(lambda column: column % width != true[at]))
    with pytest.raises(
        AssertionError, match=rf"1 of {len(rows)} indices are not their subject's last token \({side} padding\)"
    ):
        no_drift(tokenizer(name), texts, subjects, [*true[:at], wrong, *true[at + 1 :]], padding_side=side)


def test_the_failure_shows_the_tokens() -> None:
    texts = ["Paris is", "They say that Paris is the capital of France"]
    true, pads, _ = columns(
        "gpt2-shape", [("", "Paris", " is"), ("They say that ", "Paris", " is the capital of France")], "left"
    )
    naive = [true[0] - pads[0], true[1]]
    with pytest.raises(AssertionError) as caught:
        no_drift(tokenizer("gpt2-shape"), texts, "Paris", naive, padding_side="left")
    said = str(caught.value)
    assert "1 of 2 indices are not their subject's last token (left padding)" in said
    assert f"drift -{pads[0]}" in said
    assert "[pad]" in said
    assert f"(column {naive[0]}: <pad>, padding)" in said
    assert f"(column {true[0]})" in said
    assert "They say" not in said  # that row is right


def test_many_rows_are_shown_in_part() -> None:
    texts = ["Paris is", *["They say that Paris is the capital"] * 20]
    with pytest.raises(AssertionError, match="21 of 21 indices") as caught:
        no_drift(tokenizer("gpt2-shape"), texts, "Paris", [-1] * 21, padding_side="right")
    assert "13 more rows are wrong." in str(caught.value)


def test_occurrence_and_templates() -> None:
    name, text = "gpt2-shape", "Paris or Paris"
    first, _, _ = columns(name, [("", "Paris", " or Paris")], "right")
    last, _, _ = columns(name, [("Paris or ", "Paris", "")], "right")
    no_drift(tokenizer(name), [text], "Paris", last, padding_side="right")
    no_drift(tokenizer(name), [text], "Paris", first, padding_side="right", occurrence=0)
    no_drift(tokenizer(name), ["{} or Paris"], "Paris", first, padding_side="right")


@pytest.mark.parametrize("side", ["left", "right"])
def test_another_mention_is_named_with_the_page_about_it(side: Literal["left", "right"]) -> None:
    name, texts = "gpt2-shape", ["Rome fell. Who sacked {} in", "A much longer row stands beside it, and it names {} too"]
    rows = [("", "Rome", " fell. Who sacked Rome in"), (texts[1].removesuffix("{} too"), "Rome", " too")]
    indices, _, _ = columns(name, rows, side)
    with pytest.raises(AssertionError, match="1 of 2 indices") as caught:
        no_drift(tokenizer(name), texts, "Rome", indices, padding_side=side)
    assert "another occurrence" in str(caught.value)
    assert "padcheck explain IDX105" in str(caught.value)
    assert run("explain", "IDX105").out.startswith("# IDX105")


def test_a_subject_that_is_not_there_has_no_column() -> None:
    with pytest.raises(AssertionError, match=r"The subject 'Rome' is not in the text"):
        no_drift(tokenizer("gpt2-shape"), ["Paris is"], "Rome", [0], padding_side="right")


def test_usage() -> None:
    with pytest.raises(ValueError, match="2 texts but 1 indices"):
        no_drift(tokenizer("gpt2-shape"), ["Paris", "Paris is"], "Paris", [0], padding_side="left")
    with pytest.raises(ValueError, match="padding_side"):
        no_drift(tokenizer("gpt2-shape"), ["Paris"], "Paris", [0])


def test_tensors_are_indices_too() -> None:
    torch = pytest.importorskip("torch")
    true, _, _ = columns("gpt2-shape", [("The ", "Paris", " is"), ("", "Paris", "")], "left")
    no_drift(tokenizer("gpt2-shape"), ["The Paris is", "Paris"], "Paris", torch.tensor(true), padding_side="left")
