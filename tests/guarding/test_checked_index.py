"""`@padcheck.checked_index` on an editor that nobody knows."""

from __future__ import annotations

from typing import Any

import pytest

import padcheck
from padcheck import DriftError, DriftWarning
from tests.guarding.kit import token_of, tokenizer

PROMPTS = ["The Eiffel Tower is in", "The mother tongue of Danielle Darrieux, who lives by the river, is", "Lyon is"]
SUBJECTS = ["Eiffel Tower", "Danielle Darrieux", "Lyon"]

pytestmark = pytest.mark.filterwarnings("ignore:padcheck.guard padded:padcheck.DriftWarning")


@padcheck.checked_index
def find(tok: Any, prompt: str, subject: str) -> int:
    """Counted on the unpadded text, as they all do."""
    return len(tok.encode(prompt[: prompt.index(subject) + len(subject)])) - 1


@padcheck.checked_index(text="lines", subject="names")
def find_all(lines: list[str], names: list[str], tok: Any) -> list[list[int]]:
    return [[len(tok.encode(line[: line.index(name) + len(name)])) - 1] for line, name in zip(lines, names, strict=True)]


@padcheck.checked_index(token="last")
def find_last(prompt: str) -> int:
    return -1


@padcheck.checked_index(token="subtoken")
def find_named(tok: Any, template: str, word: str, subtoken: str) -> int:
    before, after = template.split("{}")
    if subtoken == "first":
        return len(tok.encode(before)) - len(tok.encode(before + word + after))
    return len(tok.encode(before + word)) - 1


def read(tok: Any, texts: list[str], columns: list[int]) -> list[str]:
    batch = tok(texts, padding=True)
    rows = [tok.convert_ids_to_tokens(row) for row in batch["input_ids"]]
    return [row[column] for row, column in zip(rows, columns, strict=True)]


def wanted(tok: Any) -> list[str]:
    return [token_of(tok, text, text.index(name) + len(name) - 1) for text, name in zip(PROMPTS, SUBJECTS, strict=True)]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["gpt2-shape", "llama2-metaspace", "llama3-shape"])
def test_counted_before_the_batch(name: str, side: str) -> None:
    tok = tokenizer(name, side)
    with padcheck.guard(tok) as watch:
        columns = [find(tok, text, subject) for text, subject in zip(PROMPTS, SUBJECTS, strict=True)]
        assert read(tok, PROMPTS, columns) == wanted(tok)
        assert tok.padding_side == side
        evaluated = tok(["a b c", "a"], padding=True)
        assert evaluated["attention_mask"][1][0] == (side == "right"), "other batches keep their side"
    report = watch.report()
    assert report["outcome"] == ("corrected" if side == "left" else "right")
    assert [(site["kind"], site["positions"]["checked"]) for site in report["sites"]] == [("checked_index", 3)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_counted_after_the_batch(side: str) -> None:
    tok = tokenizer(side=side)
    with padcheck.guard(tok) as watch:
        rows = [tok.convert_ids_to_tokens(row) for row in tok(PROMPTS, padding=True)["input_ids"]]
        columns = [find(tok, text, subject) for text, subject in zip(PROMPTS, SUBJECTS, strict=True)]
    assert [row[column] for row, column in zip(rows, columns, strict=True)] == wanted(tok)
    assert watch.report()["positions"]["corrected"] == (2 if side == "left" else 0)


def test_lists_and_other_names() -> None:
    tok = tokenizer(side="left")
    with padcheck.guard(tok):
        columns = find_all(PROMPTS, SUBJECTS, tok)
        assert read(tok, PROMPTS, [own for (own,) in columns]) == wanted(tok)


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_index_counted_from_the_end_gets_left_padding(side: str) -> None:
    tok = tokenizer(side=side)
    with padcheck.guard(tok):
        columns = [find_last(text) for text in PROMPTS]
        assert columns == [-1, -1, -1]
        assert read(tok, PROMPTS, columns) == [token_of(tok, text, len(text) - 1) for text in PROMPTS]


def test_a_row_that_goes_on_behind_the_prompt() -> None:
    tok = tokenizer(side="left")
    rows = [text + " Rome and Manila" for text in PROMPTS]
    with padcheck.guard(tok):
        columns = [find(tok, text, subject) for text, subject in zip(PROMPTS, SUBJECTS, strict=True)]
        assert read(tok, rows, columns) == wanted(tok)


@padcheck.checked_index
def find_first(tok: Any, prompt: str, subject: str) -> int:
    """Searches the row: the first mention wins."""
    row = prompt.replace("{}", subject)
    return len(tok.encode(row[: row.index(subject) + len(subject)])) - 1


MENTIONS = ["Rome fell. Who sacked {} in", "A much longer row stands beside it, and it names {} too"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_index_on_another_mention(side: str) -> None:
    tok = tokenizer(side=side)
    rows = [template.format("Rome") for template in MENTIONS]
    with pytest.raises(DriftError, match="another occurrence") as caught, padcheck.guard(tok, policy="fail"):
        read(tok, rows, [find_first(tok, template, "Rome") for template in MENTIONS])
    assert "padcheck explain IDX105" in str(caught.value)
    with padcheck.guard(tok):
        columns = [find_first(tok, template, "Rome") for template in MENTIONS]
        assert read(tok, rows, columns) == [token_of(tok, row, row.rindex("Rome") + 3) for row in rows]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("late", [True, False])
def test_which_mention_is_meant_in_a_row_without_braces_is_not_guessed(side: str, late: bool) -> None:
    tok = tokenizer(side=side)
    rows = [template.format("Rome") for template in MENTIONS]
    with padcheck.guard(tok):
        before = tok(rows, padding=True)["input_ids"] if late else None
        columns = [find_first(tok, row, "Rome") for row in rows]
        batch = before or tok(rows, padding=True)["input_ids"]
    tokens = [tok.convert_ids_to_tokens(row)[column] for row, column in zip(batch, columns, strict=True)]
    assert tokens == [token_of(tok, row, row.index("Rome") + 3) for row in rows]


@pytest.mark.parametrize(("which", "character"), [("first", 4), ("last", -1)])
def test_the_token_may_be_said_by_a_parameter(which: str, character: int) -> None:
    tok = tokenizer(side="left")
    text = "The Eiffel Tower is in"
    at = text.index("Eiffel") if which == "first" else text.index("Tower") + 4
    with padcheck.guard(tok):
        column = find_named(tok, "The {} is in", "Eiffel Tower", which)
        (token, *_) = read(tok, [text, "A much longer row stands beside it, and it is longer by far"], [column, column])
    assert token == token_of(tok, text, at)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_padded_from_ids(side: str) -> None:
    tok = tokenizer(side=side)
    encoded = [{"input_ids": tok.encode(text), "attention_mask": [1] * len(tok.encode(text))} for text in PROMPTS]
    with padcheck.guard(tok) as watch:
        rows = [tok.convert_ids_to_tokens(row) for row in tok.pad(encoded)["input_ids"]]
        columns = [find(tok, text, subject) for text, subject in zip(PROMPTS, SUBJECTS, strict=True)]
    assert [row[column] for row, column in zip(rows, columns, strict=True)] == wanted(tok)
    assert watch.report()["positions"]["corrected"] == (2 if side == "left" else 0)


@pytest.mark.parametrize("first", ["index", "batch"])
def test_fail(first: str) -> None:
    tok = tokenizer(side="left")

    def both() -> None:
        if first == "index":
            find(tok, PROMPTS[0], SUBJECTS[0])
        tok(PROMPTS, padding=True)
        if first == "batch":
            find(tok, PROMPTS[0], SUBJECTS[0])

    with pytest.raises(DriftError, match=r"test_checked_index\.find") as caught, padcheck.guard(tok, policy="fail"):
        both()
    (row,) = caught.value.rows
    assert row["drift"] < 0
    assert row["cause"] == "pads"
    tok.padding_side = "right"
    with padcheck.guard(tok, policy="fail"):
        both()


def test_warn() -> None:
    tok = tokenizer(side="left")

    def run() -> None:
        for text, subject in zip(PROMPTS, SUBJECTS, strict=True):
            find(tok, text, subject)
        tok(PROMPTS, padding=True)

    with pytest.warns(DriftWarning, match="find") as caught, padcheck.guard(tok, policy="warn"):
        run()
    assert len(caught) == 1


def test_columns_of_both_signs_in_one_batch() -> None:
    tok = tokenizer(side="left")

    def both() -> None:
        find(tok, PROMPTS[0], SUBJECTS[0])
        find_last(PROMPTS[2])
        tok(PROMPTS, padding=True)

    with pytest.raises(DriftError, match="no padding side is right for both"), padcheck.guard(tok):
        both()


def test_a_column_for_no_batch() -> None:
    tok = tokenizer(side="left")
    with pytest.warns(DriftWarning, match=r"find.*for rows that no batch"), padcheck.guard(tok):
        find(tok, PROMPTS[0], SUBJECTS[0])


def test_outside_a_guard_the_function_is_as_it_was() -> None:
    tok = tokenizer(side="left")
    own = len(tok.encode("The Eiffel Tower")) - 1
    assert find(tok, PROMPTS[0], SUBJECTS[0]) == own
    assert find.__name__ == "find"
    assert find.__doc__ == "Counted on the unpadded text, as they all do."
    with pytest.warns(DriftWarning, match="another tokenizer"), padcheck.guard(tokenizer(side="left")):
        assert find(tok, PROMPTS[0], SUBJECTS[0]) == own, "another tokenizer is guarded"


@pytest.mark.parametrize("policy", ["correct", "fail"])
def test_a_subject_that_truncation_cuts_off(policy: Any) -> None:
    tok = tokenizer(side="right")

    def both() -> None:
        find(tok, PROMPTS[1], SUBJECTS[1])
        tok(PROMPTS, padding=True, truncation=True, max_length=5)

    with pytest.raises(DriftError) as caught, padcheck.guard(tok, policy=policy):
        both()
    assert [row["cause"] for row in caught.value.rows] == ["truncation"]


def test_arrays_keep_their_kind() -> None:
    numpy = pytest.importorskip("numpy")

    @padcheck.checked_index(text="texts", subject="words")
    def columns_of(tok: Any, texts: list[str], words: list[str]) -> Any:
        return numpy.array(
            [[len(tok.encode(text[: text.index(word) + len(word)])) - 1] for text, word in zip(texts, words, strict=True)]
        )

    tok = tokenizer(side="left")
    with padcheck.guard(tok):
        rows = [tok.convert_ids_to_tokens(row) for row in tok(PROMPTS, padding=True)["input_ids"]]
        columns = columns_of(tok, PROMPTS, SUBJECTS)
    assert (type(columns).__name__, columns.shape) == ("ndarray", (3, 1))
    assert [row[int(column)] for row, column in zip(rows, columns[:, 0], strict=True)] == wanted(tok)


def test_functions_whose_parameters_say_nothing() -> None:
    with pytest.raises(
        TypeError, match=r"no parameter is known to hold the text; name it with @padcheck.checked_index\(text="
    ):
        padcheck.checked_index(lambda a, subject: 0)
    with pytest.raises(TypeError, match="no parameter is known to hold the subject"):
        padcheck.checked_index(lambda prompt, b: 0)
    with pytest.raises(TypeError, match="has no parameter 'line'"):
        padcheck.checked_index(text="line")(lambda prompt, subject: 0)
    with pytest.raises(TypeError, match="neither one of subject_last"):
        padcheck.checked_index(token="subject_lats")(lambda prompt, subject: 0)
