"""The shipped fixtures are what they claim: every family of tokenizer, valid requests, a repeatable build."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
SHIPPED = FIXTURES / "shipped"
FOLDERS = sorted(path.name for path in (SHIPPED / "tokenizers").iterdir())
LYING = [name for name in FOLDERS if name.startswith("lying-")]
HONEST = [name for name in FOLDERS if name not in LYING]
PROBES = sorted((SHIPPED / "probes").glob("*.json"))

Span = tuple[int, int]


def _load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_tokenizers", FIXTURES / "build_tokenizers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


build_tokenizers = _load_script()


@cache
def tokenizer(name: str) -> Any:
    """The tokenizer of a folder, read from its tokenizer.json."""
    return Tokenizer.from_file(str(SHIPPED / "tokenizers" / name / "tokenizer.json"))


def config(name: str) -> dict[str, Any]:
    """The tokenizer_config.json of a folder."""
    return dict(json.loads((SHIPPED / "tokenizers" / name / "tokenizer_config.json").read_text("utf-8")))


def words(name: str, text: str) -> list[str]:
    """The text below each token that is not special, without the spaces around it."""
    return [text[start:end].strip() for start, end in spans(name, text)]


def spans(name: str, text: str) -> list[Span]:
    """The spans of the tokens that are not special."""
    row = tokenizer(name).encode(text)
    return [span for span, special in zip(row.offsets, row.special_tokens_mask, strict=True) if not special]


def requests(path: Path) -> list[dict[str, Any]]:
    """The requests of a file."""
    return list(json.loads(path.read_text("utf-8")))


def probes() -> Iterator[dict[str, Any]]:
    """The requests of all probe batches."""
    for path in PROBES:
        yield from requests(path)


def prompt(request: dict[str, Any]) -> str:
    """The prompt with its subject in it."""
    return str(request["prompt"]).replace("{}", request["subject"])


def is_valid(request: dict[str, Any]) -> bool:
    """Whether every editor can use the request: the subject once in plain text, or one ``{}`` for it."""
    if not {"prompt", "subject", "target_new"} <= request.keys():
        return False
    text, subject, target = request["prompt"], request["subject"], request["target_new"]
    braces = text.count("{"), text.count("}")
    plain, template = braces == (0, 0) and text.count(subject) == 1, braces == (1, 1) and "{}" in text
    return (plain or template) and all(part and part == part.strip() for part in (text, subject, target))


# ---- the build


def test_the_checked_in_folders_are_the_build(capsys: pytest.CaptureFixture[str]) -> None:
    assert build_tokenizers.main(["--check"]) == 0, capsys.readouterr().out
    assert sorted(build_tokenizers.FAMILIES) == FOLDERS


def test_check_tells_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["llama2-prepend", "--out", str(tmp_path)]
    assert build_tokenizers.main(run) == 0
    assert build_tokenizers.main([*run, "--check"]) == 0
    folder = tmp_path / "llama2-prepend"
    (folder / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes() + b" ")
    (folder / "tokenizer_config.json").unlink()
    (folder / "more.json").touch()
    capsys.readouterr()
    assert build_tokenizers.main([*run, "--check"]) == 1
    said = capsys.readouterr().out.replace("\\", "/").splitlines()
    assert said == [
        "not of this build: llama2-prepend/more.json",
        "differs: llama2-prepend/tokenizer.json",
        "missing: llama2-prepend/tokenizer_config.json",
    ]


def test_another_seed_is_another_vocabulary() -> None:
    name = "gpt2-shape"
    assert build_tokenizers.build(1, [name]) != build_tokenizers.build(2, [name])
    assert build_tokenizers.build(1, [name]) == build_tokenizers.build(1, [name])


def test_everything_shipped_is_small() -> None:
    folders = ("tokenizers", "probes", "demo")  # the models have a test of their own
    sizes = {path: path.stat().st_size for folder in folders for path in (SHIPPED / folder).rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 2_000_000
    assert max(sizes.values()) < 100_000


# ---- the families

SENTENCE = "The mother tongue of Marie Curie is English"


@pytest.mark.parametrize(
    ("name", "head", "tail"),
    [
        ("gpt2-shape", [], []),
        ("llama3-shape", ["<|begin_of_text|>"], []),
        ("qwen-shape", [], []),
        ("llama2-metaspace", ["<s>"], []),
        ("llama2-prepend", ["<s>"], []),
        ("chatglm-shape", ["[gMASK]", "sop"], []),
        ("t5-shape", [], ["</s>"]),
        ("bert-shape", ["[CLS]"], ["[SEP]"]),
        ("lying-zero-width", ["<|begin_of_text|>"], []),
        ("lying-overlap", [], []),
        ("lying-shifted", [], []),
    ],
)
def test_special_tokens_around_a_text(name: str, head: list[str], tail: list[str]) -> None:
    row = tokenizer(name).encode(SENTENCE)
    text = [token for token, special in zip(row.tokens, row.special_tokens_mask, strict=True) if not special]
    assert row.tokens == head + text + tail
    assert len(text) == len(tokenizer(name).encode(SENTENCE, add_special_tokens=False).ids) >= 8


@pytest.mark.parametrize(
    ("name", "class_name", "pad"),
    [
        ("gpt2-shape", "GPT2Tokenizer", None),
        ("llama3-shape", "PreTrainedTokenizerFast", None),
        ("qwen-shape", "Qwen2Tokenizer", "<|endoftext|>"),
        ("llama2-metaspace", "LlamaTokenizer", None),
        ("llama2-prepend", "LlamaTokenizer", None),
        ("chatglm-shape", "ChatGLM4Tokenizer", "<|endoftext|>"),
        ("t5-shape", "T5Tokenizer", "<pad>"),
        ("bert-shape", "BertTokenizer", "[PAD]"),
    ],
)
def test_config(name: str, class_name: str, pad: str | None) -> None:
    settings = config(name)
    assert settings["tokenizer_class"] == class_name
    assert settings.get("pad_token") == pad
    assert settings.get("padding_side") == ("left" if name == "chatglm-shape" else None)
    for key in ("bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token", "mask_token"):
        assert settings.get(key) is None or tokenizer(name).token_to_id(settings[key]) is not None


@pytest.mark.parametrize("name", FOLDERS)
def test_common_words_are_tokens_and_rare_ones_are_not(name: str) -> None:
    for common in ("Paris", "English", "mother", "is", "of"):
        assert len(spans(name, f"The {common}")) == 2
    for rare in ("Manila", "Kathmandu", "Darrieux"):
        assert len(spans(name, f"The {rare}")) > 2


def test_byte_tokens_share_a_character() -> None:
    row = tokenizer("gpt2-shape").encode("A 東京")
    assert row.tokens == ["A", "Ġ", "æ", "Ŀ", "±", "ä", "º", "¬"]
    assert row.offsets == [(0, 1), (1, 2), *[(2, 3)] * 3, *[(3, 4)] * 3]
    assert row.char_to_token(3) == 5  # the first of the three; the character is complete with the last


def test_llama3_finds_words_that_no_merge_makes() -> None:
    assert "ĠNetherlands" in tokenizer("llama3-shape").encode("in the Netherlands").tokens
    model = json.loads(tokenizer("llama3-shape").to_str())["model"]
    assert model["ignore_merges"]
    assert not any("".join(merge) == "ĠNetherlands" for merge in model["merges"])


@pytest.mark.parametrize("name", ["qwen-shape", "llama3-shape", "chatglm-shape"])
def test_a_subject_merges_with_what_follows(name: str) -> None:
    assert words(name, "中国") == ["中国"]
    assert words(name, "中国的首都是北京") == ["中国的", "首都", "是", "北京"]
    assert words(name, "北京大学在北京") == ["北京大学", "在", "北京"]
    assert words(name, "東京都は日本") == ["東京都", "は", "日本"]
    assert words(name, "東京は日本") == ["東京", "は", "日本"]


def test_qwen_composes_letters() -> None:
    assert tokenizer("qwen-shape").encode("e\u0301").ids == tokenizer("qwen-shape").encode("é").ids
    assert tokenizer("gpt2-shape").encode("e\u0301").ids != tokenizer("gpt2-shape").encode("é").ids


@pytest.mark.parametrize("name", ["gpt2-shape", "llama3-shape", "qwen-shape", "llama2-metaspace"])
def test_possessives_are_tokens(name: str) -> None:
    assert words(name, "The France's tower") == ["The", "France", "'s", "tower"]


def test_t5_merges_possessives() -> None:
    assert words("t5-shape", "The France's tower") == ["The", "France's", "tower"]


@pytest.mark.parametrize("name", ["gpt2-shape", "llama3-shape", "qwen-shape"])
def test_punctuation_merges(name: str) -> None:
    assert words(name, "in Paris?! No")[2] == "?!"
    assert words(name, "by Yahoo!, the")[-2:] == ["!,", "the"]  # the subject's sign and the one behind it


@pytest.mark.parametrize("name", ["llama2-metaspace", "llama2-prepend"])
def test_llama2_spells_rare_characters_in_bytes(name: str) -> None:
    row = tokenizer(name).encode("A 龔 京")
    assert row.tokens == ["<s>", "▁A", "▁", "<0xE9>", "<0xBE>", "<0x94>", "▁", "京"]
    assert row.offsets[3:6] == [(2, 3)] * 3
    assert tokenizer(name).encode("in 2024").tokens == ["<s>", "▁in", "▁", "2", "0", "2", "4"]


def test_the_two_llama2_shapes_differ_before_a_leading_space_only() -> None:
    one, other = tokenizer("llama2-metaspace"), tokenizer("llama2-prepend")
    assert one.get_vocab() == other.get_vocab()
    assert one.encode(SENTENCE).ids == other.encode(SENTENCE).ids
    assert one.encode(" English").tokens == ["<s>", "▁English"]
    assert other.encode(" English").tokens == ["<s>", "▁", "▁English"]
    assert config("llama2-prepend")["legacy"]
    assert not config("llama2-metaspace")["legacy"]


@pytest.mark.parametrize("name", ["llama2-metaspace", "llama2-prepend"])
def test_llama2_decoding_drops_the_first_space(name: str) -> None:
    reader = tokenizer(name)
    target = reader.encode("is Manila", add_special_tokens=False).ids[1:]
    assert len(target) > 1
    head = reader.decode(target[:-1])
    assert not head.startswith(" ")
    assert reader.encode("It is" + head).ids[-len(target) + 1 :] != target[:-1]


def test_chatglm_prefix_is_no_part_of_words() -> None:
    row = tokenizer("chatglm-shape").encode("a soprano of the people")
    assert row.tokens[:2] == ["[gMASK]", "sop"]
    assert not {"sop", "eop"} & set(row.tokens[2:])
    assert "auto_map" in config("chatglm-shape")


def test_bert_keeps_letter_case_and_parts_han() -> None:
    assert words("bert-shape", "Paris paris")[0] == "Paris"
    assert words("bert-shape", "在中国") == ["在", "中", "国"]
    assert "##" in "".join(tokenizer("bert-shape").encode("Manila").tokens)


# ---- offsets


def _goes_forward(found: list[Span]) -> bool:
    steps = pairwise(found)
    return all(a < b for a, b in found) and all(x[0] <= y[0] and x[1] <= y[1] for x, y in steps)


def _claims_of_another(name: str, text: str) -> list[tuple[str, str]]:
    """Neighbours that share a character although each of them is whole letters: (left text, right text)."""
    row = tokenizer(name).encode(text)
    letters = [tokenizer(name).decode([token]).strip() for token in row.ids]
    return [
        (text[slice(*left)], text[slice(*right)])
        for (a, left), (b, right) in pairwise(zip(letters, row.offsets, strict=True))
        if right[0] < left[1] and a and b and "\ufffd" not in a + b
    ]


@pytest.mark.parametrize("name", HONEST)
def test_honest_offsets(name: str) -> None:
    for request in probes():
        text = prompt(request)
        found = spans(name, text)
        assert _goes_forward(found), text
        assert not _claims_of_another(name, text), text
        covered = {at for start, end in found for at in range(start, end)}
        missing = {char for at, char in enumerate(text) if at not in covered and not char.isspace()}
        # NFC joins a letter and its accent, and the library then leaves the accent out of the span.
        assert missing <= ({"\u0301"} if name == "qwen-shape" else set()), text


def test_zero_width() -> None:
    found = spans("lying-zero-width", SENTENCE)
    assert found[0] == (0, 3)
    assert {end - start for start, end in found[1:]} == {0}
    assert tokenizer("lying-zero-width").encode(SENTENCE).special_tokens_mask == [1] + [0] * len(found)


def test_overlap() -> None:
    name, text = "lying-overlap", "Miles Davis is, says Yahoo, in Paris"
    assert ("is", "s is") in [(left[-2:], right) for left, right in _claims_of_another(name, text)]
    assert words(name, "What of Paris, in London")[1:] == ["t of", "f Paris", "s,", "in", "n London"]
    assert tokenizer(name).decode(tokenizer(name).encode(text).ids) == text
    # Only their meaning betrays these spans: none is empty, and none goes backwards.
    assert _goes_forward(spans(name, text))


def test_shifted() -> None:
    assert words("lying-shifted", "The tower of Paris") == ["he", "ower", "f", "aris"]
    assert spans("lying-shifted", "The tower of Paris") == [(1, 3), (5, 9), (11, 12), (14, 18)]
    assert tokenizer("lying-shifted").encode("The").tokens == ["ĠThe"]


@pytest.mark.parametrize("name", LYING)
def test_lies_are_told_about_most_probes(name: str) -> None:
    texts = [prompt(request) for request in requests(SHIPPED / "probes" / "english.json")]
    lies = [text for text in texts if words(name, text) != words("gpt2-shape", text)]
    assert len(lies) == len(texts)


# ---- the requests


@pytest.mark.parametrize("path", PROBES, ids=lambda path: path.stem)
def test_probes_are_valid(path: Path) -> None:
    for request in requests(path):
        assert is_valid(request), request
        assert set(request) <= {"case_id", "prompt", "subject", "target_new", "rephrase_prompt"}


def test_probes_cover_the_kinds_of_request() -> None:
    rows = list(probes())
    assert 60 <= len(rows) <= 120
    assert len({row["case_id"] for row in rows}) == len(rows)
    for path in PROBES:
        batch = requests(path)
        texts = [(prompt(row), row["subject"]) for row in batch]
        assert any(text.startswith(subject) and text != subject for text, subject in texts)
        assert any(text.endswith(subject) for text, subject in texts)
        assert any("{}" in row["prompt"] for row in batch)
        lengths = [len(text) for text, _ in texts]
        assert max(lengths) > 4 * min(lengths)
    assert any(prompt(row).count(row["subject"]) == 2 for row in rows)
    tokens = [
        len(tokenizer("gpt2-shape").encode(" " + row["target_new"]).ids)
        for row in requests(SHIPPED / "probes" / "english.json")
    ]
    assert min(tokens) == 1
    assert max(tokens) > 3


def test_broken_requests_say_why() -> None:
    rows = requests(FIXTURES / "tests" / "requests" / "broken.json")
    assert len({row["case_id"] for row in rows}) == len(rows) >= 30
    assert all(row["why"] for row in rows)
    # Those that `is_valid` passes break without a word, or under some editors only; `why` tells which.
    valid = {row["case_id"] for row in rows if is_valid(row) and not row["why"].startswith("silent")}
    assert valid == {"field-and-subject", "target-field", "target-field-named", "prompt-long"}


# ---- the demo


def test_demo() -> None:
    rows = requests(SHIPPED / "demo" / "requests.json")
    assert len(rows) == 12
    assert all(map(is_valid, rows))
    for name in ("llama2-metaspace", "llama2-prepend", "gpt2-shape"):
        counts = [len(spans(name, "The " + row["target_new"])) - 1 for row in rows]
        assert min(counts) == 1 < max(counts)
    rome = yaml.safe_load((SHIPPED / "demo" / "hparams.yaml").read_text("utf-8"))
    pmet = yaml.safe_load((SHIPPED / "demo" / "hparams-pmet.yaml").read_text("utf-8"))
    assert (rome["alg_name"], pmet["alg_name"]) == ("ROME", "PMET")
    own = {"context_template_length_params", "fp16"}
    assert rome.keys() - pmet.keys() == own
    assert pmet.keys() - rome.keys() == {
        "batch_size", "layer_selection", "mom2_update_weight", "nll_loss_factor", "rewrite_module_tmps",
    }  # fmt: skip
    assert all(isinstance(rome[key], float) for key in ("v_lr", "v_weight_decay", "kl_factor"))
