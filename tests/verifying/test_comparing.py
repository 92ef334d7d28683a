"""The same edit right, left and corrected, on the shipped models: padding is the whole difference."""

from __future__ import annotations

import pytest

from padcheck.editing.edits import METHODS
from padcheck.renderers.verification.words import explanation
from padcheck.verifying.comparing import compare
from padcheck.verifying.outcomes import CORRECTED, INDICES, LEFT, MASK, PARTS, POSITIONS, RIGHT
from tests.verifying.models import NAMES, TEMPLATES, hparams, moments, opened, requests, rome


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", NAMES)
def test_padding_is_the_whole_difference(name: str, attention: str) -> None:
    comparison = rome(name, attention)
    assert comparison.attention == attention
    off = comparison.worst_correction()
    assert off is not None
    assert off < 1e-4
    assert comparison.explained
    for one in comparison.compared:
        right, corrected = one.outcomes[RIGHT], one.outcomes[CORRECTED]
        for part in PARTS:
            assert corrected.steps(part) == pytest.approx(right.steps(part), abs=1e-3)
        assert corrected.locality == right.locality
        assert corrected.reading is not None
        assert right.reading is not None
        assert corrected.reading.said == right.reading.said


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", NAMES)
def test_left_falls_well_below_right_in_the_objective(name: str, attention: str) -> None:
    """The answers of three requests decide nothing: benchmarks/phenomenon.py asks all of them."""
    comparison = rome(name, attention)
    assert comparison.curve(LEFT, "probability")[-1] < comparison.curve(RIGHT, "probability")[-1] - 0.25
    assert comparison.curve(LEFT, "loss")[-1] > comparison.curve(RIGHT, "loss")[-1]
    gap, interval = comparison.gap(LEFT), comparison.interval(LEFT)
    assert gap is not None
    assert interval is not None
    assert interval[0] <= gap <= interval[1]


def test_the_ablation_tells_rotary_from_learned_positions() -> None:
    llama, gpt2 = rome("llama-facts", "sdpa"), rome("gpt2-facts", "sdpa")
    assert llama.recovered(INDICES) == pytest.approx(1, abs=1e-3)
    for one in llama.compared:
        assert one.outcomes[INDICES].steps() == pytest.approx(one.outcomes[CORRECTED].steps(), abs=1e-3)
        assert one.outcomes[POSITIONS].steps() == pytest.approx(one.outcomes[LEFT].steps(), abs=5e-2)
    assert "The indices did it." in explanation(llama)
    distances = [abs(one.outcomes[INDICES].steps()[0] - one.outcomes[CORRECTED].steps()[0]) for one in gpt2.compared]
    assert max(distances) > 1e-6, "learned positions: right indices alone do not give the right edit"
    assert any(one.outcomes[MASK].steps() != one.outcomes[LEFT].steps() for one in gpt2.compared)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", [method for method in METHODS if method != "ROME"])
def test_every_method_when_corrected_is_right(name: str, method: str) -> None:
    model, tokenizer = opened(name)
    wanted = hparams(name, method, v_num_grad_steps=6)
    comparison = compare(
        model, tokenizer, requests(name, 1), wanted, covariance=moments(name), context_templates=TEMPLATES, ablate=False
    )
    (one,) = comparison.compared
    right, left, corrected = (one.outcomes[way] for way in (RIGHT, LEFT, CORRECTED))
    # After a few steps probabilities are still tiny: only relative distances say anything.
    assert corrected.probability == pytest.approx(right.probability, rel=1e-2)
    for part in PARTS:
        assert corrected.steps(part) == pytest.approx(right.steps(part), rel=1e-2, abs=1e-6)
    assert left.steps() != pytest.approx(right.steps(), rel=0.2)


def test_the_parts_add_up_to_the_loss() -> None:
    for one in rome("gpt2-facts", "sdpa").compared:
        for outcome in one.outcomes.values():
            assert len(outcome.trace) > 1
            for step in outcome.trace:
                assert step.keys() == set(PARTS)
                assert step["nll"] + step["kl"] + step["weight_decay"] == pytest.approx(step["loss"], abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_is_what_generate_says(name: str) -> None:
    """Before the edit, by transformers' own greedy decoding."""
    import torch

    model, tokenizer = opened(name)
    for one in rome(name, "sdpa").compared:
        assert one.asked == (one.request.prompt, one.request.extra["paraphrases"][0])
        for prompt, said in zip(one.asked, one.before.said, strict=True):
            ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, pad_token_id=0
            )
            assert tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True) == said
            assert said.startswith(f" {one.request.extra['ground_truth']}")


def test_the_row_that_is_shown_is_off_by_its_pads() -> None:
    (_, tokenizer), compared = opened("llama-facts"), rome("llama-facts", "sdpa").compared
    for one in compared:
        lookup, label = one.rows
        assert (lookup.kind, label.kind) == ("lookup", "label")
        assert lookup.pads > 0
        assert lookup.drift == label.drift == -lookup.pads
        cells = lookup.cells
        assert [cell.pad for cell in cells] == [True] * lookup.pads + [False] * (lookup.width - lookup.pads)
        ids = tokenizer.convert_tokens_to_ids([cell.text for cell in cells if not cell.pad])
        assert tokenizer.decode(ids, skip_special_tokens=True).startswith(one.request.prompt)
        assert lookup.truth is not None
        assert label.truth is not None
        until = tokenizer.convert_tokens_to_ids([cell.text for cell in cells[lookup.pads : lookup.truth + 1]])
        assert tokenizer.decode(until, skip_special_tokens=True).endswith(one.request.subject)
        until = tokenizer.convert_tokens_to_ids([cell.text for cell in cells[lookup.pads : label.truth + 1]])
        assert tokenizer.decode(until, skip_special_tokens=True) == one.request.prompt
