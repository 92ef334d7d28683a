"""Second moments equal one unpacked document at a time, whatever the architecture, the ranks and the interruptions."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

from padcheck.editing import second_moments  # noqa: E402
from padcheck.editing.errors import ArchitectureError, CovarianceError  # noqa: E402
from padcheck.editing.second_moments import Progress, estimate, load, model_digest, save  # noqa: E402
from padcheck.editing.stats_command import StatsOptions, run_stats  # noqa: E402
from padcheck.sources.reading import SourceError  # noqa: E402

WORDS = [f"w{i}" for i in range(60)]
SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
LLAMA_MODULES = ["model.layers.1.mlp.down_proj", "model.layers.2.mlp.down_proj"]


def tokenizer_of(bos: bool) -> Any:
    """Whole words, with or without a BOS."""
    entries = ["<s>", "</s>", "?", *WORDS]
    bare = Tokenizer(models.WordLevel({entry: i for i, entry in enumerate(entries)}, unk_token="?"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    if bos:
        bare.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bare, bos_token="<s>", eos_token="</s>", unk_token="?")


def documents_of(count: int, longest: int) -> list[str]:
    """Texts of 1 to `longest` words, of every length, and some without a word."""
    words = ((WORDS[(7 * i + at * (1 + i % 5)) % len(WORDS)] for at in range(1 + (11 * i) % longest)) for i in range(count))
    texts = [" ".join(text) for text in words]
    return [*texts[: count // 2], " ", "", *texts[count // 2 :]]


def model_of(name: str) -> Any:
    """A tiny random model whose keys are not small, in float32."""
    torch.manual_seed(0)
    classes = transformers
    if name == "llama":
        config = classes.LlamaConfig(**SMALL, num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3)
        return classes.LlamaForCausalLM(config)
    if name == "mistral":  # a window of 8 in documents of up to 23 tokens
        config = classes.MistralConfig(
            **SMALL, num_key_value_heads=2, max_position_embeddings=128, sliding_window=8, initializer_range=0.3
        )
        return classes.MistralForCausalLM(config)
    if name == "gpt2":
        sizes = {"n_embd": 32, "n_inner": 48, "n_layer": 4, "n_head": 4, "n_positions": 64}
        return classes.GPT2LMHeadModel(classes.GPT2Config(vocab_size=64, **sizes, initializer_range=0.3))
    sizes = {"hidden_size": 32, "n_layer": 4, "n_head": 4}
    return classes.BloomForCausalLM(classes.BloomConfig(vocab_size=64, **sizes, initializer_range=0.3))  # ALiBi


MODULES = {
    "llama": LLAMA_MODULES,
    "mistral": LLAMA_MODULES,
    "gpt2": ["transformer.h.1.mlp.c_proj", "transformer.h.2.mlp.c_proj"],
    "bloom": ["transformer.h.1.mlp.dense_4h_to_h", "transformer.h.2.mlp.dense_4h_to_h"],
}


def reference(model: Any, tokenizer: Any, texts: Sequence[str], modules: Sequence[str], max_length: int) -> dict[str, Any]:
    """The definition: every document by itself, without a pad, in float64 sums."""
    sums, count = dict.fromkeys(modules, 0.0), 0
    model.eval()
    for text in texts:
        if not text.split():
            continue
        ids = tokenizer(text)["input_ids"][:max_length]
        for name in modules:
            seen: list[Any] = []
            hook = model.get_submodule(name).register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
            with torch.no_grad():
                model(torch.tensor([ids]))
            hook.remove()
            keys = seen[0].reshape(len(ids), -1).double()
            sums[name] = sums[name] + keys.T @ keys
        count += len(ids)
    return {name: total / count for name, total in sums.items()}


def assert_equal(found: Any, expected: Any, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, matrix in found.items():
        assert (matrix - expected[name]).abs().max() <= tolerance * expected[name].abs().max(), name
        assert torch.equal(matrix, matrix.T), name


@pytest.fixture(scope="module")
def llama() -> Any:
    return model_of("llama")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", list(MODULES))
def test_equals_one_document_at_a_time(name: str, attention: str) -> None:
    model, tokenizer = model_of(name), tokenizer_of(bos=name != "gpt2")
    model.set_attn_implementation(attention)
    texts = documents_of(60, longest=23)
    found = estimate(model, tokenizer, texts, MODULES[name], max_length=20, batch_tokens=64)
    assert_equal(found.matrices, reference(model, tokenizer, texts, MODULES[name], 20), 1e-5)
    assert found.key.documents == 60
    assert found.key.special_tokens == ("$A" if name == "gpt2" else "<s> $A")
    # A mask of ours knows no window, so Mistral's own mask is used; Bloom's ALiBi wants a mask of two dimensions.
    assert found.layout == {"mistral": "restarting", "bloom": "padded"}.get(name, "masked")


@pytest.mark.parametrize("layout", second_moments.LAYOUTS)
def test_every_layout_gives_the_same(llama: Any, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_moments._Keys, "_agrees", lambda self, rows, expected: self.layout == layout)
    texts = documents_of(40, longest=30)
    found = estimate(llama, tokenizer_of(bos=True), texts, LLAMA_MODULES, batch_tokens=64)
    assert found.layout == layout
    assert_equal(found.matrices, reference(llama, tokenizer_of(bos=True), texts, LLAMA_MODULES, 64), 1e-5)


def test_window_that_only_later_documents_reach() -> None:
    """The first documents fit Mistral's window of 8: what was found right for them is not believed for longer ones."""
    model, tokenizer = model_of("mistral"), tokenizer_of(bos=True)
    texts = ["w1 w2 w3"] * 200 + [" ".join(WORDS[:40])] * 3
    found = estimate(model, tokenizer, texts, LLAMA_MODULES, max_length=64, batch_tokens=64)
    assert_equal(found.matrices, reference(model, tokenizer, texts, LLAMA_MODULES, 64), 1e-5)
    assert found.layout == "restarting"


def test_packing_without_restarts_would_differ(llama: Any) -> None:
    """The equality above is no accident of small differences: one long document of the same tokens is another moment."""
    texts, tokenizer = documents_of(40, longest=10), tokenizer_of(bos=True)
    two = [" ".join(texts[:20]), " ".join(texts[20:])]
    found = estimate(llama, tokenizer, texts, LLAMA_MODULES, batch_tokens=64).matrices
    joined = estimate(llama, tokenizer, two, LLAMA_MODULES, max_length=128).matrices
    for name in LLAMA_MODULES:
        assert (found[name] - joined[name]).norm() > 1e-2 * found[name].norm()


def test_float32_sums_are_compensated(llama: Any) -> None:
    texts = documents_of(300, longest=12)
    exact = estimate(llama, tokenizer_of(bos=True), texts, LLAMA_MODULES, batch_tokens=16).matrices
    found = estimate(llama, tokenizer_of(bos=True), texts, LLAMA_MODULES, batch_tokens=16, dtype=torch.float32).matrices
    assert_equal(found, exact, 3e-7)


def test_bfloat16_models_are_read_in_float32_sums() -> None:
    model, tokenizer, texts = model_of("llama").bfloat16(), tokenizer_of(bos=True), documents_of(30, longest=20)
    found = estimate(model, tokenizer, texts, LLAMA_MODULES, batch_tokens=64)
    assert found.key.dtype == "bfloat16"
    assert_equal(found.matrices, reference(model, tokenizer, texts, LLAMA_MODULES, 64), 2e-2)


def test_the_model_is_left_as_it_was(llama: Any) -> None:
    model = model_of("gpt2").train()  # with dropout
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    before = model_digest(model)
    first = estimate(model, tokenizer_of(bos=False), documents_of(20, 9), MODULES["gpt2"], batch_tokens=32).matrices
    again = estimate(model, tokenizer_of(bos=False), documents_of(20, 9), MODULES["gpt2"], batch_tokens=32).matrices
    assert_equal(again, first, 0)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert model_digest(model) == before


def test_the_pass_stops_at_the_last_module(llama: Any) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a layer above the last module was run")

    hook = llama.model.layers[3].register_forward_pre_hook(never)
    try:
        estimate(llama, tokenizer_of(bos=True), documents_of(5, 9), LLAMA_MODULES)
    finally:
        hook.remove()


def test_limits() -> None:
    model, tokenizer, texts = model_of("llama"), tokenizer_of(bos=True), documents_of(40, 12)
    by_tokens = estimate(model, tokenizer, texts, LLAMA_MODULES, max_tokens=50)
    assert by_tokens.key.tokens in (49, 50)
    by_documents = estimate(model, tokenizer, texts, LLAMA_MODULES, max_documents=7)
    assert by_documents.key.documents == 7
    assert_equal(by_documents.matrices, reference(model, tokenizer, texts[:7], LLAMA_MODULES, 99), 1e-5)


def test_progress(llama: Any) -> None:
    seen: list[Progress] = []
    limits = {"batch_tokens": 32, "max_tokens": 1000}
    found = estimate(llama, tokenizer_of(bos=True), documents_of(40, 12), LLAMA_MODULES, **limits, progress=seen.append)
    assert [at.tokens for at in seen] == sorted(at.tokens for at in seen)
    assert (seen[-1].tokens, seen[-1].documents) == (found.key.tokens, found.key.documents)
    assert all(at.rate > 0 and at.remaining is not None and at.remaining >= 0 and at.at_most for at in seen)


class _Known:
    """Documents that say how much of them was read, as `corpus.Walk` does."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._read = 0

    def __iter__(self) -> _Known:
        return self

    def __next__(self) -> str:
        if self._read == len(self._texts):
            raise StopIteration
        self._read += 1
        return self._texts[self._read - 1]

    @property
    def share(self) -> float:
        return self._read / len(self._texts)


def test_time_that_remains_in_a_corpus_of_known_size(llama: Any) -> None:
    """A limit beyond the corpus is not what is waited for."""
    texts, seen = ["w1 w2 w3"] * 1000, []
    estimate(
        llama, tokenizer_of(bos=True), _Known(texts), LLAMA_MODULES, batch_tokens=64, max_tokens=10**9, progress=seen.append
    )
    assert not any(at.at_most for at in seen)
    for at in seen:
        assert at.remaining == pytest.approx((4000 - at.tokens) / at.rate, rel=0.02, abs=1e-6)


# ---- documents that are too long


def test_what_was_cut_is_counted(llama: Any, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(bos=True)
    texts = ["w1 w2 w3 w4", " ".join(["w5"] * 9), " ", " ".join(["w6"] * 90), "w1"]
    found = estimate(llama, tokenizer, texts, LLAMA_MODULES, max_length=10)
    assert found.key.tokens == 5 + 10 + 10 + 2
    # 81 of 90 words, and a space before each of them, in 11 + 26 + 269 + 2 characters.
    assert found.cut == (1, pytest.approx(81 * 3, abs=3), 11 + 26 + 269 + 2)
    save(found, tmp_path / "moments")
    assert load(tmp_path / "moments").cut == found.cut
    # The limit of a run is no fault of the document that it falls into.
    assert estimate(llama, tokenizer, texts, LLAMA_MODULES, max_length=10, max_tokens=8).cut == (0, 0, 11 + 26)
    save(replace(found, cut=None), tmp_path / "older")
    assert load(tmp_path / "older").cut is None


class _Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.characters = 0

    def __call__(self, texts: Any, **options: Any) -> Any:
        self.characters += sum(map(len, texts))
        return self._inner(texts, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize("gap", [1, 2000])
def test_of_a_book_only_the_beginning_is_tokenised(llama: Any, gap: int) -> None:
    """Also where its tokens are long: what is tokenised is at most doubled until there are enough."""
    tokenizer = _Counting(tokenizer_of(bos=True))
    book = (" " * gap).join(WORDS[at % len(WORDS)] for at in range(2_000_000 // (gap + 3)))
    found = estimate(llama, tokenizer, [book, "w1"], LLAMA_MODULES, max_length=64)
    assert tokenizer.characters < 4 * (gap + 3) * (64 + second_moments._BEHIND) + 8 * 128
    assert_equal(found.matrices, reference(llama, tokenizer_of(bos=True), [book, "w1"], LLAMA_MODULES, 64), 1e-5)
    assert found.cut is not None
    assert found.cut.unread / found.cut.characters == pytest.approx(1 - 63 * (gap + 3) / len(book), abs=0.01)


# ---- refusals


def test_what_is_refused(llama: Any) -> None:
    tokenizer = tokenizer_of(bos=True)
    with pytest.raises(ArchitectureError, match=r"no module 'model\.layers\.9\.mlp\.down_proj'"):
        estimate(llama, tokenizer, ["w1"], ["model.layers.9.mlp.down_proj"])
    odd = model_of("llama")
    odd.lost = torch.nn.Linear(2, 2)
    with pytest.raises(ArchitectureError, match="never reaches lost"):
        estimate(odd, tokenizer, ["w1"], ["lost"])
    with pytest.raises(CovarianceError, match="no tokens"):
        estimate(llama, tokenizer, ["", " "], LLAMA_MODULES)
    with pytest.raises(ArchitectureError, match="do not fit the model's 128 positions"):
        estimate(llama, tokenizer, ["w1"], LLAMA_MODULES, max_length=129)
    with pytest.raises(ValueError, match="max_tokens 1 leaves no room beside the special tokens <s>"):
        estimate(llama, tokenizer, ["w1"], LLAMA_MODULES, max_tokens=1)


def test_another_models_tokenizer() -> None:
    tokenizer = tokenizer_of(bos=True)
    config = transformers.LlamaConfig(**{**SMALL, "vocab_size": 62}, num_key_value_heads=2)
    model = transformers.LlamaForCausalLM(config)
    modules = ["model.layers.1.mlp.down_proj"]
    assert estimate(model, tokenizer, ["w1 w58"], modules).key.tokens == 3
    with pytest.raises(CovarianceError, match=r"gives the id 62 \('w59'\), and the model's embedding has 62 rows"):
        estimate(model, tokenizer, ["w1 w58", "w59 w1"], modules)


def test_numbers_that_are_not_finite() -> None:
    model = model_of("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(CovarianceError, match=r"inputs of 'model.layers.1.mlp.down_proj' are not finite"):
        estimate(model, tokenizer_of(bos=True), documents_of(5, 9), LLAMA_MODULES)


# ---- files


@pytest.fixture(scope="module")
def moments(llama: Any) -> Any:
    return estimate(llama, tokenizer_of(bos=True), documents_of(20, 9), LLAMA_MODULES)


def test_saved_and_loaded(moments: Any, llama: Any, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "moments.safetensors"
    save(moments, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    found = load(path, moments.key)
    assert (found.key, found.layout) == (moments.key, moments.layout)
    assert_equal(found.matrices, moments.matrices, 1e-7)
    assert load(path, {"model": model_digest(llama), "modules": LLAMA_MODULES[:1]}).key == moments.key
    save(moments, path, dtype=torch.float64)
    assert_equal(load(path).matrices, moments.matrices, 0)


def test_another_models_file_is_refused(moments: Any, llama: Any, tmp_path: Path) -> None:
    save(moments, tmp_path / "moments")
    edited = model_of("llama")
    assert model_digest(edited) == model_digest(llama)
    with torch.no_grad():
        edited.model.layers[3].mlp.down_proj.weight[0, 0] += 1e-6
    with pytest.raises(
        CovarianceError, match=r"its model is [0-9a-f]{32}, not [0-9a-f]{32}\. .* run `padcheck stats` on this one"
    ):
        load(tmp_path / "moments", {"model": model_digest(edited)})
    with pytest.raises(CovarianceError, match="its modules is"):
        load(tmp_path / "moments", {"modules": ["model.layers.3.mlp.down_proj"]})
    with pytest.raises(CovarianceError, match="its tokens is"):
        load(tmp_path / "moments", replace(moments.key, tokens=1))


def test_damaged_files_are_refused(moments: Any, tmp_path: Path) -> None:
    path = tmp_path / "moments"
    save(moments, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CovarianceError):
        load(path)
    path.write_bytes(b"no tensors here")
    with pytest.raises(CovarianceError, match="cannot be read"):
        load(path)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2, 2)}, path)
    with pytest.raises(CovarianceError, match="holds no second moments"):
        load(path)


@pytest.mark.parametrize("fault", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_no_file(moments: Any, tmp_path: Path, monkeypatch: Any, fault: BaseException) -> None:
    def half(tensors: Any, path: Path, metadata: Any) -> None:
        Path(path).write_bytes(b"half of it")
        raise fault

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(type(fault)):
        save(moments, tmp_path / "moments")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "moments").write_text("the file before")
    with pytest.raises(type(fault)):
        save(moments, tmp_path / "moments")
    assert (tmp_path / "moments").read_text() == "the file before"


def test_a_full_disk(moments: Any, tmp_path: Path) -> None:
    """A limit on the size of files, which is how safetensors meets a full disk: with an error of its own."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError, match=r"moments cannot be written: .*File too large"):
            save(moments, tmp_path / "moments")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []


# ---- resuming


class _Stopped(Exception):
    pass


def _stopping(texts: Sequence[str], after: int) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number == after:
            raise _Stopped
        yield text


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_resumed_run_equals_a_straight_one(llama: Any, tmp_path: Path, dtype: Any) -> None:
    tokenizer, texts = tokenizer_of(bos=True), documents_of(700, longest=12)
    options: dict[str, Any] = {"batch_tokens": 64, "dtype": dtype, "checkpoint_seconds": 0.0}
    straight = estimate(llama, tokenizer, texts, LLAMA_MODULES, **options)
    options["resume_path"] = tmp_path / "partial"
    with pytest.raises(_Stopped):
        estimate(llama, tokenizer, _stopping(texts, 600), LLAMA_MODULES, **options)
    assert (tmp_path / "partial").is_file()
    seen: list[Progress] = []
    resumed = estimate(llama, tokenizer, texts, LLAMA_MODULES, progress=seen.append, **options)
    assert seen[0].tokens > straight.key.tokens // 4  # it did not begin anew
    assert resumed.key == straight.key
    for name in LLAMA_MODULES:
        assert torch.equal(resumed.matrices[name], straight.matrices[name])

    with pytest.raises(CovarianceError, match="its max_length is"):
        estimate(llama, tokenizer, texts, LLAMA_MODULES, **options, max_length=5)
    with pytest.raises(CovarianceError, match="of another corpus"):
        estimate(llama, tokenizer, ["w9", *texts[1:]], LLAMA_MODULES, **options)
    second_moments.resume_file(tmp_path / "partial").unlink()
    assert list(tmp_path.iterdir()) == []


def _interrupted(llama: Any, partial: Path, texts: Any, progress: Any = None, **options: Any) -> Any:
    tokenizer = tokenizer_of(bos=True)
    return estimate(
        llama, tokenizer, texts, LLAMA_MODULES, batch_tokens=64, resume_path=partial, progress=progress, **options
    )


@pytest.mark.parametrize("at", [1, 5, 8, 13])
def test_what_is_done_at_ctrl_c_is_kept(llama: Any, tmp_path: Path, at: int) -> None:
    """In the middle of a chunk too, again and again, and long before the first checkpoint is due."""
    texts, partial = documents_of(700, longest=12), tmp_path / "partial"
    straight = estimate(llama, tokenizer_of(bos=True), texts, LLAMA_MODULES, batch_tokens=64)
    done = 0
    for _ in range(3):
        counted, began = itertools.count(1), done

        def press(now: Progress, counted: Any = counted, began: int = began) -> None:
            nonlocal done
            assert now.tokens > done
            assert now.rate * now.seconds == pytest.approx(now.tokens - began, abs=2)  # of this run's own tokens
            if next(counted) == at:
                done = now.tokens
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            _interrupted(llama, partial, texts, press)
        assert [file.name for file in tmp_path.iterdir()] == ["partial"]
    resumed = _interrupted(llama, partial, texts)
    assert (resumed.key, resumed.cut) == (straight.key, straight.cut)
    assert_equal(resumed.matrices, straight.matrices, 1e-6)


def test_ctrl_c_does_not_split_a_batch(llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pressed while the first of two modules is added to, it is heard once the second has the same documents."""
    texts, partial, added = documents_of(300, longest=12), tmp_path / "partial", itertools.count(1)
    add, heard = second_moments._Sum.add, signal.getsignal(signal.SIGINT)

    def pressed(self: Any, keys: Any) -> None:
        if next(added) == 7:
            signal.raise_signal(signal.SIGINT)
        add(self, keys)

    with monkeypatch.context() as patched:
        patched.setattr(second_moments._Sum, "add", pressed)
        with pytest.raises(KeyboardInterrupt):
            _interrupted(llama, partial, texts)
    assert next(added) == 9
    assert signal.getsignal(signal.SIGINT) is heard
    resumed = _interrupted(llama, partial, texts)
    straight = estimate(llama, tokenizer_of(bos=True), texts, LLAMA_MODULES, batch_tokens=64)
    assert_equal(resumed.matrices, straight.matrices, 1e-6)


def test_a_corpus_that_breaks_off_is_taken_up_once_it_is_mended(llama: Any, tmp_path: Path) -> None:
    texts, partial = documents_of(700, longest=12), tmp_path / "partial"

    def broken() -> Iterator[str]:
        yield from texts[:600]
        raise SourceError("This line is not JSON.", path="a.jsonl", line=600)

    with pytest.raises(SourceError):
        _interrupted(llama, partial, broken())
    seen: list[Progress] = []
    resumed = _interrupted(llama, partial, texts, seen.append)
    straight = estimate(llama, tokenizer_of(bos=True), texts, LLAMA_MODULES, batch_tokens=64)
    assert seen[0].tokens > straight.key.tokens // 4
    assert_equal(resumed.matrices, straight.matrices, 0)


def test_resume_files_that_are_none(llama: Any, moments: Any, tmp_path: Path) -> None:
    texts, partial = documents_of(300, longest=12), tmp_path / "partial"
    with pytest.raises(_Stopped):
        _interrupted(llama, partial, _stopping(texts, 290), checkpoint_seconds=0.0)
    whole = partial.read_bytes()
    partial.write_bytes(whole[:-100])
    with pytest.raises(CovarianceError, match="partial"):
        _interrupted(llama, partial, texts)
    partial.write_bytes(whole.replace(b'\\"done\\"', b'\\"gone\\"'))
    with pytest.raises(CovarianceError, match="another version of padcheck"):
        _interrupted(llama, partial, texts)
    save(moments, partial)
    with pytest.raises(CovarianceError, match="no resume file"):
        _interrupted(llama, partial, texts)


# ---- several processes

_RANK = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import torch
from torch import distributed
import test_second_moments as tests
from padcheck.editing.second_moments import estimate, save
torch.set_num_threads(1)
distributed.init_process_group("gloo")
found = estimate(tests.model_of("llama"), tests.tokenizer_of(True), tests.documents_of(101, 12), tests.LLAMA_MODULES,
                 batch_tokens=64, max_tokens=500)
save(found, f"{out}/{{distributed.get_rank()}}", dtype=torch.float64)
few = estimate(tests.model_of("llama"), tests.tokenizer_of(True), ["w1 w2 w3"], tests.LLAMA_MODULES, dtype=torch.float32)
save(few, f"{out}/few-{{distributed.get_rank()}}", dtype=torch.float64)
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_equal_one(llama: Any, tmp_path: Path, root: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(_RANK.format(tests=str(root / "tests" / "editing"), root=str(root), out=str(tmp_path)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = estimate(llama, tokenizer_of(bos=True), documents_of(101, 12), LLAMA_MODULES, batch_tokens=64, max_tokens=500)
    few = estimate(llama, tokenizer_of(bos=True), ["w1 w2 w3"], LLAMA_MODULES)
    for rank in "01":
        assert_equal(load(tmp_path / rank, alone.key).matrices, alone.matrices, 1e-6)
        # One document for two ranks: one of them has nothing to add.
        assert_equal(load(tmp_path / f"few-{rank}", few.key).matrices, few.matrices, 1e-6)


# ---- the command


@pytest.fixture
def job(tmp_path: Path, llama: Any) -> StatsOptions:
    llama.save_pretrained(tmp_path / "model")
    tokenizer_of(bos=True).save_pretrained(tmp_path / "model")
    (tmp_path / "corpus.txt").write_text("\n\n".join(documents_of(40, 12)))
    hparams, out = tmp_path / "hparams.yaml", tmp_path / "out.safetensors"
    hparams.write_text('layers: [1, 2]\nrewrite_module_tmp: "model.layers.{}.mlp.down_proj"\nmom2_n_samples: 30\n')
    return StatsOptions(hparams, tmp_path / "model", (tmp_path / "corpus.txt",), out, dtype="float32")


def test_run_stats(job: StatsOptions, llama: Any, capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    assert run_stats(job, say=said.append) == 0
    assert len(said) == 1
    assert "2 modules" in said[0]
    assert "30 documents" in said[0]
    found = load(job.out, {"model": model_digest(llama), "modules": LLAMA_MODULES, "documents": 30})
    texts = [text for text in documents_of(40, 12) if text.split()][:30]
    assert_equal(found.matrices, reference(llama, tokenizer_of(bos=True), texts, LLAMA_MODULES, 99), 1e-5)
    assert "tokens/s" in capsys.readouterr().err
    assert run_stats(job) == 2
    assert "exists already" in capsys.readouterr().err
    assert not job.out.with_name("out.safetensors.partial").exists()


def test_a_job_that_a_scheduler_ends_is_taken_up(
    job: StatsOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add, added, heard = second_moments._Sum.add, itertools.count(1), signal.getsignal(signal.SIGTERM)
    assert job.out is not None

    def ended(self: Any, keys: Any) -> None:
        if next(added) == 1:
            signal.raise_signal(signal.SIGTERM)
        add(self, keys)

    with monkeypatch.context() as patched:
        patched.setattr(second_moments._Sum, "add", ended)
        with pytest.raises(KeyboardInterrupt):
            run_stats(job)
    assert signal.getsignal(signal.SIGTERM) is heard
    assert job.out.with_name("out.safetensors.partial").exists()
    assert "the same command goes on from there" in capsys.readouterr().err
    assert run_stats(job) == 0


def test_run_stats_says_what_is_wrong(job: StatsOptions, capsys: pytest.CaptureFixture[str]) -> None:
    job.hparams.write_text("layers: 5\n")
    assert run_stats(job) == 2
    assert "'rewrite_module_tmp' is no module name" in capsys.readouterr().err
    assert not job.out.exists()


def _with(job: StatsOptions, text: str = "", **changes: Any) -> StatsOptions:
    """The job with another corpus and other options, in a fresh place."""
    if text:
        job.corpus[0].write_text(text)
    job.out.unlink(missing_ok=True)
    return replace(job, **changes)


SENTENCES = "\n".join(" ".join(WORDS[at % 50 : at % 50 + 9]) for at in range(300))


def test_run_stats_says_how_the_corpus_was_read(job: StatsOptions) -> None:
    said: list[str] = []
    assert run_stats(_with(job, SENTENCES, max_documents=200, max_length=20), say=said.append) == 0
    assert "2,000 tokens of 200 documents" in said[0]
    assert said[1:] == [
        f"note: {job.corpus[0]} has no blank lines, so each line is a document (blank lines would separate paragraphs)"
    ]
    said.clear()
    # One blank line, and the lines are two paragraphs: said, with the remedy.
    assert run_stats(_with(job, f"{SENTENCES}\n\n{SENTENCES}", max_length=20), say=said.append) == 0
    assert "40 tokens of 2 documents" in said[0]
    assert "2 documents were longer than 20 tokens and cut: more than 99 % of the documents' text was not read; " in said[1]
    assert "blank lines separate documents" in said[1]
    said.clear()
    few = "\n\n".join([*SENTENCES.splitlines()[:29], "w1 " * 22])
    assert run_stats(_with(job, few, max_length=20), say=said.append) == 0
    assert said[1] == "note: 1 document was longer than 20 tokens and cut: less than 1 % of the documents' text was not read"
    said.clear()
    (second := job.corpus[0].with_name("second.txt")).write_text("w1\nw2")
    assert run_stats(_with(job, "w1\nw2", corpus=(*job.corpus, second)), say=said.append) == 0
    assert f"{job.corpus[0]} and 1 more file have no blank lines" in said[1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float64", "float16", "float32"])
def test_the_key_names_the_stored_model_whatever_the_dtype(job: StatsOptions, dtype: str) -> None:
    """Else `edit` would refuse the file, since it opens the model as it is stored."""
    opened = transformers.AutoModelForCausalLM.from_pretrained(job.model, dtype="auto")
    assert run_stats(_with(job, dtype=dtype, device="cpu")) == 0
    found = load(job.out, {"model": model_digest(opened), "dtype": dtype})
    texts = [text for text in documents_of(40, 12) if text.split()][:30]
    other = transformers.AutoModelForCausalLM.from_pretrained(job.model, dtype=getattr(torch, dtype))
    assert next(other.parameters()).dtype == getattr(torch, dtype)
    expected = reference(other, tokenizer_of(bos=True), texts, LLAMA_MODULES, 99)
    tolerance = {"bfloat16": 2e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-6}[dtype]
    assert_equal(found.matrices, expected, tolerance)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "nn", "Tensor", "int64", "complex64", ""])
def test_dtypes_that_a_model_cannot_run_in(job: StatsOptions, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_stats(replace(job, dtype=dtype)) == 2
    assert f"--dtype is '{dtype}', and a forward pass runs in float64, float32" in capsys.readouterr().err


PLACES: dict[str, tuple[str, str]] = {
    "a folder": ("model", "model is a folder; name a file in it"),
    "a file as a folder": ("hparams.yaml/x/y", "hparams.yaml is no folder"),
    "a link to nothing": ("dangling", "dangling is a link to nowhere, which does not exist"),
    "below a link to nothing": ("dangling/x", "dangling is no folder"),
    "not to be made": ("/proc/x/y", "/proc/x/y cannot be written: No such file or directory"),
    "too long a name": ("x" * 250, "cannot be written: File name too long"),
    "much too long a name": ("x" * 300, "cannot be written: File name too long"),
    "a device": ("/dev/null", "/dev/null is no plain file"),
    "there already": ("corpus.txt", "corpus.txt exists already"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="places of Linux")
@pytest.mark.parametrize("place", PLACES)
def test_places_that_cannot_be_written(
    job: StatsOptions, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused in one sentence, before the model is opened."""
    name, fault = PLACES[place]
    (tmp_path / "dangling").symlink_to("nowhere")
    monkeypatch.setattr("padcheck.editing.stats_command._load", lambda options: pytest.fail("the model was opened"))
    before = sorted(tmp_path.rglob("*"))
    assert run_stats(replace(job, out=tmp_path / name, overwrite=place != "there already")) == 2
    said = capsys.readouterr().err
    assert fault in said
    assert "Errno" not in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_can_be_written_is_left_as_it_was(job: StatsOptions, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert run_stats(replace(job, model=tmp_path / "none", out=tmp_path / "deep" / "er" / "out")) == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert run_stats(replace(job, out=tmp_path / "deep" / "er" / "out")) == 0
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er" / "out")
    assert run_stats(replace(job, out=tmp_path / "link")) == 2
    assert run_stats(replace(job, out=tmp_path / "link", overwrite=True)) == 0


TEMPLATE = 'rewrite_module_tmp: "model.layers.{}.mlp.down_proj"\n'


@pytest.mark.parametrize(
    ("hparams", "modules", "documents"),
    [
        ("layers: 1\nmom2_n_samples: '7'\n" + TEMPLATE, LLAMA_MODULES[:1], 7),
        ("layers: [1.0, '2']\nmom2_n_samples: 1e1\n" + TEMPLATE, LLAMA_MODULES, 10),
        ("layers: [1, 2]\nmom2_n_samples: null\n" + TEMPLATE, LLAMA_MODULES, 40),
        ("alg_name: MEMIT\nrewrite_module_tmps: ['x.{}']\nlayers: [1, 2]\n" + TEMPLATE, LLAMA_MODULES, 40),
        ("alg_name: PMET\nrewrite_module_tmps: ['model.layers.{}.mlp.down_proj']\nlayers: [2]\n", LLAMA_MODULES[1:], 40),
    ],
)
def test_hparams_are_read_as_edit_reads_them(job: StatsOptions, hparams: str, modules: list[str], documents: int) -> None:
    job.hparams.write_text(hparams)
    assert run_stats(job) == 0
    key = load(job.out).key
    assert (list(key.modules), key.documents) == (modules, documents)


@pytest.mark.parametrize(
    ("hparams", "fault"),
    [
        ("layers: [true]\n" + TEMPLATE, "'layers' is [True]"),
        ("layers: [2, 1]\n" + TEMPLATE, "each once, in ascending order"),
        ("layers: [1.5]\n" + TEMPLATE, "'layers' is [1.5]"),
        ("layers: []\n" + TEMPLATE, "'layers' is []"),
        (TEMPLATE, "has no 'layers'"),
        ("layers: [1]\nmom2_n_samples: all\n" + TEMPLATE, "'mom2_n_samples' is 'all', which is no count"),
        ("layers: [1]\nmom2_n_samples: -1\n" + TEMPLATE, "'mom2_n_samples' is -1, which is no count"),
        ("layers: [1]\nmom2_n_samples: true\n" + TEMPLATE, "'mom2_n_samples' is True, which is no count"),
        ("layers: [1]\nrewrite_module_tmp: 'model.layers.{}.mlp.{x}'\n", "model.layers.{}.mlp.{x}"),
        ("layers: [1]\nrewrite_module_tmps: 5\n", "'rewrite_module_tmp' is no module name"),
    ],
)
def test_hparams_that_edit_refuses(job: StatsOptions, hparams: str, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    job.hparams.write_text(hparams)
    assert run_stats(job) == 2
    assert fault in capsys.readouterr().err


def test_ctrl_c_in_the_command(
    job: StatsOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(self: Any, now: Progress) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("padcheck.editing.stats_command._Bar.__call__", press)
        with pytest.raises(KeyboardInterrupt):
            run_stats(replace(job, batch_tokens=32))
    partial = job.out.with_name("out.safetensors.partial")
    assert f"what is done is kept in {partial}: the same command goes on" in capsys.readouterr().err
    assert partial.is_file()
    assert run_stats(replace(job, batch_tokens=32)) == 0
    assert not partial.exists()
    assert load(job.out).key.documents == 30
