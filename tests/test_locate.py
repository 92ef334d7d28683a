"""`locate`: columns in the padded batch, and every cause of a wrong index told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from padcheck import locate
from padcheck.locating import Span
from tests.texts import load


def tokens(name: str, span: Span, side: str = "right") -> list[str]:
    """The tokens of the subject, read from the row by the span's columns."""
    assert span.first is not None
    assert span.last is not None
    shift = span.pads if side == "left" else 0
    return list(load(name).encode(span.text).tokens[span.first - shift : span.last - shift + 1])


LONG = "In those days, long before the war, nobody in the whole country had heard of Paris"

# name, texts, subject, options, causes of the first row's naive index
CAUSES: list[tuple[str, str, list[str], str, dict[str, Any], tuple[str, ...]]] = [
    ("right padding moves nothing", "gpt2-shape", ["Paris is in", LONG], "Paris", {"padding_side": "right"}, ()),
    ("pads", "gpt2-shape", ["Paris is in", LONG], "Paris", {"padding_side": "left"}, ("pads",)),
    ("the longest row has none", "gpt2-shape", [LONG, "Paris is in"], "Paris", {"padding_side": "left"}, ()),
    ("rows of equal length have none", "gpt2-shape", ["Paris is in", "Paris is in"], "Paris", {"padding_side": "left"}, ()),
    ("EOS after the part", "t5-shape", ["The city of Paris is in"], "Paris", {"padding_side": "right"}, ("special_tokens",)),
    ("SEP after the part", "bert-shape", ["The city of Paris is in"], "Paris", {"padding_side": "right"}, ("special_tokens",)),
    ("BOS before both", "llama2-metaspace", ["The city of Paris is in"], "Paris", {"padding_side": "right"}, ()),
    ("a prefix before both", "chatglm-shape", ["The city of Paris is in"], "Paris", {"padding_side": "right"}, ()),
    ("pads and SEP", "bert-shape", ["The city of Paris is in", LONG], "Paris", {"padding_side": "left"}, ("pads", "special_tokens")),
    ("a token that is shared, found all the same", "qwen-shape", ["北京大学的校长是"], "北京", {"padding_side": "right"}, ("shared",)),
    ("a lone space at the cut", "gpt2-shape", ["The city of Paris is in"], "Paris ", {"padding_side": "right"}, ("boundary",)),
    ("twice", "gpt2-shape", ["Paris, Texas, is not Paris in France"], "Paris", {"padding_side": "right"}, ("occurrence",)),
    ("absent", "gpt2-shape", ["The capital of Spain is"], "Paris", {"padding_side": "right"}, ("absent",)),
    ("cut off", "gpt2-shape", ["The city of Paris is in"], "Paris", {"padding_side": "right", "max_length": 2}, ("truncation",)),
    ("cut behind it", "gpt2-shape", ["Paris is in the north of"], "Paris", {"padding_side": "right", "max_length": 3}, ()),
]  # fmt: skip


@pytest.mark.parametrize(("case", "name", "texts", "subject", "options", "causes"), CAUSES, ids=[case[0] for case in CAUSES])
def test_causes_are_told_apart(
    case: str, name: str, texts: list[str], subject: str, options: dict[str, Any], causes: tuple[str, ...]
) -> None:
    span = locate(load(name), texts, subject, **options)[0]
    assert span.causes == causes


def test_a_merged_token() -> None:
    tokenizer = Tokenizer(
        models.BPE(vocab={letter: n for n, letter in enumerate("ab ")} | {"b ": 3, "ab": 4}, merges=[("b", " "), ("a", "b")])
    )
    (span,) = locate(tokenizer, ["ab a"], "ab", padding_side="right")
    assert tokenizer.encode("ab a").tokens == ["a", "b ", "a"]
    assert tokenizer.encode("ab").tokens == ["ab"]
    assert (span.first, span.last, span.naive, span.drift) == (0, 1, 0, -1)
    assert span.causes == ("boundary",)  # what follows in the token is a space: nothing visible is shared
    tokenizer = Tokenizer(
        models.BPE(vocab={letter: n for n, letter in enumerate("abc")} | {"bc": 3, "ab": 4}, merges=[("b", "c"), ("a", "b")])
    )
    (span,) = locate(tokenizer, ["abca"], "ab", padding_side="right")
    assert tokenizer.encode("abca").tokens == ["a", "bc", "a"]
    assert (span.first, span.last, span.naive) == (0, 1, 0)
    assert span.causes == ("merged", "shared")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "name", ["gpt2-shape", "llama2-metaspace", "llama2-prepend", "qwen-shape", "t5-shape", "bert-shape", "chatglm-shape"]
)
def test_columns_on_both_sides(name: str, side: str) -> None:
    texts = ["The Eiffel Tower is in", "Who painted it in the Eiffel Tower?", "Eiffel Tower"]
    for span in locate(load(name), texts, "Eiffel Tower", padding_side=side):  # type: ignore[arg-type]
        assert (
            "".join(tokens(name, span, side)).replace("Ġ", " ").replace("▁", " ").replace("##", "").replace(" ", "")
            == "EiffelTower"
        )
        assert span.start is not None
        assert span.text[span.start : span.end] == "Eiffel Tower"
        assert span.width == max(len(load(name).encode(text).ids) for text in texts)
        assert span.last is not None
        follows = bool(span.text[span.end :].strip())
        assert span.after == span.last + follows


def test_a_field_is_filled_in() -> None:
    filled, plain = locate(
        load("gpt2-shape"), ["The city of {} is in", "The city of Paris is in"], "Paris", padding_side="right"
    )
    assert filled == plain


def test_a_field_says_which_occurrence_is_meant() -> None:
    text = "Paris is not the {} in Texas"
    (span,) = locate(load("gpt2-shape"), [text], "Paris", padding_side="right")
    assert span.start == text.index("{}")
    assert span.causes == ("occurrence",)


def test_braces_that_are_no_field_are_text() -> None:
    (span,) = locate(load("gpt2-shape"), ["{} and {} and Paris"], "Paris", padding_side="right")
    assert span.text == "{} and {} and Paris"
    assert span.start == 14


@pytest.mark.parametrize(("occurrence", "start"), [(None, 18), (0, 0), (1, 10), (2, 18), (-1, 18), (-3, 0)])
def test_repeated_subjects(occurrence: int | None, start: int) -> None:
    (span,) = locate(load("gpt2-shape"), ["Paris and Paris + Paris"], "Paris", padding_side="right", occurrence=occurrence)
    assert (span.start, span.end) == (start, start + 5)
    assert "occurrence" in span.causes


def test_an_occurrence_that_is_not_there() -> None:
    (span,) = locate(load("gpt2-shape"), ["Paris and Paris"], "Paris", padding_side="right", occurrence=2)
    assert (span.first, span.last, span.after, span.naive, span.drift) == (None,) * 5
    assert span.causes == ("absent",)


def test_one_subject_for_each_text() -> None:
    texts = ["Paris is in France", "Rome is in Italy"]
    spans = locate(load("gpt2-shape"), texts, ["France", "Rome"], padding_side="right")
    assert [span.text[span.start : span.end] for span in spans] == ["France", "Rome"]
    with pytest.raises(ValueError, match="2 texts but 1 subjects"):
        locate(load("gpt2-shape"), texts, ["France"], padding_side="right")


def test_a_side_is_needed_and_may_be_the_tokenizers() -> None:
    with pytest.raises(ValueError, match="padding_side"):
        locate(load("gpt2-shape"), ["Paris"], "Paris")
    padded = Tokenizer.from_str(load("gpt2-shape").to_str())
    padded.enable_padding(direction="left", length=None)
    short, _ = locate(padded, ["Paris", LONG], "Paris")
    assert short.causes == ("pads",)
    assert short.pads > 0


def test_nothing_is_not_a_batch() -> None:
    assert locate(load("gpt2-shape"), [], "Paris", padding_side="left") == []


@pytest.mark.parametrize(("text", "subject"), [("", "Paris"), ("Paris", ""), ("   ", " ")])
def test_empty_texts_and_subjects_are_no_crash(text: str, subject: str) -> None:
    (span,) = locate(load("gpt2-shape"), [text], subject, padding_side="right")
    assert span.last is None or subject == " "


def test_truncation_moves_nothing_that_is_left() -> None:
    texts = ["The city of Paris is in the north of the country", "Paris"]
    whole = locate(load("gpt2-shape"), texts, "Paris", padding_side="left")
    cut = locate(load("gpt2-shape"), texts, "Paris", padding_side="left", max_length=6)
    assert cut[0].width == 6
    assert cut[1].pads == 6 - cut[1].length
    assert cut[0].last is not None
    assert whole[0].last == cut[0].last  # the first row is the longest in both
    assert cut[0].causes == ()


def test_truncation_may_take_the_end_of_the_subject_alone() -> None:
    text = "The Great Barrier Reef lies off"
    (whole,) = locate(load("gpt2-shape"), [text], "Great Barrier Reef", padding_side="right")
    assert whole.last is not None
    (cut,) = locate(load("gpt2-shape"), [text], "Great Barrier Reef", padding_side="right", max_length=whole.last)
    assert cut.first == whole.first
    assert (cut.last, cut.after) == (None, None)
    assert cut.causes == ("truncation",)


class SlowTokenizer:
    """What a slow tokenizer of transformers offers: it is called, it decodes, and it has no offsets. Words are tokens here."""

    padding_side = "left"

    def __init__(self, *, bos: bool = True) -> None:
        self.words: list[str] = ["<s>"]
        self.bos = bos

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = []
        for word in text.split():
            if word not in self.words:
                self.words.append(word)
            ids.append(self.words.index(word))
        return {"input_ids": [0, *ids] if add_special_tokens and self.bos else ids}

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [self.words[one] for one in ids]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[one] for one in ids)


@pytest.mark.parametrize("bos", [True, False])
def test_slow_tokenizers_are_read_by_decoding(bos: bool) -> None:
    texts = ["Paris is in", "The old city of Paris is in"]
    short, long = locate(SlowTokenizer(bos=bos), texts, "Paris")
    assert (short.oracle, long.oracle) == ("decode", "decode")
    assert (short.pads, long.pads) == (4, 0)
    assert (short.first, short.last, short.after) == (4 + bos, 4 + bos, 5 + bos)
    assert (long.first, long.last, long.after) == (4 + bos, 4 + bos, 5 + bos)
    assert short.causes == ("pads",)
    assert long.causes == ()


class Shouting(SlowTokenizer):
    """Its words come back changed: decoding proves nothing."""

    def decode(self, ids: Sequence[int]) -> str:
        return super().decode(ids).upper()


def test_where_nothing_can_be_trusted_nothing_is_said() -> None:
    (span,) = locate(Shouting(), ["The city of Paris is in"], "Paris")
    assert span.oracle == "none"
    assert (span.first, span.last, span.after, span.naive, span.drift) == (None,) * 5
    assert span.causes == ()


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(TypeError, match="no tokenizer"):
        locate(object(), ["Paris"], "Paris", padding_side="left")


def test_the_batch_is_encoded_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than one chunk: the width is that of all of them."""
    monkeypatch.setattr("padcheck.locating.CHUNK", 3)
    texts = [f"Paris is in {'very ' * number}far" for number in range(10)]
    spans = locate(load("gpt2-shape"), texts, "Paris", padding_side="left")
    assert {span.width for span in spans} == {spans[-1].length}
    assert [span.pads for span in spans] == [span.width - span.length for span in spans]
    assert [span.causes for span in spans] == [("pads",)] * 9 + [()]
