"""The example of a rule page as a small project that padcheck is run on.

Blocks whose fence says `bad` or `good` behind the language are the files of two projects; a path may follow (else the language
says it: example.py, requests.json, hparams/<METHOD>/<model>.yaml), and options of that run (they begin with --). The page's front
matter says with which command and which tokenizer of fixtures/shipped (`example: preflight gpt2-shape --padding-side left`).
A page shows the keys that matter: hparams get the others that their class requires, unless the page has them on its other side; a
tokenizer's file gets those of the shipped one.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from padcheck.checking import Options, check
from padcheck.checks.hparams.models import profile
from padcheck.checks.hparams.schemas import nearest_variant, variants
from padcheck.discovery import schema_methods
from padcheck.resources import rules_dir
from padcheck.rulebook import Rule
from tests.running import SHIPPED, TOKENIZERS, preflight

_BLOCK = re.compile(r"^```(\w+) (bad|good)\b([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TOKENIZER_FILES = {
    *("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "config.json", "generation_config.json"),
    "added_tokens.json",
}
_MODELS = {"llama2": "llama-2-7b", "qwen": "qwen2-7b"}
"""The model that a shipped tokenizer is for, where a page names none."""

DEFAULTS: dict[str, Any] = {
    "stats_dir": "./data/stats", "device": 0, "fact_token": "subject_last", "v_num_grad_steps": 20, "v_lr": 0.5, "v_weight_decay": 0.5,
    "clamp_norm_factor": 4, "kl_factor": 0.0625, "mom2_adjustment": True, "context_template_length_params": [[5, 10], [10, 10]],
    "mom2_dataset": "wikipedia", "mom2_n_samples": 100000, "mom2_dtype": "float32", "layer_selection": "all", "mom2_update_weight": 15000,
    "batch_size": 1, "merge_freq": 1000, "save_freq": 500, "P_loc": "./projection-{stem}.pt", "results_dir": "./results",
    "tokenizer_name": "{model_name}", "act_margin": [2.0, 20.0, 10.0],
}  # fmt: skip
"""Values that a method works with; other required keys get a value of their type."""


@dataclass(frozen=True)
class Project:
    """One side of an example. `files`: path → text as the page has it; `options`: of the command."""

    command: str
    tokenizer: str | None
    options: str
    shown: frozenset[str] = frozenset()
    """Keys of hparams that stand in the page, on either side."""
    files: dict[str, str] = field(default_factory=dict)

    @property
    def tokenizer_name(self) -> str | None:
        """The tokenizer of fixtures/shipped that the run gets."""
        words = shlex.split(self.options)
        return words[words.index("--tokenizer") + 1] if "--tokenizer" in words else self.tokenizer

    def changed(self, old: str, new: str) -> Project:
        """With `old` replaced by `new`, in the one file (or the options) that has it; a whole path: that file renamed."""
        if old in self.files:
            return replace(self, files={new if path == old else path: text for path, text in self.files.items()})
        where = [path for path, text in self.files.items() if old in text]
        if not where:
            assert old in self.options, f"{old!r} stands nowhere in the example"
            return replace(self, options=self.options.replace(old, new))
        assert len(where) == 1, f"{old!r} stands in {where}"
        return replace(self, files={**self.files, where[0]: self.files[where[0]].replace(old, new)})


def project(rule: Rule, side: str) -> Project:
    """The `bad` or `good` project of a rule's page."""
    command, *more = shlex.split(rule.example)
    tokenizer = more.pop(0) if more and not more[0].startswith("-") else None
    options, files, shown = list(more), {}, set[str]()
    text = (rules_dir() / rule.page).read_text("utf-8")
    for language, word, info, block in _BLOCK.findall(text):
        if language == "yaml":
            shown |= set(re.findall(r"^(\w+):", block, re.MULTILINE))
        if word == side:
            words = shlex.split(info)
            path = words.pop(0) if words and not words[0].startswith("-") else _default_path(language, block, command)
            assert path not in files, f"{rule.page} has {path} twice"
            files[path] = block
            options += words
    return Project(command, tokenizer, " ".join(map(shlex.quote, options)), frozenset(shown), files)


def _default_path(language: str, block: str, command: str) -> str:
    if language == "python":
        return "example.py"
    if language == "json":
        return "requests.json"
    if command == "preflight":
        return "hparams.yaml"
    values = yaml.safe_load(block)
    return f"hparams/{values.get('alg_name', values.get('alg'))}/{values['model_name'].rpartition('/')[2]}.yaml"


def write(example: Project, folder: Path) -> None:
    """The project's files below an empty folder."""
    home = folder
    tokenizer = example.tokenizer_name
    if tokenizer is not None:
        home = folder / "tokenizer"
        shutil.copytree(TOKENIZERS / tokenizer, home)
    for path, text in example.files.items():
        target = (home if path in _TOKENIZER_FILES else folder) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file():
            merged = {**json.loads(target.read_text("utf-8")), **json.loads(text)}
            text = json.dumps({key: value for key, value in merged.items() if value is not None}, ensure_ascii=False)
        elif path.endswith((".yaml", ".yml")) and example.command == "check" and "alg" in text:
            text = completed(text, target, example.shown)
        target.write_text(text, "utf-8")
    if example.command == "preflight":
        if not any(folder.glob("hparams.*")):
            model = _MODELS.get((tokenizer or "").partition("-")[0], "gpt2-xl")
            (folder / "hparams.yaml").write_text(f"alg_name: ROME\nmodel_name: ./models/{model}\nfact_token: subject_last\n")
        if not (folder / "requests.json").exists():
            shutil.copy(SHIPPED / "demo" / "requests.json", folder / "requests.json")


def completed(text: str, target: Path, shown: frozenset[str]) -> str:
    """Hparams with the keys that their class requires and the page leaves out."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    methods = {name.lower(): name for name in schema_methods()["easyedit"]}
    method = methods.get(str(values.get("alg_name", values.get("alg"))).lower())
    if method is None:
        return text
    variant = nearest_variant(variants("easyedit", method), values)
    model = profile(str(values.get("model_name", ""))) or profile("gpt2-xl")
    assert model is not None
    assert model.architecture is not None
    block, parts = model.architecture["block"], model.parts(0)
    mlp = next(part for part in reversed(parts) if part.startswith("mlp"))
    attention = next((part for part in reversed(parts) if "attn" in part and "norm" not in part), "self_attn.o_proj")
    tied = bool(model.tied)
    known = {
        **DEFAULTS,
        "layers": [4] if method in {"ROME", "R-ROME"} else [4, 5, 6],
        "v_loss_layer": model.last,
        "rewrite_module_tmp": f"{block}.{mlp}",
        "rewrite_module_tmps": [f"{block}.{mlp}"],
        "layer_module_tmp": block,
        "mlp_module_tmp": f"{block}.{mlp}" if method == "PMET" else f"{block}.mlp",
        "attn_module_tmp": f"{block}.{attention}",
        "ln_f_module": model.architecture["norm"],
        "lm_head_module": model.architecture["embed" if tied and variant.head == "parameter" else "head"],
        "inner_params": [f"{block.format(5)}.{mlp}.weight"],
        "alg_name": method,
    }
    lines = [text if text.endswith("\n") else text + "\n"]
    for key in (each for each in variant.missing(values) if each not in shown):
        schema = variant.properties.get(key, {})
        value = known.get(key, schema.get("enum", [None])[0])
        if value is None:
            kinds = schema.get("type", "string")
            value = {"integer": 1, "number": 1, "boolean": False, "array": [], "null": None, "string": "x"}[
                kinds if isinstance(kinds, str) else kinds[0]
            ]
        if isinstance(value, str):
            value = value.replace("{stem}", target.stem).replace("{model_name}", str(values.get("model_name")))
        lines.append(f"{key}: {json.dumps(value)}\n")
    return "".join(lines)


def found(example: Project, folder: Path) -> list[tuple[str, str]]:
    """(rule, severity) of every finding of the project. Fails where the job could not be done."""
    write(example, folder)
    options = shlex.split(example.options)
    if example.command == "check":
        assert not options, "options of check are not needed so far"
        report = check([folder], Options(cache=False, settings={"isolated": True}))
        assert not report.errors or any(each.rule == "LNT101" for each in report.findings), report.errors
        return [(each.rule, each.severity) for each in report.visible()]
    if "--tokenizer" in options:
        at = options.index("--tokenizer")
        del options[at : at + 2]
    (hparams,) = folder.glob("hparams.*")
    if (folder / "templates.txt").exists():
        options += ["--context-templates", str(folder / "templates.txt")]
    ran = preflight(hparams, folder / "requests.json", folder / "tokenizer", "--isolated", *options)
    assert not ran.json["errors"], ran.json["errors"]
    return [(each["rule"], each["severity"]) for each in ran.json["findings"] if not each["suppressed"]]
