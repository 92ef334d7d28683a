"""Rows that are only shifted are the rows that encoding would give: random templates, prompts and targets, every fixture tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from padcheck.passes import run_pass
from padcheck.planning import Options, settle
from padcheck.positions import rows
from padcheck.positions.cuts import NEVER
from padcheck.sources.hparams import Hparams
from padcheck.sources.templates import Templates
from padcheck.sources.tokenizer_folder import TokenizerFolder, open_tokenizer

SHIPPED = Path(__file__).parent.parent / "fixtures" / "shipped" / "tokenizers"
TOKENIZERS = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
FOLDERS: dict[str, TokenizerFolder] = {}

pieces = st.text(st.sampled_from(list("abeéT 19,.'-?!中国的東京は🙂ش\u0301")), min_size=1, max_size=12).filter(
    lambda text: text.strip() and "{" not in text
)
starts = st.text(st.sampled_from(list("The old house 42,é中!\t")), min_size=1, max_size=14).map(lambda text: f"{text}. {{}}")


def records(
    folder: TokenizerFolder, framework: str, fact_token: str, templates: list[str], request: dict[str, str]
) -> list[dict[str, Any]]:
    hparams = Hparams("<hparams>", {"alg_name": "ROME", "model_name": "llama", "fact_token": fact_token})
    plan = settle(
        hparams, folder, Options(framework=framework, method="ROME", padding_side="left", context_templates=templates)
    )
    found: list[dict[str, Any]] = []
    run_pass(plan, [request], Templates(tuple(templates), ""), rows_out=found.append)
    return found


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    templates=st.lists(starts, min_size=2, max_size=4, unique=True),
    before=st.one_of(st.just(""), pieces.map(lambda text: text + " ")),
    subject=pieces.map(str.strip),
    after=st.one_of(st.just(""), pieces),
    target=pieces,
    framework=st.sampled_from(["easyedit", "fastedit", "unified", "kmeng01-rome"]),
    fact_token=st.sampled_from(["subject_last", "subject_first", "subject_first_after_last", "last"]),
)
def test_shifted_rows_equal_encoded_ones(
    tokenizer: str,
    templates: list[str],
    before: str,
    subject: str,
    after: str,
    target: str,
    framework: str,
    fact_token: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if tokenizer not in FOLDERS:
        FOLDERS[tokenizer] = open_tokenizer(SHIPPED / tokenizer, generation=5)
    folder = FOLDERS[tokenizer]
    request = {"prompt": before + "{}" + after, "subject": subject, "target_new": target}
    given_templates = ["{}", *templates]
    quick = records(folder, framework, fact_token, given_templates, request)
    with monkeypatch.context() as patch:
        patch.setattr(rows, "cuts_of", lambda reader: NEVER)
        slow = records(folder, framework, fact_token, given_templates, request)
    assert quick == slow


def test_rows_are_really_shifted() -> None:
    """The test above would pass if nothing were ever shifted: here most rows are."""
    folder = open_tokenizer(SHIPPED / "gpt2-shape", generation=5)
    hparams = Hparams("<hparams>", {"alg_name": "ROME", "model_name": "llama"})
    plan = settle(hparams, folder, Options(context_templates=["{}", "One two. {}", "Three. {}", "Four five six. {}"]))
    builder = rows.RowBuilder(plan.method, plan.batches, plan.tokenizer.reader, plan.fact_token, plan.templates.texts)
    assert builder.pivot == 1
    assert sorted(builder.shifts) == [2, 3]
