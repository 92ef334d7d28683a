"""`assert_same_everywhere`: a function of a batch gives each token the same, whatever the padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from padcheck.testing.sides import Name, Padding

if TYPE_CHECKING:
    import pytest

TEXTS = (
    "Paris",
    "The flag of Paris is",
    "中国的首都是北京。",
    "Where does the river that runs through the old town of Norhold meet the sea?",
)
"""What is compared by default: rows of four lengths."""

TOLERANCES: Mapping[str, tuple[float, float]] = {
    "float64": (1e-7, 1e-9),
    "float32": (1e-3, 1e-4),
    "float16": (1e-2, 1e-2),
    "bfloat16": (5e-2, 5e-2),
}
"""rtol and atol by dtype. Sums are taken in another order in a wider batch; a padding fault is larger by far. Integers: equal."""

SHOWN = 4
"""Rows of each side that a failure shows."""


class Comparison(Protocol):
    """The fixture `assert_same_everywhere`."""

    def __call__(
        self,
        fn: Callable[[Mapping[str, Any]], Any],
        tokenizer: Any = None,
        texts: Sequence[str] = TEXTS,
        *,
        sides: Sequence[Name] = ("left", "right"),
        rtol: float | None = None,
        atol: float | None = None,
    ) -> None: ...


@dataclass(frozen=True)
class _Row:
    """How far one row of a padded batch is off. `differs`, `size`: real tokens that differ, their largest difference; [n]."""

    number: int
    pads: int
    differs: Any
    size: Any
    token_ids: Any
    columns: Any


def assert_same_everywhere(
    fn: Callable[[Mapping[str, Any]], Any],
    tokenizer: Any,
    texts: Sequence[str] = TEXTS,
    *,
    sides: Sequence[Name] = ("left", "right"),
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Assert that `fn` gives every real token the same in a padded batch as in its text alone.

    The texts are tokenised once each on their own and once as a batch for each side. What `fn` gives for the pads is left out.

    Args:
        fn: takes a batch as the tokenizer makes it (`input_ids` and `attention_mask`, [B, T]) and returns an array or a
            tensor [B, T, ...]: something for each token, such as logits, hidden states or a mask.
        tokenizer: a tokenizer of transformers, with a pad token.
        texts: at least two, of different numbers of tokens.
        sides: the sides to pad on.
        rtol, atol: `|padded - alone| <= atol + rtol * |alone|`; by default from the dtype, see `TOLERANCES`.

    Raises:
        AssertionError: a value differs or is not finite; with the side, the text, the token and the difference.
        ValueError: the result of `fn` has another shape, or there would be no padding to compare.
    """
    __tracebackhide__ = True
    if isinstance(texts, str) or len(texts) < 2:
        raise ValueError("give at least two texts, so that one of them is padded")
    alone = []
    for batch in Padding("unpadded").batches(tokenizer, texts):
        alone.append(_call(fn, batch)[0])  # noqa: PERF401 (a comprehension would stand in the traceback of what fn raises)
    limits = _limits(alone[0], rtol, atol)
    found: dict[str, list[_Row]] = {}
    for side in sides:
        (batch,) = Padding(side).batches(tokenizer, texts)
        mask = _array(batch["attention_mask"]) != 0
        if mask.all():
            raise ValueError(
                "all texts have the same number of tokens, so nothing is padded: give texts of different lengths"
            )
        ids = _array(batch["input_ids"])
        result = _call(fn, batch)
        found[side] = [
            _row(number, mask[number], ids[number], result[number], alone[number], limits) for number in range(len(texts))
        ]
    if any(row.differs.any() for rows in found.values() for row in rows):
        raise AssertionError(_message(found, texts, tokenizer, limits))


def for_test(request: pytest.FixtureRequest) -> Comparison:
    """`assert_same_everywhere` with the tolerances of the ini file, and the tokenizer of `tiny_causal_lm` where a test uses it."""
    import pytest

    ini: dict[str, float | None] = {}
    for name in ("rtol", "atol"):
        given = request.config.getini(f"padcheck_{name}")
        try:
            ini[name] = float(given) if given else None
        except ValueError:
            raise pytest.UsageError(f"padcheck_{name} is no number: {given!r}") from None

    def compare(
        fn: Callable[[Mapping[str, Any]], Any],
        tokenizer: Any = None,
        texts: Sequence[str] = TEXTS,
        *,
        sides: Sequence[Name] = ("left", "right"),
        rtol: float | None = None,
        atol: float | None = None,
    ) -> None:
        __tracebackhide__ = True
        if tokenizer is None:
            if "tiny_causal_lm" not in request.fixturenames:
                raise TypeError("assert_same_everywhere needs a tokenizer, except in a test that uses tiny_causal_lm")
            tokenizer = request.getfixturevalue("tiny_causal_lm").tokenizer
        rtol = ini["rtol"] if rtol is None else rtol
        atol = ini["atol"] if atol is None else atol
        assert_same_everywhere(fn, tokenizer, texts, sides=sides, rtol=rtol, atol=atol)

    return compare


# --- Numbers ----------------------------------------------------------------------------------------------------------------


def _call(fn: Callable[[Mapping[str, Any]], Any], batch: Mapping[str, Any]) -> Any:
    """The result as an array [B, T, ...]."""
    __tracebackhide__ = True
    shape = tuple(batch["input_ids"].shape)
    result = fn(batch)
    if tuple(getattr(result, "shape", ()))[:2] != shape:
        got = f"of shape {tuple(result.shape)}" if hasattr(result, "shape") else f"a {type(result).__name__}"
        hint = ", such as its logits" if hasattr(result, "logits") else ""
        raise ValueError(f"the function gave {got} for input_ids of shape {shape}: it must give [B, T, ...]{hint}")
    return result


def _array(values: Any) -> Any:
    """A numpy array of what a tensor or an array holds; half precision as float32."""
    import numpy

    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.dtype.itemsize == 2 and values.is_floating_point() else values).numpy()
    return numpy.asarray(values)


def _limits(values: Any, rtol: float | None, atol: float | None) -> tuple[float, float]:
    known = TOLERANCES.get(str(values.dtype).removeprefix("torch."), (0.0, 0.0))
    return known[0] if rtol is None else rtol, known[1] if atol is None else atol


def _row(number: int, mask: Any, ids: Any, padded: Any, alone: Any, limits: tuple[float, float]) -> _Row:
    """Compare the real tokens of one row, padded: [T, ...], with alone: [n, ...]."""
    import numpy

    columns = numpy.flatnonzero(mask)
    n = len(columns)
    got = _array(padded)[columns].reshape(n, -1).astype(numpy.float64)
    wanted = _array(alone).reshape(n, -1).astype(numpy.float64)
    rtol, atol = limits
    with numpy.errstate(invalid="ignore"):
        gap = numpy.where(got == wanted, 0.0, numpy.abs(got - wanted))  # equal infinities are equal: masked logits
    gap[numpy.isnan(gap)] = math.inf
    with numpy.errstate(invalid="ignore"):
        differs = ~(gap <= atol + rtol * numpy.abs(numpy.where(numpy.isfinite(wanted), wanted, 0.0)))
    return _Row(number, len(mask) - n, differs.any(axis=1), gap.max(axis=1), ids[columns], columns)


# --- Words ------------------------------------------------------------------------------------------------------------------


def _message(found: Mapping[str, Sequence[_Row]], texts: Sequence[str], tokenizer: Any, limits: tuple[float, float]) -> str:
    lines = [
        f"the function gives tokens another value in a padded batch than alone (rtol {limits[0]:g}, atol {limits[1]:g})"
    ]
    for side, rows in found.items():
        wrong = [row for row in rows if row.differs.any()]
        if not wrong:
            lines.append(f"{side} padding: the same for every token")
            continue
        tokens = sum(len(row.differs) for row in rows)
        lines.append(f"{side} padding: {sum(int(row.differs.sum()) for row in wrong)} of {tokens} tokens differ")
        lines += [_line(row, texts[row.number], tokenizer) for row in wrong[:SHOWN]]
        if len(wrong) > SHOWN:
            lines.append(f"  and {len(wrong) - SHOWN} more rows")
        if side == "left" and all(row.differs.all() == bool(row.pads) for row in rows):
            lines.append(
                "  Every token of the rows with pads, and none of the others: does the model learn positions? Then it needs "
                "position_ids, batch['attention_mask'].cumsum(-1) - 1 with 0 for the pads."
            )
    return "\n".join(lines)


def _line(row: _Row, text: str, tokenizer: Any) -> str:
    """A row that differs: its text, and the token where it differs most."""
    worst = int(row.size.argmax())
    token = tokenizer.convert_ids_to_tokens(int(row.token_ids[worst]))
    text = text if len(text) <= 40 else text[:39] + "…"
    return (
        f"  text {row.number} {text!r}, {row.pads} pads: {int(row.differs.sum())} of {len(row.differs)} tokens, "
        f"most at token {worst} {token!r} (column {int(row.columns[worst])}): by {row.size[worst]:.3g}"
    )
