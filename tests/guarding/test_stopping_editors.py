"""Policies "fail" and "warn": nothing is changed, and what drifts is said, or stopped before anything is computed with it."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import pytest

import padcheck
from padcheck import DriftError, DriftWarning
from tests.guarding.foreign.house.editors.editor import BaseEditor
from tests.guarding.foreign.house.models.memit import compute_z
from tests.guarding.foreign.house.models.rome import compute_v, repr_tools
from tests.guarding.foreign.house.tape import Tape
from tests.guarding.kit import REQUESTS, TEMPLATES, hparams, tokenizer


def lists(requests: list[dict[str, Any]]) -> tuple[list[str], list[str], list[str]]:
    return [one["prompt"] for one in requests], [one["target_new"] for one in requests], [one["subject"] for one in requests]


@pytest.mark.parametrize("method", ["ROME", "MEMIT"])
@pytest.mark.parametrize("how", ["edit", "batch_edit"])
def test_an_edit_that_is_bound_to_drift_is_stopped_before_the_first_forward_pass(method: str, how: str, rome: Any) -> None:
    """BaseEditor evaluates before it edits, and templates are sampled before the target vector is optimised."""
    tok = tokenizer(side="left")
    model = Tape(tok)
    editor = BaseEditor(model, tok, hparams(method))
    prompts, targets, subjects = lists(REQUESTS)
    with pytest.raises(DriftError) as caught, padcheck.guard(tok, model=model, policy="fail"):
        getattr(editor, how)(prompts, targets, subject=subjects)
    assert model.forwards == 0
    text = str(caught.value)
    assert method in text
    assert "left padding" in text
    assert "[pad]" in text, "the token table is there"
    assert "padcheck.guard" in text, "and the remedy"
    assert caught.value.rows
    assert all(row["drift"] for row in caught.value.rows)
    assert pickle.loads(pickle.dumps(caught.value)).rows == caught.value.rows, "it can leave a worker process"


def test_also_without_the_editor_class(rome: Any) -> None:
    tok = tokenizer(side="left")
    model = Tape(tok)
    with pytest.raises(DriftError), padcheck.guard(tok, policy="fail"):
        rome.apply_rome_to_model(model, tok, [REQUESTS[0]], hparams())
    assert model.forwards == 0


def test_templates_that_are_sampled_already_are_looked_at_as_they_are(rome: Any) -> None:
    """With the bare template alone, and a KL row as long as the prompt, nothing is padded."""
    tok = tokenizer(side="left")
    request = {"prompt": "Lyon was in", "subject": "Lyon", "target_new": "Rome"}
    assert len(tok.encode("Lyon was in")) == len(tok.encode("Lyon is a"))
    rome.CONTEXT_TEMPLATES_CACHE = ["{}"]
    model = Tape(tok)
    with padcheck.guard(tok, policy="fail") as watch:
        rome.execute_rome(model, tok, request, hparams())
    assert watch.report()["outcome"] == "right"
    rome.CONTEXT_TEMPLATES_CACHE = ["{}", "The old river. {}"]
    model = Tape(tok)
    with pytest.raises(DriftError), padcheck.guard(tok, policy="fail"):
        rome.execute_rome(model, tok, request, hparams())
    assert model.forwards == 0


@pytest.mark.parametrize("fact_token", ["subject_last", "subject_first_after_last"])
def test_right_padding_passes(rome: Any, fact_token: str) -> None:
    tok = tokenizer(side="right")
    model = Tape(tok)
    plain = Tape(tok)
    rome.execute_rome(plain, tok, REQUESTS[0], hparams(fact_token=fact_token))
    rome.CONTEXT_TEMPLATES_CACHE = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with padcheck.guard(tok, policy="fail"):
            rome.execute_rome(model, tok, REQUESTS[0], hparams(fact_token=fact_token))
    assert model.reads == plain.reads


def test_an_index_of_the_wrong_sign_fails_under_right_padding_too(rome: Any) -> None:
    tok = tokenizer(side="right")
    with pytest.raises(DriftError, match="right padding"), padcheck.guard(tok, policy="fail"):
        rome.execute_rome(Tape(tok), tok, REQUESTS[0], hparams(fact_token="subject_first"))


def test_batches_are_looked_at_themselves() -> None:
    """Locating functions that are called without the function that starts an edit."""
    tok = tokenizer(side="left")
    model = Tape(tok)
    request = {**REQUESTS[0], "prompt": "The mother tongue of {} is", "target_new": " English"}
    with pytest.raises(DriftError, match="compute_v") as caught, padcheck.guard(tok, policy="fail"):
        compute_v.compute_v(model, tok, request, hparams(), TEMPLATES)
    assert model.forwards == 0
    assert {row["kind"] for row in caught.value.rows} == {"label"}
    with pytest.raises(DriftError, match="get_reprs_at_idxs"), padcheck.guard(tok, policy="fail"):
        repr_tools.get_reprs_at_word_tokens(model, tok, ["{} is", "The city of {} is"], ["Lyon", "Lyon"], "last")
    assert model.forwards == 0


def test_the_kl_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels agree and lookups agree; only the KL row, shorter than the one template, is padded."""
    tok = tokenizer(side="left")
    request = {"prompt": "The mother tongue of {} is", "subject": "Danielle Darrieux", "target_new": " English"}
    with pytest.raises(DriftError) as caught, padcheck.guard(tok, policy="fail"):
        compute_z.compute_z(Tape(tok), tok, request, hparams(), [["{}"]])
    assert {row["kind"] for row in caught.value.rows} == {"kl"}
    assert {row["cause"] for row in caught.value.rows} == {"pads"}


def test_warn_says_each_cause_and_place_once_and_changes_nothing(rome: Any) -> None:
    tok = tokenizer(side="left")
    plain, warned = Tape(tok), Tape(tok)
    rome.execute_rome(plain, tok, REQUESTS[0], hparams())
    rome.CONTEXT_TEMPLATES_CACHE = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with padcheck.guard(tok, policy="warn") as watch:
            rome.execute_rome(warned, tok, REQUESTS[0], hparams())
            rome.execute_rome(warned, tok, REQUESTS[0], hparams())
    assert warned.reads[: len(plain.reads)] == plain.reads
    messages = [str(one.message) for one in caught]
    assert all(issubclass(one.category, DriftWarning) for one in caught)
    heads = [message.splitlines()[0] for message in messages]
    assert len(heads) == len(set(heads)), "once for each cause and place"
    assert any("compute_v" in message for message in messages)
    report = watch.report()
    assert report["outcome"] == "drift"
    assert report["positions"]["corrected"] == 0 < report["positions"]["drifting"]


def test_a_side_that_is_right_for_training_is_found_too() -> None:
    tok = tokenizer(side="right")
    model = Tape(tok)
    editor = BaseEditor(model, tok, hparams("FT", "last"))
    prompts, targets, subjects = lists(REQUESTS)
    with pytest.raises(DriftError, match="FT"), padcheck.guard(tok, policy="fail"):
        editor.batch_edit(prompts, targets, subject=subjects)
    assert model.forwards == 0


def test_nothing_recognised_is_said() -> None:
    tok = tokenizer()
    guard = padcheck.guard(tok)
    watch = guard.__enter__()
    tok(["a b c", "a"], padding=True)
    tok(["a b c", "a"], padding="longest")
    tok("a b c")
    with pytest.warns(DriftWarning, match="checked_index") as caught:
        guard.__exit__(None, None, None)
    assert len(caught) == 1
    assert "test_nothing_recognised_is_said" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert watch.report()["outcome"] == "unwatched"


def test_nothing_padded_is_no_reason_to_speak() -> None:
    tok = tokenizer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with padcheck.guard(tok) as watch:
            tok(["a b c", "a"])
            tok.encode("a b")
    assert watch.report()["outcome"] == "right"


def test_columns_that_were_counted_for_no_batch_are_said() -> None:
    tok = tokenizer()
    with pytest.warns(DriftWarning, match="for rows that no batch"), padcheck.guard(tok):
        repr_tools.get_words_idxs_in_templates(tok, ["The city of {} is"], ["Lyon"], "last")


def test_an_editor_that_runs_with_another_tokenizer_is_said(rome: Any) -> None:
    guarded_one, other = tokenizer(), tokenizer()
    with (
        pytest.warns(DriftWarning, match="ran with another tokenizer than the guarded one"),
        padcheck.guard(guarded_one) as watch,
    ):
        rome.execute_rome(Tape(other), other, REQUESTS[0], hparams())
    assert watch.report()["outcome"] == "unwatched"


def test_a_tokenizer_whose_offsets_lie_is_not_said_to_be_right(rome: Any) -> None:
    tok = tokenizer("lying-overlap", "left")
    with pytest.warns(DriftWarning, match="could not be checked"), padcheck.guard(tok, policy="warn") as watch:
        repr_tools.get_reprs_at_word_tokens(Tape(tok), tok, ["{} is � here", "{} is �"], ["Ulm", "Ulm"], "last")
    assert watch.report()["positions"]["unknown"] > 0


@pytest.mark.parametrize(
    ("arguments", "kind", "what"),
    [
        ({"policy": "mend"}, ValueError, "correct, fail, warn"),
        ({"policy": "fail", "corrections": "some.json"}, ValueError, "policy"),
        ({"corrections": "no/such/file.json"}, ValueError, "no/such/file.json: The corrections cannot be read"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], kind: type[Exception], what: str) -> None:
    with pytest.raises(kind, match=what):
        padcheck.guard(tokenizer(), **arguments)
