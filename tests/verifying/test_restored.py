"""Whatever happens in `compare`, model, tokenizer and random states are afterwards what they were, bit for bit."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import pytest
import torch

from padcheck.editing.errors import EditError
from padcheck.verifying.comparing import compare
from tests.verifying.models import TEMPLATES, hparams, moments, opened, requests


class Stop(Exception):
    """Something unforeseen."""


def snapshot(model: Any, tokenizer: Any) -> dict[str, Any]:
    """All that a caller could notice, in comparable form."""
    import numpy

    backend = tokenizer.backend_tokenizer
    return {
        "weights": {name: value.detach().numpy().tobytes() for name, value in model.state_dict().items()},
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [
            [
                list(getattr(module, name))
                for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
            ]
            for module in model.modules()
        ],
        "replaced": ["forward" in module.__dict__ for module in model.modules()],
        "config": model.config.to_json_string(use_diff=False),
        "generation": model.generation_config.to_json_string(use_diff=False),
        "attention": model.config._attn_implementation,
        "tokenizer": (tokenizer.padding_side, tokenizer.pad_token, tokenizer.truncation_side, tokenizer.model_max_length),
        "backend": (backend.to_str(), backend.padding, backend.truncation, backend.encode_special_tokens),
        "random": random.getstate(),
        "numpy": pickle.dumps(numpy.random.get_state()),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
    }


def lived_in(name: str) -> tuple[Any, Any]:
    """A model and a tokenizer that are in the middle of something else."""
    model, tokenizer = copy.deepcopy(opened(name)[0]), copy.deepcopy(opened(name)[1])
    model.train()
    list(model.modules())[3].eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 != 0)
    model.config.use_cache = False
    model.register_forward_hook(lambda *_: None)
    tokenizer.padding_side = "left"
    tokenizer(["a", "some more words"], padding=True, truncation=True, max_length=7)  # leaves its settings in the backend
    torch.manual_seed(11)
    return model, tokenizer


@pytest.mark.parametrize("method", ["ROME", "MEMIT", "PMET"])
@pytest.mark.parametrize("name", ["llama-facts", "gpt2-facts"])
def test_after_a_run(name: str, method: str) -> None:
    model, tokenizer = lived_in(name)
    before = snapshot(model, tokenizer)
    wanted = hparams(name, method, v_num_grad_steps=2)
    compare(model, tokenizer, requests(name, 1), wanted, covariance=moments(name), context_templates=TEMPLATES)
    assert snapshot(model, tokenizer) == before


def test_after_a_run_that_samples_its_templates() -> None:
    model, tokenizer = lived_in("gpt2-facts")
    before = snapshot(model, tokenizer)
    compare(model, tokenizer, requests("gpt2-facts", 1), hparams("gpt2-facts", v_num_grad_steps=1), ablate=False)
    assert snapshot(model, tokenizer) == before


@pytest.mark.slow
@pytest.mark.parametrize(("method", "error"), [("ROME", KeyboardInterrupt), ("MEMIT", Stop)])
def test_stopped_at_any_forward(method: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """The model stops the run at its n-th forward pass: while it is looked at, optimised, edited, asked."""
    model, tokenizer = lived_in("llama-facts")
    kind = type(model)
    forward, left, dirty = kind.forward, [0], [0]
    clean = {name: value.clone() for name, value in model.state_dict().items()}

    def counting(self: Any, *arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            dirty[0] += any(not torch.equal(value, clean[name]) for name, value in model.state_dict().items())
            raise error
        return forward(self, *arguments, **options)

    def run() -> None:
        compare(
            model, tokenizer, requests("llama-facts", 1), hparams("llama-facts", method, v_num_grad_steps=2),
            covariance=moments("llama-facts"), context_templates=TEMPLATES[:2], ablate=False,
        )  # fmt: skip

    monkeypatch.setattr(kind, "forward", counting)
    run()
    passes = -left[0]
    before = snapshot(model, tokenizer)
    for stop in range(1, passes + 1, max(1, passes // 20)):
        left[0] = stop
        with pytest.raises(error):
            run()
        assert snapshot(model, tokenizer) == before, f"stopped at pass {stop} of {passes}"
    assert dirty[0] > 2, "some of the stops must have met an edited model"


def test_after_a_refusal_and_after_a_stop_between_requests() -> None:
    model, tokenizer = lived_in("llama-facts")
    before = snapshot(model, tokenizer)
    with pytest.raises(EditError):
        compare(model, tokenizer, requests("llama-facts", 1), hparams("llama-facts", layers=(99,)))
    assert snapshot(model, tokenizer) == before

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(
            model, tokenizer, requests("llama-facts", 2), hparams("llama-facts", v_num_grad_steps=1),
            context_templates=TEMPLATES, ablate=False, on_progress=stop,
        )  # fmt: skip
    assert snapshot(model, tokenizer) == before
