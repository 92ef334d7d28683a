"""Policy "correct": the editor reads the tokens that are meant, and everything else is as it was."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import padcheck
from padcheck import DriftError
from tests.guarding.foreign.house.editors.editor import BaseEditor
from tests.guarding.foreign.house.models.memit import memit_main
from tests.guarding.foreign.house.tape import Tape
from tests.guarding.kit import REQUESTS, hparams, meant, targets_occur, token_of, tokenizer

NAMES = ["gpt2-shape", "llama2-metaspace", "llama2-prepend", "llama3-shape", "qwen-shape"]
FACT_TOKENS = ["subject_last", "subject_first", "subject_first_after_last", "last"]


def rome_reads(rome: Any, tok: Any, request: dict[str, Any], fact_token: str, side: str, **policy: Any) -> Tape:
    tok.padding_side = side
    model = Tape(tok)
    rome.CONTEXT_TEMPLATES_CACHE = None
    with padcheck.guard(tok, model=model, **policy):
        rome.execute_rome(model, tok, request, hparams(fact_token=fact_token))
    return model


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("fact_token", FACT_TOKENS)
@pytest.mark.parametrize("name", NAMES)
def test_rome_reads_the_tokens_that_are_meant(rome: Any, name: str, fact_token: str, side: str) -> None:
    tok = tokenizer(name)
    if not targets_occur(tok):
        with pytest.raises(DriftError, match="decoded"):
            rome_reads(rome, tok, REQUESTS[1], fact_token, side)
        return
    for request in REQUESTS:
        model = rome_reads(rome, tok, request, fact_token, side)
        expected = meant(tok, request, fact_token)
        by_kind: dict[str, list[str]] = {}
        for what, _, token in model.reads:
            by_kind.setdefault(what, []).append(token)
        # Subjects and prompts begin with a capital and are preceded by a space or by nothing: two tokens for the same text.
        bare = expected.lstrip("Ġ▁")
        assert len(by_kind["key"]) == len(by_kind["lookup"]) - 1 == 5
        assert {token.lstrip("Ġ▁") for token in by_kind["key"]} == {bare}
        assert {token.lstrip("Ġ▁") for token in by_kind["lookup"][:-1]} == {bare}
        assert all(behind == target for behind, target in model.labels), "labels are on their tokens"
        assert not any(set(row) >= {token} and token == tok.pad_token for _, row, token in model.reads)


@pytest.mark.parametrize("fact_token", FACT_TOKENS)
def test_slow_tokenizers(rome: Any, fact_token: str) -> None:
    """They have no offsets: positions come from decoding."""
    fast = tokenizer("gpt2-shape")
    slow = tokenizer("gpt2-shape", use_fast=False)
    if slow.is_fast:
        pytest.skip("this generation of transformers has no slow GPT-2 tokenizer")
    model = rome_reads(rome, slow, REQUESTS[0], fact_token, "left")
    bare = meant(fast, REQUESTS[0], fact_token).lstrip("Ġ")
    kinds = [what for what, _, _ in model.reads]
    assert {token.lstrip("Ġ") for what, _, token in model.reads if what == "key"} == {bare}
    assert {token.lstrip("Ġ") for what, _, token in model.reads[kinds.index("lookup") : -1]} == {bare}
    assert all(behind == target for behind, target in model.labels)
    assert type(slow).__mro__[0].__name__ == "GPT2Tokenizer"


def test_without_a_guard_the_same_editor_reads_pads(rome: Any) -> None:
    """What is corrected above is really wrong."""
    tok = tokenizer(side="left")
    model = Tape(tok)
    rome.execute_rome(model, tok, REQUESTS[0], hparams())
    wanted = meant(tok, REQUESTS[0], "subject_last")
    assert any(token != wanted for what, _, token in model.reads if what != "generate")
    assert any(token == tok.pad_token for _, _, token in model.reads)


@pytest.mark.parametrize("name", NAMES)
def test_left_padding_under_a_guard_is_right_padding_without_one(rome: Any, name: str) -> None:
    """Every row that is forwarded, and every column that is read in it, is the same (on a tokenizer whose heads survive)."""
    tok = tokenizer(name)
    if not targets_occur(tok):
        pytest.skip("under this generation of transformers no target is right on this tokenizer")
    request = REQUESTS[0] if name.startswith("llama2") else REQUESTS[1]
    corrected = rome_reads(rome, tok, request, "subject_last", "left")
    tok.padding_side = "right"
    rome.CONTEXT_TEMPLATES_CACHE = None
    plain = Tape(tok)
    rome.execute_rome(plain, tok, request, hparams())
    assert (corrected.reads, corrected.labels) == (plain.reads, plain.labels)


@pytest.mark.parametrize("name", ["llama2-metaspace", "llama2-prepend"])
def test_targets_of_sentencepiece_stay_on_their_tokens(rome: Any, name: str) -> None:
    tok = tokenizer(name, "right")
    if not targets_occur(tok):
        pytest.skip("under this generation of transformers no target is right on this tokenizer")
    request = REQUESTS[1]
    plain = Tape(tok)
    rome.execute_rome(plain, tok, request, hparams())
    assert all(behind != target for behind, target in plain.labels), "decode drops the space"
    corrected = rome_reads(rome, tok, request, "subject_last", "right")
    assert corrected.labels
    assert all(behind == target for behind, target in corrected.labels)


def test_a_target_that_no_text_gives_stops_the_edit(rome: Any) -> None:
    """A head that ends inside a character cannot be written as text."""
    tok = tokenizer("gpt2-shape", "right")
    request = {"prompt": "The sign that Leo Tolstoy drew was", "subject": "Leo Tolstoy", "target_new": "🖋"}
    model = Tape(tok)
    with pytest.raises(DriftError, match="decoded"), padcheck.guard(tok, model=model):
        rome.execute_rome(model, tok, request, hparams())
    assert not model.labels


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("fact_token", ["subject_last", "subject_first", "subject_first_after_last"])
def test_memit_in_a_batch(fact_token: str, side: str) -> None:
    tok = tokenizer("llama3-shape", side)
    model = Tape(tok)
    editor = BaseEditor(model, tok, hparams("MEMIT", fact_token))
    with padcheck.guard(tok, model=model) as watch:
        editor.batch_edit(
            [one["prompt"] for one in REQUESTS],
            [one["target_new"] for one in REQUESTS],
            subject=[one["subject"] for one in REQUESTS],
        )
    wanted = {meant(tok, one, fact_token).lstrip("Ġ") for one in REQUESTS}
    keys = [token.lstrip("Ġ") for what, _, token in model.reads if what == "key"]
    assert len(keys) == 3 * len(REQUESTS)
    assert set(keys) == wanted
    assert all(behind == target for behind, target in model.labels)
    assert watch.report()["methods"] == ["MEMIT"]


def test_a_fact_token_that_the_method_cannot_run_with_is_refused_at_once() -> None:
    tok = tokenizer()
    model = Tape(tok)
    editor = BaseEditor(model, tok, hparams("MEMIT", "last"))
    with pytest.raises(DriftError, match="'last'"), padcheck.guard(tok):
        editor.batch_edit([REQUESTS[0]["prompt"]], ["Rome"], subject=[REQUESTS[0]["subject"]])
    assert model.forwards == 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_evaluation_keeps_its_left_padding(rome: Any, side: str) -> None:
    tok = tokenizer(side=side)
    model = Tape(tok)
    editor = BaseEditor(model, tok, hparams())
    one = REQUESTS[2]
    with padcheck.guard(tok, model=model) as watch:
        editor.edit([one["prompt"]], [one["target_new"]], [one["subject"]])
        assert tok.padding_side == side
    rows = [row for what, row, _ in model.reads if what == "evaluate"]
    assert len(rows) == 4
    assert {row[0] == tok.pad_token for row in rows if tok.pad_token in row} == {True}
    assert tok.padding_side == side
    assert [entry["function"].split(": ")[1] for entry in watch.report()["unwatched"]] == ["prediction"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_method_that_trains_gets_the_side_of_its_labels(side: str) -> None:
    """FT counts its labels behind the pads: left padding, which is not what ROME's family needs."""
    tok = tokenizer(side=side)
    model = Tape(tok)
    editor = BaseEditor(model, tok, hparams("FT", "last"))
    with padcheck.guard(tok) as watch:
        editor.batch_edit(
            [one["prompt"] for one in REQUESTS],
            [one["target_new"] for one in REQUESTS],
            subject=[one["subject"] for one in REQUESTS],
        )
    read = [token for what, _, token in model.reads if what == "label"]
    assert read == ["ĠEnglish", *tok.tokenize(" Manila and Rome")[:1], "ĠRome"]
    assert watch.report()["outcome"] == ("right" if side == "left" else "corrected")


def test_a_batch_of_a_site_may_say_its_side_itself(rome: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`padding_side=` of the call, `tok.pad`, and a side set inside the block are seen, and overruled where columns are counted."""
    from tests.guarding.foreign.house.models.rome import repr_tools

    tok = tokenizer(side="right")
    seen: dict[str, list[list[str]]] = {}

    def with_keyword(model: Any, tok: Any, contexts: Any, idxs: Any) -> None:
        seen["keyword"] = model.forward(tok(contexts, padding=True, padding_side="left"))

    def with_pad(model: Any, tok: Any, contexts: Any, idxs: Any) -> None:
        rows = [{"input_ids": tok.encode(text), "attention_mask": [1] * len(tok.encode(text))} for text in contexts]
        seen["pad"] = model.forward(tok.pad(rows, padding_side="left"))

    def with_attribute(model: Any, tok: Any, contexts: Any, idxs: Any) -> None:
        tok.padding_side = "left"
        seen["attribute"] = model.forward(tok(text=contexts, padding="longest"))

    model = Tape(tok)
    contexts = ["The Eiffel Tower is in", "Lyon"]
    for function in (with_keyword, with_pad, with_attribute):
        # The same code in the place of the site's: the site is known by file, name and variables.
        code = function.__code__.replace(
            co_name="get_reprs_at_idxs", co_qualname="get_reprs_at_idxs", co_filename=repr_tools.__file__
        )
        monkeypatch.setattr(
            repr_tools, "get_reprs_at_idxs", type(function)(code, function.__globals__, closure=function.__closure__)
        )
        with padcheck.guard(tok):
            repr_tools.get_reprs_at_idxs(model, tok, contexts, [[-1], [-1]])
            outside = tok(contexts, padding=True, padding_side="left")
            assert outside["attention_mask"][1][0] == 0, "outside the site the call's own side holds"
    for rows in seen.values():
        assert rows[1][0] == "L", rows
        assert rows[1][-1] == tok.pad_token, rows
    assert tok.padding_side == "right"


@pytest.mark.parametrize("name", ["gpt2-shape", "t5-shape", "bert-shape"])
def test_a_constant_minus_one_means_the_last_token_of_the_text(name: str) -> None:
    """Not a pad, and not the special token that some tokenizers append."""
    from tests.guarding.foreign.house.models.rome import repr_tools

    tok = tokenizer(name, "left")
    model = Tape(tok)
    contexts = ["The Eiffel Tower is in Paris", "Lyon is in"]
    with padcheck.guard(tok):
        repr_tools.get_reprs_at_idxs(model, tok, contexts, [[-1], [-1]])
    assert [token for _, _, token in model.reads] == [token_of(tok, text, len(text) - 1) for text in contexts]


def test_what_is_right_already_is_not_touched(rome: Any) -> None:
    tok = tokenizer(side="right")
    model = Tape(tok)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with padcheck.guard(tok, model=model) as watch:
            rome.execute_rome(model, tok, REQUESTS[0], hparams())
    report = watch.report()
    assert report["outcome"] == "right"
    assert report["positions"]["checked"] > 10
    assert report["positions"]["drifting"] == report["positions"]["unknown"] == 0
    assert {entry["used"] for site in report["sites"] for entry in site["padding_side"]} == {"right"}


def test_modules_that_are_imported_inside_the_block(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "late" / "models" / "rome"
    package.mkdir(parents=True)
    for folder in (tmp_path / "late", tmp_path / "late" / "models", package):
        (folder / "__init__.py").touch()
    (package / "repr_tools.py").write_text(
        "def get_reprs_at_idxs(model, tok, contexts, idxs):\n"
        "    rows = model.forward(tok(contexts, padding=True))\n"
        "    model.read('key', rows, [own[0] for own in idxs])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    tok = tokenizer(side="left")
    model = Tape(tok)
    with padcheck.guard(tok):
        from late.models.rome.repr_tools import get_reprs_at_idxs  # type: ignore[import-not-found]

        contexts = ["The Eiffel Tower is in", "Lyon is"]
        get_reprs_at_idxs(model, tok, contexts, [[len(tok.encode(text)) - 1] for text in contexts])
    assert [token for _, _, token in model.reads] == ["Ġin", "Ġis"]
    code = get_reprs_at_idxs.__code__
    assert "contexts" in code.co_varnames, "the function is itself again"


def test_every_drifting_position_is_in_the_report(rome: Any) -> None:
    tok = tokenizer(side="left")
    model = Tape(tok)
    with padcheck.guard(tok) as watch:
        rome.execute_rome(model, tok, {**REQUESTS[0], "case_id": 17}, hparams())
    report = watch.report()
    assert report["outcome"] == "corrected"
    assert (
        report["positions"]["drifting"] == report["positions"]["corrected"] == sum(report["positions"]["by_cause"].values())
    )
    assert set(report["positions"]["by_cause"]) == {"pads"}
    (request,) = report["requests"]["first"]
    assert (request["case_id"], request["subject"]) == (17, "Danielle Darrieux")
    assert sum(part["drifting"] for part in request["sites"].values()) == report["positions"]["drifting"]
    kinds = {site["function"]: (site["framework"], site["kind"]) for site in report["sites"]}
    assert kinds["models/rome/compute_v.py: compute_v"] == ("easyedit", "pads")
    assert kinds["models/rome/repr_tools.py: get_reprs_at_idxs"] == ("easyedit", "reads")
    assert memit_main.CONTEXT_TEMPLATES_CACHE[0] == ["{}"]
