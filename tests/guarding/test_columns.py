"""Columns of `checked_index` functions and every batch that holds their rows: once, again, wider, beside, inside, nested."""

from __future__ import annotations

import asyncio
import random
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import padcheck
from padcheck import DriftError, DriftWarning
from tests.guarding.kit import token_of, tokenizer

PROMPTS = ["The Eiffel Tower is in", "The mother tongue of Danielle Darrieux, who lives by the river, is", "Lyon is"]
SUBJECTS = ["Eiffel Tower", "Danielle Darrieux", "Lyon"]
LONG = "A row that is much longer than any of the others, so that a batch with it is wider by a good many columns indeed"
TURNED = "ignore:padcheck.guard padded:padcheck.DriftWarning"

pytestmark = pytest.mark.filterwarnings(TURNED)


def alone(tok: Any, prompt: str, subject: str, **more: Any) -> int:
    return len(tok.encode(prompt[: prompt.index(subject) + len(subject)], **more)) - 1


@padcheck.checked_index
def find(tok: Any, prompt: str, subject: str) -> int:
    return alone(tok, prompt, subject)


def moved_by(width: int) -> Callable[[Any, str, str], int]:
    """A function that counts for a batch of this width, padded on the left."""

    @padcheck.checked_index
    def find_moved(tok: Any, prompt: str, subject: str) -> int:
        return width - len(tok.encode(prompt)) + alone(tok, prompt, subject)

    return find_moved


def columns(tok: Any, function: Any = find, rows: Any = None) -> list[int]:
    pairs = zip(PROMPTS, SUBJECTS, strict=True) if rows is None else rows
    return [function(tok, text, subject) for text, subject in pairs]


def at(tok: Any, batch: Any, where: Any) -> list[str]:
    return [
        tok.convert_ids_to_tokens([int(one) for one in row])[column]
        for row, column in zip(batch["input_ids"], where, strict=True)
    ]


def wanted(tok: Any) -> list[str]:
    return [token_of(tok, text, text.index(name) + len(name) - 1) for text, name in zip(PROMPTS, SUBJECTS, strict=True)]


def left(batch: Any) -> bool:
    """Whether the last row, the shortest, is padded on the left."""
    return not batch["attention_mask"][-1][0]


def said(caught: Any) -> str:
    return "\n".join(str(one.message) for one in caught if not str(one.message).startswith("padcheck.guard padded"))


# -- a column is good for more than one batch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2-shape", "llama2-metaspace", "llama3-shape"])
def test_counted_once_and_padded_again_and_again(name: str) -> None:
    tok = tokenizer(name, "left")
    with padcheck.guard(tok) as watch:
        once = columns(tok)
        for number in range(3):
            assert at(tok, tok(PROMPTS, padding=True), once) == wanted(tok), number
            rows = [text + " Rome" for text in PROMPTS]
            assert at(tok, tok(rows, padding=True), once) == wanted(tok), number
    assert watch.report()["outcome"] == "corrected"
    assert watch.report()["positions"]["checked"] == 18


@pytest.mark.parametrize("policy", ["fail", "warn", "correct"])
def test_a_side_that_is_turned_after_the_first_batch(policy: Any) -> None:
    tok = tokenizer(side="right")

    def run() -> Any:
        with padcheck.guard(tok, policy=policy):
            once = columns(tok)
            tok(PROMPTS, padding=True)
            tok.padding_side = "left"
            return at(tok, tok(PROMPTS, padding=True), once)

    if policy == "fail":
        with pytest.raises(DriftError, match="counted before an earlier batch"):
            run()
    elif policy == "warn":
        with pytest.warns(DriftWarning, match="padding not counted"):
            assert run() != wanted(tok)
    else:
        assert run() == wanted(tok)


def test_counted_before_each_batch_of_a_loop() -> None:
    """The second time the batch of the first round is there already: it is not what the column is for."""
    tok = tokenizer(side="left")
    with padcheck.guard(tok):
        for rows in (PROMPTS, PROMPTS[:2], PROMPTS[1:]):
            pairs = [(text, SUBJECTS[PROMPTS.index(text)]) for text in rows]
            where = columns(tok, rows=pairs)
            expected = [wanted(tok)[PROMPTS.index(text)] for text in rows]
            assert at(tok, tok(rows, padding=True), where) == expected


@pytest.mark.parametrize("policy", ["correct", "fail"])
def test_counted_after_each_batch_of_a_loop(policy: Any) -> None:
    """Batches of different widths share rows; each time the column of the latest one is meant, and nothing is said."""
    tok = tokenizer(side="left")
    with warnings.catch_warnings(record=True) as caught, padcheck.guard(tok, policy=policy) as watch:
        warnings.simplefilter("always")
        for rows in (PROMPTS, PROMPTS[::2], PROMPTS[1:], PROMPTS):
            batch = tok(rows, padding=True)
            assert left(batch)
            pairs = [(text, SUBJECTS[PROMPTS.index(text)]) for text in rows]
            function = find if policy == "correct" else moved_by(len(batch["input_ids"][0]))
            assert at(tok, batch, columns(tok, function, pairs)) == [wanted(tok)[PROMPTS.index(text)] for text in rows]
    assert not said(caught)
    assert watch.report()["outcome"] == ("corrected" if policy == "correct" else "right")


def test_counted_for_one_batch_and_read_in_a_wider_one_is_said() -> None:
    tok = tokenizer(side="left")
    with warnings.catch_warnings(record=True) as caught, padcheck.guard(tok) as watch:
        warnings.simplefilter("always")
        batch = tok(PROMPTS, padding=True)
        where = columns(tok)
        assert at(tok, batch, where) == wanted(tok)
        tok([*PROMPTS, LONG], padding=True)
    assert "for another that holds the same rows in other columns" in said(caught)
    assert watch.report()["outcome"] == "unwatched"


# -- what is right stays as it is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["correct", "fail", "warn"])
def test_columns_of_a_batch_that_was_built_before(policy: Any) -> None:
    tok = tokenizer(side="left")
    batch = tok([*PROMPTS, LONG], padding=True)
    function = moved_by(len(batch["input_ids"][0]))
    with (
        pytest.warns(DriftWarning, match="for rows that no batch of this tokenizer held"),
        padcheck.guard(tok, policy=policy),
    ):
        where = columns(tok, function)
    assert at(tok, {"input_ids": batch["input_ids"][:3]}, where) == wanted(tok)


@pytest.mark.parametrize("policy", ["correct", "fail", "warn"])
def test_a_small_batch_between_the_batch_and_its_columns(policy: Any) -> None:
    tok = tokenizer(side="left")
    with warnings.catch_warnings(record=True) as caught, padcheck.guard(tok, policy=policy) as watch:
        warnings.simplefilter("always")
        batch = tok(PROMPTS, padding=True)
        tok(PROMPTS[::2], padding=True)
        where = columns(tok, moved_by(len(batch["input_ids"][0])))
        assert at(tok, batch, where) == wanted(tok)
    assert not said(caught)
    assert watch.report()["outcome"] == "right"


@pytest.mark.parametrize("policy", ["correct", "fail", "warn"])
def test_columns_for_a_known_width_keep_the_batch_on_the_left(policy: Any) -> None:
    tok = tokenizer(side="left")
    width = len(tok.encode(LONG))
    with padcheck.guard(tok, policy=policy) as watch:
        where = columns(tok, moved_by(width))
        batch = tok(PROMPTS, padding="max_length", max_length=width)
        assert left(batch)
        assert at(tok, batch, where) == wanted(tok)
    assert watch.report()["outcome"] == "right"


def test_columns_of_several_rows_that_count_their_pads() -> None:
    """Pads so few that the column might be one of the unpadded row: the rows together say what it is."""
    tok = tokenizer(side="left")
    rows = ["The Eiffel Tower is in the old town by the river", "The old Eiffel Tower is in the old town by the river"]

    @padcheck.checked_index(text="texts", subject="names")
    def located(tok: Any, texts: list[str], names: list[str]) -> list[int]:
        return [int(span.last) for span in padcheck.locate(tok, texts, names, padding_side="left")]

    with padcheck.guard(tok):
        where = located(tok, rows, ["Eiffel Tower"] * 2)
        batch = tok(rows, padding=True)
        lengths = [sum(mask) for mask in batch["attention_mask"]]
        assert 0 < lengths[1] - lengths[0] < 5
        assert batch["attention_mask"][0][0] == 0, "still on the left"
        assert at(tok, batch, where) == [token_of(tok, row, row.index("Tower") + 4) for row in rows]


def test_batches_that_disagree_are_not_guessed_at() -> None:
    tok = tokenizer(side="left")

    def run() -> None:
        tok(PROMPTS, padding=True)
        tok(PROMPTS[::2], padding=True)
        columns(tok)

    with pytest.raises(DriftError, match="which one is meant cannot be known"), padcheck.guard(tok):
        run()


def test_many_batches_between_the_batch_and_its_columns() -> None:
    tok = tokenizer(side="left")
    with padcheck.guard(tok):
        batch = tok(PROMPTS, padding=True)
        for number in range(40):
            tok([f"{number} is a number", "a"], padding=True)
        assert at(tok, batch, columns(tok)) == wanted(tok)


def test_an_exchange_that_no_batch_confirms_is_said() -> None:
    tok = tokenizer(side="left")

    @padcheck.checked_index
    def one_too_few(tok: Any, prompt: str, subject: str) -> int:
        return alone(tok, prompt, subject) - 1

    with pytest.warns(DriftWarning, match="the exchange was never checked"), padcheck.guard(tok) as watch:
        assert one_too_few(tok, PROMPTS[0], SUBJECTS[0]) == alone(tok, PROMPTS[0], SUBJECTS[0])
    assert watch.report()["outcome"] == "unwatched"
    with padcheck.guard(tok):
        where = columns(tok, one_too_few)
        assert at(tok, tok(PROMPTS, padding=True), where) == wanted(tok)


def test_rows_counted_anew_and_rows_counted_before_in_one_batch() -> None:
    """The one counted anew has no pads and is right on either side: the other decides."""
    tok = tokenizer(side="left")
    with padcheck.guard(tok):
        where = columns(tok)
        tok(PROMPTS, padding=True)
        assert find(tok, PROMPTS[1], SUBJECTS[1]) == where[1]
        assert at(tok, tok(PROMPTS, padding=True), where) == wanted(tok)


@pytest.mark.parametrize("policy", ["correct", "fail"])
def test_a_function_that_pads_its_own_row(policy: Any) -> None:
    """What it pads to count by is not the batch."""
    tok = tokenizer(side="left")

    @padcheck.checked_index
    def find_padded(tok: Any, prompt: str, subject: str) -> int:
        tok([prompt], padding=True)
        return len(tok([prompt[: prompt.index(subject) + len(subject)]], padding=True)["input_ids"][0]) - 1

    def run() -> None:
        with padcheck.guard(tok, policy=policy):
            where = columns(tok, find_padded)
            assert at(tok, tok(PROMPTS, padding=True), where) == wanted(tok)

    if policy == "correct":
        run()
    else:
        with pytest.raises(DriftError, match="padding not counted"):
            run()


# -- several mentions, special tokens, rows from ids, prefixes ------------------------------------------------------------------------


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("policy", ["correct", "fail", "warn"])
def test_a_column_beside_one_of_several_mentions_is_not_guessed(policy: Any, late: bool) -> None:
    tok = tokenizer(side="right")
    rows = ["Norhold is big, and the mayor of Norhold lives in it", "A row"]

    @padcheck.checked_index
    def beside(tok: Any, prompt: str, subject: str) -> int:
        return alone(tok, prompt, subject) + 1

    def run() -> int:
        with padcheck.guard(tok, policy=policy):
            if late:
                tok(rows, padding=True)
            column = beside(tok, rows[0], "Norhold")
            if not late:
                tok(rows, padding=True)
            return int(column)

    if policy == "warn":
        with pytest.warns(DriftWarning, match="more than once"):
            assert run() == alone(tok, rows[0], "Norhold") + 1
    else:
        with pytest.raises(DriftError, match="more than once"):
            run()


@pytest.mark.parametrize("side", ["left", "right"])
def test_no_special_tokens_throughout(side: str) -> None:
    tok = tokenizer("llama3-shape", side)

    @padcheck.checked_index
    def find_bare(tok: Any, prompt: str, subject: str) -> int:
        return alone(tok, prompt, subject, add_special_tokens=False)

    with padcheck.guard(tok) as watch:
        where = columns(tok, find_bare)
        assert at(tok, tok(PROMPTS, padding=True, add_special_tokens=False), where) == wanted(tok)
    assert watch.report()["outcome"] == ("corrected" if side == "left" else "right")

    def run() -> None:
        columns(tok, find_bare)
        tok([text + " Rome" for text in PROMPTS], padding=True)

    with pytest.raises(DriftError, match="differ by the special tokens"), padcheck.guard(tok):
        run()


def test_an_exchange_that_was_wrong_is_not_the_editors_fault() -> None:
    """A column inside the unpadded row that was counted for a padded one."""
    tok = tokenizer(side="left")
    rows = [LONG, LONG[2:]]
    width = len(tok.encode(rows[0])) + 1

    def run() -> None:
        for row in rows:
            moved_by(width)(tok, row, "others")
        moved_by(width)(tok, "Lyon is", "Lyon")
        tok([*rows, "Lyon is"], padding="max_length", max_length=width)

    with pytest.raises(DriftError, match=r"padcheck\.guard itself exchanged") as caught, padcheck.guard(tok):
        run()
    assert "editor's own code" not in str(caught.value)


@pytest.mark.parametrize("how", ["pad", "collator", "one row"])
def test_rows_that_are_padded_from_ids_after_counting(how: str) -> None:
    tok = tokenizer(side="left")
    with padcheck.guard(tok):
        encoded = [dict(tok(text)) for text in PROMPTS]
        if how == "one row":
            column = find(tok, PROMPTS[2], SUBJECTS[2])
            batch = tok.pad(encoded[2], padding="max_length", max_length=20)
            assert tok.convert_ids_to_tokens(batch["input_ids"])[column] == wanted(tok)[2]
            assert len(batch["input_ids"]) == 20
            return
        where = columns(tok)
        if how == "collator":
            pytest.importorskip("torch")
            transformers = pytest.importorskip("transformers")
            batch = transformers.DataCollatorWithPadding(tok)(encoded)
        else:
            batch = tok.pad(encoded)
        assert at(tok, batch, where) == wanted(tok)


@pytest.mark.parametrize("policy", ["correct", "fail"])
def test_another_word_that_begins_the_same_is_another_row(policy: Any) -> None:
    tok = tokenizer(side="left")
    with warnings.catch_warnings(record=True) as caught, padcheck.guard(tok, policy=policy):
        warnings.simplefilter("always")
        find(tok, "Lyon", "Lyon")
        assert left(tok(["Lyons are animals that live far away from here", "Lyonnaise"], padding=True))
    assert "no batch of this tokenizer held" in said(caught)


def test_the_rows_that_drift_are_told_by_their_place_in_the_batch() -> None:
    tok = tokenizer(side="left")

    def run() -> None:
        columns(tok)
        tok(PROMPTS, padding=True)

    with pytest.raises(DriftError, match="row 2 of a batch of 3") as caught, padcheck.guard(tok, policy="fail"):
        run()
    assert "request" not in str(caught.value)


# -- kinds of functions and results ------------------------------------------------------------------------------------------------


def test_numbers_keep_their_kind() -> None:
    numpy, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")
    tok = tokenizer(side="left")
    for kind in (torch.tensor, numpy.int64, numpy.array, lambda number: [numpy.int32(number)]):

        @padcheck.checked_index
        def find_kind(tok: Any, prompt: str, subject: str, kind: Any = kind) -> Any:
            return kind(alone(tok, prompt, subject))

        with padcheck.guard(tok):
            batch = tok(PROMPTS, padding=True)
            where = columns(tok, find_kind)
        assert {type(one) for one in where} == {type(kind(1))}
        assert [getattr(one, "dtype", None) for one in where] == [getattr(kind(1), "dtype", None)] * 3
        assert at(tok, batch, [int(one[0] if isinstance(one, list) else one) for one in where]) == wanted(tok)


def test_named_tuples() -> None:
    tok = tokenizer(side="left")
    kind = namedtuple("kind", "column")

    @padcheck.checked_index
    def find_named(tok: Any, prompt: str, subject: str) -> Any:
        return kind(alone(tok, prompt, subject))

    with padcheck.guard(tok):
        batch = tok(PROMPTS, padding=True)
        where = columns(tok, find_named)
    assert at(tok, batch, [one.column for one in where]) == wanted(tok)


def results() -> Iterator[tuple[Any, str]]:
    def span(tok: Any, prompt: str, subject: str) -> Any:
        return 1, alone(tok, prompt, subject)

    def mapping(tok: Any, prompt: str, subject: str) -> Any:
        return {subject: alone(tok, prompt, subject)}

    def optional(tok: Any, subject: str, text: str | None = None, prompt: Any = None) -> Any:
        return 2

    def elsewhere(tok: Any, prompt: str, subject: str) -> Any:
        return 2

    yield span, "several columns for one row"
    yield mapping, "it was no column"
    yield partial(optional, text=None), "no text and no list of texts"
    yield partial(elsewhere, subject="Zzz"), "does not stand in the row"


@pytest.mark.parametrize(("function", "why"), list(results()))
def test_results_that_are_not_understood_are_left_alone_and_said(function: Any, why: str) -> None:
    tok = tokenizer(side="left")
    arguments = {"tok": tok, "prompt": PROMPTS[1], "subject": SUBJECTS[1]} | getattr(function, "keywords", {})
    function = getattr(function, "func", function)
    plain = function(**arguments)
    with warnings.catch_warnings(record=True) as caught, padcheck.guard(tok) as watch:
        warnings.simplefilter("always")
        assert padcheck.checked_index(function)(**arguments) == plain
        assert left(tok(PROMPTS, padding=True))
    assert why in said(caught)
    assert "mark the function" not in said(caught)
    assert watch.report()["outcome"] == "unwatched"


@pytest.mark.parametrize("policy", ["correct", "fail"])
def test_functions_that_are_awaited(policy: Any) -> None:
    tok = tokenizer(side="left")

    @padcheck.checked_index
    async def find_later(tok: Any, prompt: str, subject: str) -> int:
        await asyncio.sleep(0)
        return alone(tok, prompt, subject)

    async def run() -> list[str]:
        where = [await find_later(tok, text, subject) for text, subject in zip(PROMPTS, SUBJECTS, strict=True)]
        return at(tok, tok(PROMPTS, padding=True), where)

    with padcheck.guard(tok, policy=policy):
        if policy == "correct":
            assert asyncio.run(run()) == wanted(tok)
        else:
            with pytest.raises(DriftError, match="padding not counted"):
                asyncio.run(run())


def test_generator_functions_are_refused() -> None:
    with pytest.raises(TypeError, match="generator function"):

        @padcheck.checked_index
        def yielding(tok: Any, prompts: list[str], subjects: list[str]) -> Iterator[int]:
            yield 1


def test_partial_functions_callable_objects_and_static_methods() -> None:
    tok = tokenizer(side="left")

    class Finder:
        def __call__(self, tok: Any, prompt: str, subject: str) -> int:
            return alone(tok, prompt, subject)

        @padcheck.checked_index
        @staticmethod
        def static(tok: Any, prompt: str, subject: str) -> int:
            return alone(tok, prompt, subject)

    def with_more(tok: Any, prompt: str, subject: str, more: int) -> int:
        return alone(tok, prompt, subject) + more

    for function in (padcheck.checked_index(partial(with_more, more=0)), padcheck.checked_index(Finder()), Finder().static):
        with padcheck.guard(tok) as watch:
            assert at(tok, tok(PROMPTS, padding=True), columns(tok, function)) == wanted(tok)
        assert watch.report()["sites"][0]["function"].startswith("tests.guarding.test_columns.")
    with pytest.raises(TypeError, match="marks functions"):
        padcheck.checked_index("subject_last")  # type: ignore[type-var]


def test_many_columns_before_many_batches_are_found_by_their_rows() -> None:
    """Work must not grow with columns times batches: each row of a batch is looked at a few times, however many are open."""
    tok = tokenizer(side="right")
    rows = [f"{number} The Eiffel Tower is in" for number in range(600)]
    looked = 0

    class Text(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal looked
            looked += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

        def startswith(self, *args: Any) -> bool:
            nonlocal looked
            looked += 1
            return str.startswith(self, *args)

    with padcheck.guard(tok) as watch:
        columns(tok, rows=[(row, "Eiffel Tower") for row in rows])
        for start in range(0, len(rows), 8):
            tok([Text(row) for row in rows[start : start + 8]], padding=True)
    assert watch.report()["positions"]["checked"] == len(rows)
    assert looked < 60 * len(rows)


# -- nested guards ----------------------------------------------------------------------------------------------------------------


def test_counted_outside_and_padded_in_an_inner_guard() -> None:
    tok = tokenizer(side="left")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with padcheck.guard(tok) as watch:
            where = columns(tok)
            with padcheck.guard(tok) as inner:
                batch = tok(PROMPTS, padding=True)
                later = tok([LONG, "Norhold is"], padding=True)
            column = find(tok, "Norhold is", "Norhold")
    assert at(tok, batch, where) == wanted(tok)
    assert at(tok, {"input_ids": later["input_ids"][1:]}, [column]) == [token_of(tok, "Norhold is", 6)]
    assert inner.report()["outcome"] == watch.report()["outcome"] == "corrected"
    assert not said(caught)


def test_what_an_inner_guard_could_not_watch_is_said_once() -> None:
    tok = tokenizer(side="left")
    with pytest.warns(DriftWarning) as caught, padcheck.guard(tok), padcheck.guard(tok):
        tok(PROMPTS, padding=True)
    assert said(caught).count("nothing was checked") == 1


# -- any order --------------------------------------------------------------------------------------------------------------------

_LAST: dict[str, Any] = {}


@padcheck.checked_index
def aware(tok: Any, prompt: str, subject: str) -> int:
    """Looks at the batch that was built last, if it holds the row."""
    texts, batch = _LAST.get("batch", ((), None))
    pads = batch["attention_mask"][texts.index(prompt)].index(1) if prompt in texts else 0
    return alone(tok, prompt, subject) + int(pads)


@padcheck.checked_index
def from_the_end(tok: Any, prompt: str, subject: str) -> int:
    return alone(tok, prompt, subject) - len(tok.encode(prompt))


@padcheck.checked_index
def one_behind(tok: Any, prompt: str, subject: str) -> int:
    return alone(tok, prompt, subject) + 1


@pytest.mark.parametrize("policy", ["correct", "fail"])
@pytest.mark.parametrize("habit", ["once", "before", "after"])
def test_a_wrong_token_is_never_read_in_silence(habit: str, policy: Any) -> None:
    """Random editors: batches of some rows, on some side, with or without more text; columns counted once, before or after each."""
    texts = [*PROMPTS, "The twin city of Lyon is", "An old Eiffel Tower is in the old town by"]
    subjects = [*SUBJECTS, "Lyon", "Eiffel Tower"]
    tok = tokenizer()
    meant = [token_of(tok, text, text.index(name) + len(name) - 1) for text, name in zip(texts, subjects, strict=True)]
    silent = 0
    for seed in range(150):
        chance = random.Random(seed)
        tok.padding_side = chance.choice(["left", "right"])
        function = chance.choice([find, aware, from_the_end, one_behind])
        where: dict[int, int] = {}
        wrong: list[tuple[int, int]] = []
        _LAST.clear()

        def count(
            rows: Any, function: Any = function, where: Any = where
        ) -> None:  # the loop's own, as the closures of an editor
            where.update({row: function(tok, texts[row], subjects[row]) for row in rows})

        try:
            with warnings.catch_warnings(record=True) as caught, padcheck.guard(tok, policy=policy):
                warnings.simplefilter("always")
                if habit == "once":
                    count(range(5))
                for _ in range(chance.randrange(1, 5)):
                    rows = chance.sample(range(5), chance.randrange(1, 6))
                    if habit == "before":
                        count(rows)
                    built = [texts[row] + chance.choice(["", "", " Rome"]) for row in rows]
                    batch = tok(built, padding=True, padding_side=chance.choice([None, None, "left", "right"]))
                    _LAST["batch"] = built, batch
                    if habit == "after":
                        count(rows)
                    for number, row in enumerate(rows):
                        ids = batch["input_ids"][number]
                        held = -len(ids) <= where[row] < len(ids)
                        if not held or tok.convert_ids_to_tokens(ids)[where[row]] != meant[row]:
                            wrong.append((row, where[row]))
        except DriftError:
            continue
        assert not wrong or said(caught), (seed, function.__name__, wrong)
        silent += not said(caught)
    assert silent > (60 if policy == "correct" else 15), "most of them are made right, or are right, with nothing to say"
