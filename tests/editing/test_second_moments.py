"""Second moments equal one unpacked document at a time, whatever the architecture, the ranks and the interruptions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

from padcheck.editing import second_moments  # noqa: E402
from padcheck.editing.corpus import embedded_corpus, open_corpus  # noqa: E402
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
    assert all(at.rate > 0 and at.remaining is not None and at.remaining >= 0 for at in seen)


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
    with pytest.raises(CovarianceError, match="its model is"):
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
    second_moments.forget(tmp_path / "partial")
    assert list(tmp_path.iterdir()) == []


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


# ---- corpora


def test_corpora(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffOne,\ntwo.\n\n \nThree.\n", "utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "Four."}\n\n"Five."\n{"text": " "}\n', "utf-8")
    (tmp_path / "c.png").write_bytes(b"\x89PNG")
    corpus = open_corpus([tmp_path])
    assert list(corpus) == list(corpus) == ["One, two.", "Three.", "Four.", "Five."]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": ', r"a\.jsonl:2.*not JSON"),
        ("a.jsonl", '{"body": "x"}\n', r"no text at 'text'.*body"),
        ("a.jsonl", "[1]\n", "neither a text nor an object"),
        ("a.txt", b"\xff\xfebad", "UTF-16"),
        ("a.bin", "x", "no text, no JSON Lines"),
    ],
)
def test_what_is_no_corpus(tmp_path: Path, name: str, content: str | bytes, fault: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError, match=fault):
        list(open_corpus([tmp_path]))
    with pytest.raises(SourceError, match="does not exist"):
        open_corpus([tmp_path / "missing"])


def test_saved_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    with pytest.raises(SourceError, match=r"no split 'test'.*train"):
        list(open_corpus([tmp_path], split="test"))
    with monkeypatch.context() as without:
        without.setattr("padcheck.editing.corpus.find_spec", lambda name: None)
        with pytest.raises(SourceError, match="pip install pyarrow"):
            list(open_corpus([tmp_path]))
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"text": ["One.", "Two."], "title": ["a", "b"]})
    with pyarrow.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as sink:
        sink.write_table(table)
    monkeypatch.setattr("padcheck.editing.corpus.find_spec", lambda name: SimpleNamespace() if name == "pyarrow" else None)
    assert list(open_corpus([tmp_path])) == ["One.", "Two."]
    with pytest.raises(SourceError, match=r"no column 'body'.*text, title"):
        list(open_corpus([tmp_path], field="body"))


def test_the_embedded_corpus() -> None:
    texts = list(embedded_corpus())
    assert len(texts) > 100
    assert len(set(texts)) == len(texts)
    assert sum(len(text.encode()) for text in texts) <= 60_000


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
    assert "2 modules" in said[0]
    assert "30 documents" in said[0]
    found = load(job.out, {"model": model_digest(llama), "modules": LLAMA_MODULES, "documents": 30})
    texts = [text for text in documents_of(40, 12) if text.split()][:30]
    assert_equal(found.matrices, reference(llama, tokenizer_of(bos=True), texts, LLAMA_MODULES, 99), 1e-5)
    assert "tokens/s" in capsys.readouterr().err
    assert run_stats(job) == 2
    assert "exists already" in capsys.readouterr().err
    assert not job.out.with_name("out.safetensors.partial").exists()


def test_run_stats_says_what_is_wrong(job: StatsOptions, capsys: pytest.CaptureFixture[str]) -> None:
    job.hparams.write_text("layers: 5\n")
    assert run_stats(job) == 2
    assert "'layers' is no list" in capsys.readouterr().err
    assert not job.out.exists()
