"""Batches that were turned to the right for the columns of `checked_index` functions, and generation behind them."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from typing import Any

import pytest

import padcheck
from padcheck import DriftError, DriftWarning
from tests.guarding.kit import SHIPPED, tokenizer

PROMPTS = ["The Eiffel Tower is in", "The mother tongue of Danielle Darrieux, who lives by the river, is", "Lyon is"]
SUBJECTS = ["Eiffel Tower", "Danielle Darrieux", "Lyon"]


@padcheck.checked_index
def find(tok: Any, prompt: str, subject: str) -> int:
    return len(tok.encode(prompt[: prompt.index(subject) + len(subject)])) - 1


@padcheck.checked_index(text="texts", subject="subjects")
def located(tok: Any, texts: list[str], subjects: list[str]) -> list[Any]:
    return [span.last for span in padcheck.locate(tok, texts, subjects, padding_side="left")]


class Speaker:
    """What a guard needs of a model, and `generate`."""

    def modules(self) -> list[Any]:
        return []

    def generate(self, input_ids: Any = None, **_: Any) -> Any:
        """Says what it was given."""
        return input_ids


class Grandchild(Speaker):
    pass


def count(tok: Any) -> list[int]:
    return [find(tok, text, subject) for text, subject in zip(PROMPTS, SUBJECTS, strict=True)]


@pytest.mark.parametrize("given", ["by name", "by place", "a row", "a tensor"])
def test_generating_behind_a_batch_that_was_turned(given: str) -> None:
    tok, model = tokenizer(side="left"), Grandchild()

    def say(ids: Any) -> None:
        if given == "by name":
            model.generate(input_ids=ids)
        elif given == "by place":
            model.generate(ids)
        elif given == "a row":
            model.generate([ids[2]])
        else:
            model.generate(pytest.importorskip("torch").tensor(ids))

    with padcheck.guard(tok, model=model):
        count(tok)
        ids = tok(PROMPTS, padding=True)["input_ids"]
        assert model.generate(ids[1:2]) == ids[1:2], "a row without pads"
        with pytest.raises(DriftError, match=r"test_generating\.find.*no side is right for both.*locate") as caught:
            say(ids)
    assert "test_generating_behind_a_batch_that_was_turned" in str(caught.value)
    assert model.generate(ids) == ids, "outside it is as it was"


def test_generating_behind_other_batches() -> None:
    tok, model = tokenizer(side="left"), Speaker()
    with warnings.catch_warnings(), padcheck.guard(tok, model=model) as watch:
        warnings.simplefilter("error")
        where = located(tok, PROMPTS, SUBJECTS)
        batch = tok(PROMPTS, padding=True)
        assert batch["attention_mask"][2][0] == 0
        model.generate(**batch)
        other = tok(["Who was it?", "Who?"], padding=True)
        model.generate(**other)
        count(tok)
        tok(PROMPTS, padding=True)
    assert len(where) == 3
    assert watch.report()["outcome"] in ("right", "corrected")


def test_without_a_model_it_is_said_which_batches_were_turned() -> None:
    tok = tokenizer(side="left")

    def pad_twice() -> None:
        count(tok)
        tok(PROMPTS, padding=True)
        tok(PROMPTS, padding=True)

    said = "padded 2 batches of .*pad_twice on the right.*generates behind"
    with pytest.warns(DriftWarning, match=said), padcheck.guard(tok):
        pad_twice()
    tok.padding_side = "right"
    with warnings.catch_warnings(), padcheck.guard(tok):
        warnings.simplefilter("error")
        count(tok)
        tok(PROMPTS, padding=True)


def test_generate_is_itself_again() -> None:
    tok, model = tokenizer(), Grandchild()
    function, own = Speaker.generate, Speaker.generate.__code__
    guard = padcheck.guard(tok, model=model)
    with guard, padcheck.guard(tokenizer(), model=Speaker()):
        assert Speaker.generate is function
        assert function.__code__ is not own
        assert vars(model) == {}
        made = [copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        with guard:
            pass
        assert function.__code__ is not own
    assert function.__code__ is own
    assert [one.generate([1]) for one in made] == [[1]] * 3
    assert function.__doc__ == "Says what it was given."
    with pytest.raises(ZeroDivisionError), guard:
        1 / 0  # noqa: B018
    assert function.__code__ is own
    assert model.generate([[1]]) == [[1]]


def test_a_real_model() -> None:
    """Right padding changes what it says; the guard stops there, and lets it speak behind columns of left padding."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = SHIPPED / "models" / "llama-facts"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tok = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    tok.pad_token = tok.pad_token or tok.eos_token
    facts = json.loads((folder / "facts.json").read_text("utf-8"))["requests"][:3]
    subjects = [fact["subject"] for fact in facts]
    texts = [fact["prompt"].replace("{}", fact["subject"]) for fact in facts]
    texts[1] = "As everybody in the whole wide world has always known for sure, " + texts[1]
    own = type(model).generate.__code__

    def say() -> list[str]:
        batch = tok(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            out = model.generate(**batch, max_new_tokens=3, do_sample=False, pad_token_id=tok.pad_token_id)
        return [tok.decode(row[batch["input_ids"].shape[1] :]) for row in out]

    plain = say()
    with padcheck.guard(tok, model=model):
        located(tok, texts, subjects)
        assert say() == plain
    with padcheck.guard(tok, model=model):
        for text, subject in zip(texts, subjects, strict=True):
            find(tok, text, subject)
        with pytest.raises(DriftError, match="generation needs left padding"):
            say()
    assert type(model).generate.__code__ is own
    assert say() == plain
