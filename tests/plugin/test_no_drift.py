"""`no_drift` against columns counted from the tokenizer's offsets by the test itself."""

from __future__ import annotations

import os
from functools import cache
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from padcheck.testing import no_drift
from tests.running import SHIPPED, TOKENIZERS, run

from .conftest import Run

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


# --- A batch that is given --------------------------------------------------------------------------------------------------


@cache
def called(name: str) -> Any:
    """The tokenizer as transformers has it, with a pad token."""
    transformers = pytest.importorskip("transformers")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZERS / name / "tokenizer.json"), pad_token="<|pad|>"
    )


def in_batch(batch: Any, rows: list[tuple[str, str, str]]) -> list[int | None]:
    """Column of each subject's last token, from the offsets of the batch itself; None where it was cut off."""
    found: list[int | None] = []
    for offsets, mask, (before, subject, _) in zip(batch["offset_mapping"], batch["attention_mask"], rows, strict=True):
        last = len(before + subject) - 1
        spans = enumerate(zip(offsets, mask, strict=True))
        found.append(max((at for at, ((start, end), real) in spans if real and start <= last < end), default=None))
    return found


OPTIONS = [
    {"padding": True, "pad_to_multiple_of": 32},
    {"padding": "max_length", "max_length": 40},
    {"padding": True, "truncation": True, "max_length": 7},
    {"padding": True},
    {},
]


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(["gpt2-shape", "llama3-shape", "llama2-metaspace", "bert-shape"]),
    st.lists(
        st.tuples(st.sampled_from(BEFORE), st.sampled_from(["Paris", "Eiffel Tower", "US"]), st.sampled_from(AFTER)),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(OPTIONS),
    st.sampled_from(["left", "right"]),
    st.sampled_from(["left", "right"]),
    st.booleans(),
    st.data(),
)
def test_right_columns_of_any_batch_pass_and_others_fail(
    name: str,
    rows: list[tuple[str, str, str]],
    options: dict[str, Any],
    side: str,
    cut: str,
    special: bool,
    data: st.DataObject,
) -> None:
    tokenizer = called(name)
    tokenizer.padding_side, tokenizer.truncation_side = side, cut
    texts, subjects = ["".join(row) for row in rows], [row[1] for row in rows]
    batch = tokenizer(texts, add_special_tokens=special, return_offsets_mapping=True, **options)
    true = in_batch(batch, rows)
    tokenizer.padding_side = "left" if side == "right" else "right"  # what the batch shows counts
    if None in true:
        with pytest.raises(AssertionError, match=r"The batch cuts the subject .* off"):
            no_drift(tokenizer, texts, subjects, [at or 0 for at in true], batch=batch)
        return
    no_drift(tokenizer, texts, subjects, true, batch=batch)
    widths = [len(ids) for ids in batch["input_ids"]]
    no_drift(
        tokenizer,
        texts,
        subjects,
        [at - width for at, width in zip(true, widths, strict=True) if at is not None],
        batch=batch,
    )
    row = data.draw(st.integers(0, len(rows) - 1))
    wrong = data.draw(st.integers(0, widths[row]).filter(lambda column: column != true[row]))
    with pytest.raises(AssertionError, match=f"1 of {len(rows)} indices are not their subject's last token"):
        no_drift(tokenizer, texts, subjects, [*true[:row], wrong, *true[row + 1 :]], batch=batch)


ROWS = [
    ("The flag of ", "Norhold", " is"),
    ("", "Norhold", " is a"),
    ("In a much longer row the town of ", "Norhold", " is also named"),
]
NAMED = ["".join(row) for row in ROWS]


@pytest.fixture(scope="module")
def llama() -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(SHIPPED / "models" / "llama-facts")


@pytest.mark.parametrize("kind", ["pt", "np", None])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_may_be_tensors_arrays_or_lists(kind: str | None, side: str, llama: Any) -> None:
    pytest.importorskip("torch" if kind == "pt" else "numpy")
    llama.padding_side = side
    batch = llama(NAMED, padding=True, pad_to_multiple_of=32, return_tensors=kind, return_offsets_mapping=True)
    true = in_batch({key: values if kind is None else values.tolist() for key, values in batch.items()}, ROWS)
    given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    no_drift(llama, NAMED, "Norhold", true, batch=given)
    with pytest.raises(AssertionError, match=rf"3 of 3 .* \({side} padding\)") as caught:
        no_drift(llama, NAMED, "Norhold", [-1, -1, -1], batch=given)
    assert str(caught.value).count("(column 31: ") == 3


@pytest.mark.parametrize(
    ("options", "side", "words"),
    [
        ({"pad_to_multiple_of": 32}, "left", "a batch of 32 columns."),
        ({"padding": "max_length", "max_length": 41}, "left", "a batch of 41 columns."),
        ({"truncation": True, "max_length": 24}, "left", "a batch of 24 columns."),
        ({"add_special_tokens": False}, "right", "a batch without special tokens."),
        ({"add_special_tokens": False}, "left", "a batch without special tokens."),
        (
            {"add_special_tokens": False, "pad_to_multiple_of": 32},
            "left",
            "a batch of 32 columns.",
        ),
    ],
)
def test_where_the_batch_is_missing_the_failure_asks_for_it(options: Any, side: str, words: str, llama: Any) -> None:
    llama.padding_side, llama.truncation_side = side, "right"
    batch = llama(NAMED, return_offsets_mapping=True, **{"padding": True, **options})
    true = in_batch(batch, ROWS)
    with pytest.raises(AssertionError) as caught:
        no_drift(llama, NAMED, "Norhold", true)
    assert str(caught.value).endswith(f"They are right for {words} If yours is one, give it: no_drift(..., batch=batch).")
    no_drift(llama, NAMED, "Norhold", true, batch=batch)
    wrong = [true[0], true[1], 0]
    with pytest.raises(AssertionError) as caught:
        no_drift(llama, NAMED, "Norhold", wrong)
    assert "batch=batch" not in str(caught.value)


def test_columns_from_the_end_of_a_wider_batch_ask_for_it_too(llama: Any) -> None:
    llama.padding_side = "right"
    batch = llama(NAMED, padding=True, pad_to_multiple_of=32, return_offsets_mapping=True)
    from_end = [at - 32 for at in in_batch(batch, ROWS) if at is not None]
    with pytest.raises(AssertionError, match="They are right for a batch of 32 columns"):
        no_drift(llama, NAMED, "Norhold", from_end)
    no_drift(llama, NAMED, "Norhold", from_end, batch=batch)


def test_the_next_column_is_a_mistake_and_no_other_batch(llama: Any) -> None:
    llama.padding_side = "left"
    batch = llama(NAMED, padding=True, return_offsets_mapping=True)
    assert (len(batch["input_ids"][0]) + 1) % 8
    with pytest.raises(AssertionError) as caught:
        no_drift(llama, NAMED, "Norhold", [at + 1 for at in in_batch(batch, ROWS) if at is not None])
    assert "batch=batch" not in str(caught.value)


def test_a_batch_that_is_not_of_the_texts(llama: Any) -> None:
    llama.padding_side = "left"
    batch = llama(NAMED, padding=True)

    def said(texts: list[str] = NAMED, **more: Any) -> str:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are looked at)
            no_drift(llama, texts, "Norhold", [0] * len(texts), **{"batch": batch, **more})
        return str(caught.value)

    ids, mask = batch["input_ids"], batch["attention_mask"]
    other = said([NAMED[0], "Norhold was a", NAMED[2]])
    assert other.startswith("row 1 of the batch does not hold the tokens of its text 'Norhold was a': they decode to '")
    assert "Norhold is a" in other
    assert said(NAMED[:2]) == "2 texts but the batch has 3 rows"
    assert said(padding_side="left") == "give batch or padding_side, not both: the batch shows its side"
    assert said(batch={"input_ids": ids}) == "the batch must have input_ids and attention_mask, [B, T] each"
    assert said(batch={"input_ids": ids[0], "attention_mask": mask[0]}) == said(batch={"input_ids": ids})
    assert said(batch=7) == said(batch={"input_ids": ids})
    shorter = {"input_ids": ids, "attention_mask": [row[1:] for row in mask]}
    assert said(batch=shorter) == "input_ids and attention_mask of the batch differ in shape"
    gap = {"input_ids": ids, "attention_mask": [mask[0], [1, *mask[1][1:]], mask[2]]}
    assert said(batch=gap) == "the attention_mask of row 1 of the batch has gaps"
    nothing = {"input_ids": ids, "attention_mask": [[0] * len(mask[0]), *mask[1:]]}
    assert said(batch=nothing) == "the attention_mask of row 0 of the batch is 0 everywhere"
    everything = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in mask]}
    assert said(batch=everything).startswith("row 0 of the batch does not hold the tokens of its text")
    with pytest.raises(ValueError, match="3 texts but 2 indices"):
        no_drift(llama, NAMED, "Norhold", [1, 2], batch=batch)


def test_a_text_that_repeats_is_cut_where_the_tokenizer_cuts() -> None:
    """Its first and last tokens are the same: the ids alone do not tell which of them are left."""
    tokenizer = called("gpt2-shape")
    for cut, occurrence, other in ("left", -1, 0), ("right", 0, -1):
        tokenizer.truncation_side = cut
        batch = tokenizer([" Paris" * 6], truncation=True, max_length=3, return_offsets_mapping=True)
        (ids,) = batch["input_ids"]
        assert len(set(ids)) == 1
        column = 2 if cut == "left" else 0
        no_drift(tokenizer, [" Paris" * 6], "Paris", [column], batch=batch, occurrence=occurrence)
        with pytest.raises(AssertionError, match="The batch cuts the subject 'Paris' off"):
            no_drift(tokenizer, [" Paris" * 6], "Paris", [column], batch=batch, occurrence=other)


def test_texts_may_come_one_by_one(llama: Any) -> None:
    llama.padding_side = "left"
    batch = llama(NAMED, padding=True, return_offsets_mapping=True)
    for more in {}, {"batch": batch}:
        no_drift(llama, (text for text in NAMED), "Norhold", iter(in_batch(batch, ROWS)), **more)  # type: ignore[arg-type]


def test_the_traceback_ends_in_the_test(pytester: pytest.Pytester, inner: Run) -> None:
    pytester.makepyfile(
        """
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from tokenizers.pre_tokenizers import Whitespace
        TOKENIZER = Tokenizer(WordLevel({"Paris": 0, "is": 1}, unk_token="is"))
        TOKENIZER.pre_tokenizer = Whitespace()

        def test_wrong(no_drift):
            no_drift(TOKENIZER, ["Paris is"], "Paris", [1], padding_side="right")

        def test_no_integer(no_drift):
            no_drift(TOKENIZER, ["Paris is"], "Paris", [None])

        def test_no_batch(no_drift):
            no_drift(TOKENIZER, ["Paris is"], "Paris", [0], batch={})

        def test_another_batch(no_drift):
            no_drift(TOKENIZER, ["Paris is"], "Paris", [0], batch={"input_ids": [[1, 0]], "attention_mask": [[1, 1]]})

        def test_right(no_drift):
            no_drift(TOKENIZER, ["Paris is"], "Paris", [1], batch={"input_ids": [[9, 0, 1]], "attention_mask": [[0, 1, 1]]})
        """
    )
    result = inner()
    result.assert_outcomes(failed=4, passed=1)
    assert "padcheck/testing" not in result.stdout.str().replace(os.sep, "/")


def test_indices_are_integers(llama: Any) -> None:
    for wrong in ([3.9], [None], [[3]], ["3"]):
        with pytest.raises(ValueError, match=r"index 0 is .*, which is no integer"):
            no_drift(llama, NAMED[:1], "Norhold", wrong)
