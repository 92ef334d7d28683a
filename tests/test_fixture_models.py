"""The shipped models are what they claim: small, open everywhere, sure of their facts; the requests come from the seed."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tokenizers import Tokenizer

from padcheck.sources.requests import Request, read_requests

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
MODELS = FIXTURES / "shipped" / "models"
NAMES = ["llama-facts", "gpt2-facts"]
METHODS = ["rome", "r-rome", "memit", "emmet", "alphaedit", "pmet"]


def _load_script(name: str = "build_models") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FIXTURES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


build_models = _load_script()


@cache
def record(name: str) -> dict[str, Any]:
    return dict(json.loads((MODELS / name / "facts.json").read_text("utf-8")))


@cache
def tokenizer(name: str) -> Any:
    return Tokenizer.from_file(str(MODELS / name / "tokenizer.json"))


def count(name: str, text: str) -> int:
    return len(tokenizer(name).encode(text, add_special_tokens=False).ids)


def test_everything_but_the_weights_comes_from_the_seed() -> None:
    assert [build_models.differences(name, record(name)["seed"], MODELS) for name in NAMES] == [[], []]


def test_size() -> None:
    """The wheel holds them, beside the other fixtures, in 5 MB."""
    assert sum(file.stat().st_size for file in MODELS.rglob("*") if file.is_file()) < 4_400_000


@pytest.mark.parametrize("name", NAMES)
def test_metrics(name: str) -> None:
    metrics = record(name)["metrics"]
    assert metrics["facts"]["questions"] == 3 * len(record(name)["facts"]) == 1800
    assert metrics["facts"]["exact"] > 0.95
    assert metrics["behind_filler"]["exact"] > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_subjects_and_objects_have_several_tokens(name: str) -> None:
    facts = record(name)["facts"]
    lengths = {count(name, " " + fact["subject"]) for fact in facts}
    assert lengths <= set(range(2, 9))
    assert len(lengths) > 2
    objects = {fact["object"] for fact in facts}
    single = {thing for thing in objects if count(name, " " + thing) == 1}
    assert 0.25 < len(single) / len(objects) < 0.75
    assert max(count(name, " " + thing) for thing in objects) <= 4


@pytest.mark.parametrize("name", NAMES)
def test_requests(name: str) -> None:
    told = record(name)
    requests = told["requests"]
    read = [one for one in read_requests(MODELS / name / "facts.json") if isinstance(one, Request)]
    assert [one.subject for one in read] == [request["subject"] for request in requests]
    assert len(requests) >= 24
    assert len({request["subject"] for request in requests}) == len(requests)
    truth = {(fact["subject"], fact["relation"]): fact["object"] for fact in told["facts"]}
    edited = {request["subject"] for request in requests}
    for request in requests:
        relation = told["relations"][request["relation"]]
        assert request["ground_truth"] == truth[request["subject"], request["relation"]] != request["target_new"]
        assert request["target_new"] in relation["objects"]
        prompts = [request["prompt"], *request["paraphrases"]]
        assert sorted(prompts) == sorted(template.format(request["subject"]) for template in relation["templates"])
        assert len(request["locality"]) >= 10
        assert not any(subject in one["prompt"] for one in request["locality"] for subject in edited)
    targets = [count(name, " " + request["target_new"]) for request in requests]
    assert 0.25 < sum(length > 1 for length in targets) / len(targets) < 0.75


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_hparams(name: str, method: str) -> None:
    pytest.importorskip("torch")
    from padcheck.editing.hparams import load_hparams
    from padcheck.sources.hparams import read_hparams

    path = MODELS / name / "hparams" / f"{method}.yaml"
    assert load_hparams(path).method.lower() == method
    assert name.split("-")[0] in str(read_hparams(path).values["model_name"])


def test_nothing_is_tuned_on_what_is_reported() -> None:
    """Hparams are chosen on edits of other subjects, and the files hold what was chosen."""
    told = record(NAMES[0])
    tuned = build_models.tuning(told["seed"])
    assert len(tuned) >= 20
    assert len({edit["subject"] for edit in tuned}) == len(tuned)
    reported = [request["subject"] for request in told["requests"]]
    assert not {edit["subject"] for edit in tuned} & set(reported)
    assert not any(subject in one["prompt"] for edit in tuned for one in edit["locality"] for subject in reported)
    truth = {(fact["subject"], fact["relation"]): fact["object"] for fact in told["facts"]}
    assert all(truth[edit["subject"], edit["relation"]] == edit["ground_truth"] != edit["target_new"] for edit in tuned)


@pytest.mark.parametrize("name", NAMES)
def test_hparams_are_those_that_were_chosen(name: str) -> None:
    pytest.importorskip("torch")
    chosen = json.loads((FIXTURES.parent / "benchmarks" / "results" / "hparams.json").read_text("utf-8"))[name]
    script = _load_script("choose_hparams")
    files = script.files(name, chosen)
    assert sorted(files) == sorted(f"{method}.yaml" for method in METHODS)
    assert {file: (MODELS / name / "hparams" / file).read_text("utf-8") for file in files} == files
    for method, kept in chosen.items():
        if kept["tried"]:
            best = script.winner(kept["tried"])
            assert all(("gap" in one) == (method == "rome" and script.well_enough(one)) for one in kept["tried"])
            assert all(kept["chosen"][key] == best[key] for key in script.GRIDS[method])


@cache
def opened(name: str) -> tuple[Any, Any]:
    """Model and tokenizer, as a user opens them."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = MODELS / name
    return transformers.AutoModelForCausalLM.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", NAMES)
def test_opens_with_from_pretrained(name: str) -> None:
    model, wrapped = opened(name)
    assert {str(parameter.dtype) for parameter in model.parameters()} == {"torch.float32"}
    assert wrapped.pad_token == wrapped.eos_token
    assert model.config.pad_token_id is None  # HF zeroes the embedding of a pad token that the config names
    assert len(wrapped) == model.config.vocab_size
    ids = wrapped("The flag of Paris is")["input_ids"]
    assert ids == tokenizer(name).encode("The flag of Paris is").ids
    assert (ids[0] == wrapped.bos_token_id) is (name == "llama-facts")
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied is (name == "gpt2-facts")


@pytest.mark.parametrize("name", NAMES)
def test_what_the_model_knows_is_what_is_written(name: str) -> None:
    import torch

    model, wrapped = opened(name)
    asked = build_models.questions(record(name)["seed"])[::7]
    assert build_models.accuracy(model, tokenizer(name), asked)["exact"] > 0.95
    requests = record(name)["requests"][:8]
    said = 0
    for request in requests:  # the same by plain greedy decoding
        ids = wrapped(request["prompt"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=0)
        said += wrapped.decode(out[0, ids.shape[1] :]).startswith(f" {request['ground_truth']}.")
    assert said >= 7


@pytest.mark.parametrize("name", NAMES)
def test_every_request_is_known_before_it_is_edited(name: str) -> None:
    model, _ = opened(name)
    requests = record(name)["requests"]
    asked = [
        (prompt, request["ground_truth"]) for request in requests for prompt in (request["prompt"], *request["paraphrases"])
    ]
    assert build_models.accuracy(model, tokenizer(name), asked)["exact"] > 0.95
