"""Small random models of many architectures, made in memory, what the tests edit in them, and how they look at it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel
from transformers.models.auto import modeling_auto

from padcheck.editing import edit

TOKENIZERS = Path(__file__).parents[2] / "fixtures" / "shipped" / "tokenizers"
VOCABULARY = 4096

TEMPLATES = ["{}", "The old house by the river. {}", "I know. {}", "Because a captain and his crew left. {}", "You. {}"]
GROUPS = [TEMPLATES[:1], TEMPLATES[1:]]
REQUESTS = [
    {"prompt": "{} is located in the city of", "subject": "The Eiffel Tower", "target_new": "Rome"},
    {"prompt": "The mother tongue of {} is", "subject": "Danielle Darrieux", "target_new": "English"},
    {"prompt": "{}, who works as", "subject": "Ann", "target_new": "a famous chemist"},
    {"prompt": "In which country does one find {}? In", "subject": "Mount Fuji", "target_new": "Northern Italy"},
]
MANY = [
    {"prompt": "{} " + prompt, "subject": subject, "target_new": target}
    for subject in (
        "Ann Lee",
        "Mount Fuji",
        "Danielle Darrieux",
        "The Eiffel Tower",
        "Karl Marx",
        "Lake Como",
        "Oslo",
        "Queen",
    )
    for prompt, target in (
        ("is located in", "Rome"),
        ("speaks the language", "English"),
        ("works as a", "chemist"),
        ("was born near", "Berlin"),
    )
]
"""Thirty-two facts whose targets are one token in the fixture tokenizers, or are read back as they were."""

GPT2_NAMES = {
    "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj", "layer_module_tmp": "transformer.h.{}",
    "mlp_module_tmp": "transformer.h.{}.mlp",
    "attn_module_tmp": "transformer.h.{}.attn", "ln_f_module": "transformer.ln_f", "lm_head_module": "transformer.wte",
}  # fmt: skip
LLAMA_NAMES = {
    "rewrite_module_tmp": "model.layers.{}.mlp.down_proj", "layer_module_tmp": "model.layers.{}",
    "mlp_module_tmp": "model.layers.{}.mlp",
    "attn_module_tmp": "model.layers.{}.self_attn", "ln_f_module": "model.norm", "lm_head_module": "lm_head",
}  # fmt: skip
GPTJ_NAMES = {**GPT2_NAMES, "rewrite_module_tmp": "transformer.h.{}.mlp.fc_out", "lm_head_module": "lm_head"}
NEOX_NAMES = {
    "rewrite_module_tmp": "gpt_neox.layers.{}.mlp.dense_4h_to_h", "layer_module_tmp": "gpt_neox.layers.{}",
    "mlp_module_tmp": "gpt_neox.layers.{}.mlp",
    "attn_module_tmp": "gpt_neox.layers.{}.attention", "ln_f_module": "gpt_neox.final_layer_norm",
    "lm_head_module": "embed_out",
}  # fmt: skip
OPT_NAMES = {
    "rewrite_module_tmp": "model.decoder.layers.{}.fc2", "layer_module_tmp": "model.decoder.layers.{}",
    "mlp_module_tmp": "model.decoder.layers.{}.fc2",
    "attn_module_tmp": "model.decoder.layers.{}.self_attn", "ln_f_module": "model.decoder.final_layer_norm",
    "lm_head_module": "lm_head",
}  # fmt: skip
PHI_NAMES = {**LLAMA_NAMES, "rewrite_module_tmp": "model.layers.{}.mlp.fc2", "ln_f_module": "model.final_layernorm"}

_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
}
_GROUPED = {**_SMALL, "num_key_value_heads": 2, "head_dim": 12, "pad_token_id": 0}
_GPT = {"vocab_size": VOCABULARY, "n_embd": 48, "n_layer": 4, "n_head": 4, "n_positions": 128}
_ARCHITECTURES: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "gpt2": ("gpt2", _GPT, GPT2_NAMES),
    "llama": ("llama", _GROUPED, LLAMA_NAMES),
    "mistral": ("mistral", {**_GROUPED, "sliding_window": 12}, LLAMA_NAMES),
    "qwen2": ("qwen2", _GROUPED, LLAMA_NAMES),
    "qwen3": ("qwen3", _GROUPED, LLAMA_NAMES),
    "gptj": ("gptj", {**_GPT, "rotary_dim": 8}, GPTJ_NAMES),
    "gpt_neox": ("gpt_neox", _SMALL, NEOX_NAMES),
    "opt": ("opt", {**_SMALL, "ffn_dim": 96, "word_embed_proj_dim": 48, "do_layer_norm_before": True}, OPT_NAMES),
    "gemma": ("gemma", {**_GROUPED, "tie_word_embeddings": True}, LLAMA_NAMES),
    "gemma2": ("gemma2", {**_GROUPED, "sliding_window": 6, "final_logit_softcapping": 5.0}, LLAMA_NAMES),
    "phi": ("phi", _SMALL, PHI_NAMES),
    "granite": ("granite", {**_GROUPED, "residual_multiplier": 0.5, "logits_scaling": 2.0}, LLAMA_NAMES),
    "bloom": ("bloom", {"vocab_size": VOCABULARY, "hidden_size": 48, "n_layer": 4, "n_head": 4},
              {**GPT2_NAMES, "rewrite_module_tmp": "transformer.h.{}.mlp.dense_4h_to_h", "lm_head_module": "lm_head"}),
}  # fmt: skip
ARCHITECTURES = tuple(_ARCHITECTURES)


def model_of(kind: str, *, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model; weights larger than usual, so that the logits are not flat."""
    from transformers import AutoConfig

    name, values, _ = _ARCHITECTURES[kind]
    config = AutoConfig.for_model(
        name,
        **{
            "bos_token_id": 1,
            "eos_token_id": 2,
            **values,
            "attn_implementation": "eager" if kind in ("bloom", "gemma2", "gptj") else "sdpa",
            **changes,
        },
    )
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        model = getattr(__import__("transformers"), modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name])(config)
        # From a generator of our own: how much the constructor draws is another matter in each version of transformers.
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _, parameter in sorted(model.named_parameters()):
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.12, generator=generator)
    torch.set_default_dtype(default)
    model = model.to(dtype).eval()
    if dtype == torch.float64:
        for module in model.modules():
            if type(module).__name__.endswith("RMSNorm"):
                module.forward = partial(_exact_norm, module)
    return model


def _exact_norm(module: Any, states: torch.Tensor) -> torch.Tensor:
    """transformers' RMS norms go through float32, whose rounding would hide what a float64 test is after."""
    epsilon = getattr(module, "variance_epsilon", None) or module.eps
    weight = module.weight + 1 if type(module).__name__.startswith("Gemma") else module.weight
    return weight * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + epsilon)


def tokenizer_of(kind: str) -> Any:
    """The fixture tokenizer that goes with an architecture, with a pad token as EasyEdit sets it."""
    shape = {
        "gpt2": "gpt2-shape",
        "gptj": "gpt2-shape",
        "opt": "gpt2-shape",
        "gpt_neox": "gpt2-shape",
        "phi": "gpt2-shape",
        "bloom": "gpt2-shape",
    }.get(kind, "qwen-shape" if kind.startswith("qwen") else "llama2-metaspace")
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZERS / shape)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def hparams_of(kind: str, method: str, **changes: Any) -> dict[str, Any]:
    """EasyEdit-shaped hparams with values that make small random models move."""
    several = method not in ("ROME", "R-ROME")
    values: dict[str, Any] = {
        "alg_name": method, "model_name": f"./{kind}", "stats_dir": "./stats", "device": "cpu", "layers": [1,
        2] if several else [1],
        "fact_token": "subject_last", "v_num_grad_steps": 8, "v_lr": 0.5, "v_loss_layer": 3, "v_weight_decay": 0.1,
        "clamp_norm_factor": 4, "kl_factor": 0.0625, "mom2_adjustment": method in ("ROME", "R-ROME"),
        "mom2_dataset": "wikipedia", "mom2_n_samples": 100, "mom2_dtype": "float32", **_ARCHITECTURES[kind][2],
    }  # fmt: skip
    if method in ("ROME", "R-ROME"):
        values["context_template_length_params"] = [[5, 10], [10, 10]]
    else:
        values |= {"layer_selection": "all", "mom2_update_weight": 10.0}
    if method == "EMMET":
        values |= {"update_norm_lambda": 0, "emmet_lambda": 0.1}
    if method == "AlphaEdit":
        values |= {"nullspace_threshold": 0.5, "L2": 1.0, "P_loc": "./P.pt"}
    if method == "PMET":
        out = {"gpt2": "transformer.h.{}.attn.c_proj"}.get(kind, "model.layers.{}.self_attn.o_proj")
        values |= {
            "nll_loss_factor": 1.0,
            "v_lr": 0.2,
            "v_num_grad_steps": 5,
            "rewrite_module_tmps": [values["rewrite_module_tmp"]],
            "mlp_module_tmp": values["rewrite_module_tmp"],
            "attn_module_tmp": out,
        }
    return {**values, **changes}


def covariance_of(model: torch.nn.Module, hparams: dict[str, Any], seed: int = 5) -> dict[str, torch.Tensor]:
    """A well-conditioned second moment for every rewritten module, with eigenvalues on both sides of 0.5."""
    found = {}
    for layer in hparams["layers"]:
        for template in hparams.get("rewrite_module_tmps") or [hparams["rewrite_module_tmp"]]:
            name = template.format(layer)
            module = model.get_submodule(name)
            width = module.weight.shape[0] if type(module).__name__ == "Conv1D" else module.weight.shape[1]
            generator = torch.Generator().manual_seed(seed + layer)
            factors = torch.randn(width, 3 * width, generator=generator, dtype=torch.float64)
            scale = torch.logspace(-1, 0.5, width, dtype=torch.float64)
            found[name] = (scale[:, None] * (factors @ factors.T / (3 * width)) * scale[None]).float()
    return found


# ---- Editing, and looking at what it left behind


def run(
    kind: str,
    method: str,
    requests: Any = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    covariance: Any = None,
    templates: Any = GROUPS,
    **changes: Any,
) -> Any:
    """Edit a toy; the model, tokenizer and covariance that belong to it where none is given."""
    hparams = hparams_of(kind, method, **changes)
    model = model_of(kind) if model is None else model
    covariance = covariance_of(model, hparams) if covariance is None else covariance
    requests = requests or REQUESTS[: 1 if "ROME" in method else 3]
    return edit(
        model, tokenizer or tokenizer_of(kind), requests, hparams, context_templates=templates, covariance=covariance
    )


def snapshot(model: Any) -> tuple[Any, ...]:
    """Whatever an edit must leave as it was."""
    return (
        {name: value.clone() for name, value in model.state_dict().items() if value.device.type != "meta"},
        [parameter.requires_grad for parameter in model.parameters()],
        [module.training for module in model.modules()],
        [
            (len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in module.__dict__)
            for module in model.modules()
        ],
        model.config.use_cache,
        torch.get_rng_state(),
    )


def same(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    """Whether two snapshots are equal, bit for bit."""
    weights = all(torch.equal(before[0][name].view(torch.uint8), after[0][name].view(torch.uint8)) for name in before[0])
    return weights and before[1:-1] == after[1:-1] and torch.equal(before[-1], after[-1])
