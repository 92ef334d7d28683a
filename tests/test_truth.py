"""Where the subject truly stands: named by `measure` just as the row's tokens, spelled out and counted, have it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, event, given, settings

from padcheck import locate
from padcheck.positions.truth import Measured, by_decoding, first_visible, last_visible, measure
from padcheck.sources.token_readers import FastReader
from tests.running import HONEST, LYING
from tests.texts import Spelled, bytes_before, form, load, spell, texts_and_subjects, visible

QUICK = settings(max_examples=60, deadline=None)


class Truth:
    """One row, spelled out. `first` and `last`: columns of the subject's first and last token, None where it cannot be told."""

    def __init__(self, name: str, text: str, start: int, end: int) -> None:
        self.name, self.text = name, text
        self.tokenizer: Any = load(name)
        self.encoded = self.tokenizer.encode(text)
        self.spelled: Spelled = spell(name, self.tokenizer, self.encoded)
        self.lossless = self.spelled.whole == visible(form(name, text)).encode()
        before = bytes_before(name, text, first_visible(text, start, end))
        upto = bytes_before(name, text, last_visible(text, start, end) + 1)
        self.first = self.spelled.first(before) if self.lossless and before is not None else None
        self.last = self.spelled.last(upto) if self.lossless and upto is not None else None

    def blank_between(self, one: int, other: int) -> bool:
        """Whether the tokens from column `one` up to `other` hold no visible byte."""
        numbers = [self.spelled.columns.index(column) for column in sorted((one, other))]
        before = self.spelled.ends[numbers[0] - 1] if numbers[0] else 0
        return self.spelled.ends[numbers[1] - 1] == before if numbers[1] else True


def measured(name: str, text: str, start: int, end: int) -> Measured:
    tokenizer = load(name)
    return measure(tokenizer.encode(text), text, start, end, len(text), FastReader(tokenizer))


@pytest.mark.parametrize("name", HONEST)
@QUICK
@given(case=texts_and_subjects())
def test_the_subjects_tokens(name: str, case: tuple[str, int, int]) -> None:
    text, start, end = case
    truth = Truth(name, text, start, end)
    assume(truth.lossless)
    found = measured(name, text, start, end)
    event(found.oracle)
    assert (
        found.oracle != "none" or form(name, text) != text
    )  # a character that was put together is found by its offsets or not at all
    if found.oracle == "none":
        return
    if truth.last is not None:
        assert found.last == truth.last
    if truth.first is not None:
        assert found.first is not None
        # By its offsets a lone ▁ before the row's first word belongs to that word's first character.
        assert found.first == truth.first or (found.first < truth.first and truth.blank_between(found.first, truth.first))


@pytest.mark.parametrize("name", HONEST)
@QUICK
@given(case=texts_and_subjects())
def test_decoding_growing_prefixes_says_the_same(name: str, case: tuple[str, int, int]) -> None:
    """The fallback, asked where it is not needed."""
    text, start, end = case
    truth = Truth(name, text, start, end)
    assume(truth.last is not None)
    columns = truth.spelled.columns
    ids = [truth.encoded.ids[column] for column in columns]
    answer = by_decoding(FastReader(truth.tokenizer), ids, text, [last_visible(text, start, end)])
    assume(answer is not None)  # a decoder that does not give the text back is not believed
    assert answer is not None
    assert columns[0] + answer[0][1] == truth.last


@pytest.mark.parametrize("name", LYING)
@QUICK
@given(case=texts_and_subjects())
def test_lies_are_not_believed(name: str, case: tuple[str, int, int]) -> None:
    text, start, end = case
    truth = Truth(name, text, start, end)
    found = measured(name, text, start, end)
    event(found.oracle)
    if found.oracle == "none":
        assert (found.first, found.last, found.prompt_last) == (None, None, None)
    elif truth.last is not None:
        assert found.last == truth.last


@pytest.mark.parametrize(
    ("name", "text", "subject"),
    [
        ("lying-zero-width", "The capital of France is", "France"),
        ("lying-overlap", "The capital of France is", "France"),
        ("lying-shifted", "The capital of France is", "France"),
    ],
)
def test_a_lie_makes_decoding_speak(name: str, text: str, subject: str) -> None:
    start = text.index(subject)
    found = measured(name, text, start, start + len(subject))
    assert found.oracle == "decode"
    assert found.last == Truth(name, text, start, start + len(subject)).last


def test_byte_tokens_of_one_character() -> None:
    """東京 in GPT-2: `char_to_token` names the first of the tokens that share 京, the subject's last token is their last."""
    text = "東京は"
    found = measured("gpt2-shape", text, 0, 2)
    encoded = load("gpt2-shape").encode(text)
    holding = [at for at, (start, end) in enumerate(encoded.offsets) if start <= 1 < end]
    assert len(holding) > 1, "the fixture splits 京 into several tokens"
    assert encoded.char_to_token(1) == holding[0]
    assert found.last == holding[-1]
    assert found.oracle == "offsets"


@pytest.mark.parametrize("name", [name for name in HONEST if load(name).token_to_id("<0x0A>") is not None])
def test_byte_fallback_of_one_character(name: str) -> None:
    text = "The sign 🖋 is"
    found = measured(name, text, 9, 10)
    tokens = load(name).encode(text).tokens
    assert tokens[found.last or 0] == "<0x8B>"
    assert tokens[found.first or 0] == "<0xF0>"


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_padded_batch_of_the_tokenizer_itself(name: str, side: str) -> None:
    """The columns that `locate` gives are those of the batch that the tokenizer pads."""
    texts = ["The capital of France is", "France", "In those days, long ago, the capital of France was", "Did France win?"]
    padded = type(load(name)).from_str(load(name).to_str())
    padded.enable_padding(direction=side, pad_id=0, pad_token="[PAD]")
    rows = padded.encode_batch(texts)
    for row, span in zip(rows, locate(load(name), texts, "France", padding_side=side), strict=True):  # type: ignore[arg-type]
        assert span.width == len(row.ids)
        assert span.pads == row.attention_mask.count(0)
        assert span.first is not None
        assert span.last is not None
        ids = row.ids[span.first : span.last + 1]
        assert visible(load(name).decode(ids, skip_special_tokens=False)) == "France"
        assert 0 not in row.attention_mask[span.first : span.last + 1]


@pytest.mark.parametrize("name", HONEST)
@QUICK
@given(case=texts_and_subjects())
def test_a_side_moves_every_position_by_the_rows_pads(name: str, case: tuple[str, int, int]) -> None:
    text, start, end = case
    subject = text[start:end]
    assume("{}" not in text)
    batch = [text, text + " and so on, and so on"]
    (right, longest), (left, longest_left) = (
        locate(load(name), batch, subject, padding_side=side, occurrence=0) for side in ("right", "left")
    )
    assert longest == longest_left
    assert right.pads == left.pads == right.width - right.length
    for one, other in zip((right.first, right.last, right.after), (left.first, left.last, left.after), strict=True):
        assert (one is None) == (other is None)
        assert one is None or other == one + right.pads
    assert right.naive == left.naive


def test_honest_rows_have_spans_that_go_forward() -> None:
    """What `measure` tests before it believes offsets, on a row with everything."""
    for name in HONEST:
        encoded = load(name).encode("Miles Davis played in 1969, didn't he?")
        spans = [span for span, special in zip(encoded.offsets, encoded.special_tokens_mask, strict=True) if not special]
        assert all(start < end for start, end in spans)
        assert all(one <= other for one, other in pairwise(spans))
