"""Each of the nineteen kinds of defects of published hparams: the rule that finds it, a file that has it, and one that has not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from padcheck.checks.hparams import RULES
from padcheck.checks.hparams.models import name_parts, profile
from padcheck.checks.hparams.schemas import faults, variants
from padcheck.discovery import known_keys, schema_methods
from padcheck.resources import rules_dir
from padcheck.rulebook import rules

from .conftest import LLAMA, MEMIT, ROME, Write, run, said


class Defect(NamedTuple):
    """A defect: its kind's number, the rule, its severity, the file that has it (changes of a good one)."""

    kind: int
    rule: str
    severity: str
    base: dict[str, Any]
    changes: dict[str, Any]
    name: str | None = None


GONE = object()
PMET: dict[str, Any] = {
    **MEMIT,
    **LLAMA,
    "alg_name": "PMET",
    "rewrite_module_tmps": ["model.layers.{}.mlp.down_proj"],
    "nll_loss_factor": 1,
    "mlp_module_tmp": "model.layers.{}.mlp.down_proj",
    "attn_module_tmp": "model.layers.{}.self_attn.o_proj",
    "mom2_update_weight": 6000,
}
R_ROME = {**ROME, "alg_name": "R-ROME"}
ALPHA = {**MEMIT, "alg_name": "AlphaEdit", "P_loc": "p.pt", "nullspace_threshold": 0.02, "L2": 10}
EAMET = {
    **MEMIT, **LLAMA, "alg_name": "EAMET", "ks_bs": 1, "clamp_ks_factor": 1, "cs_factor": 1, "mse_factor": 1, "tau": 0.07, "norm_factor": 0.001,
    "delta_init": "target_init", "weight_decay_method": "norm", "mom2_update_weight": [15000] * 5,
}  # fmt: skip
QWEN35 = {**ROME, **LLAMA, "model_name": "./models/Qwen3.5-9B", "layers": [7]}
SIMIE = {
    "alg_name": "SimIE", "base_method": "ROME", "lamHyper": 10, "init_model": True, "solver": "LU", "fast": False, "model_name": "./models/gpt2-xl",
    "device": 0, "max_length": 40, "model_parallel": False, "fp16": False,
}  # fmt: skip

LORA = {
    "alg_name": "LoRA", "model_name": "./models/gpt2-xl", "lora_type": "adalora", "layers": [], "num_steps": 70, "lr": 5e-3, "weight_decay": 0,
    "kl_factor": 0, "norm_constraint": False, "target_modules": ["c_attn"], "rank": 8, "lora_alpha": 32, "lora_dropout": 0.1, "device": 0,
    "max_length": 40, "batch_size": 1,
}  # fmt: skip

DEFECTS = [
    Defect(1, "HPR110", "warning", MEMIT, {}, "hparams/ROME/gpt2-xl.yaml"),
    Defect(1, "HPR111", "error", MEMIT, {"alg_name": "Memit"}, "conf/gpt2-xl.yaml"),
    Defect(2, "HPR112", "warning", ROME, {}, "hparams/ROME/gpt2-medium.yaml"),
    Defect(2, "HPR112", "warning", {**MEMIT, **LLAMA}, {}, "hparams/MEMIT/llama-13b.yaml"),
    Defect(3, "HPR113", "error", MEMIT, {"v_loss_layer": 27}),
    Defect(3, "HPR113", "error", MEMIT, {"v_loss_layer": 48}),
    Defect(3, "HPR113", "note", ROME, {"v_loss_layer": 27}),
    Defect(4, "HPR114", "error", {**MEMIT, **LLAMA}, {"lm_head_module": "model.embed_tokens"}),
    Defect(4, "HPR115", "error", MEMIT, {"lm_head_module": "lm_head"}),
    Defect(5, "HPR116", "error", ROME, {"rewrite_module_tmp": "transformer.h.{}.mlp.fc_out"}),
    Defect(5, "HPR116", "error", ROME, {"rewrite_module_tmp": "transformer.h.{}.mlp.c_proj.weight"}),
    Defect(5, "HPR116", "error", QWEN35, {"rewrite_module_tmp": "model.layers.{}.self_attn.o_proj", "layers": [6]}),
    Defect(5, "HPR116", "error", {**MEMIT, **LLAMA}, {"ln_f_module": "transformer.ln_f"}),
    Defect(5, "HPR116", "error", LORA, {"target_modules": ["model.layers.*.self_attn.q_proj"]}),
    Defect(5, "HPR116", "error", LORA, {"target_modules": ["q_proj", "v_proj"]}),
    Defect(6, "HPR118", "error", ROME, {"layers": [48]}),
    Defect(6, "HPR119", "error", MEMIT, {"layers": [17, 16, 15]}),
    Defect(6, "HPR119", "error", MEMIT, {"layers": [15, 15, 16]}),
    Defect(6, "HPR120", "warning", ROME, {"layers": [16, 17]}),
    Defect(6, "HPR120", "note", MEMIT, {"layers": [17]}),
    Defect(9, "HPR121", "note", ALPHA, {}),
    Defect(9, "HPR121", "note", MEMIT, {"layer_selection": "random"}),
    Defect(9, "HPR121", "warning", MEMIT, {"mom2_adjustment": False}),
    Defect(10, "HPR122", "error", ROME, {"fact_tokens": "last"}),
    Defect(10, "HPR123", "error", ROME, {"stats_dir": GONE}),
    Defect(10, "HPR125", "note", {**EAMET, "alg": "EAMET"}, {"alg_name": GONE}, "hparams/EAMET/llama-7b.yaml"),
    Defect(11, "HPR126", "error", ROME, {"layers": ["17"]}),
    Defect(11, "HPR126", "error", ROME, {"device": "0"}),
    Defect(11, "HPR126", "error", ROME, {"v_num_grad_steps": "20"}),
    Defect(12, "HPR127", "error", ROME, {"v_num_grad_steps": 0}),
    Defect(12, "HPR127", "error", ROME, {"v_num_grad_steps": 1}),
    Defect(12, "HPR127", "warning", ROME, {"context_template_length_params": [[5, 3], [10, 10]]}),
    Defect(12, "HPR127", "error", EAMET, {"mom2_update_weight": [15000]}),
    Defect(13, "HPR128", "note", ROME, {"model_name": "/home/someone/gpt2-xl"}),
    Defect(13, "HPR129", "warning", ROME, {"model_name": "your/path/gpt2-xl"}),
    Defect(13, "HPR130", "note", ROME, {"device": 5}),
    Defect(14, "HPR131", "warning", ROME, {"fp16": True}),
    Defect(15, "HPR132", "note", MEMIT, {"batch_size": 100}),
    Defect(16, "HPR103", "error", ROME, {"fact_token": "subject-last"}),
    Defect(16, "HPR133", "error", ROME, {"mom2_dtype": "float23"}),
    Defect(16, "HPR133", "warning", ROME, {"mom2_dataset": "wikipedai"}),
    Defect(17, "HPR101", "error", ROME, {"model_name": "./models/opt-1.3b"}),
    Defect(17, "HPR102", "warning", {**ROME, **LLAMA}, {"model_name": "/gpt/llama-2-7b", "layers": [5]}),
    Defect(17, "HPR136", "error", {**ALPHA, **LLAMA}, {"model_name": "./models/mistral-7b"}),
    Defect(18, "HPR134", "warning", MEMIT, {"mom2_update_weight": 1}),
    Defect(19, "HPR135", "error", PMET, {}),
    Defect(19, "HPR135", "error", SIMIE, {}),
    Defect(19, "PAD105", "error", ROME, {"fact_token": "subject_first"}),
    Defect(19, "IDX109", "error", MEMIT, {"fact_token": "last"}),
    Defect(
        5,
        "ENV101",
        "note",
        ROME,
        {"model_name": "./models/qwen2-vl-7b", "rewrite_module_tmp": "model.layers.{}.mlp.down_proj"},
    ),
    Defect(1, "HPR137", "error", SIMIE, {"base_method": "MEMIT"}),
    Defect(16, "HPR104", "error", R_ROME, {"enable_prompt_keys": True}),
]
ACROSS_FILES = {7: "STA101", 8: "STA102"}
"""Kinds that need more than one file; tested below."""


def changed(defect: Defect) -> dict[str, Any]:
    return {key: value for key, value in {**defect.base, **defect.changes}.items() if value is not GONE}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: f"{defect.kind}-{defect.rule}-{'-'.join(defect.changes)}")
def test_defect_is_found(defect: Defect, write: Write) -> None:
    report = run(write(changed(defect), defect.name))
    assert defect.rule in said(report, defect.severity), [(finding.rule, finding.message) for finding in report.findings]
    assert not report.errors


@pytest.mark.parametrize(
    "base",
    [ROME, MEMIT, {**MEMIT, **LLAMA}, {**ROME, **LLAMA, "layers": [5]}, R_ROME, ALPHA, EAMET, QWEN35, LORA],
    ids=lambda base: base["alg_name"],
)
def test_good_files_are_silent(base: dict[str, Any], write: Write) -> None:
    values = {**base, "v_loss_layer": 31} if base is QWEN35 else base
    report = run(write(values))
    assert not said(report), [(finding.rule, finding.message) for finding in report.findings]


def test_every_kind_has_a_rule_and_every_rule_a_kind() -> None:
    assert {defect.kind for defect in DEFECTS} | set(ACROSS_FILES) | {10} == set(range(1, 20))
    tested = {defect.rule for defect in DEFECTS} | {"STA101", "STA102", "STA103", "HPR124"}
    assert tested >= RULES
    assert rules().keys() >= RULES


@pytest.mark.parametrize(("loss_layer", "rules"), [(31, {"HPR118"}), (32, {"HPR113", "HPR118"})])
def test_one_mistake_is_told_once(write: Write, loss_layer: int, rules: set[str]) -> None:
    """A layer that the model does not have says nothing about v_loss_layer, which is right where it names the last one."""
    path = write({**MEMIT, **LLAMA, "layers": [4, 5, 6, 80], "v_loss_layer": loss_layer})
    assert {finding.rule for finding in run(path).findings if finding.severity == "error"} == rules


def test_duplicates_say_both_places(write: Write) -> None:
    path = write(
        "".join(f"{key}: {json.dumps(value)}\n" for key, value in ROME.items()) + "v_lr: 0.1\n", "ROME/gpt2-xl.yaml"
    )
    (finding,) = [each for each in run(path).findings if each.rule == "HPR124"]
    assert (finding.severity, finding.place.line, finding.related[0].place.line) == ("error", 24, 8)
    assert finding.fix is not None
    assert finding.fix.grade == "safe"


def test_files_of_a_tree(write: Write, tmp_path: Path) -> None:
    write({**ALPHA, "P_loc": "null.pt"})
    write({**ALPHA, **LLAMA, "P_loc": "./null.pt"})
    write({**MEMIT, **LLAMA, "model_name": "./models/Llama-2-7B"})
    findings = {finding.rule: finding for finding in run(tmp_path).findings if finding.rule.startswith("STA")}
    assert set(findings) == {"STA101", "STA102"}
    assert all(finding.related and finding.related[0].place.path != finding.place.path for finding in findings.values())


def test_hub_names_collide(write: Write, tmp_path: Path) -> None:
    write({**MEMIT, **LLAMA, "model_name": "one/llama-2-7b"}, "MEMIT/llama-7b.yaml")
    write({**ROME, **LLAMA, "layers": [5], "model_name": "two/llama-2-7b"}, "ROME/llama-7b.yaml")
    assert "STA103" in said(run(tmp_path))


def test_the_model_of_a_folder_counts(write: Write, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", "num_hidden_layers": 12, "tie_word_embeddings": True})
    )
    path = write({**MEMIT, **LLAMA, "model_name": "./models/my-llama"})
    findings = {finding.rule: finding for finding in run(path, model=tmp_path).findings if finding.severity == "error"}
    assert set(findings) == {"HPR113", "HPR115"}
    assert all(finding.confidence == "high" for finding in findings.values())


@pytest.mark.parametrize(
    ("name", "layers", "tied"),
    [
        ("./hugging_cache/llama-2-7b", 32, False),
        ("meta-llama/Llama-3.2-3B", 28, True),
        ("THUDM/chatglm2-6b", 28, False),
        ("EleutherAI_gpt-j-6B", 28, False),
        ("Qwen/Qwen2.5-7B-Instruct", 28, False),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 28, False),
        ("chatglm4-9b", 40, False),
        ("my-model", None, None),
        ("qwen2-vl-7b", None, None),
    ],
)
def test_profiles(name: str, layers: int | None, tied: bool | None) -> None:
    model = profile(name)
    assert (model.layers if model else None, model.tied if model else None) == (layers, tied)


def test_names() -> None:
    parts = name_parts("Meta-Llama-3.1-8B-Instruct")
    assert parts is not None
    assert (parts.family, parts.generation, parts.size, parts.variant) == ("llama", "3.1", "8", "chat")
    assert name_parts("ours") is None


# --- The schemas ------------------------------------------------------------------------------------------------------------

SCHEMAS = [(framework, method) for framework, methods in schema_methods().items() for method in methods]


def test_the_index_lists_the_schemas() -> None:
    stems = {path.stem for path in (rules_dir() / "schemas" / "hparams").glob("*.json")}
    assert stems == {f"{framework}-{method}" for framework, method in SCHEMAS}
    assert known_keys() == {key for pair in SCHEMAS for variant in variants(*pair) for key in variant.properties}


@pytest.mark.parametrize(("framework", "method"), SCHEMAS, ids=["-".join(pair) for pair in SCHEMAS])
def test_schemas_are_schemas_and_agree_with_jsonschema(framework: str, method: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = json.loads((rules_dir() / "schemas" / "hparams" / f"{framework}-{method}.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(document)
    for each, variant in zip(document["anyOf"], variants(framework, method), strict=True):
        for key, schema in each["properties"].items():
            validator = jsonschema.Draft202012Validator(
                {name: value for name, value in schema.items() if name != "uniqueItems"}
            )
            for value in (None, True, 0, 1, -1, 0.5, "x", "a {} b", "subject_last", [], [1], ["1"], [[5, 10]], {}):
                assert validator.is_valid(value) == (not list(faults(value, schema))), (key, value)
        assert set(each["required"]) <= set(variant.properties)


@pytest.mark.slow
def test_public_hparams_have_only_known_errors() -> None:
    """Set PADCHECK_EASYEDIT to a checkout of EasyEdit 14cea82."""
    root = os.environ.get("PADCHECK_EASYEDIT")
    if not root:
        pytest.skip("PADCHECK_EASYEDIT is not set")
    report = run(Path(root) / "hparams")
    errors = [finding for finding in report.findings if finding.severity == "error"]
    assert {finding.rule for finding in errors} == {
        "HPR101",
        "HPR113",
        "HPR114",
        "HPR116",
        "HPR122",
        "HPR133",
        "HPR135",
        "HPR136",
        "LNT104",
    }
