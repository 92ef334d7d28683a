"""`assert_same_everywhere`: what it must find, what it must not mind, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from padcheck.testing import TEXTS, assert_same_everywhere
from tests.running import SHIPPED

from .conftest import Run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

Batch = Mapping[str, Any]
TOKENIZER = transformers.AutoTokenizer.from_pretrained(SHIPPED / "models" / "llama-facts")


def identity(batch: Batch) -> Any:
    """Something that depends on the token alone."""
    return batch["input_ids"].double().unsqueeze(-1) * torch.tensor([1.0, 0.5])


def position(batch: Batch) -> Any:
    """The token's place in its text, from the mask: right under every padding."""
    return batch["attention_mask"].cumsum(-1) - 1


def column(batch: Batch) -> Any:
    """The token's column: counted from the row's start, so wrong under left padding."""
    return torch.arange(batch["input_ids"].shape[1]).expand(batch["input_ids"].shape)


def from_the_end(batch: Batch) -> Any:
    """The token's column, counted from the row's end: wrong under right padding."""
    return column(batch) - batch["input_ids"].shape[1]


def mean_of_the_row(batch: Batch) -> Any:
    """Pads take part: wrong under both."""
    ids = batch["input_ids"].double()
    return ids.mean(dim=1, keepdim=True).expand(ids.shape)


@pytest.mark.parametrize("fn", [identity, position])
def test_right_functions_pass(fn: Any) -> None:
    assert_same_everywhere(fn, TOKENIZER)


@pytest.mark.parametrize(
    ("fn", "wrong"), [(column, {"left"}), (from_the_end, {"right"}), (mean_of_the_row, {"left", "right"})]
)
def test_wrong_functions_fail_on_the_side_where_they_are_wrong(fn: Any, wrong: set[str]) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_same_everywhere(fn, TOKENIZER)
    said = str(caught.value)
    for side in ("left", "right"):
        assert (f"{side} padding: the same for every token" in said) is (side not in wrong)
        if side not in wrong:
            assert_same_everywhere(fn, TOKENIZER, sides=[side])  # type: ignore[list-item]


def test_pads_may_hold_anything() -> None:
    def garbage(batch: Batch) -> Any:
        return torch.where(batch["attention_mask"].bool().unsqueeze(-1), identity(batch), torch.nan)

    assert_same_everywhere(garbage, TOKENIZER)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(["left", "right"]), st.sampled_from([torch.nan, torch.inf, 1e-2]))
def test_a_single_value_of_a_single_token_is_found_and_named(data: st.DataObject, side: Any, change: float) -> None:
    lengths = [len(TOKENIZER(text)["input_ids"]) for text in TEXTS]
    row = data.draw(st.integers(0, len(TEXTS) - 1))
    token = data.draw(st.integers(0, lengths[row] - 1))
    at = token + (max(lengths) - lengths[row] if side == "left" else 0)

    def spoiled(batch: Batch) -> Any:
        result = identity(batch)
        if len(result) > 1 and bool(batch["attention_mask"][:, 0].all()) == (side == "right"):
            result[row, at, 1] += change
        return result

    with pytest.raises(AssertionError) as caught:
        assert_same_everywhere(spoiled, TOKENIZER)
    said = str(caught.value)
    assert f"{side} padding: 1 of {sum(lengths)} tokens differ" in said
    name = TOKENIZER.convert_ids_to_tokens(TOKENIZER(TEXTS[row])["input_ids"])[token]
    size = "0.01" if change == 1e-2 else "inf"
    assert f"text {row} " in said
    assert f"1 of {lengths[row]} tokens, most at token {token} {name!r} (column {at}): by {size}" in said


def test_tolerances() -> None:
    def noisy(batch: Batch, size: float, dtype: Any) -> Any:
        result = torch.ones(batch["input_ids"].shape, dtype=torch.float64)
        return (result + (size if len(result) > 1 else 0)).to(dtype)

    for dtype, quiet, loud in (
        (torch.float64, 5e-8, 5e-7),
        (torch.float32, 5e-4, 5e-3),
        (torch.float16, 1e-2, 5e-2),
        (torch.bfloat16, 5e-2, 0.3),
    ):
        assert_same_everywhere(lambda batch: noisy(batch, quiet, dtype), TOKENIZER)  # noqa: B023
        with pytest.raises(AssertionError):
            assert_same_everywhere(lambda batch: noisy(batch, loud, dtype), TOKENIZER)  # noqa: B023
        assert_same_everywhere(lambda batch: noisy(batch, loud, dtype), TOKENIZER, atol=0.5)  # noqa: B023
        with pytest.raises(AssertionError):
            assert_same_everywhere(lambda batch: noisy(batch, quiet, dtype), TOKENIZER, rtol=0, atol=1e-9)  # noqa: B023


def test_integers_and_flags_must_be_equal() -> None:
    assert_same_everywhere(lambda batch: batch["input_ids"] % 2 == 0, TOKENIZER)
    with pytest.raises(AssertionError):
        assert_same_everywhere(lambda batch: batch["input_ids"] + len(batch["input_ids"]), TOKENIZER)


def test_equal_infinities_are_equal_and_nan_is_not() -> None:
    assert_same_everywhere(lambda batch: torch.full(batch["input_ids"].shape, -torch.inf), TOKENIZER)
    with pytest.raises(AssertionError):
        assert_same_everywhere(lambda batch: torch.full(batch["input_ids"].shape, torch.nan), TOKENIZER)


def test_numpy_is_as_good() -> None:
    assert_same_everywhere(lambda batch: batch["input_ids"].numpy(), TOKENIZER)


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (
            lambda batch: batch["input_ids"][:, 1:],
            r"the function gave of shape \(1, \d+\) for input_ids of shape \(1, \d+\)",
        ),
        (lambda batch: [1], "the function gave a list for input_ids"),
        (
            lambda batch: SimpleNamespace(logits=1),
            r"the function gave a SimpleNamespace for .* \[B, T, \.\.\.\], such as its logits",
        ),
        (lambda batch: batch["input_ids"].sum(), r"the function gave of shape \(\)"),
    ],
)
def test_another_shape_is_said(fn: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        assert_same_everywhere(fn, TOKENIZER)


@pytest.mark.parametrize("texts", [["Paris"], "Paris", ["Paris is", "Paris is"]])
def test_nothing_to_compare_is_an_error(texts: Any) -> None:
    with pytest.raises(ValueError, match="texts"):
        assert_same_everywhere(identity, TOKENIZER, texts)


# --- On models --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("models_imported")
def test_models(pytester: pytest.Pytester, inner: Run) -> None:
    """Learned positions need position_ids under left padding; rotary ones do not. The failure says so."""
    pytester.makepyfile(
        """
        import torch

        @torch.no_grad()
        def test_as_editors_call_it(assert_same_everywhere, tiny_causal_lm):
            assert_same_everywhere(lambda batch: tiny_causal_lm.model(**batch).logits)

        @torch.no_grad()
        def test_with_positions(assert_same_everywhere, tiny_causal_lm):
            def logits(batch):
                positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
                return tiny_causal_lm.model(**batch, position_ids=positions).logits

            assert_same_everywhere(logits, tiny_causal_lm.tokenizer)
        """
    )
    result = inner("-v")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*::test_as_editors_call_it?llama-facts? PASSED*",
            "*::test_as_editors_call_it?gpt2-facts? FAILED*",
            "E * left padding: * tokens differ",
            "E * does the model learn positions? Then it needs position_ids, *",
            "E * right padding: the same for every token",
        ]
    )


@pytest.mark.usefixtures("models_imported")
def test_ini_and_defaults(pytester: pytest.Pytester, inner: Run) -> None:
    pytester.makeini("[pytest]\npadcheck_rtol = 0\npadcheck_atol = 0.75")
    pytester.makepyfile(
        """
        import pytest
        from transformers import AutoTokenizer

        def half(batch):
            return batch["input_ids"] + 0.5 * (len(batch["input_ids"]) > 1)

        def test_ini(assert_same_everywhere, tiny_causal_lm):
            assert_same_everywhere(half)

        def test_argument_first(assert_same_everywhere, tiny_causal_lm):
            with pytest.raises(AssertionError):
                assert_same_everywhere(half, atol=0.25)

        def test_no_tokenizer(assert_same_everywhere):
            with pytest.raises(TypeError, match="needs a tokenizer"):
                assert_same_everywhere(half)
        """
    )
    inner("-o", "padcheck_models=gpt2-facts").assert_outcomes(passed=3)
    result = inner("-o", "padcheck_models=gpt2-facts", "-o", "padcheck_atol=tiny")
    result.stdout.fnmatch_lines(["*padcheck_atol is no number: 'tiny'*"])
