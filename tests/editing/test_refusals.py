"""What cannot be edited rightly is refused by name, with the reason, and the model is what it was, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from toys import GROUPS, MANY, REQUESTS, covariance_of, hparams_of, model_of, run, same, snapshot, tokenizer_of  # noqa: E402

from padcheck.editing import EditError, edit, load_hparams  # noqa: E402
from padcheck.editing.errors import (  # noqa: E402
    ArchitectureError,
    CovarianceError,
    HparamsError,
    ObjectiveError,
    RequestError,
    SolveError,
    StateError,
    TemplateError,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@contextmanager
def refused(model: Any, error: type[EditError], says: str) -> Iterator[None]:
    """The block raises `error`, which says so, and leaves the model as it was."""
    before = snapshot(model)
    with pytest.raises(error, match=says):
        yield
    assert same(before, snapshot(model))


@pytest.mark.parametrize(
    ("error", "says", "method", "changes"),
    [
        (ArchitectureError, "has no 'mlq'", "ROME", {"rewrite_module_tmp": "model.layers.{}.mlq.down_proj"}),
        (ArchitectureError, "layers 0 to 3", "ROME", {"layers": [7]}),
        (ArchitectureError, "layers 0 to 3", "MEMIT", {"layers": [1, 4]}),
        (ArchitectureError, "whose weight is no matrix", "ROME", {"rewrite_module_tmp": "model.layers.{}.input_layernorm"}),
        (ArchitectureError, "has no 'blocks'", "ROME", {"layer_module_tmp": "model.blocks.{}"}),
        (HparamsError, "did you mean MEMIT", "MEMIT", {"alg_name": "MEMITT"}),
        (HparamsError, "ascending", "MEMIT", {"layers": [2, 1]}),
        (HparamsError, "fact_token", "MEMIT", {"fact_token": "subject_lats"}),
        (HparamsError, "never even evaluated", "MEMIT", {"v_num_grad_steps": 0}),
        (HparamsError, "exactly one of", "R-ROME", {"enable_prompt_keys": True}),
        (HparamsError, "'layers' is", "MEMIT", {"layers": [float("inf")]}),
        (HparamsError, "exactly one {}", "ROME", {"rewrite_module_tmp": "model.layers.{}.mlp.{x}"}),
        (HparamsError, "MEMIT's as well as EMMET's", "MEMIT", {"alg_name": None, "update_norm_lambda": 0}),
        (
            HparamsError,
            "alpha, neuron_threshold are not: add 'alg_name'",
            "MEMIT",
            {"alg_name": None, "alpha": 1, "neuron_threshold": 1},
        ),
        (HparamsError, "no part of", "PMET", {"rewrite_module_tmps": ["model.layers.{}.mlp.up_proj"]}),
        (ObjectiveError, "does not depend", "MEMIT", {"layers": [2, 3]}),
        (ObjectiveError, "moves the value by more than", "ROME", {"v_lr": 1e300, "clamp_norm_factor": 1e300}),
        (CovarianceError, "below nullspace_threshold", "AlphaEdit", {"nullspace_threshold": 1e-9}),
    ],
)
def test_refusals_name_their_cause(error: type[EditError], says: str, method: str, changes: dict[str, Any]) -> None:
    model = model_of("llama")
    moments = covariance_of(model, hparams_of("llama", method))
    with refused(model, error, says):
        run("llama", method, model=model, covariance=moments, **changes)


def test_weights_that_are_computed_from_others() -> None:
    """What would be written to them is lost at the next forward pass."""
    model = model_of("llama")
    moments = covariance_of(model, hparams_of("llama", "ROME"))
    torch.nn.utils.parametrizations.weight_norm(model.model.layers[1].mlp.down_proj)
    with refused(model, ArchitectureError, "is no parameter of the model"):
        run("llama", "ROME", model=model, covariance=moments)


@pytest.mark.parametrize("requests", [Path("requests.json"), "requests.json", None, 3])
def test_requests_that_are_no_records(requests: Any) -> None:
    with pytest.raises(RequestError, match="requests are records"):
        edit(
            model_of("llama"),
            tokenizer_of("llama"),
            requests,
            hparams_of("llama", "ROME"),
            context_templates=["{}"],
            covariance={},
        )


@pytest.mark.parametrize("templates", [[["{}"], "abc {}"], [1], [["{}", "a {}"], ["b {}"]], [[1]], []])
def test_templates_that_are_none(templates: Any) -> None:
    with pytest.raises(TemplateError):
        edit(
            model_of("llama"),
            tokenizer_of("llama"),
            REQUESTS[:1],
            hparams_of("llama", "ROME"),
            context_templates=templates,
            covariance={},
        )


@pytest.mark.parametrize("part", ["subject", "target"])
def test_a_subject_or_target_that_nobody_can_read(part: str) -> None:
    """Whatever stands for what a tokenizer cannot read must not be edited in its place."""
    from padcheck.editing.rows import facts_of, grouped, requests_of
    from padcheck.sources.token_readers import wrap

    reader, requests, groups = wrap(tokenizer_of("llama")).reader, requests_of(REQUESTS[:1]), grouped(["{}"])
    (fact,), _ = facts_of(requests, reader, groups, "subject_last", unknown=None)
    row = fact.prompts[0]
    unknown = row.ids[row.lookup] if part == "subject" else fact.target[-1]
    with pytest.raises(RequestError, match=f"reads the {part} .* as the unknown token"):
        facts_of(requests, reader, groups, "subject_last", unknown=unknown)


def test_templates_longer_than_the_model(tmp_path: Path) -> None:
    model, hparams = model_of("gpt2"), hparams_of("gpt2", "ROME", context_template_length_params=[[500, 5]])
    with refused(model, HparamsError, "the model stops at 128"):
        edit(model, tokenizer_of("gpt2"), REQUESTS[:1], hparams, covariance=covariance_of(model, hparams))


# ---- Numbers


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_that_are_not_finite(dtype: Any) -> None:
    for method in ("ROME", "MEMIT"):
        for value in (float("nan"), float("inf")):
            model = model_of("llama", dtype=dtype)
            moments = covariance_of(model, hparams_of("llama", method))
            with torch.no_grad():
                model.model.layers[3].mlp.down_proj.weight[0, 0] = value
            with refused(model, ArchitectureError, "not finite"):
                run("llama", method, model=model, covariance=moments)


def test_hidden_states_too_large_for_float16() -> None:
    model = model_of("llama", dtype=torch.float16)
    moments = covariance_of(model, hparams_of("llama", "ROME"))
    with torch.no_grad():
        for module, factor in ((model.model.layers[3].mlp.up_proj, 100), (model.model.layers[3].mlp.down_proj, 3e4)):
            module.weight.mul_(factor)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    with refused(model, ArchitectureError, "float16 is too narrow"):
        run("llama", "ROME", model=model, covariance=moments)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_zero_value_is_named(dtype: Any) -> None:
    model = model_of("llama", dtype=dtype)
    moments = covariance_of(model, hparams_of("llama", "ROME"))
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.zero_()
    with refused(model, ObjectiveError, "is zero"):
        run("llama", "ROME", model=model, covariance=moments)


# ---- Second moments


def test_covariances_are_checked() -> None:
    model = model_of("llama")
    good = covariance_of(model, hparams_of("llama", "MEMIT"))
    name = next(iter(good))
    for bad, says in (
        ({}, "needs the second moment"),
        ({**good, name: good[name][:50, :50]}, "of another model"),
        ({**good, name: good[name] * float("nan")}, "not finite"),
        ({**good, name: good[name] + torch.randn(96, 96)}, "not symmetric"),
        ({**good, name: -good[name]}, "negative"),
    ):
        with refused(model, CovarianceError, says):
            run("llama", "MEMIT", model=model, covariance=bad)


@pytest.mark.parametrize("method", ["ROME", "MEMIT", "EMMET", "AlphaEdit"])
def test_singular_systems_are_named(method: str) -> None:
    """Also where the layer below has been written already: the last second moment is the singular one."""
    model = model_of("llama")
    moments = covariance_of(model, hparams_of("llama", method))
    flat = torch.zeros(96, 96)
    flat[0, 0] = 1
    moments = {**moments, list(moments)[-1]: flat}
    changes = {"L2": 0.0} if method == "AlphaEdit" else {}
    with refused(model, SolveError, "singular|ill-conditioned"):
        run("llama", method, model=model, covariance=moments, **changes)


def test_the_same_fact_twice_is_singular_for_an_exact_method() -> None:
    model = model_of("llama")
    with refused(model, SolveError, "two facts the same"):
        run("llama", "EMMET", [MANY[0], MANY[0]], model=model, emmet_lambda=0.0)


# ---- States


def test_a_state_of_another_model_method_or_layer() -> None:
    model, other = model_of("llama"), model_of("llama", seed=1)
    hparams = hparams_of("llama", "AlphaEdit")
    moments = covariance_of(model, hparams)
    state = run("llama", "AlphaEdit", MANY[:2], model=model, covariance=moments).state

    def again(subject: Any, values: dict[str, Any]) -> None:
        edit(subject, tokenizer_of("llama"), MANY[2:3], values, context_templates=GROUPS, covariance=moments, state=state)

    with refused(model, StateError, "its edits were not applied"):
        again(model, hparams)
    with refused(other, StateError, "not the one that this state describes"):
        again(other, hparams)
    with refused(model, StateError, "is of AlphaEdit, not of MEMIT"):
        again(model, hparams_of("llama", "MEMIT"))
    with refused(model, StateError, "are to be rewritten"):
        again(model, {**hparams, "layers": [0, 1]})


def test_updates_of_another_model_are_not_written() -> None:
    result, other = run("llama", "ROME"), model_of("llama", intermediate_size=128)
    for write in (result.write, lambda model: result.applied(model).__enter__()):
        with refused(other, StateError, "of another"):
            write(other)
    gpt2 = model_of("gpt2")
    with refused(gpt2, StateError, r"has no model\.layers\.1"):
        result.write(gpt2)


# ---- Weights that cannot take an update


def test_offloaded_weights(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    ways = (
        lambda model: model.model.layers[1].mlp.down_proj.to("meta"),
        lambda model: accelerate.cpu_offload(model, execution_device="cpu"),
        lambda model: accelerate.disk_offload(model, tmp_path, execution_device="cpu"),
    )
    for offload in ways:
        model = model_of("llama")
        offload(model)
        with refused(model, ArchitectureError, "is offloaded"):
            run("llama", "ROME", model=model, covariance={})


def _as_of(package: str, base: type[torch.nn.Module]) -> type[torch.nn.Module]:
    """A subclass that a package might bring."""
    return type("Linear4bit", (base,), {"__module__": f"{package}.nn.modules"})


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_and_wrapped_weights() -> None:
    quantised = torch.ao.nn.quantized.dynamic.Linear(96, 48)
    wrapped = _as_of("bitsandbytes", torch.nn.Linear)(96, 48, bias=False)
    narrow = torch.nn.Linear(96, 48, bias=False)
    narrow.weight = torch.nn.Parameter(torch.zeros(48, 96, dtype=torch.int8), requires_grad=False)
    for module, says in (
        (quantised, "full precision|weight matrix"),
        (wrapped, "bitsandbytes Linear4bit: quantised or wrapped"),
        (narrow, "quantised weights cannot take an update"),
    ):
        model = model_of("llama")
        model.model.layers[1].mlp.down_proj = module
        before = {name: value.clone() for name, value in model.named_parameters()}
        with pytest.raises(ArchitectureError, match=says):
            run("llama", "ROME", model=model, covariance={})
        assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    model = model_of("llama")
    model.config.quantization_config = {"quant_method": "gptq"}
    with refused(model, ArchitectureError, "the model is quantised"):
        run("llama", "ROME", model=model, covariance={})


def test_fused_weights() -> None:
    """Experts lie in one tensor, or are modules in a list: neither is a matrix that an update fits."""
    config = transformers.AutoConfig.for_model(
        "mixtral", vocab_size=4096, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=2,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    moe = next(name for name, _ in model.model.layers[0].named_children() if name in ("mlp", "block_sparse_moe"))
    with refused(model, ArchitectureError, r"without a weight matrix of its own \(fused or packed\)"):
        run("llama", "ROME", model=model, covariance={}, rewrite_module_tmp=f"model.layers.{{}}.{moe}.experts")


def test_shared_weights() -> None:
    model = model_of("llama")
    model.model.layers[2].mlp.down_proj.weight = model.model.layers[1].mlp.down_proj.weight
    with refused(model, ArchitectureError, r"is shared with model\.layers\.2"):
        run("llama", "ROME", model=model, covariance={})


# ---- Architectures


def test_a_norm_after_the_module_stops_memit_and_a_factor_scales_it() -> None:
    model = model_of("gemma2")
    with refused(model, ArchitectureError, "a norm stands after it"):
        run("gemma2", "MEMIT", model=model)
    from padcheck.editing.architecture import Architecture

    hparams = load_hparams(hparams_of("granite", "MEMIT"))
    with torch.no_grad():
        sites = Architecture(model_of("granite"), hparams).sites
    assert [round(site.factor, 3) for (site,) in sites] == [0.5, 0.5]


def test_recurrent_hybrids() -> None:
    config = transformers.AutoConfig.for_model(
        "qwen3_next", vocab_size=64, hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=32,
        head_dim=16, linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8,
        linear_value_head_dim=8, num_experts=0,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    with refused(model, ArchitectureError, "linear"):
        run("llama", "ROME", model=model, covariance={})


def test_encoder_decoders() -> None:
    config = transformers.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    model = transformers.T5ForConditionalGeneration(config)
    with refused(model, ArchitectureError, "encoder-decoder"):
        run("llama", "ROME", model=model, covariance={})


# ---- Requests and templates


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"prompt": "Where is it?", "subject": "Oslo", "target_new": "x"}, "does not stand in"),
        ({"prompt": "Oslo or Oslo is", "subject": "Oslo", "target_new": "x"}, "2 times"),
        ({"prompt": "{} is", "subject": " ", "target_new": "x"}, "subject is empty"),
        ({"prompt": "{} is", "subject": "Oslo", "target_new": " "}, "target is empty"),
        ({"prompt": "{} is", "subject": "Oslo"}, "target_new"),
        ({"prompt": "{} is" + " very" * 200, "subject": "Oslo", "target_new": "x"}, "the model stops at 128"),
    ],
)
def test_requests_are_checked(request_: dict[str, str], says: str) -> None:
    model = model_of("gpt2")
    with refused(model, RequestError, says):
        run("gpt2", "ROME", [request_], model=model)


def test_another_models_tokenizer() -> None:
    model = model_of("llama", vocab_size=300)
    with refused(model, RequestError, "ids that the model does not have"):
        run("llama", "ROME", REQUESTS[:1], model=model)


def test_templates_are_checked() -> None:
    model = model_of("gpt2")
    for templates in (["I know. {}", "{}"], ["{}", "no place"], [["{} {}"]]):
        with refused(model, TemplateError, "context template"):
            run("gpt2", "ROME", model=model, templates=copy.deepcopy(templates))
