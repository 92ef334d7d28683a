"""Which padding side really results: worked out by hand from the editors' code (positions.md, sections A and C)."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from padcheck.positions.editors import Side, load_editor
from padcheck.positions.side import family_of, resulting_side
from tests.running import TOKENIZERS, preflight, request, write_hparams, write_requests

EASYEDIT = load_editor("easyedit")
RIGHT_LIST = ["ROME", "MEMIT", "EMMET", "EAMET", "R-ROME", "AlphaEdit", "CORE", "SPHERE"]
"""easyeditor/editors/editor.py:181-186: the methods that it does not pad on the left."""
NOT_IN_THE_LIST = [
    "MEMIT-FE",
    "PMET",
    "SimIE",
    "FT",
    "WISE",
    "GRACE",
    "DEFER",
    "MELO",
    "LoRA",
    "QLoRA",
    "MEND",
    "ULTRAEDIT",
    "KN",
]


@dataclass(frozen=True)
class Tokenizer:
    """A loaded tokenizer before any editor touches it."""

    class_name: str
    backend_is_fast_class: bool
    padding_side: Side
    padding_side_because: str = "its class"


# What transformers makes of each family. In 5 nearly every class is a PreTrainedTokenizerFast; in 4 GPT2Tokenizer is slow, but named
# in the editor's condition. LlamaTokenizer's class default is left, the slow one's right.
GPT2_5 = Tokenizer("GPT2Tokenizer", True, "right")
GPT2_4 = Tokenizer("GPT2Tokenizer", False, "right")
LLAMA_5 = Tokenizer("LlamaTokenizer", True, "left")
LLAMA_4_SLOW = Tokenizer("LlamaTokenizer", False, "right")
QWEN2 = Tokenizer("Qwen2Tokenizer", True, "right")
QWEN1_SLOW = Tokenizer("QWenTokenizer", False, "right")
BAICHUAN_SLOW = Tokenizer("BaichuanTokenizer", False, "right")
BAICHUAN_SLOW_LEFT = Tokenizer("BaichuanTokenizer", False, "left")
INTERNLM_SLOW = Tokenizer("InternLMTokenizer", False, "right")
CHATGLM_SLOW = Tokenizer("ChatGLMTokenizer", False, "left")
MISTRAL = Tokenizer("LlamaTokenizerFast", True, "left")
T5_5 = Tokenizer("T5Tokenizer", True, "right")
T5_4_SLOW = Tokenizer("T5Tokenizer", False, "right")
BAICHUAN_FAST = Tokenizer("PreTrainedTokenizerFast", True, "right")

# model_name, tokenizer, side for the methods of the list, side for the others (section C)
FAMILIES: list[tuple[str, Tokenizer, Side, Side]] = [
    ("./hugging_cache/gpt2-xl", GPT2_5, "right", "left"),
    ("./hugging_cache/gpt2-xl", GPT2_4, "right", "left"),
    ("EleutherAI/gpt-j-6B", GPT2_5, "right", "left"),
    ("./hugging_cache/llama-2-7b", LLAMA_5, "right", "left"),
    ("./hugging_cache/llama-2-7b", LLAMA_4_SLOW, "right", "left"),
    ("./hugging_cache/Meta-Llama-3-8B", Tokenizer("PreTrainedTokenizerFast", True, "right"), "right", "left"),
    ("./hugging_cache/Mistral-7B-v0.1", MISTRAL, "right", "left"),
    ("./hugging_cache/qwen2.5-7b", QWEN2, "right", "left"),
    ("./hugging_cache/Qwen3-8B", QWEN2, "right", "left"),
    ("./hugging_cache/qwen-7b", QWEN1_SLOW, "right", "right"),
    ("./hugging_cache/baichuan-7b", BAICHUAN_SLOW, "right", "right"),
    ("./hugging_cache/baichuan-7b", BAICHUAN_SLOW_LEFT, "left", "left"),
    ("./hugging_cache/baichuan-7b", BAICHUAN_FAST, "right", "left"),
    ("./hugging_cache/internlm-7b", INTERNLM_SLOW, "right", "right"),
    ("./hugging_cache/chatglm3-6b", CHATGLM_SLOW, "left", "left"),
    ("google/t5-3b", T5_5, "right", "left"),
    ("google/t5-3b", T5_4_SLOW, "right", "right"),
    # The whole path decides: a folder named gpt hides the llama in it from the family, not from the list of right-padded names.
    ("/data/gpt/llama-2-7b", LLAMA_5, "right", "left"),
    ("/data/gpt/baichuan-7b", LLAMA_5, "left", "left"),
]  # fmt: skip


def side_of(framework: str, name: str, tokenizer: Tokenizer, path: str, **more: Any) -> Any:
    editor = load_editor(framework)
    method = editor.methods[name]
    if method.base is not None:
        method = editor.methods["ROME"]
    return resulting_side(editor, method, name, tokenizer, path, **more)


@pytest.mark.parametrize(("path", "tokenizer", "listed", "others"), FAMILIES)
@pytest.mark.parametrize("name", RIGHT_LIST + NOT_IN_THE_LIST)
def test_easyedit(name: str, path: str, tokenizer: Tokenizer, listed: Side, others: Side) -> None:
    assert side_of("easyedit", name, tokenizer, path).value == (listed if name in RIGHT_LIST else others)


@pytest.mark.parametrize("name", RIGHT_LIST + NOT_IN_THE_LIST)
@pytest.mark.parametrize("tokenizer", [GPT2_5, LLAMA_5, CHATGLM_SLOW])
def test_a_pair_passed_in_is_left_alone(name: str, tokenizer: Tokenizer) -> None:
    side = side_of("easyedit", name, tokenizer, "./hugging_cache/llama-2-7b", passed_in=True)
    assert side.value == tokenizer.padding_side
    assert side.ruled is None


@pytest.mark.parametrize("name", ["UnKE", "UnKE_ARE", "FT_uns", "LoRA_uns"])
@pytest.mark.parametrize("tokenizer", [LLAMA_5, QWEN2])
def test_methods_that_never_pass_the_editor(name: str, tokenizer: Tokenizer) -> None:
    """Their script takes the tokenizer as it comes (examples/run_AKEW_both.py:185)."""
    assert EASYEDIT.methods[name].own_loader
    side = resulting_side(EASYEDIT, EASYEDIT.methods[name], name, tokenizer, "./llama-2-7b", passed_in=True)
    assert side.value == tokenizer.padding_side


@pytest.mark.parametrize("tokenizer", [GPT2_5, LLAMA_5, QWEN2])
def test_dpo_sets_the_side_itself(tokenizer: Tokenizer) -> None:
    side = side_of("easyedit", "DPO", tokenizer, "./llama-2-7b", stated="left")
    assert side.value == "right"
    assert side.forced_by_method


@pytest.mark.parametrize("framework", ["kmeng01-rome", "kmeng01-memit", "rebuilding-rome", "unified", "alphaedit", "pmet"])
@pytest.mark.parametrize("tokenizer", [GPT2_5, LLAMA_5, LLAMA_4_SLOW])
def test_the_other_repositories_set_nothing(framework: str, tokenizer: Tokenizer) -> None:
    for name in load_editor(framework).methods:
        side = side_of(framework, name, tokenizer, "llama-2-7b")
        assert (side.value, side.ruled) == (tokenizer.padding_side, None)


@pytest.mark.parametrize("tokenizer", [GPT2_5, LLAMA_5, CHATGLM_SLOW, LLAMA_4_SLOW])
def test_fastedit_loads_with_the_left(tokenizer: Tokenizer) -> None:
    (name,) = load_editor("fastedit").methods
    assert side_of("fastedit", name, tokenizer, "llama-2-7b").value == "left"
    assert side_of("fastedit", name, tokenizer, "llama-2-7b", passed_in=True).value == tokenizer.padding_side


def test_what_the_caller_states_stands_last() -> None:
    side = side_of("easyedit", "ROME", LLAMA_5, "./llama-2-7b", stated="left")
    assert side.value == "left"
    assert side.stated_by_caller
    assert side.because == "--padding-side left"
    assert [
        part in step for part, step in zip(("its class", "editor.py:184-186", "--padding-side"), side.steps, strict=True)
    ] == [True] * 3


def test_it_says_how_it_came_about() -> None:
    side = side_of("easyedit", "PMET", GPT2_5, "./gpt-j-6b")
    assert "editor.py:181-183" in side.because
    assert side.ruled is not None
    side = side_of("easyedit", "ROME", GPT2_5, "./gpt-j-6b")
    assert (side.because, side.ruled) == ("its class", None)


@pytest.mark.parametrize(
    ("path", "family"),
    [
        ("google/t5-3b", "t5"), ("THUDM/chatglm-api", "chatglm-api"), ("openai/gpt-3.5-turbo", "gpt-3.5"), ("gpt2-xl", "gpt"),
        ("/data/gpt/llama-2", "gpt"), ("LLaMA-2", "llama"), ("baichuan2", "baichuan"), ("chatglm2-6b", "chatglm2"), ("chatglm3-6b", "chatglm"),
        ("internlm-7b", "internlm"), ("Qwen2.5-7B", "qwen2"), ("qwen3-8b", "qwen3"), ("Qwen-7B", "qwen"), ("mistral-7b", "mistral"),
        ("mixtral-8x7b", None), ("gemma-3-27b", None), ("phi-4", None), ("glm-4-9b", None), ("opt-6.7b", None), ("deepseek-7b", None),
    ],
)  # fmt: skip
def test_families_of_easyedit(path: str, family: str | None) -> None:
    found = family_of(EASYEDIT, path)
    assert (found.contains if found else None) == family


# -- through the command, on folders ----------------------------------------------------------------------------------------------------


def folder_of(tmp_path: Path, name: str, **config: Any) -> Path:
    folder = tmp_path / "tokenizer"
    shutil.copytree(TOKENIZERS / name, folder)
    path = folder / "tokenizer_config.json"
    said = {**json.loads(path.read_text("utf-8")), **config}
    path.write_text(json.dumps(said), "utf-8")
    return folder


# fixture, what its config states, model_name, generation, the side for ROME, the side for PMET
FOLDERS: list[tuple[str, dict[str, Any], str, str, Side, Side]] = [
    ("gpt2-shape", {}, "gpt2-xl", "5", "right", "left"),
    ("gpt2-shape", {}, "gpt2-xl", "4", "right", "left"),
    ("gpt2-shape", {"padding_side": "left"}, "gpt2-xl", "5", "left", "left"),
    ("llama2-prepend", {}, "llama-2-7b", "5", "right", "left"),
    ("llama2-prepend", {}, "llama-2-7b", "4", "right", "left"),
    ("llama2-prepend", {}, "baichuan-7b", "5", "left", "left"),
    ("llama3-shape", {}, "llama-3-8b", "5", "right", "left"),
    ("qwen-shape", {}, "qwen2-7b", "5", "right", "left"),
    ("qwen-shape", {"padding_side": "left"}, "qwen2-7b", "5", "right", "left"),
    ("chatglm-shape", {}, "chatglm3-6b", "5", "left", "left"),
]


@pytest.mark.parametrize(("name", "config", "model", "generation", "rome", "pmet"), FOLDERS)
def test_folders(
    tmp_path: Path, name: str, config: dict[str, Any], model: str, generation: str, rome: Side, pmet: Side
) -> None:
    folder = folder_of(tmp_path, name, **config)
    requests = write_requests(tmp_path, [request("The city of Paris is in", "Paris")])
    for method, expected in (("ROME", rome), ("PMET", pmet)):
        hparams = write_hparams(tmp_path, method, model=model)
        report = preflight(hparams, requests, folder, "--transformers", generation).json
        assert report["padding_side"]["value"] == expected
        assert report["padding_side"]["because"]


def test_nobody_states_a_side_and_the_generations_differ(tmp_path: Path) -> None:
    """A class default that is left: with a method that is counted from the start this is said even where it is ruled nowhere."""
    requests = write_requests(tmp_path, [request("The city of Paris is in", "Paris")])
    report = preflight(
        write_hparams(tmp_path, model="baichuan-7b"),
        requests,
        folder_of(tmp_path, "llama2-metaspace"),
        "--transformers",
        "5",
    ).json
    assert report["padding_side"]["value"] == "left"
    assert "LlamaTokenizer" in report["padding_side"]["because"]
    assert report["verdict"] == "fail"
