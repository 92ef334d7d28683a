"""What rows begin with alike goes forward once, and nobody can tell: keys and values are those of the whole rows."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import HealthCheck, assume, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from toys import MANY, TEMPLATES, hparams_of, model_of, tokenizer_of  # noqa: E402

from padcheck.editing import load_hparams  # noqa: E402
from padcheck.editing.architecture import Architecture  # noqa: E402
from padcheck.editing.batches import aligned  # noqa: E402
from padcheck.editing.decoder import Cache  # noqa: E402
from padcheck.editing.keys import Walk  # noqa: E402
from padcheck.editing.prefixes import prefilled, split  # noqa: E402
from padcheck.editing.rows import Row, facts_of, grouped, requests_of  # noqa: E402
from padcheck.sources.token_readers import wrap  # noqa: E402

CPU = torch.device("cpu")
PROMPTS = [*MANY[:12], *({**one, "prompt": "The mother tongue of {} is"} for one in MANY[::4])]


HEADS = st.sampled_from([(), (7,), (7, 8, 9), (5,) * 6])


@given(st.lists(st.tuples(HEADS, st.lists(st.integers(10, 20), min_size=1, max_size=3)), min_size=8, max_size=16), st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_every_token_is_there_once_and_in_its_place(made: list[Any], data: st.DataObject) -> None:
    rows = [Row((*head, *own), len(head) + data.draw(st.integers(0, len(own) - 1)), len(head)) for head, own in made]
    parts = split(rows, CPU)
    assume(parts is not None)
    whole = parts.heads.ids[parts.whose], parts.own.ids
    ids, mask = torch.cat(whole, 1), parts.own.mask
    positions = torch.cat([parts.heads.positions[parts.whose], parts.own.positions], 1)
    for number, row in enumerate(rows):
        places = parts.column(torch.arange(len(row.ids))[None].expand(len(rows), -1))[number]
        assert ids[number, places].tolist() == list(row.ids)
        assert positions[number, places].tolist() == list(range(len(row.ids)))
        assert mask[number, places].all()
        assert places.tolist() == list(range(int(places[0]), int(places[0]) + len(row.ids)))  # side by side
        assert not mask[number, : places[0]].any()
    distinct = {row.ids[: row.head] for row in rows}
    assert len(parts.heads.ids) == len(distinct)


def opened(kind: str) -> tuple[Any, Any]:
    changes = {"sliding_window": 5} if kind in ("mistral", "gemma2") else {}
    model = model_of(kind, dtype=torch.float64, **changes)
    decoder = Architecture(model, load_hparams(hparams_of(kind, "ROME"))).decoder
    facts, _ = facts_of(requests_of(PROMPTS), wrap(tokenizer_of(kind)).reader, grouped(TEMPLATES), "subject_last")
    return decoder, facts


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral", "gemma2", "bloom", "opt"])
def test_keys_and_values_are_those_of_whole_rows(kind: str) -> None:
    with torch.no_grad():
        decoder, facts = opened(kind)
        rows = [row for fact in facts for row in (*fact.answered, fact.kl)]
        before = aligned(rows, CPU).before
        assert split([Row(row.ids[: row.lookup], row.lookup, min(row.head, row.lookup)) for row in rows], CPU) is not None
        direct = Cache.empty()
        decoder.run(before, cache=direct)
        shared = prefilled(decoder, rows, before)
        real = before.mask.bool()
        for layer, expected in zip(shared.store.layers, direct.store.layers, strict=True):
            for got, wanted in ((layer.keys, expected.keys), (layer.values, expected.values)):
                difference = (got - wanted).transpose(1, 2)[real].norm() / wanted.transpose(1, 2)[real].norm()
                assert float(difference) <= (1e-6 if kind in ("bloom", "gemma2") else 1e-10)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral", "bloom"])
def test_the_walk_sees_what_each_row_alone_sees(kind: str) -> None:
    """Also above layers that were rewritten on the way."""
    with torch.no_grad():
        decoder, facts = opened(kind)
        walk, alone = Walk(decoder, facts), [Walk(decoder, [fact]) for fact in facts]
        assert any(climb._parts is not None for climb in walk._climbs)
        for layer in (1, 2):
            template = hparams_of(kind, "ROME")["rewrite_module_tmp"]
            module = decoder.model.get_submodule(template.format(layer))
            keys, values = walk.keys(layer, module), walk.values(3)
            expected = torch.cat([one.keys(layer, module) for one in alone])
            assert float((keys - expected).norm() / expected.norm()) <= (1e-6 if kind == "bloom" else 1e-10)
            expected = torch.cat([one.values(3) for one in alone])
            assert float((values - expected).norm() / expected.norm()) <= (1e-6 if kind == "bloom" else 1e-10)
            module.weight.mul_(1.1)
