"""The digest of a model: any change of a weight changes it, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from toys import model_of  # noqa: E402

from padcheck.editing import digest  # noqa: E402
from padcheck.editing.digest import model_digest  # noqa: E402
from padcheck.editing.errors import ArchitectureError  # noqa: E402


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_number_counts(dtype: Any) -> None:
    model = torch.nn.Linear(3, 37, bias=False).to(dtype)  # 111 numbers: their bytes fill no whole count of integers
    before = model_digest(model)
    with torch.no_grad():
        flat = model.weight.view(-1)
        for place in range(len(flat)):
            kept = flat[place].clone()
            flat[place] = torch.nextafter(kept, kept + 1) if dtype.itemsize > 2 else kept + kept.abs() / 64
            assert model_digest(model) != before, place
            flat[place] = kept
        assert model_digest(model) == before
        flat[[4, 5]] = flat[[5, 4]]
        assert model_digest(model) != before


def test_the_class_and_the_shape_count_and_the_strides_do_not() -> None:
    model = torch.nn.Linear(4, 6, bias=False)
    other = torch.nn.Linear(6, 4, bias=False)
    with torch.no_grad():
        other.weight.copy_(model.weight.reshape(4, 6))
    assert model_digest(model) != model_digest(other)
    strided = torch.nn.Linear(4, 6, bias=False)
    strided.weight = torch.nn.Parameter(model.weight.detach().T.contiguous().T)
    shifted = torch.nn.Linear(4, 6, bias=False)
    store = torch.zeros(25)
    store[1:] = model.weight.detach().flatten()  # 4 bytes behind a multiple of 8
    shifted.weight = torch.nn.Parameter(store[1:].view(6, 4))
    assert model_digest(model) == model_digest(strided) == model_digest(shifted)


def test_sums_are_those_of_exact_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's integers do not overflow: modulo 2⁶⁴ they must give what the tensors give, in blocks and behind them."""
    monkeypatch.setattr(digest, "_BLOCK", 16)
    weights = digest._weights()
    values = torch.randn(70, dtype=torch.float64)
    numbers, factors = values.view(torch.int64).tolist(), weights.tolist()
    expected = [
        sum(number * factor for number, factor in zip(numbers[start : start + 16], factors, strict=False)) % 2**64
        for start in range(0, 70, 16)
    ]
    assert digest._sums(values, weights) == b"".join(one.to_bytes(8, "little") for one in expected)
    blocks = values[:64].view(torch.int64).reshape(4, 16)
    assert torch.equal(blocks @ weights, (blocks * weights).sum(1))  # as it is done on a GPU
    assert all(factor % 2 for factor in factors)


def test_the_digest_does_not_change_over_versions() -> None:
    """Statistics on disk are found by it."""
    model = torch.nn.Linear(300, 300, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.arange(90_000.0).reshape(300, 300))
    assert model_digest(model) == "45dcd4d512657dc4b5627b1e8157112f"


def test_offloaded_weights_are_named() -> None:
    model = model_of("llama")
    model.model.layers[1].mlp.down_proj.to("meta")
    with pytest.raises(ArchitectureError, match=r"layers\.1\.mlp\.down_proj\.weight is offloaded"):
        model_digest(model)
