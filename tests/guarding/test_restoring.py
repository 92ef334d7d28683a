"""On leaving, tokenizer, model and functions are as they were: after exceptions, nested, entered again, in threads."""

from __future__ import annotations

import copy
import inspect
import pickle
import random
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import pytest

import padcheck
from padcheck import DriftError, DriftWarning
from padcheck.guards import contexts
from tests.guarding.foreign.house.editors.editor import ALG_DICT, BaseEditor
from tests.guarding.foreign.house.models.rome import compute_v, repr_tools
from tests.guarding.foreign.house.tape import Tape
from tests.guarding.kit import REQUESTS, hparams, tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::padcheck.DriftWarning")

FUNCTIONS = [
    *ALG_DICT.values(),
    compute_v.compute_v,
    compute_v.find_fact_lookup_idx,
    repr_tools.get_reprs_at_idxs,
    repr_tools.get_words_idxs_in_templates,
    BaseEditor.edit_requests,
    BaseEditor.batch_edit,
]


def state(tok: Any) -> Any:
    backend = getattr(tok, "_tokenizer", None)
    seen = () if backend is None else (backend.padding, backend.truncation, backend.encode_special_tokens)
    sides = {name: vars(tok).get(name) for name in ("padding_side", "truncation_side")}
    return type(tok), sides, seen, sorted(vars(tok)), tok.pad_token


def switches(model: Tape) -> Any:
    return [parameter.requires_grad for parameter in model.parameters()], model.training, dict(model._forward_hooks)


def codes() -> list[Any]:
    return [function.__code__ for function in FUNCTIONS]


def slow_tokenizer() -> Any:
    """A tokenizer in Python, of transformers' slow class."""
    transformers = pytest.importorskip("transformers")

    class Letters(transformers.PreTrainedTokenizer):  # type: ignore[misc,name-defined]
        def __init__(self, **kwargs: Any) -> None:
            self._letters = ["<pad>", "<unk>", *"abcdefghijklmnopqrstuvwxyz "]
            super().__init__(pad_token="<pad>", unk_token="<unk>", **kwargs)

        @property
        def vocab_size(self) -> int:
            return len(self._letters)

        def get_vocab(self) -> dict[str, int]:
            return {letter: number for number, letter in enumerate(self._letters)}

        def _tokenize(self, text: str, **_: Any) -> list[str]:
            return list(text)

        def _convert_token_to_id(self, token: str) -> int:
            return self._letters.index(token) if token in self._letters else 1

        def _convert_id_to_token(self, index: int) -> str:
            return self._letters[index]

    return Letters()


def setting_left(tok: Any) -> None:
    tok.padding_side = "left"
    tok.truncation_side = "left"
    tok(["a b c", "a"], padding=True, truncation=True, max_length=2)


LEAVING: dict[str, Callable[[Any], None]] = {
    "normally": setting_left,
    "error": lambda tok: (setting_left(tok), 1 / 0)[0],
    "interrupt": lambda tok: (setting_left(tok), (_ for _ in ()).throw(KeyboardInterrupt))[0],
    "exit": lambda tok: (setting_left(tok), sys.exit(3))[0],
    "drift": lambda tok: (setting_left(tok), (_ for _ in ()).throw(DriftError("x")))[0],
}


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.parametrize("make", [lambda: tokenizer(side="right"), slow_tokenizer], ids=["fast", "slow"])
def test_the_tokenizer_is_as_it_was(make: Callable[[], Any], how: str) -> None:
    tok = make()
    if hasattr(tok, "_tokenizer"):
        tok._tokenizer.enable_padding(direction="left", pad_id=3, pad_token="x", length=7)
        tok._tokenizer.enable_truncation(max_length=9, stride=2, direction="left")
    before, own = state(tok), codes()
    try:
        with padcheck.guard(tok):
            assert type(tok) is not before[0]
            assert isinstance(tok, before[0])
            assert (type(tok).__name__, type(tok).__module__) == (before[0].__name__, before[0].__module__)
            LEAVING[how](tok)
    except (ZeroDivisionError, KeyboardInterrupt, SystemExit, DriftError):
        assert how != "normally"
    assert state(tok) == before
    assert codes() == own
    assert not any("padcheck" in repr(finder) for finder in sys.meta_path)


def test_a_side_that_only_the_class_states() -> None:
    tok = tokenizer()
    del tok.__dict__["padding_side"]
    with padcheck.guard(tok):
        tok.padding_side = "left"
        assert tok.padding_side == "left"
    assert "padding_side" not in vars(tok)


def test_a_side_that_is_computed() -> None:
    """Remote tokenizers may have a property there."""
    base = type(tokenizer())

    class Computed(base):  # type: ignore[misc,valid-type]
        sides: list[str] = []  # noqa: RUF012

        @property
        def padding_side(self) -> str:
            return "left"

        @padding_side.setter
        def padding_side(self, value: str) -> None:
            self.sides.append(value)

    tok = tokenizer()
    tok.__class__ = Computed
    with padcheck.guard(tok):
        assert tok.padding_side == "left"
        tok.padding_side = "right"
        assert tok.padding_side == "left"
    assert Computed.sides == ["right"]
    assert type(tok) is Computed


def test_a_tokenizer_that_pads_on_one_side_whatever_it_is_told(rome: Any) -> None:
    base = type(tokenizer())

    class LeftOnly(base):  # type: ignore[misc,valid-type]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **{**kwargs, "padding_side": "left"})

    tok = tokenizer()
    tok.__class__ = LeftOnly
    with pytest.raises(DriftError, match="whatever it is told"), padcheck.guard(tok):
        rome.execute_rome(Tape(tok), tok, REQUESTS[0], hparams())


def test_copies_and_pickles_made_inside_are_ordinary() -> None:
    tok = tokenizer()
    with padcheck.guard(tok):
        made = [copy.deepcopy(tok), copy.copy(tok), pickle.loads(pickle.dumps(tok))]
        saved = repr(tok)
    assert {type(one) for one in made} == {type(tok)}
    assert all(one.encode("a b") == tok.encode("a b") for one in made)
    assert saved == repr(tok)


def test_tokenizers_made_by_the_class_inside_are_ordinary(tmp_path: Any) -> None:
    """`type(tok)` inside is a class made for it: what is made by it must not stay bound to the guarded tokenizer."""
    tok = tokenizer(side="left")
    own = type(tok)
    tok.save_pretrained(tmp_path)
    with padcheck.guard(tok):
        made = [type(tok).from_pretrained(tmp_path), tok.train_new_from_iterator(["a b c d"] * 20, 300)]
        raw = type(tok).__new__(type(tok))
        raw.__dict__.update(copy.deepcopy(made[0]).__dict__)
        for one in (*made, raw):
            one.padding_side = "right"
            assert one.padding_side == "right"
        assert tok.padding_side == "left"
    assert {type(one) for one in made} == {own}
    for one in (*made, raw):
        one.pad_token = one.eos_token
        assert one.padding_side == "right"
        assert one(["a b c d", "a"], padding=True)["attention_mask"][1][-1] == 0
        one.padding_side = "left"
        assert one(["a b c d", "a"], padding=True)["attention_mask"][1][0] == 0
    assert tok.padding_side == "left"


@pytest.mark.filterwarnings("default::padcheck.DriftWarning")
def test_padding_where_the_guard_was_not_entered_is_said() -> None:
    tok = tokenizer(side="left")
    texts = ["a b c d", "a"]

    def work() -> None:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: tok(texts, padding=True)["attention_mask"][1][0]).result() == 0
            pool.submit(lambda: tok(texts)).result()

    with pytest.warns(DriftWarning, match="has not entered the guard"), padcheck.guard(tok) as watch:
        work()
    assert watch.report()["outcome"] == "unwatched"
    assert "1 padded call" in watch.report()["notes"][0]
    guard = padcheck.guard(tok)
    copy_context().run(guard.__enter__)
    tok(texts, padding=True)
    with pytest.warns(DriftWarning, match="has not entered the guard"):
        guard.__exit__(None, None, None)
    with warnings.catch_warnings(record=True) as caught, padcheck.guard(tok), ThreadPoolExecutor(1) as pool:
        warnings.simplefilter("always")
        pool.submit(copy_context().run, lambda: tok(texts, padding=True)).result()
    assert not [one for one in caught if "has not entered" in str(one.message)]


def test_saving_inside(tmp_path: Any) -> None:
    tok = tokenizer(side="right")
    tok.save_pretrained(tmp_path / "plain")
    with padcheck.guard(tok):
        tok.save_pretrained(tmp_path / "guarded")
    plain = {path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()}
    assert plain == {path.name: path.read_bytes() for path in (tmp_path / "guarded").iterdir()}


def test_the_models_switches(rome: Any) -> None:
    tok = tokenizer()
    model = Tape(tok)
    model._parameters["bias"].requires_grad = False
    model.training = False
    before = switches(model)
    with padcheck.guard(tok, model=model):
        rome.execute_rome(model, tok, REQUESTS[0], hparams())
        model.training = True
        model._parameters["bias"].requires_grad = True
        model._forward_hooks[7] = "an adapter"
        assert not model._parameters["weight"].requires_grad, "the editor left it so"
    assert switches(model) == (before[0], before[1], {7: "an adapter"}), "what an edit puts on a model stays"

    def interrupted() -> None:
        model._forward_hooks[8] = "left behind"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), padcheck.guard(tok, model=model):
        interrupted()
    assert set(model._forward_hooks) == {7}


def test_nested_guards_the_innermost_counts(rome: Any) -> None:
    tok = tokenizer(side="right")
    model = Tape(tok)
    before = state(tok), switches(model)
    with padcheck.guard(tok, model=model, policy="correct") as outer:
        tok.padding_side = "left"
        within = vars(tok)["padding_side"]
        with padcheck.guard(tok, policy="fail") as inner:
            with pytest.raises(DriftError):
                rome.execute_rome(model, tok, REQUESTS[0], hparams())
            tok.padding_side = "right"
        assert vars(tok)["padding_side"] == within == "left"
        rome.execute_rome(model, tok, REQUESTS[0], hparams())
        assert model.labels
    assert (state(tok), switches(model)) == before
    assert inner.report()["policy"] == "fail"
    assert outer.report()["outcome"] == "corrected"


def test_an_inner_guard_that_recognised_something_speaks_for_the_outer_one(rome: Any) -> None:
    tok = tokenizer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with padcheck.guard(tok) as outer, padcheck.guard(tok):
            rome.execute_rome(Tape(tok), tok, REQUESTS[0], hparams())
    assert outer.report()["positions"]["corrected"] > 0


def test_the_same_guard_entered_again() -> None:
    tok = tokenizer(side="right")
    guard = padcheck.guard(tok)
    before = state(tok)
    for _ in range(3):
        with guard as first, guard as second:
            assert first is not second
            tok.padding_side = "left"
        assert state(tok) == before
    with pytest.raises(RuntimeError, match="more often"):
        guard.__exit__(None, None, None)


def test_guards_left_in_the_order_they_were_entered() -> None:
    tok = tokenizer(side="right")
    before = state(tok)
    first, second = padcheck.guard(tok), padcheck.guard(tok, policy="warn")
    first.__enter__()
    tok.padding_side = "left"
    second.__enter__()
    first.__exit__(None, None, None)
    assert type(tok) is not before[0]
    second.__exit__(None, None, None)
    assert state(tok) == before


def test_nested_guards_of_one_model() -> None:
    tok = tokenizer()
    model = Tape(tok)
    weight = model._parameters["weight"]
    with padcheck.guard(tok, model=model):
        weight.requires_grad = False
        with padcheck.guard(tok, model=model):
            weight.requires_grad = model.training = True
        assert not weight.requires_grad
        model.training = False
    assert weight.requires_grad
    assert model.training


def test_nothing_is_left_behind_in_the_context() -> None:
    tok = tokenizer()
    with padcheck.guard(tok), padcheck.guard(tok):
        assert len(contexts.watches.get()) == 2
    assert contexts.watches.get() == contexts.entered.get() == ()


@pytest.mark.parametrize("wrong", [None, object(), "gpt2", 3])
def test_what_is_no_tokenizer_leaves_no_trace(wrong: Any) -> None:
    own, finders = codes(), list(sys.meta_path)
    with pytest.raises(TypeError, match=r"padcheck\.guard needs the tokenizer of transformers"), padcheck.guard(wrong):
        pass
    assert (codes(), sys.meta_path) == (own, finders)
    assert contexts.watches.get() == ()


def test_two_tokenizers() -> None:
    left, right = tokenizer(side="left"), tokenizer("llama3-shape", "right")
    before = state(left), state(right)
    with padcheck.guard(left) as one, padcheck.guard(right) as other:
        left(["a b", "a"], padding=True)
        for _ in range(2):
            right(["a b", "a"], padding=True)
    assert (one.record.padded_calls, other.record.padded_calls) == (1, 2)
    assert (state(left), state(right)) == before


def test_a_thread_without_a_guard_sees_the_unguarded_editor(rome: Any) -> None:
    tok = tokenizer(side="left")
    plain = Tape(tok)
    rome.execute_rome(plain, tok, REQUESTS[0], hparams())
    other, guarded = Tape(tok), Tape(tok)
    with padcheck.guard(tok, policy="correct") as watch:
        thread = threading.Thread(target=rome.execute_rome, args=(other, tok, REQUESTS[0], hparams()))
        thread.start()
        thread.join()
        assert not watch.record.sites
        rome.execute_rome(guarded, tok, REQUESTS[0], hparams())
    assert other.reads == [read for read in plain.reads if read[0] != "generate"]
    assert guarded.reads != other.reads


def test_a_task_inherits_the_guard_of_where_it_was_made(rome: Any) -> None:
    tok = tokenizer(side="left")
    model = Tape(tok)
    with padcheck.guard(tok) as watch, ThreadPoolExecutor(1) as pool:
        context = copy_context()
        pool.submit(context.run, rome.execute_rome, model, tok, REQUESTS[0], hparams()).result()
        assert watch.report()["outcome"] == "corrected"
    later = Tape(tok)
    context.run(rome.execute_rome, later, tok, REQUESTS[0], hparams())
    assert later.reads != model.reads, "a guard that was left holds nowhere any more"


def test_a_guard_that_was_left_holds_nowhere_while_another_is_open(rome: Any) -> None:
    tok = tokenizer(side="left")
    rome.CONTEXT_TEMPLATES_CACHE = ["{}", "The old river. {}"]
    plain, stale, guarded = Tape(tok), Tape(tok), Tape(tok)
    rome.execute_rome(plain, tok, REQUESTS[0], hparams())
    with padcheck.guard(tok):
        context = copy_context()
    with padcheck.guard(tok):
        context.run(rome.execute_rome, stale, tok, REQUESTS[0], hparams())
        rome.execute_rome(guarded, tok, REQUESTS[0], hparams())
    assert stale.reads == plain.reads != guarded.reads


def test_what_an_unguarded_thread_sets_stays() -> None:
    tok = tokenizer(side="left")

    def set_right() -> None:
        tok.padding_side = "right"

    with padcheck.guard(tok):
        thread = threading.Thread(target=set_right)
        thread.start()
        thread.join()
        assert tok.padding_side == "right", "as it would be without a guard"
        tok.padding_side = "left"
    assert tok.padding_side == "right"


def test_threads_with_one_tokenizer_do_not_get_each_others_side(rome: Any) -> None:
    """Each thread evaluates on the left and edits on the right, on one backend."""
    tok = tokenizer(side="left")
    wrong: list[Any] = []
    rome.CONTEXT_TEMPLATES_CACHE = ["{}", "The old river. {}"]

    def work(number: int) -> None:
        for _ in range(15):
            model = Tape(tok)
            with padcheck.guard(tok, model=model):
                rome.execute_rome(model, tok, REQUESTS[number % 3], hparams())
                left = tok(["a b c d", "a"], padding=True, padding_side="left")["attention_mask"][1][0]
            if left or any(token == tok.pad_token for _, _, token in model.reads):
                wrong.append(model)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    before, own = state(tok), codes()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert (state(tok), codes()) == (before, own)


class Left(Exception):
    """Raised inside guards on purpose."""


def test_ten_thousand_random_sequences_over_threads() -> None:
    """Enter, leave, raise, set sides, pad and flip switches at random, nested, in six threads that share tokenizers and a model."""
    toks = [tokenizer(side="left"), tokenizer("llama3-shape", "right"), slow_tokenizer()]
    model = Tape(toks[0])
    model._parameters["bias"].requires_grad = False
    before = [state(tok) for tok in toks], switches(model), codes(), list(sys.meta_path)
    shared = [padcheck.guard(tok, model=model, policy=policy) for tok in toks for policy in ("correct", "fail", "warn")]
    faults: list[BaseException] = []

    def block(chance: random.Random, depth: int) -> None:
        guard = chance.choice(shared) if chance.random() < 0.5 else padcheck.guard(chance.choice(toks), model=model)
        tok = guard._tokenizer
        with guard:
            for _ in range(chance.randrange(3)):
                what = chance.random()
                if what < 0.25:
                    tok.padding_side = chance.choice(["left", "right"])
                elif what < 0.45:
                    tok(["a b", "a"], padding=True, padding_side=chance.choice([None, "left", "right"]))
                elif what < 0.6:
                    model._parameters[chance.choice(["weight", "bias"])].requires_grad = chance.random() < 0.5
                elif what < 0.7:
                    model.training = not model.training
                elif what < 0.8:
                    tok.truncation_side = chance.choice(["left", "right"])
                elif depth < 3:
                    block(chance, depth + 1)
            if chance.random() < 0.3:
                raise Left

    def run(seed: int, sequences: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(sequences):
                with suppress(Left):
                    block(chance, 0)
        except BaseException as error:
            faults.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=run, args=(seed, 1667)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not faults, faults[0]
    assert ([state(tok) for tok in toks], switches(model), codes(), list(sys.meta_path)) == before


def test_functions_are_redirected_wherever_they_are_held(rome: Any) -> None:
    """EasyEdit keeps its methods in a dictionary, and imports functions by name: no attribute of a module is looked up."""
    held = {"words": repr_tools.get_words_idxs_in_templates}
    function = held["words"]
    own, signature = function.__code__, inspect.signature(function)
    tok = tokenizer(side="left")
    unguarded = function(tok, ["The {} is"], ["Eiffel Tower"], "first")
    assert unguarded[0][0] < 0
    with padcheck.guard(tok, policy="correct"):
        assert function is repr_tools.get_words_idxs_in_templates
        assert function.__code__ is not own
        assert held["words"](tok, ["The {} is"], ["Eiffel Tower"], "first") == [[1]]
        with pytest.raises(TypeError, match="context_templates"):
            function(tok)
    assert held["words"](tok, ["The {} is"], ["Eiffel Tower"], "first") == unguarded
    assert function.__code__ is own
    assert inspect.signature(function) == signature


def test_a_function_that_somebody_exchanges_meanwhile_is_left_alone(rome: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tok = tokenizer()
    function = repr_tools.get_words_idxs_in_templates
    own = function.__code__

    def other(tok: Any, context_templates: Any, words: Any, subtoken: Any) -> Any:
        return "other"

    with padcheck.guard(tok):
        function.__code__ = other.__code__
    try:
        assert function(tok, [], [], "last") == "other"
    finally:
        function.__code__ = own
    with padcheck.guard(tok):
        assert function(tok, ["The {} is"], ["Eiffel Tower"], "first") == [[1]]


def test_warnings_that_are_errors_leave_everything_as_it_was() -> None:
    tok = tokenizer()
    before, own = state(tok), codes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DriftWarning), padcheck.guard(tok):
            tok(["a b", "a"], padding=True)
    assert (state(tok), codes()) == (before, own)
