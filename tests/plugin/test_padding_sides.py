"""The fixture and marker `padding_sides`: what a test runs under, and the batches that it gets."""

from __future__ import annotations

from typing import Any

import pytest

from padcheck.testing import Padding
from tests.running import SHIPPED

from .conftest import Run

transformers = pytest.importorskip("transformers")

TEXTS = ["The flag of Paris is", "Paris", "Norhold has a flag that is"]


@pytest.fixture(scope="module", params=["llama-facts", "gpt2-facts"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return transformers.AutoTokenizer.from_pretrained(SHIPPED / "models" / request.param)


def ran(result: pytest.RunResult) -> list[str]:
    """The ids in brackets of the tests that ran, in order."""
    return [line.partition("[")[2].partition("]")[0] for line in result.outlines if "::" in line and "PASSED" in line]


# --- What a test runs under -------------------------------------------------------------------------------------------------


def test_a_test_that_takes_it_runs_under_each(pytester: pytest.Pytester, inner: Run) -> None:
    pytester.makepyfile(
        """
        def test_it(padding_sides):
            expected = {"left": "left", "right": "right", "unpadded": None}
            assert padding_sides.side == expected[padding_sides.name] == expected[str(padding_sides)]
        """
    )
    assert ran(inner("-v")) == ["left", "right", "unpadded"]


def test_marker_and_ini_narrow(pytester: pytest.Pytester, inner: Run) -> None:
    pytester.makeini("[pytest]\npadcheck_sides = right unpadded")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.padding_sides("left", "left")
        def test_marked(padding_sides):
            pass

        def test_ini(padding_sides):
            pass

        @pytest.mark.padding_sides
        @pytest.mark.parametrize("other", [1, 2])
        def test_with_others(padding_sides, other):
            pass

        @pytest.mark.padding_sides("unpadded")
        class TestClass:
            def test_in_it(self, padding_sides):
                pass
        """
    )
    expected = ["left", "right", "unpadded", "right-1", "unpadded-1", "right-2", "unpadded-2", "unpadded"]
    assert sorted(ran(inner("-v", "--strict-markers"))) == sorted(expected)


def test_a_test_may_name_its_sides_as_parameters(pytester: pytest.Pytester, inner: Run) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("padding_sides", ["left"], indirect=True)
        def test_indirect(padding_sides):
            assert padding_sides.side == "left"

        @pytest.mark.padding_sides
        @pytest.mark.parametrize(argnames=("n", "padding_sides"), argvalues=[(1, "unpadded")], indirect=["padding_sides"])
        def test_among_others(padding_sides, n):
            assert padding_sides.side is None and n == 1

        @pytest.mark.parametrize("n, padding_sides", [(1, "mine")])
        def test_direct(padding_sides, n):
            assert padding_sides == "mine"

        @pytest.mark.parametrize("padding_sides", ["right"], indirect=True)
        class TestClass:
            def test_in_it(self, padding_sides):
                assert padding_sides.side == "right"
        """
    )
    assert ran(inner("-v")) == ["left", "1-unpadded", "1-mine", "right"]


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (
            "@pytest.mark.padding_sides('middle')\ndef test_it(padding_sides): pass",
            "the marker padding_sides names 'middle': *",
        ),
        ("@pytest.mark.padding_sides\ndef test_it(): pass", "test_it is marked padding_sides but would run the same way *"),
    ],
)
def test_a_marker_that_can_do_nothing_is_an_error(test: str, words: str, pytester: pytest.Pytester, inner: Run) -> None:
    pytester.makepyfile(f"import pytest\n{test}")
    result = inner()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([words])
    assert "Traceback" not in result.stdout.str()


def test_a_projects_own_fixture_of_that_name_is_left_alone(pytester: pytest.Pytester, inner: Run) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(params=["north", "south"])
        def padding_sides(request):
            return request.param

        @pytest.fixture
        def tiny_causal_lm():
            return "mine"
        """
    )
    pytester.makepyfile("def test_it(padding_sides, tiny_causal_lm): assert tiny_causal_lm == 'mine'")
    assert ran(inner("-v")) == ["north", "south"]


def test_the_side_is_put_back(pytester: pytest.Pytester, inner: Run) -> None:
    """Also if the test fails, and if it sets another side itself."""
    pytester.makepyfile(
        """
        import pytest

        class Tokenizer:
            padding_side = "right"

        TOKENIZER = Tokenizer()

        @pytest.fixture(autouse=True)
        def as_before(request):
            yield
            assert TOKENIZER.padding_side == "right"

        @pytest.mark.padding_sides("left", "unpadded")
        @pytest.mark.parametrize("fails", [False, True])
        def test_it(as_before, padding_sides, fails):
            padding_sides.set_on(TOKENIZER)
            assert TOKENIZER.padding_side == (padding_sides.side or "right")
            padding_sides.set_on(TOKENIZER)
            TOKENIZER.padding_side = "left"
            if padding_sides.side is None:
                TOKENIZER.padding_side = "right"  # nothing was set, so nothing is put back
            assert not fails
        """
    )
    inner().assert_outcomes(passed=2, failed=2)


# --- Batches ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("own", ["left", "right"])
def test_one_padded_batch(side: Any, own: str, tokenizer: Any) -> None:
    tokenizer.padding_side = own
    (batch,) = Padding(side).batches(tokenizer, TEXTS)
    assert tokenizer.padding_side == own
    rows = [tokenizer.backend_tokenizer.encode(text).ids for text in TEXTS]
    width = max(map(len, rows))
    pads = [[tokenizer.pad_token_id] * (width - len(row)) for row in rows]
    zeros = [[0] * len(row) for row in pads]
    ones = [[1] * len(row) for row in rows]
    left = side == "left"
    assert batch["input_ids"].tolist() == [a + b if left else b + a for a, b in zip(pads, rows, strict=True)]
    assert batch["attention_mask"].tolist() == [a + b if left else b + a for a, b in zip(zeros, ones, strict=True)]


def test_unpadded_is_a_batch_for_each_text(tokenizer: Any) -> None:
    batches = Padding("unpadded").batches(tokenizer, TEXTS, add_special_tokens=False)
    assert [batch["input_ids"].tolist() for batch in batches] == [
        [tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids] for text in TEXTS
    ]
    assert all(batch["attention_mask"].all() for batch in batches)


def test_a_tokenizer_that_pads_its_own_way_is_found_out(tokenizer: Any) -> None:
    class Stubborn:
        padding_side = "left"

        def __call__(self, texts: list[str], **options: Any) -> Any:
            return tokenizer(texts, padding_side="left", **options)

    with pytest.raises(ValueError, match="Stubborn does not pad on the right"):
        Padding("right").batches(Stubborn(), TEXTS)
    assert len(Padding("left").batches(Stubborn(), TEXTS)) == 1


def test_unknown_side() -> None:
    with pytest.raises(ValueError, match="'middle' is no way to pad: left, right, unpadded"):
        Padding("middle")  # type: ignore[arg-type]
