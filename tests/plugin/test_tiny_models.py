"""`tiny_causal_lm`: the shipped models, which come back bit for bit or fail the test."""

from __future__ import annotations

import pytest

from .conftest import Run

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("models_imported")

ONE = ("-o", "padcheck_models=gpt2-facts")

CHANGES = {
    "a weight": "with torch.no_grad(): model.transformer.h[0].mlp.c_proj.weight[0, 0] += 1e-8 + 1",
    "the last bit": "w = model.transformer.ln_f.bias.data; w[0] = torch.nextafter(w[0], w[0] + 1)",
    "the sign of a zero": "w = model.transformer.ln_f.bias.data; w[0] = -0.0 if w[0] == 0 else 0.0",
    "another parameter": "model.transformer.ln_f.weight = torch.nn.Parameter(torch.zeros(2))",
    "a buffer": "model.register_buffer('new', torch.zeros(2))",
    "a hook": "model.transformer.h[1].register_forward_hook(lambda *a: None)",
    "a pre-hook": "model.transformer.h[1].register_forward_pre_hook(lambda *a: None)",
    "the mode": "model.transformer.h[0].train()",
    "what is trained": "model.transformer.wte.weight.requires_grad_(False)",
    "a gradient": "model(**tokenizer('Paris', return_tensors='pt')).logits.sum().backward()",
    "a method": "model.transformer.h[0].forward = lambda *a, **k: None",
    "a method of the model": "model.generate = lambda *a, **k: None",
    "a private method": "model._sample = lambda *a, **k: None",
    "an attribute": "model.transformer.h[0].attn.scaling = 2.0",
    "an attribute that was removed": "del model.transformer.h[0].attn.layer_idx",
    "an object": "model.transformer.h[0].mlp.extra = object()",
    "a setting": "model.config.use_cache = False",
    "a new setting": "model.config.mine = 1",
    "a setting in a setting": "model.config.id2label[0] = 'mine'",
    "a setting behind a property": "model.set_attn_implementation('eager'); model.config.output_attentions = True",
    "the attention": "model.set_attn_implementation('eager')",
    "how it generates": "model.generation_config.do_sample = True",
    "another config": "import copy; model.config = copy.deepcopy(model.config)",
}
SAID = {
    "a weight": "the values of transformer.h.0.mlp.c_proj.weight",
    "the last bit": "the values of transformer.ln_f.bias",
    "the sign of a zero": "the values of transformer.ln_f.bias",
    "another parameter": "the values of transformer.ln_f.weight",
    "a buffer": "the values of new",
    "a hook": "hooks on transformer.h.1",
    "a pre-hook": "hooks on transformer.h.1",
    "the mode": "training mode of transformer.h.0",
    "what is trained": "requires_grad of transformer.wte.weight",
    "a gradient": "gradient of transformer.wte.weight",
    "a method": "forward of transformer.h.0",
    "a method of the model": "generate of the model",
    "a private method": "_sample of the model",
    "an attribute": "scaling of transformer.h.0.attn",
    "an attribute that was removed": "layer_idx of transformer.h.0.attn",
    "an object": "extra of transformer.h.0.mlp",
    "a setting": "config.use_cache",
    "a new setting": "config.mine",
    "a setting in a setting": "config.id2label",
    "a setting behind a property": "config.output_attentions",
    "the attention": "config._attn_implementation",
    "how it generates": "generation_config.do_sample",
    "another config": "config of the model",
}


def test_every_change_is_found_and_the_next_test_is_spared(pytester: pytest.Pytester, inner: Run) -> None:
    tests = ["import pytest, torch"]
    for number, change in enumerate(CHANGES.values()):
        tests.append(f"def test_{number}_changes(tiny_causal_lm):\n    model, tokenizer = tiny_causal_lm\n    {change}")
        tests.append(f"def test_{number}_is_spared(tiny_causal_lm):\n    pass")
    pytester.makepyfile("\n\n".join(tests))
    result = inner("-v", *ONE)
    result.assert_outcomes(passed=2 * len(CHANGES), errors=len(CHANGES))
    lines = [line for line in result.outlines if line.startswith("the test changed gpt2-facts")]
    assert len(lines) == len(CHANGES)
    for line, name in zip(lines, CHANGES, strict=True):
        assert SAID[name] in line, name
        assert line.endswith("Undo it, or work on copy.deepcopy(model).")
    assert "Traceback" not in result.stdout.str()


def test_a_change_that_is_undone_is_none(pytester: pytest.Pytester, inner: Run) -> None:
    """By the test, by a fixture that stands on the model, or made on a copy."""
    pytester.makepyfile(
        """
        import copy, pytest, torch

        @pytest.fixture
        def edited(tiny_causal_lm):
            weight = tiny_causal_lm.model.transformer.h[0].mlp.c_proj.weight
            kept = weight.detach().clone()
            weight.data += 1
            yield tiny_causal_lm.model
            weight.data.copy_(kept)

        def test_by_a_fixture(edited):
            pass

        def test_by_itself(tiny_causal_lm):
            handle = tiny_causal_lm.model.register_forward_hook(lambda *a: None)
            handle.remove()

        def test_on_a_copy(tiny_causal_lm):
            copy.deepcopy(tiny_causal_lm.model).transformer.ln_f.bias.data.zero_()

        def test_use(tiny_causal_lm):
            model, tokenizer = tiny_causal_lm
            batch = tokenizer("Paris", return_tensors="pt")
            assert model(**batch, output_hidden_states=True, output_attentions=True).logits.shape[-1] == len(tokenizer)
            model.generate(**batch, max_new_tokens=2, pad_token_id=0)
            model.generate(**batch, max_new_tokens=2, pad_token_id=0, do_sample=True, output_scores=True, return_dict_in_generate=True)

        def test_saving(tiny_causal_lm, tmp_path):
            tiny_causal_lm.model.save_pretrained(tmp_path)

        def test_with_monkeypatch_before(monkeypatch, tiny_causal_lm):
            monkeypatch.setattr(tiny_causal_lm.model, "generate", None)
            monkeypatch.setattr(tiny_causal_lm.model.config, "use_cache", False)

        def test_with_monkeypatch_after(tiny_causal_lm, monkeypatch):
            monkeypatch.setattr(tiny_causal_lm.model, "generate", None)

        def test_editing(tiny_causal_lm):
            from padcheck.editing import edit

            model, tokenizer = tiny_causal_lm
            request = tiny_causal_lm.facts["requests"][0]
            result = edit(model, tokenizer, [request], tiny_causal_lm.folder / "hparams" / "rome.yaml", context_templates=["{}"])
            with result.applied(model):
                pass
        """
    )
    inner(*ONE).assert_outcomes(passed=8)


def test_the_tokenizer_is_the_tests_own(pytester: pytest.Pytester, inner: Run) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("again", [1, 2])
        def test_changed_without_harm(tiny_causal_lm, again):
            tokenizer = tiny_causal_lm.tokenizer
            assert tokenizer.padding_side == "right"
            assert len(tokenizer) == tiny_causal_lm.model.config.vocab_size
            tokenizer.padding_side = "left"
            tokenizer.add_tokens(["<new>"])

        @pytest.mark.padding_sides
        def test_it_pads_on_the_side_of_the_run(tiny_causal_lm, request):
            side = request.node.callspec.params["padding_sides"]
            assert tiny_causal_lm.tokenizer.padding_side == ("left" if side == "left" else "right")

        @pytest.mark.parametrize("padding_sides", ["left"], indirect=True)
        def test_it_pads_on_the_side_that_it_names(padding_sides, tiny_causal_lm):
            assert tiny_causal_lm.tokenizer.padding_side == "left"

        @pytest.mark.parametrize("padding_sides", ["left"])
        def test_it_knows_nothing_of_what_is_no_side(padding_sides, tiny_causal_lm):
            assert tiny_causal_lm.tokenizer.padding_side == "right"
        """
    )
    inner(*ONE).assert_outcomes(passed=7)


def test_which_models(pytester: pytest.Pytester, inner: Run) -> None:
    pytester.makepyfile(
        """
        import pytest

        def test_all(tiny_causal_lm):
            assert tiny_causal_lm.folder.name in repr(tiny_causal_lm)
            assert tiny_causal_lm.facts["name"] == tiny_causal_lm.folder.name
            assert (tiny_causal_lm.folder / "hparams" / "rome.yaml").is_file()

        @pytest.mark.parametrize("tiny_causal_lm, n", [("gpt2-facts", 1)], indirect=["tiny_causal_lm"])
        def test_one(tiny_causal_lm, n):
            assert tiny_causal_lm.model.config.model_type == "gpt2"

        def test_late(request):
            assert request.getfixturevalue("tiny_causal_lm").folder.name == "llama-facts"
        """
    )
    inner().assert_outcomes(passed=4)
    result = inner("-o", "padcheck_models=gpt5")
    result.stdout.fnmatch_lines(["padcheck_models names 'gpt5': there are gpt2-facts, llama-facts."])


def test_without_torch_it_says_what_is_missing(
    pytester: pytest.Pytester, inner: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from padcheck.testing import tiny_models

    monkeypatch.setattr(tiny_models, "find_spec", lambda name: None)
    pytester.makepyfile("def test_it(tiny_causal_lm): pass")
    result = inner(*ONE)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["tiny_causal_lm needs torch and transformers: pip install 'padcheck?edit?'"])
