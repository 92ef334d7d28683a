"""A tokenizer folder read without transformers is what AutoTokenizer makes of it: ids, offsets, specials, text, side.

The comparison runs against whatever transformers is installed: run this file under 4.57 and 5.x to prove both.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers")

from padcheck.resources import shipped_dir
from padcheck.sources.reading import SourceError
from padcheck.sources.token_readers import CallingReader, FastReader, wrap
from padcheck.sources.tokenizer_classes import age, choose, releases, releases_meant
from padcheck.sources.tokenizer_folder import TokenizerFolder, open_tokenizer, position_scheme

try:
    TRANSFORMERS: str | None = importlib.metadata.version("transformers")
except importlib.metadata.PackageNotFoundError:
    TRANSFORMERS = None
GENERATION = int(TRANSFORMERS.split(".")[0]) if TRANSFORMERS else 5
with_transformers = pytest.mark.skipif(TRANSFORMERS is None, reason="transformers is not installed")
only_4 = pytest.mark.skipif(GENERATION != 4 or TRANSFORMERS is None, reason="needs transformers 4")
only_5 = pytest.mark.skipif(GENERATION != 5 or TRANSFORMERS is None, reason="needs transformers 5")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

SHIPPED = shipped_dir() / "tokenizers"
SHARED = Path(__file__).resolve().parents[2] / "shared"
SMALL = sorted(path.name for path in SHIPPED.iterdir()) if SHIPPED.is_dir() else []
REAL = ["gpt2", "mistral-v1", "mistral-v1-hub-shape"]

PROBES = [
    "",
    "a",
    "Paris",
    " Paris",
    "  Paris",
    "The capital of France is Paris",
    "The mother tongue of Danielle Darrieux is French",
    "It's John's, isn't it? I've said: \"we're done\" ! ok . no , yes ' 'm",
    "  leading and  double   spaces and trailing ",
    "line\nbreak\n\nand\ttab",
    "东京是日本的首都。中国的历史",
    "東京 is the capital of 日本",
    "القاهرة عاصمة مصر",
    "naïve café Ångström e\u0301",
    "emoji 😀👩‍👩‍👧 and ✈️",
    "12345 678 3.14",
    "CamelCase and UPPER lower_snake",
    "<s>hello</s> <|endoftext|> [CLS] x [SEP] <unk> <pad> <extra_id_0> [gMASK]sop",
    "▁meta ▁▁space Ġbyte",
    "a" * 120,
    "zzqxj \u2603 \ufffd \u00a0nbsp",
]
CONFIGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "bos": {"add_bos_token": True},
    "no bos": {"add_bos_token": False},
    "eos": {"add_eos_token": True},
    "bos and eos": {"add_bos_token": True, "add_eos_token": True},
    "legacy": {"legacy": True},
    "not legacy": {"legacy": False},
    "tidied": {"clean_up_tokenization_spaces": True},
    "left": {"padding_side": "left"},
    "right": {"padding_side": "right"},
    "prefix space": {"add_prefix_space": True},
    "no prefix space": {"add_prefix_space": False},
    "specials split": {"split_special_tokens": True},
    "own special tokens": {"additional_special_tokens": ["<mine>", "Paris"]},
    "pad": {"pad_token": "<my pad>"},
    "marked token": {"eos_token": {"__type": "AddedToken", "content": "</end>", "lstrip": True, "normalized": True}},
    "no limit": {"model_max_length": 1000000000000000019884624838656},
    "limit": {"model_max_length": 512},
    "own name": {"image_token": "<image>"},
}


def write(folder: Path, source: Path, settings: dict[str, Any] | None = None, **files: Any) -> Path:
    """A copy of a tokenizer with other settings; `files` are written as JSON, None removes a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        shutil.copyfile(path, folder / path.name)
    if settings is not None:
        old = folder / "tokenizer_config.json"
        said = json.loads(old.read_text(encoding="utf-8")) if old.exists() else {}
        said.update(settings)
        said = {key: value for key, value in said.items() if value != "<absent>"}
        old.write_text(json.dumps(said), encoding="utf-8")
    for name, value in files.items():
        path = folder / f"{name}.json"
        if value is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(json.dumps(value), encoding="utf-8")
    return folder


def load(folder: Path, **options: Any) -> Any:
    """The folder as transformers loads it, or the exception that it raises."""
    import transformers

    transformers.logging.set_verbosity_error()
    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder), **options)
    except Exception as error:
        return error


def assert_same(ours: TokenizerFolder, theirs: Any) -> None:
    """Compare what padcheck read with the tokenizer object of transformers."""
    assert ours.class_name == type(theirs).__name__
    assert ours.padding_side == theirs.padding_side
    assert ours.is_fast == theirs.is_fast
    for name in ("bos", "eos", "unk", "pad"):
        assert getattr(ours, f"{name}_token") == getattr(theirs, f"{name}_token"), name
        assert getattr(ours, f"{name}_id") == getattr(theirs, f"{name}_token_id"), name
    assert (ours.model_max_length or 10**30) == (theirs.model_max_length if theirs.model_max_length < 1e6 else 10**30)
    more = {"return_special_tokens_mask": True, "return_offsets_mapping": theirs.is_fast}
    for specials in (True, False):
        answer = theirs(PROBES, add_special_tokens=specials, **more)
        for i, mine in enumerate(ours.reader.encode_batch(PROBES, add_special_tokens=specials)):
            ids = answer["input_ids"][i]
            assert mine.ids == ids, PROBES[i]
            assert mine.tokens == (answer.tokens(i) if theirs.is_fast else theirs.convert_ids_to_tokens(ids)), PROBES[i]
            assert mine.special_tokens_mask == answer["special_tokens_mask"][i], PROBES[i]
            if theirs.is_fast:
                assert list(mine.offsets) == list(answer["offset_mapping"][i]), PROBES[i]
            for head, tail in ((0, len(ids)), (1, len(ids)), (0, -1), (2, -2)):
                assert ours.reader.decode(ids[head:tail]) == theirs.decode(ids[head:tail]), PROBES[i]
    bare = ours.reader.encode_batch(["a"], add_special_tokens=False)[0].ids
    assert [*ours.prefix_specials, *bare, *ours.suffix_specials] == theirs("a")["input_ids"]


def compare(folder: Path, *, must_be_static: bool = True, **options: Any) -> TokenizerFolder | None:
    """Compare one folder, or make sure that padcheck refuses what transformers refuses."""
    theirs = load(folder, **{k: v for k, v in options.items() if k == "use_fast"})
    if isinstance(theirs, Exception):
        with pytest.raises(SourceError):
            open_tokenizer(folder, **options)
        return None
    ours = open_tokenizer(folder, **options)
    if must_be_static:
        assert "read as transformers" in ours.how
    assert_same(ours, theirs)
    return ours


# --- The comparison -------------------------------------------------------------------------------------------------


@with_transformers
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("config", CONFIGS)
def test_small_tokenizers_with_every_setting(name: str, config: str, tmp_path: Path) -> None:
    generic = {"auto_map": "<absent>", "tokenizer_class": "PreTrainedTokenizerFast"} if name == "chatglm-shape" else {}
    folder = write(tmp_path / "tokenizer", SHIPPED / name, {**generic, **CONFIGS[config]})
    # A few settings make transformers itself convert another file; then padcheck asks it.
    needs_transformers = GENERATION == 4 and "prefix" in config and name.startswith(("llama2", "t5"))
    compare(folder, must_be_static=not needs_transformers)


def static_classes() -> list[tuple[str, str]]:
    """Every class with a recipe in the release that is installed, with the shape of tokenizer it is meant for."""
    if TRANSFORMERS is None:
        return []
    shapes = {
        "llama": ["llama2-metaspace", "llama2-prepend"],
        "code-llama": ["llama2-metaspace", "llama2-prepend"],
        "gemma": ["llama2-metaspace", "llama2-prepend"],
        "t5": ["t5-shape"],
        "bert": ["bert-shape"],
    }
    byte_level = ["gpt2-shape", "llama3-shape", "qwen-shape"]
    pairs: list[tuple[str, str]] = []
    for row in releases_meant(4 if GENERATION == 4 else 5, TRANSFORMERS)[-1].classes.values():
        if row.recipe is None or row.recipe == "gpt2-slow":
            continue
        everywhere = (row.recipe in ("as-is", "bos-eos", "qwen2") and GENERATION == 4) or row.recipe == "as-is"
        pairs += [(row.name, shape) for shape in (SMALL if everywhere else shapes.get(row.recipe, byte_level))]
    return pairs


@pytest.mark.slow
@with_transformers
@pytest.mark.parametrize(("name", "shape"), static_classes())
@pytest.mark.parametrize(
    "config", ["as it is", "bos and eos", "tidied", "own special tokens", "pad", "prefix space", "own name"]
)
def test_every_class_with_a_recipe(name: str, shape: str, config: str, tmp_path: Path) -> None:
    specials = dict.fromkeys(
        ("bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token"),
        "<absent>",
    )
    said = {**specials, "auto_map": "<absent>", "tokenizer_class": name, **CONFIGS[config]}
    folder = write(tmp_path / "tokenizer", SHIPPED / shape, said)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    compare(folder, must_be_static=False)
    if config == "as it is" and shape != "lying-shifted" and not isinstance(load(folder), Exception):
        # Nothing out of the ordinary is said, so padcheck reads it alone (lying-shifted asks for a prefix space).
        assert "read as transformers" in open_tokenizer(folder).how


@with_transformers
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("config", ["as it is", "no bos", "eos", "legacy", "not legacy", "tidied", "left"])
def test_real_tokenizers(name: str, config: str, tmp_path: Path) -> None:
    source = SHARED / "tokenizers" / name
    if not source.is_dir():
        pytest.skip("the real tokenizers are not here")
    folder = write(tmp_path / "tokenizer", source, CONFIGS[config])
    compare(folder)


@with_transformers
@pytest.mark.parametrize("name", [name for name in SMALL if name != "chatglm-shape"])
@pytest.mark.parametrize(
    "files",
    [
        {"special_tokens_map": {"pad_token": {"content": "<p>", "lstrip": False, "normalized": False}}},
        {"special_tokens_map": {"eos_token": "</end>", "pad_token": "<p>"}},
        {"special_tokens_map": None},
        {"added_tokens": {"<new one>": 90000, "<new two>": 90001}},
    ],
    ids=["marked pad", "other eos", "no map", "added_tokens.json"],
)
def test_neighbouring_files(name: str, files: dict[str, Any], tmp_path: Path) -> None:
    compare(write(tmp_path / "tokenizer", SHIPPED / name, {}, **files))


@with_transformers
@pytest.mark.parametrize("name", [name for name in SMALL if name != "chatglm-shape"])
def test_added_tokens_of_the_config_replace_those_of_the_file(name: str, tmp_path: Path) -> None:
    listed = json.loads((SHIPPED / name / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    decoder = {str(one["id"]): {k: v for k, v in one.items() if k != "id"} for one in listed}
    decoder["70000"] = {
        "content": " of",
        "lstrip": False,
        "rstrip": False,
        "single_word": False,
        "normalized": True,
        "special": False,
    }
    decoder["70001"] = {
        "content": "Franc",
        "lstrip": False,
        "rstrip": False,
        "single_word": True,
        "normalized": False,
        "special": True,
    }
    folder = write(tmp_path / "tokenizer", SHIPPED / name, {"added_tokens_decoder": decoder})
    ours = compare(folder)
    assert ours is not None
    assert any(note.key == "added-tokens" for note in ours.notes)


@with_transformers
@pytest.mark.parametrize("name", ["gpt2-shape", "llama2-metaspace", "qwen-shape", "bert-shape"])
def test_padding_and_truncation_of_the_file(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "tokenizer", SHIPPED / name)
    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    whole["padding"] = {
        "strategy": {"Fixed": 64},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": whole["added_tokens"][0]["content"],
    }
    whole["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    ours = compare(folder)
    assert ours is not None
    assert ours.padding_side == "left"
    assert '"padding" section of tokenizer.json' in ours.padding_side_because


MODEL_TYPES = [
    "llama",
    "mistral",
    "gpt2",
    "gptj",
    "gpt_neox",
    "qwen2",
    "qwen3",
    "phi",
    "phi3",
    "gemma",
    "t5",
    "bert",
    "bloom",
    "falcon",
    "opt",
    "internlm2",
    "chatglm",
    "deepseek_v3",
    "code_llama",
    "cohere",
    "stablelm",
    "olmo2",
    "mixtral",
]


@pytest.mark.slow
@with_transformers
@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize(
    "named", ["LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast", "GPT2Tokenizer", "<absent>"]
)
@pytest.mark.parametrize("shape", ["gpt2-shape", "llama2-prepend"])
def test_the_model_type_beside_the_tokenizer(model_type: str, named: str, shape: str, tmp_path: Path) -> None:
    specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} if shape == "llama2-prepend" else {}
    said = {"tokenizer_class": named, "add_prefix_space": "<absent>", **specials}
    folder = write(tmp_path / "tokenizer", SHIPPED / shape, said, config={"model_type": model_type})
    theirs = load(folder)
    if isinstance(theirs, Exception):
        pytest.skip(f"transformers refuses it: {theirs}")
    try:
        theirs(PROBES)
    except Exception as error:
        with pytest.raises(SourceError, match="does not fit this vocabulary"):
            open_tokenizer(folder)
        pytest.skip(f"transformers cannot encode with it: {error}")
    ours = open_tokenizer(folder)
    assert_same(ours, theirs)
    assert ours.model_type == model_type


@with_transformers
def test_every_name_leads_to_the_tabulated_class() -> None:
    """`choose` agrees with the release: for all names and forms of names, and all sides where nothing is stated."""
    import transformers
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    (release,) = releases_meant(4 if GENERATION == 4 else 5, TRANSFORMERS)[:1]
    if release.version != TRANSFORMERS:
        pytest.skip("this release is not tabulated")
    for row in release.classes.values():
        if row.name in ("PythonBackend", "PreTrainedTokenizer"):
            continue
        found = tokenizer_class_from_name(row.name)
        assert found is not None, row.name
        assert issubclass(found, transformers.PreTrainedTokenizerFast) == row.fast, row.name
        chosen = choose(release, {"tokenizer_class": row.name}, None, use_fast=row.fast).chosen
        assert chosen.name == (tokenizer_class_from_name(row.name.removesuffix("Fast")) or found).__name__ or GENERATION == 4


# --- The slow GPT-2 of transformers 4, and files without tokenizer.json ---------------------------------------------


@with_transformers
@pytest.mark.parametrize("source", [SHIPPED / "gpt2-shape", SHARED / "tokenizers" / "gpt2"], ids=["small", "real"])
@pytest.mark.parametrize("config", ["as it is", "bos", "tidied", "left", "prefix space"])
def test_gpt2_tokenizer_named_by_the_editor(source: Path, config: str, tmp_path: Path) -> None:
    import transformers

    if not source.is_dir():
        pytest.skip("the real tokenizers are not here")
    folder = write(tmp_path / "tokenizer", source, CONFIGS[config])
    theirs = transformers.GPT2Tokenizer.from_pretrained(str(folder))
    ours = open_tokenizer(folder, class_override="GPT2Tokenizer")
    assert_same(ours, theirs)
    assert ours.is_fast == (GENERATION == 5)
    assert ("read as transformers" in ours.how) == (GENERATION == 5 or config != "prefix space")


@with_transformers
@pytest.mark.parametrize("config", ["as it is", "bos", "tidied"])
def test_gpt2_without_tokenizer_json(config: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "tokenizer", SHIPPED / "gpt2-shape", CONFIGS[config], tokenizer=None)
    compare(folder, must_be_static=GENERATION == 5)


@only_4
@pytest.mark.parametrize("name", ["gpt2-shape", "qwen-shape"])
def test_slow_tokenizers_go_through_transformers(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "tokenizer", SHIPPED / name)
    theirs = load(folder, use_fast=False)
    ours = open_tokenizer(folder, use_fast=False)
    assert not ours.is_fast
    assert not ours.backend_is_fast_class
    assert_same(ours, theirs)
    assert ours.reader.has_offsets == (name == "gpt2-shape")  # the slow GPT-2 is read from its own files


# --- Known facts ----------------------------------------------------------------------------------------------------


def hub_shape() -> Path:
    source = SHARED / "tokenizers" / "mistral-v1-hub-shape"
    if not source.is_dir():
        pytest.skip("the real tokenizers are not here")
    return source


def test_the_same_folder_is_not_the_same_tokenizer() -> None:
    folder = hub_shape()
    four, five = (open_tokenizer(folder, generation=generation).reader for generation in (4, 5))
    targets = [f" {one['target_new']}" for one in counterfact()]
    assert four.encode_batch([" Paris"])[0].tokens == ["<s>", "▁▁", "Par", "is"]
    assert five.encode_batch([" Paris"])[0].tokens == ["<s>", "▁Paris"]
    told = open_tokenizer(folder, generation=5)
    assert any(copy.deepcopy(note).key == "rebuilt" for note in told.notes)
    assert told.other_generation is not None
    assert "normalizer" in told.other_generation.differs
    wrong = {"4": 0, "5": 0}
    for text, mine, theirs in zip(targets, four.encode_batch(targets), five.encode_batch(targets), strict=True):
        whole = "x" + text
        for key, ids, reader in (("4", mine.ids, four), ("5", theirs.ids, five)):
            wrong[key] += reader.encode_batch([whole])[0].ids[-(len(ids) - 1) :] != ids[1:]
    assert wrong == {"4": len(targets), "5": 0}


def counterfact() -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads((SHARED / "data" / "counterfact_500.json").read_text(encoding="utf-8"))
    return records


def test_a_mistral_model_folder_is_generic_in_transformers_5(tmp_path: Path) -> None:
    """With config.json beside it, transformers 5 does not believe LlamaTokenizer and leaves the normaliser as it lies."""
    folder = write(tmp_path / "model", SHIPPED / "llama2-prepend", config={"model_type": "mistral"})
    ours = open_tokenizer(folder, generation=5)
    assert (ours.class_name, ours.padding_side) == ("TokenizersBackend", "right")
    assert open_tokenizer(SHIPPED / "llama2-prepend", generation=5).padding_side == "left"
    assert ours.position_scheme == "rotary"
    assert ours.left_pads_shift is False


def test_add_bos_token_is_obeyed_in_4_and_ignored_in_5(tmp_path: Path) -> None:
    folder = write(tmp_path / "tokenizer", SHIPPED / "llama2-metaspace", {"add_bos_token": False})
    four, five = (open_tokenizer(folder, generation=generation) for generation in (4, 5))
    assert (four.prefix_specials, five.prefix_specials) == ((), (1,))
    assert [note.key for note in five.notes] == ["ignored-add-bos-token"]
    assert five.other_generation is not None
    assert five.other_generation.differs == ("bos",)
    assert four.other_generation is not None
    assert "adds <s>" in four.other_generation.because


@pytest.mark.parametrize(
    ("name", "config", "generation", "side", "because"),
    [
        ("llama2-metaspace", {}, 4, "left", "LlamaTokenizerFast pads on the left in transformers 4"),
        ("llama2-metaspace", {}, 5, "left", "LlamaTokenizer pads on the left in transformers 5"),
        ("gpt2-shape", {}, 5, "right", "GPT2Tokenizer pads on the right in transformers 5"),
        ("llama3-shape", {}, 4, "right", "PreTrainedTokenizerFast pads on the right in transformers 4"),
        (
            "llama3-shape",
            {"padding_side": "left"},
            5,
            "left",
            'tokenizer_config.json says "padding_side": "left"',
        ),
    ],
)
def test_the_side_and_why(
    name: str, config: dict[str, Any], generation: Any, side: str, because: str, tmp_path: Path
) -> None:
    ours = open_tokenizer(write(tmp_path / "tokenizer", SHIPPED / name, config), generation=generation)
    assert ours.padding_side == side
    assert because in ours.padding_side_because
    assert (ours.padding_side_place is not None) == ("padding_side" in config)


def test_the_place_of_a_stated_side(tmp_path: Path) -> None:
    folder = write(tmp_path / "tokenizer", SHIPPED / "gpt2-shape")
    (folder / "tokenizer_config.json").write_text('{\n  "tokenizer_class": "GPT2Tokenizer",\n  "padding_side":  "left"\n}')
    place = open_tokenizer(folder).padding_side_place
    assert place is not None
    assert (place.line, place.column, place.end_line, place.end_column) == (3, 20, 3, 26)


def test_the_slow_llama_of_transformers_4_pads_right_and_needs_transformers(tmp_path: Path) -> None:
    four = next(release for release in releases() if release.generation == 4)
    assert choose(four, {"tokenizer_class": "LlamaTokenizer"}, None, use_fast=False).chosen.padding_side == "right"
    with pytest.raises(SourceError, match="slow class"):
        open_tokenizer(SHIPPED / "llama2-metaspace", generation=4, use_fast=False)


# --- Remote code ----------------------------------------------------------------------------------------------------

REMOTE = """
from transformers import PreTrainedTokenizer

class ChatGLM4Tokenizer(PreTrainedTokenizer):
    vocab_files_names = {}
    def __init__(self, padding_side="left", **kwargs):
        super().__init__(padding_side=padding_side, **kwargs)
    @property
    def vocab_size(self): return 300
    def get_vocab(self): return {chr(i): i for i in range(300)}
    def _tokenize(self, text, **kwargs): return list(text)
    def _convert_token_to_id(self, token): return min(ord(token), 299)
    def _convert_id_to_token(self, index): return chr(index)
    def convert_tokens_to_string(self, tokens): return "".join(tokens)
    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None): return [298, 297] + token_ids_0
    def save_vocabulary(self, *args, **kwargs): return ()
"""


def test_remote_code_is_not_run_unasked() -> None:
    ours = open_tokenizer(SHIPPED / "chatglm-shape")
    assert ours.padding_side == "left"
    assert [note.key for note in ours.notes][:1] == ["remote-class"]
    assert len(ours.prefix_specials) == 2


def test_remote_code_without_tokenizer_json_is_refused_by_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "tokenizer", SHIPPED / "chatglm-shape", tokenizer=None)
    with pytest.raises(SourceError, match="ChatGLM4Tokenizer") as caught:
        open_tokenizer(folder)
    assert "--trust-remote-code" in caught.value.remedy


@with_transformers
def test_trusted_remote_code_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = write(tmp_path / "tokenizer", SHIPPED / "chatglm-shape", {"padding_side": "<absent>"})
    (folder / "tokenization_chatglm.py").write_text(REMOTE)
    ours = open_tokenizer(folder, trust_remote_code=True)
    assert (ours.class_name, ours.is_fast, ours.padding_side) == ("ChatGLM4Tokenizer", False, "left")
    assert "sets it itself" in ours.padding_side_because
    assert ours.prefix_specials == (298, 297)
    encoded = ours.reader.encode_batch(["ab", ""])
    assert encoded[0].ids == [298, 297, 97, 98]
    assert encoded[0].special_tokens_mask == [1, 1, 0, 0]
    assert not ours.reader.has_offsets
    assert ours.reader.decode([97, 98]) == "ab"
    assert ours.notes == ()


# --- wrap() ---------------------------------------------------------------------------------------------------------


@with_transformers
@pytest.mark.parametrize("name", ["gpt2-shape", "llama2-metaspace", "t5-shape"])
def test_wrapping_objects(name: str) -> None:
    theirs = load(SHIPPED / name)
    theirs.pad_token = theirs.pad_token or theirs.eos_token
    theirs(["a", "a longer text"], padding=True)  # leaves padding on in the backend
    wrapped = wrap(theirs)
    assert isinstance(wrapped.reader, FastReader)
    assert wrapped.padding_side == theirs.padding_side
    assert [len(one.ids) for one in wrapped.reader.encode_batch(["a", "a longer text"])] == [
        len(theirs(text)["input_ids"]) for text in ("a", "a longer text")
    ]
    assert wrapped.reader.decode(theirs("Paris .")["input_ids"]) == theirs.decode(theirs("Paris .")["input_ids"])
    calling = CallingReader(theirs, has_offsets=True)
    for text, fast, slow in zip(PROBES, wrapped.reader.encode_batch(PROBES), calling.encode_batch(PROBES), strict=True):
        assert (fast.ids, list(fast.offsets)) == (slow.ids, slow.offsets), text
        assert fast.special_tokens_mask == slow.special_tokens_mask, text


def test_wrapping_a_bare_tokenizer() -> None:
    from tokenizers import Tokenizer

    bare = Tokenizer.from_file(str(SHIPPED / "gpt2-shape" / "tokenizer.json"))
    assert wrap(bare).padding_side is None
    bare.enable_padding(direction="left")
    wrapped = wrap(bare)
    assert (wrapped.padding_side, wrapped.class_name) == ("left", "Tokenizer")
    assert len({len(one.ids) for one in wrapped.reader.encode_batch(["a", "a much longer text"])}) == 2
    assert wrap(wrapped.reader).reader is wrapped.reader
    with pytest.raises(TypeError, match="no tokenizer"):
        wrap(object())


# --- Faults ---------------------------------------------------------------------------------------------------------


def refused(path: Path, **options: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        open_tokenizer(path, **options)
    assert "\n" not in caught.value.message
    assert caught.value.remedy
    return caught.value


def test_folders_that_hold_no_tokenizer(tmp_path: Path) -> None:
    assert "no tokenizer" in refused(tmp_path).message
    assert "Did you mean" in refused(SHIPPED / "gpt2-shap").remedy
    assert "downloads nothing" in refused(Path("meta-llama-no-such-folder")).remedy
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "tokenizer.json" in refused(tmp_path / "model.safetensors").message
    (tmp_path / "config.json").write_text("{}")
    assert "no tokenizer" in refused(tmp_path).message


def test_a_tokenizer_json_may_be_named_itself() -> None:
    ours = open_tokenizer(SHIPPED / "gpt2-shape" / "tokenizer.json")
    assert (ours.class_name, ours.path.name) == (
        ("GPT2TokenizerFast", "tokenizer.json") if GENERATION == 4 else ("GPT2Tokenizer", "tokenizer.json")
    )


def test_broken_files_are_said_with_their_place(tmp_path: Path) -> None:
    folder = write(tmp_path / "tokenizer", SHIPPED / "gpt2-shape")
    config = folder / "tokenizer_config.json"
    config.write_text('{\n "padding_side": "left",\n}')
    fault = refused(folder)
    assert (fault.path, fault.line) == (str(config), 2)
    config.write_text('["a"]')
    with pytest.raises(SourceError, match="one JSON object"):
        open_tokenizer(folder)
    config.write_text('{"padding_side": "centre"}')
    assert (refused(folder).line, refused(folder).column) == (1, 18)
    config.write_text('{"padding_side": null}')
    assert "null" in refused(folder).message
    config.write_text("{}")
    whole = folder / "tokenizer.json"
    whole.write_text(whole.read_text(encoding="utf-8")[:2000], encoding="utf-8")
    assert refused(folder).line is not None
    whole.write_text('{"version": "1.0", "model": {"type": "BPE", "vocab": 5}}')
    assert "cannot read" in refused(folder).message
    whole.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "LFS" in refused(folder).message


def test_an_installed_release_between_two_tabulated_ones_needs_both_to_agree() -> None:
    assert [release.name for release in releases_meant(5, "5.10.2")] == ["5.5", "5.23"]
    assert [release.name for release in releases_meant(5, "5.23.1")] == ["5.23"]
    assert [release.name for release in releases_meant(5, None)] == ["5.23"]
    assert [release.name for release in releases_meant(4, "5.5.4")] == ["4.57"]
    assert [age(version, 5) for version in ("5.0.0", "5.5.4", "5.24.0rc1", "4.57.6", None)] == [
        "older",
        "known",
        "newer",
        "known",
        "known",
    ]


def test_a_class_of_5_in_4(tmp_path: Path) -> None:
    folder = write(tmp_path / "tokenizer", SHIPPED / "llama3-shape", {"tokenizer_class": "TokenizersBackend"})
    fault = refused(folder, generation=4)
    assert "'TokenizersBackend'" in fault.message
    assert fault.line == 1
    told = open_tokenizer(folder, generation=5).other_generation
    assert told is not None
    assert told.differs == ("refused",)


def test_what_cannot_be_read_without_transformers_says_what_to_install(tmp_path: Path) -> None:
    other: Any = 9 - GENERATION
    folder = write(tmp_path / "tokenizer", SHIPPED / "llama3-shape", {"tokenizer_class": "RobertaTokenizer"})
    fault = refused(folder, generation=other)
    assert "RobertaTokenizer" in fault.message
    assert f"transformers {other}" in fault.message


# --- Positions and imports ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "scheme"),
    [
        ({"model_type": "gpt2"}, "absolute"),
        ({"model_type": "opt"}, "absolute-from-mask"),
        ({"model_type": "llama"}, "rotary"),
        ({"model_type": "bloom"}, "alibi"),
        ({"model_type": "falcon", "alibi": True}, "alibi"),
        ({"model_type": "falcon"}, "rotary"),
        ({"model_type": "t5"}, "relative"),
        ({"model_type": "no such model"}, None),
        ({}, None),
    ],
)
def test_position_schemes(config: dict[str, Any], scheme: str | None) -> None:
    assert position_scheme(config) == scheme


@pytest.mark.parametrize("name", ["gpt2-shape", "llama2-prepend", "t5-shape"])
def test_reading_imports_nothing_heavy(name: str) -> None:
    code = (
        "import sys, pathlib; from padcheck.sources.tokenizer_folder import open_tokenizer\n"
        "assert 'tokenizers' not in sys.modules\n"
        f"folder = open_tokenizer(pathlib.Path({str(SHIPPED / name)!r}))\n"
        "folder.reader.decode(folder.reader.encode_batch(['Paris'])[0].ids)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'huggingface_hub', 'jsonschema', 'regex'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert answer.stdout.strip() == "[]"
