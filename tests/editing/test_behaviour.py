"""Everything is put back, and neither company nor padding side changes an edit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from toys import (  # noqa: E402
    GROUPS,
    MANY,
    REQUESTS,
    TEMPLATES,
    covariance_of,
    hparams_of,
    model_of,
    run,
    same,
    snapshot,
    tokenizer_of,
)

from padcheck.editing import edit, load_hparams  # noqa: E402
from padcheck.editing.errors import StateError  # noqa: E402

METHODS = ["ROME", "R-ROME", "MEMIT", "EMMET", "PMET", "AlphaEdit"]


# ---- Company and padding


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral"])
def test_a_fact_in_a_batch_of_32_gets_the_z_it_gets_alone(kind: str) -> None:
    from padcheck.editing.architecture import Architecture
    from padcheck.editing.objective import Goal, Place, search
    from padcheck.editing.rows import facts_of, grouped, requests_of
    from padcheck.sources.token_readers import wrap

    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        model = model_of(kind, dtype=dtype)
        with torch.no_grad():
            decoder = Architecture(model, load_hparams(hparams_of(kind, "MEMIT"))).decoder
            facts, _ = facts_of(
                requests_of([*MANY[:28], *REQUESTS]), wrap(tokenizer_of(kind)).reader, grouped(TEMPLATES), "subject_last"
            )
            together = search(decoder, facts, Place(1), Goal(6, 0.1, 0.1, 4, 0.0625))
            for number in (0, 9, 28, 30, 31):
                (alone,) = search(decoder, [facts[number]], Place(1), Goal(6, 0.1, 0.1, 4, 0.0625))
                difference = (together[number].delta[0] - alone.delta[0]).norm() / alone.delta[0].norm()
                assert float(difference) <= tolerance


def test_portions_too_large_for_the_memory_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    from padcheck.editing.objective import _Group

    expected, solve, tried = run("gpt2", "MEMIT", MANY[:7]).updates, _Group.solve, []

    def solving(self: Any) -> Any:
        tried.append(len(self.facts))
        if len(self.facts) > 2:
            raise torch.cuda.OutOfMemoryError
        return solve(self)

    monkeypatch.setattr(_Group, "solve", solving)
    for name, update in run("gpt2", "MEMIT", MANY[:7]).updates.items():
        assert float((update - expected[name]).norm() / expected[name].norm()) < 1e-5
    assert max(tried) > 2
    assert sum(count for count in tried if count <= 2) == 7
    monkeypatch.setattr(_Group, "solve", lambda self: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run("gpt2", "MEMIT", MANY[:2])


def test_finished_facts_leave_and_the_others_do_not_notice() -> None:
    model, tokenizer = model_of("gpt2", dtype=torch.float64), tokenizer_of("gpt2")
    with torch.no_grad():
        model.transformer.ln_f.weight.mul_(6)  # sharper logits, so that the targets can be reached
    hparams = hparams_of(
        "gpt2",
        "MEMIT",
        v_num_grad_steps=60,
        v_weight_decay=1e-4,
        kl_factor=0.0,
        clamp_norm_factor=50,
        layers=[3],
        fact_token="last",
    )
    moments = covariance_of(model, hparams)
    together = edit(model, tokenizer, MANY[:4], hparams, context_templates=["{}"], covariance=moments)
    lengths = [len(trace) for trace in together.trace]
    assert len(set(lengths)) > 1
    assert min(trace[-1]["loss"] for trace in together.trace) < 0.05
    for number in range(4):
        alone = edit(model, tokenizer, MANY[number : number + 1], hparams, context_templates=["{}"], covariance=moments)
        assert len(alone.trace[0]) == lengths[number]
        assert alone.trace[0][-1]["loss"] == pytest.approx(together.trace[number][-1]["loss"], rel=1e-6)


@pytest.mark.parametrize("method", ["ROME", "MEMIT"])
def test_the_tokenizers_padding_side_is_irrelevant_and_kept(method: str) -> None:
    updates = []
    for side, pad in (("left", None), ("right", None), ("left", "<s>")):
        tokenizer = tokenizer_of("llama")
        tokenizer.padding_side = side
        tokenizer.pad_token = pad
        tokenizer.backend_tokenizer.enable_padding(direction="left", length=64)
        updates.append(run("llama", method, tokenizer=tokenizer).updates)
        assert (tokenizer.padding_side, tokenizer.pad_token) == (side, pad)
        assert tokenizer.backend_tokenizer.padding["length"] == 64
    for name, update in updates[0].items():
        assert all(torch.equal(update, other[name]) for other in updates[1:])


# ---- Everything is put back


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_model_comes_back_as_it_was(kind: str, method: str) -> None:
    model = model_of(kind)
    model.train()
    next(model.parameters()).requires_grad_(False)
    before = snapshot(model)
    result = run(kind, method, model=model)
    assert same(before, snapshot(model))
    with result.applied(model) as edited:
        assert any(not torch.equal(before[0][name], edited.state_dict()[name]) for name in result.updates)
    assert same(before, snapshot(model))


@pytest.mark.parametrize("method", METHODS)
def test_also_after_an_exception_anywhere(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from padcheck.editing.decoder import Decoder

    original = Decoder.run
    counted = 0

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal counted
        counted += 1
        if counted == stop_at:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    stop_at = -1
    monkeypatch.setattr(Decoder, "run", counting)
    run("gpt2", method)
    for stop_at in range(1, counted + 1, 7):  # noqa: B007 (`counting` reads it)
        counted, model = 0, model_of("gpt2")
        before = snapshot(model)
        with pytest.raises(KeyboardInterrupt):
            run("gpt2", method, model=model)
        assert same(before, snapshot(model))


def test_applied_restores_after_an_exception() -> None:
    model = model_of("llama", dtype=torch.bfloat16)
    result = run("llama", "ROME", model=model)
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError), result.applied(model):
        raise ZeroDivisionError
    assert same(before, snapshot(model))


def test_under_inference_mode_and_no_grad_of_the_caller() -> None:
    expected = run("gpt2", "ROME").updates
    with torch.no_grad():
        for name, update in run("gpt2", "ROME").updates.items():
            assert torch.equal(update, expected[name])


# ---- What an edit does


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "granite"])
def test_the_edited_model_says_so(kind: str) -> None:
    model, tokenizer = model_of(kind), tokenizer_of(kind)
    request = MANY[0]
    hparams = hparams_of(
        kind,
        "ROME",
        v_num_grad_steps=60,
        v_lr=0.5,
        v_weight_decay=1e-4,
        clamp_norm_factor=60,
        kl_factor=0.0,
        fact_token="last",
    )
    result = edit(model, tokenizer, [request], hparams, context_templates=["{}"], covariance=covariance_of(model, hparams))
    text = request["prompt"].replace("{}", request["subject"])
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    target = tokenizer(text + " " + request["target_new"])["input_ids"][ids.shape[1]]
    with torch.no_grad():
        before = float(torch.softmax(model(ids).logits[0, -1], -1)[target])
        with result.applied(model):
            after = float(torch.softmax(model(ids).logits[0, -1], -1)[target])
    assert after > 5 * before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["ROME", "MEMIT"])
def test_low_precision_edits_are_near_and_report_rounding(method: str, dtype: Any) -> None:
    # Alike in every weight: the low-precision model, and one in float32 that holds its rounded weights.
    low = model_of("llama", dtype=dtype)
    high = copy.deepcopy(low).float()
    moments = covariance_of(high, hparams_of("llama", method))
    kwargs = {"covariance": moments, "v_num_grad_steps": 4}
    ours, wanted = run("llama", method, model=low, **kwargs), run("llama", method, model=high, **kwargs)
    for name, update in ours.updates.items():
        assert update.dtype == torch.float32
        assert float(torch.nn.functional.cosine_similarity(update.flatten(), wanted.updates[name].flatten(), 0)) > 0.9
        assert ours.rounding[name] > wanted.rounding[name]


def test_an_update_lost_in_rounding_is_said() -> None:
    model = model_of("llama", dtype=torch.bfloat16)
    with pytest.warns(RuntimeWarning, match="rounding takes"):
        run("llama", "MEMIT", model=model, mom2_update_weight=1e6, v_num_grad_steps=3)


def test_templates_are_sampled_with_a_seed_and_full_attention() -> None:
    model, tokenizer = model_of("gpt2"), tokenizer_of("gpt2")
    hparams = hparams_of("gpt2", "ROME", mom2_adjustment=False, v_num_grad_steps=2)
    torch.manual_seed(3)
    first = edit(model, tokenizer, REQUESTS[:1], hparams, seed=1)
    torch.manual_seed(4)
    again, other = (edit(model, tokenizer, REQUESTS[:1], hparams, seed=seed) for seed in (1, 2))
    assert first.templates == again.templates != other.templates
    flat = [text for group in first.templates for text in group]
    assert len(flat) == 21
    assert flat[0] == "{}"
    assert all(text.endswith(". {}") and text.count("{}") == 1 for text in flat[1:])


def test_edits_in_a_row_carry_a_state() -> None:
    model, tokenizer = model_of("llama"), tokenizer_of("llama")
    hparams = hparams_of("llama", "AlphaEdit")
    moments = covariance_of(model, hparams)
    first = edit(model, tokenizer, MANY[:2], hparams, context_templates=GROUPS, covariance=moments)
    with pytest.raises(StateError, match="not the one"):
        edit(model, tokenizer, MANY[2:4], hparams, context_templates=GROUPS, covariance=moments, state=first.state)
    first.write(model)
    kept = {name: value.clone() for name, value in first.state.key_cache.items()}
    second = edit(model, tokenizer, MANY[2:4], hparams, context_templates=GROUPS, covariance=moments, state=first.state)
    assert second.state.edits == 4
    assert all(torch.equal(first.state.key_cache[name], value) for name, value in kept.items())
    fresh = edit(model, tokenizer, MANY[2:4], hparams, context_templates=GROUPS, covariance=moments)
    assert any(not torch.allclose(fresh.updates[name], update) for name, update in second.updates.items())
    with pytest.raises(StateError, match="is of AlphaEdit"):
        edit(
            model,
            tokenizer,
            MANY[:1],
            hparams_of("llama", "MEMIT"),
            context_templates=GROUPS,
            covariance=moments,
            state=second.state,
        )


# ---- Hparams


def test_a_state_keeps_to_its_projection() -> None:
    """AlphaEdit works its null space out once for edits in a row: neither threshold nor second moment may change on the way."""
    model, tokenizer, hparams = model_of("llama"), tokenizer_of("llama"), hparams_of("llama", "AlphaEdit")
    moments = covariance_of(model, hparams)
    first = edit(model, tokenizer, REQUESTS[:2], hparams, context_templates=TEMPLATES, covariance=moments)
    first.write(model)
    again = {"context_templates": TEMPLATES, "state": first.state}
    wanted = edit(model, tokenizer, REQUESTS[2:], hparams, covariance=moments, **again).updates
    without = edit(model, tokenizer, REQUESTS[2:], hparams, **again).updates
    assert all(torch.equal(wanted[name], without[name]) for name in wanted)
    with pytest.raises(StateError, match=r"nullspace_threshold 0\.5, not 0\.05"):
        edit(model, tokenizer, REQUESTS[2:], {**hparams, "nullspace_threshold": 0.05}, covariance=moments, **again)
    with pytest.raises(StateError, match="another second moment"):
        edit(model, tokenizer, REQUESTS[2:], hparams, covariance={name: 100 * one for name, one in moments.items()}, **again)
    with pytest.raises(StateError, match="not dict"):
        edit(model, tokenizer, REQUESTS[2:], hparams, covariance=moments, context_templates=TEMPLATES, state={})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "attention"),
    [("gpt_neox", "gpt_neox.layers.{}.attention.dense"), ("bloom", "transformer.h.{}.self_attention.dense"),
     ("llama", "model.layers.{}.self_attn.o_proj"), ("gpt2", "transformer.h.{}.attn.c_proj")],
)  # fmt: skip
def test_pmet_gives_each_module_its_own_value(kind: str, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With next to no second moment the attention's new output is the value that the search found for it."""
    from padcheck.editing import pmet
    from padcheck.editing.rows import facts_of, grouped, requests_of
    from padcheck.sources.token_readers import wrap

    hparams = hparams_of(kind, "PMET")
    hparams |= {
        "rewrite_module_tmps": [attention, hparams["rewrite_module_tmp"]], "attn_module_tmp": attention,
        "mlp_module_tmp": hparams["rewrite_module_tmp"], "mom2_update_weight": 1e-9, "layers": [2], "v_num_grad_steps": 8,
    }  # fmt: skip
    model, tokenizer = model_of(kind), tokenizer_of(kind)
    seen: list[Any] = []
    monkeypatch.setattr(pmet, "search", lambda *a, _own=pmet.search, **k: seen.append(_own(*a, **k)) or seen[-1])
    result = edit(
        model, tokenizer, REQUESTS[:1], hparams, context_templates=["{}"], covariance=covariance_of(model, hparams)
    )
    ((found,),) = seen
    (fact,), _ = facts_of(requests_of(REQUESTS[:1]), wrap(tokenizer).reader, grouped(["{}"]), "subject_last")
    outputs: list[Any] = []
    hook = model.get_submodule(attention.format(2)).register_forward_hook(lambda _, __, out: outputs.append(out))
    with result.applied(model), torch.no_grad():
        model(torch.tensor([fact.prompts[0].ids]))
    hook.remove()
    got = outputs[-1].reshape(-1, 48)[fact.prompts[0].lookup]
    mlps, own = (initial + delta for initial, delta in zip(found.initial, found.delta, strict=True))
    assert float((got - own).norm() / own.norm()) < 1e-3 < float((got - mlps).norm() / own.norm())


def test_a_compiled_model_takes_its_update() -> None:
    model = model_of("llama")
    compiled = torch.compile(model)  # compiles when it is first called, which is not needed here
    result = run("llama", "ROME", model=compiled, covariance=covariance_of(model, hparams_of("llama", "ROME")))
    (name,) = result.updates
    before = model.get_parameter(name).detach().clone()
    with result.applied(compiled):
        assert not torch.equal(model.get_parameter(name), before)
    assert torch.equal(model.get_parameter(name), before)


def test_requests_keep_their_order() -> None:
    from padcheck.editing.rows import requests_of

    ready = requests_of(REQUESTS[:3])
    assert [one.subject for one in requests_of([REQUESTS[0], ready[1], REQUESTS[2]])] == [one.subject for one in ready]


def test_second_moments_are_factorised_once_for_facts_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from padcheck.editing import session

    calls: list[str] = []
    monkeypatch.setattr(session, "factored", lambda *a, _own=session.factored: calls.append(a[1]) or _own(*a))
    model, hparams = model_of("llama"), hparams_of("llama", "ROME")
    edit(
        model,
        tokenizer_of("llama"),
        REQUESTS[:3],
        hparams,
        context_templates=["{}"],
        covariance=covariance_of(model, hparams),
    )
    assert len(calls) == 1


def test_a_method_that_is_not_named_is_said_aloud() -> None:
    model, hparams = model_of("llama"), hparams_of("llama", "ROME")
    del hparams["alg_name"]
    result = edit(
        model,
        tokenizer_of("llama"),
        REQUESTS[:1],
        hparams,
        context_templates=["{}"],
        covariance=covariance_of(model, hparams),
    )
    assert "the hparams name no method; their keys are ROME's" in result.notes


def test_hparams_of_both_frameworks(tmp_path: Path) -> None:
    path = tmp_path / "llama.yaml"
    path.write_text(
        'alg_name: "ROME"\nmodel_name: ./m\ndevice: 0\nlayers: [5]\nfact_token: '
        "subject_last\nv_num_grad_steps: 25\nv_lr: 5e-1\nv_loss_layer: 31\n"
        "v_weight_decay: 1e-3\nclamp_norm_factor: 4\nkl_factor: 0.0625\nmom2_adjustment: "
        "false\ncontext_template_length_params: [[5, 10], [10, 10]]\n"
        "rewrite_module_tmp: model.layers.{}.mlp.down_proj\nlayer_module_tmp: model.layers.{}\nnovel_key: 3\n"
    )
    loaded = load_hparams(path)
    assert (loaded.method, loaded.v_lr, loaded.v_weight_decay, loaded.layers, loaded.ignored) == (
        "ROME",
        0.5,
        1e-3,
        (5,),
        ("novel_key",),
    )
    assert load_hparams(loaded) is loaded
    plain = hparams_of("gpt2", "MEMIT")
    del plain["alg_name"]  # kmeng01's files have none
    assert load_hparams(plain).method == "MEMIT"


def test_targets_are_those_of_running_text() -> None:
    from padcheck.editing.rows import facts_of, grouped, requests_of
    from padcheck.sources.token_readers import wrap

    for kind in ("gpt2", "llama", "qwen2"):
        reader = wrap(tokenizer_of(kind)).reader
        facts, _ = facts_of(requests_of(REQUESTS), reader, grouped(["{}"]), "subject_last")
        for fact, request in zip(facts, REQUESTS, strict=True):
            text = request["prompt"].replace("{}", request["subject"]) + " " + request["target_new"]
            assert list(fact.prompts[0].ids + fact.target) == list(reader.encode_batch([text])[0].ids)
    reader = wrap(tokenizer_of("qwen2")).reader
    chinese = [{"prompt": "{}的首都是", "subject": "中国", "target_new": "北京"}]
    (fact,), _ = facts_of(requests_of(chinese), reader, grouped(["{}"]), "subject_last")
    assert reader.decode(fact.target) == "北京"
