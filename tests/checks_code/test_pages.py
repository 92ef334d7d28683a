"""Every rule's page: its bad example is found, its good one is silent, and one change turns each into the other."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from padcheck.checks.code import check_source
from padcheck.checks.code.rule import RULES
from padcheck.rulebook import page, rules


@dataclass(frozen=True)
class Case:
    """A change of the good example that is caught, and one of the bad example that silences the rule: (old, new) each."""

    catch: tuple[str, str]
    silence: tuple[str, str]


CASES = {
    "COD101": Case(("tokenizer.padding_side = before", "pass"), ("def test_safety_gen(model, tokenizer, prompts):", "def test_safety_gen(model, prompts):\n    tokenizer = AutoTokenizer.from_pretrained(model.name_or_path)")),
    "COD102": Case(("finally:\n        tok.padding_side = before", "except KeyError:\n        raise\n    tok.padding_side = before"), ("    batch = tok(prompts, padding=True, return_tensors=\"pt\")\n    answers = model.generate(**batch)\n", "    answers = []\n")),
    "COD103": Case((', padding_side="right"', ""), ("tok(texts, return", "tok([texts[0]], return")),
    "COD104": Case(('if tok.padding_side == "left":', "if len(prompts) == 1:"), (".sum(1) - 1", ".cumsum(1) - 1")),
    "COD105": Case(("spans = locate(tok, texts, subjects, padding_side=tok.padding_side)", "spans = [len(tok.encode(text)) for text in texts]\n    return [model(**tok(texts, padding=True)).logits[i, n] for i, n in enumerate(spans)]"), ("padding=True, ", "")),
    "COD106": Case(("return through - 1 - whole", "return through - 1"), ("return before - whole", "return before")),
    "COD107": Case((' padding_side="left",', ""), ("tok(prompts, ", "tok([prompts[0]], ")),
    "COD108": Case(("labels[:, 1:]", "pred[:, -labels.size(1) :]"), ("return_tensors=\"pt\")[", "return_tensors=\"pt\", padding_side=\"left\")[")),
    "COD109": Case(('assert tok.padding_side == "right"\n    lengths = tok(prompts, return_tensors="pt", padding=True)["attention_mask"].sum(-1)', 'lengths = [len(tok.encode(prompt)) for prompt in prompts]'), ("[:n] = -100", "[:n] = 0")),
    "COD110": Case(("batch[\"attention_mask\"].sum(-1).tolist()", "(batch[\"input_ids\"] != tok.pad_token_id).sum(-1)"), ("row != tok.pad_token_id).sum()", "row != tok.pad_token_id).any()")),
    "COD111": Case(("key = (id(model), tok.name_or_path, tok.padding_side)", "global LAST\n    if LAST is None:\n        LAST = generate(model, tok, [])\n    key = LAST"), ("return CONTEXT_TEMPLATES_CACHE", "return CONTEXT_TEMPLATES_CACHE\n\n\ndef clear():\n    global CONTEXT_TEMPLATES_CACHE\n    CONTEXT_TEMPLATES_CACHE = None")),
    "COD112": Case(("    else:\n        raise ValueError(f\"no cache shape is known for {hparams.model_name}\")\n", ""), ("def apply_edit", "cache_c = None\n\n\ndef apply_edit")),
    "COD113": Case(("attention_mask[:, : step.stop]", "attention_mask[:, step]"), ("attention_mask=attention_mask[:, step]", "attention_mask=None")),
    "COD114": Case((', attention_mask=batch["attention_mask"]', ""), ("padding=True", 'padding=True, padding_side="right"')),
    "COD115": Case(('.count(request["subject"]) != 1', " is None"), ('"{}")\n    return', '"{}", 1)\n    return')),
    "COD116": Case(('tok(context.format(request["prompt"]))["input_ids"] + target_ids[:-1]', 'context + tok.decode(target_ids[:-1])'), ("target_ids[:-1]", "target_ids")),
    "COD117": Case(('if not (config and config["alg_name"] == "ROME"):\n        raise ValueError', 'assert config["alg_name"] == "ROME" or print'), (" or print(", ", (")),
    "COD118": Case(("if batch_first:", "if hidden.shape[0] == len(lookup_idxs):"), ("hidden[idx, i, :]", "hidden[i, idx, :]")),
    "COD119": Case(('if config.model_type == "llama":\n        kept = ids[1:]\n    elif config.model_type in ("gpt2", "gptj"):\n        kept = ids\n    else:\n        raise', 'if "llama" in config.model_name.lower():\n        kept = ids[1:]\n    if len(kept) == 0:\n        raise'), ("    return kept", "    else:\n        kept = None\n    return kept")),
    "COD120": Case(("self.tok.padding_side = METHODS[hparams.alg_name].padding_side", 'if hparams.alg_name in {"ROME", "MEMIT"}:\n        self.tok.padding_side = "right"'), ("self.tok.padding_side = ", "self.tok.pad_token = ")),
    "COD121": Case((", position_ids=position_ids", ""), ('padding_side="left"', 'padding_side="right"')),
    "COD122": Case((".masked_fill(batch[\"attention_mask\"] == 0, -100)", ""), ("    return model", "    labels[labels == tok.pad_token_id] = -100\n    return model")),
    "COD123": Case((", sample_size, dtype, id(model))", ")"), ("key = (model_name, layer_name)", "key = (model_name, layer_name, sample_size)")),
}  # fmt: skip
"""Rule → its two mutations."""

every_rule = pytest.mark.parametrize("rule_id", sorted(RULES))


def example(rule_id: str, heading: str, following: str) -> str:
    """The Python block under a heading of the rule's page."""
    section = page(rules()[rule_id]).split(f"## {heading}\n")[1].split(f"## {following}\n")[0]
    (block,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return str(block)


def bad(rule_id: str) -> str:
    return example(rule_id, "Example", "Use instead")


def good(rule_id: str) -> str:
    return example(rule_id, "Use instead", "When it is fine")


def found(text: str) -> list[str]:
    return [finding.rule for finding in check_source(text, "example.py")]


def mutated(text: str, change: tuple[str, str]) -> str:
    assert change[0] in text, change[0]
    return text.replace(*change)


def test_every_rule_has_a_page_and_a_case() -> None:
    pages = {rule.id for rule in rules().values() if rule.family == "COD"}
    assert pages == RULES.keys() == CASES.keys()


@every_rule
def test_bad_example_is_found_once(rule_id: str) -> None:
    assert found(bad(rule_id)).count(rule_id) == 1


@every_rule
def test_good_example_is_silent(rule_id: str) -> None:
    assert found(good(rule_id)) == []


@every_rule
def test_mutation_of_the_good_example_is_caught(rule_id: str) -> None:
    assert rule_id in found(mutated(good(rule_id), CASES[rule_id].catch))


@every_rule
def test_mutation_of_the_bad_example_silences(rule_id: str) -> None:
    assert rule_id not in found(mutated(bad(rule_id), CASES[rule_id].silence))


@every_rule
def test_finding_says_what_where_and_what_to_do(rule_id: str) -> None:
    (finding,) = [each for each in check_source(bad(rule_id), "example.py") if each.rule == rule_id]
    assert finding.name == rules()[rule_id].name
    assert finding.message_zh == rules()[rule_id].message_zh
    assert finding.message.endswith(".")
    assert finding.remedy
    assert finding.place.path == "example.py"
    assert finding.place.line
    assert finding.evidence["key"].startswith(rule_id)


@every_rule
def test_fingerprint_survives_when_lines_move(rule_id: str) -> None:
    (here,) = [each for each in check_source(bad(rule_id), "e.py") if each.rule == rule_id]
    (there,) = [each for each in check_source("import torch\n\n\n" + bad(rule_id), "e.py") if each.rule == rule_id]
    assert here.fingerprint == there.fingerprint
    assert here.place != there.place
