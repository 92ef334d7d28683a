"""The data of rules/editors: each file parses, each statement has a source, each expression is what its editor computes.

The values in the tables below are worked out by hand, and `literal_*` repeat the editors' slices on lists of columns;
neither looks at the data.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import pytest

from padcheck.positions.arithmetic import FLAGS, Expression
from padcheck.positions.editors import (
    FACT_TOKENS,
    Batch,
    EditorDataError,
    Method,
    Raises,
    editor_ids,
    load_editor,
    parse_editor,
)
from padcheck.resources import rules_dir

IDS = (
    "alphaedit",
    "easyedit",
    "fastedit",
    "kmeng01-memit",
    "kmeng01-rome",
    "pmet",
    "rebuilding-rome",
    "unified",
)

EASYEDIT_ALG_NAMES = (
    "ROME", "MEMIT", "MEMIT-FE", "FT", "DINM", "KN", "MEND", "SERAC", "IKE", "FT-Api", "QLoRA", "LoRA", "DPO", "GRACE",
    "PMET", "MELO", "WISE", "R-ROME", "EMMET", "EAMET", "AlphaEdit", "SPHERE", "ULTRAEDIT", "CORE", "DeepEdit-Api", "SimIE",
    "DEFER",
)  # fmt: skip
"""easyeditor/util/alg_dict.py:31-59."""

EASYEDIT_OTHERS = ("SERAC_MULTI", "KE", "MALMEN", "UltraEdit", "UnKE", "UnKE_ARE", "FT_uns", "LoRA_uns")
"""Named in hparams or run by other entry points."""

METHODS = {
    "kmeng01-rome": {"ROME", "FT", "KN", "MEND", "KE"},
    "kmeng01-memit": {"MEMIT", "ROME", "FT", "MEND"},
    "rebuilding-rome": {"ROME", "R-ROME", "FT", "MEND"},
    "unified": {"ROME", "MEMIT", "EMMET", "FT", "MEND"},
    "alphaedit": {
        "AlphaEdit",
        "MEMIT",
        "MEMIT_prune",
        "MEMIT_seq",
        "MEMIT_rect",
        "NSE",
        "ROME",
        "FT",
        "MEND",
    },
    "pmet": {"PMET", "MEMIT"},
    "fastedit": {"ROME"},
    "easyedit": {*EASYEDIT_ALG_NAMES, *EASYEDIT_OTHERS},
}

# These methods know no fact_token; they read the prompt's last token.
LAST_ONLY = {
    ("easyedit", "grace-key"),
    ("easyedit", "kn-mask"),
    ("easyedit", "unke-z"),
    ("easyedit", "unke-key"),
    ("easyedit", "unke-are-key"),
    ("easyedit", "row-last"),
    ("kmeng01-rome", "kn-mask"),
}

COUNTS = {
    "prefix": 3, "prefix_subject": 6, "row": 10, "mask": 10, "prompt": 8, "width": 14, "pads": 4,
    "part_prefix": 2, "part_subject": 4, "part_suffix": 5,
    "target": 3, "target_width": 5, "target_pads": 2, "prompt_width": 9, "trailing": 0, "target_start": 8, "joined": 7, "bare_prompt": 4, "specials": 0,
}  # fmt: skip
NOTHING_FOLLOWS = {**COUNTS, "row": 6, "mask": 6, "part_suffix": 0}
"""The subject ends the row."""


def methods() -> Iterator[tuple[str, Method]]:
    for editor_id in IDS:
        for method in load_editor(editor_id).methods.values():
            yield editor_id, method


def batches() -> Iterator[tuple[str, Method, Batch]]:
    for editor_id, method in methods():
        for batch in method.batches:
            yield editor_id, method, batch


def raw(editor_id: str) -> str:
    return (rules_dir() / "editors" / f"{editor_id}.toml").read_text("utf-8")


def batch_of(editor_id: str, method: str, name: str, **flags: Any) -> Batch:
    """The one batch of this name that these hparams switch on."""
    found = load_editor(editor_id).methods[method]
    known = {flag: {**found.defaults, **flags}.get(flag) for flag in FLAGS}
    active = [batch for batch in found.batches if batch.name == name and (batch.when is None or batch.when(known))]
    assert len(active) == 1, [batch.source for batch in active]
    return active[0]


def index_value(batch: Batch, fact_token: str, counts: Mapping[str, int] = COUNTS) -> int | str:
    assert batch.lookup is not None
    entry = batch.lookup.by_fact_token[fact_token]
    return "raises" if isinstance(entry, Raises) else int(entry(counts))


# -- the files -----------------------------------------------------------------------------------------------


def test_every_framework_has_its_file() -> None:
    assert editor_ids() == IDS


@pytest.mark.parametrize("editor_id", IDS)
def test_methods_are_all_there(editor_id: str) -> None:
    assert set(load_editor(editor_id).methods) == METHODS[editor_id]


@pytest.mark.parametrize("name", [*EASYEDIT_ALG_NAMES, *EASYEDIT_OTHERS])
def test_easyedit_knows_every_alg_name(name: str) -> None:
    method = load_editor("easyedit").methods[name]
    assert method.base or (method.kind == "unpadded") == (not method.batches)


SOURCE = re.compile(r"[\w.-]+(/[\w.-]+)*\.py:\d+(-\d+)?(,\d+(-\d+)?)*")


@pytest.mark.parametrize("editor_id", IDS)
def test_every_source_names_a_file_with_lines(editor_id: str) -> None:
    def sources(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "source" in node:
                yield node["source"]
            for value in node.values():
                yield from sources(value)
        elif isinstance(node, list):
            for value in node:
                yield from sources(value)

    found = list(sources(tomllib.loads(raw(editor_id))))
    assert found
    for source in found:
        for part in source.split(", "):
            assert SOURCE.fullmatch(part), source
            for numbers in part.rsplit(":", 1)[1].split(","):
                first, _, last = numbers.partition("-")
                assert not last or int(first) < int(last), source


@pytest.mark.parametrize("editor_id", IDS)
def test_every_statement_has_a_source(editor_id: str) -> None:
    data = tomllib.loads(raw(editor_id))
    statements = [
        *data.get("index", {}).values(),
        *data["methods"].values(),
        *(batch for method in data["methods"].values() for batch in method.get("batches", ())),
        *(entry for index in data.get("index", {}).values() for entry in index.values() if isinstance(entry, dict)),
        *data.get("side", {}).get("rules", ()),
    ]
    assert all(statement.get("source") for statement in statements)


def test_a_likened_method_has_its_own_batches_or_says_whose() -> None:
    """`like` copies batches with their sources; those must not name another method's files without a word."""
    inherits = {
        (editor_id, name)
        for editor_id in IDS
        for name, table in tomllib.loads(raw(editor_id))["methods"].items()
        if "like" in table and "batches" not in table
    }
    assert inherits == {
        ("easyedit", "SERAC_MULTI"), ("easyedit", "UltraEdit"), ("rebuilding-rome", "R-ROME"), ("alphaedit", "MEMIT_prune"),
    }  # fmt: skip
    for editor_id, name in inherits:
        assert load_editor(editor_id).methods[name].note


# -- indices -------------------------------------------------------------------------------------------------


def test_lookups_of_locate_methods_cover_every_fact_token() -> None:
    for editor_id, method, batch in batches():
        if method.kind == "locate":
            assert batch.lookup is not None, (editor_id, method.name, batch.name)
            assert set(batch.lookup.by_fact_token) == set(FACT_TOKENS), (editor_id, batch.lookup.name)


def test_indices_with_fewer_fact_tokens_are_so_on_purpose() -> None:
    partial = {
        (editor_id, batch.lookup.name)
        for editor_id, _, batch in batches()
        if batch.lookup is not None and set(batch.lookup.by_fact_token) != set(FACT_TOKENS)
    }
    assert partial == LAST_ONLY


def test_a_method_without_fact_token_resolves_to_one_that_its_index_has() -> None:
    for editor_id, method, batch in batches():
        if batch.lookup is not None:
            assert method.default_fact_token in batch.lookup.by_fact_token, (editor_id, method.name)


def test_every_index_is_used() -> None:
    for editor_id in IDS:
        used = {batch.lookup.name for other, _, batch in batches() if other == editor_id and batch.lookup is not None}
        assert used == set(tomllib.loads(raw(editor_id)).get("index", {})), editor_id


WHOLE = {"subject_last": 5, "subject_first_after_last": 6, "subject_first": -7}
"""Counted on whole strings: prefix 3, prefix + subject 6, row 10."""
PARTS = {"subject_last": 5, "subject_first_after_last": 6, "subject_first": 2}
"""Counted on parts: 2 + 4, and something follows."""
FROM_END = {"subject_last": -5, "subject_first_after_last": -4, "subject_first": -7}
"""FastEdit: the same tokens as WHOLE, counted from the end of a row of 10."""

LOOKUPS: list[tuple[str, str, str, Mapping[str, int | str]]] = [
    ("easyedit", "ROME", "optimise", {**WHOLE, "last": 7}),
    ("easyedit", "ROME", "keys", {**WHOLE, "last": -1}),
    ("easyedit", "ROME", "value", {**WHOLE, "last": -1}),
    ("easyedit", "R-ROME", "optimise", {**WHOLE, "last": 7}),
    *(
        ("easyedit", name, batch, {**WHOLE, "last": "raises" if batch != "optimise" or name == "EAMET" else -1})
        for name in ("MEMIT", "MEMIT-FE", "EMMET", "AlphaEdit", "SPHERE", "CORE", "PMET", "EAMET")
        for batch in ("optimise", "keys", "current")
    ),
    ("easyedit", "MEMIT-FE", "value", {**WHOLE, "last": -1}),
    ("easyedit", "GRACE", "train", {"last": 7}),
    ("easyedit", "KN", "train", {"last": -1}),
    ("easyedit", "UnKE", "optimise", {"last": 9}),
    ("easyedit", "UnKE", "keys", {"last": 9}),
    ("easyedit", "UnKE_ARE", "keys", {"last": 7}),
    ("easyedit", "DEFER", "train", {"last": -1}),
    ("easyedit", "MELO", "train", {"last": -1}),
    *(("kmeng01-rome", "ROME", batch, {**PARTS, "last": -1}) for batch in ("optimise", "keys", "value")),
    ("kmeng01-rome", "KN", "train", {"last": -1}),
    *(("kmeng01-memit", "ROME", batch, {**PARTS, "last": -1}) for batch in ("optimise", "keys", "value")),
    ("kmeng01-memit", "MEMIT", "optimise", {**PARTS, "last": -1}),
    ("kmeng01-memit", "MEMIT", "keys", {**PARTS, "last": "raises"}),
    ("kmeng01-memit", "MEMIT", "current", {**PARTS, "last": "raises"}),
    *(("rebuilding-rome", "ROME", batch, {**PARTS, "last": -1}) for batch in ("optimise", "keys", "value")),
    *(("unified", "ROME", batch, {**WHOLE, "last": -1}) for batch in ("optimise", "keys", "value")),
    *(
        ("unified", name, batch, {**WHOLE, "last": "raises" if batch != "optimise" or name == "EAMET" else -1})
        for name in ("MEMIT", "EMMET")
        for batch in ("optimise", "keys", "current")
    ),
    ("alphaedit", "ROME", "optimise", {**WHOLE, "last": 7}),
    ("alphaedit", "ROME", "keys", {**WHOLE, "last": -1}),
    ("alphaedit", "ROME", "value", {**WHOLE, "last": -1}),
    *(
        ("alphaedit", name, batch, {**WHOLE, "last": "raises" if batch != "optimise" or name == "EAMET" else -1})
        for name in ("AlphaEdit", "MEMIT", "MEMIT_prune", "MEMIT_seq", "MEMIT_rect", "NSE")
        for batch in ("optimise", "keys", "current")
    ),
    *(
        ("pmet", name, batch, {**PARTS, "last": "raises" if batch != "optimise" else -1})
        for name in ("PMET", "MEMIT")
        for batch in ("optimise", "keys", "current")
    ),
    *(("fastedit", "ROME", batch, {**FROM_END, "last": -1}) for batch in ("optimise", "keys", "value")),
]


@pytest.mark.parametrize(("editor_id", "method", "name", "expected"), LOOKUPS)
def test_indices_have_the_values_worked_out_by_hand(
    editor_id: str, method: str, name: str, expected: Mapping[str, int | str]
) -> None:
    for fact_token, value in expected.items():
        batch = batch_of(editor_id, method, name, fact_token=fact_token)
        assert index_value(batch, fact_token) == value, fact_token


def test_every_lookup_is_in_the_table() -> None:
    known = {(editor_id, method, name) for editor_id, method, name, _ in LOOKUPS}
    known |= {
        ("easyedit", "R-ROME", "keys"),
        ("easyedit", "R-ROME", "value"),
    }  # see the test of R-ROME's options
    known |= {("rebuilding-rome", "R-ROME", name) for name in ("optimise", "keys", "value")}
    lookups = {(editor_id, method.name, batch.name) for editor_id, method, batch in batches() if batch.lookup is not None}
    assert lookups == known


@pytest.mark.parametrize(
    ("editor_id", "method", "expected"),
    [
        ("easyedit", "ROME", 5),
        ("easyedit", "MEMIT", 5),
        ("unified", "EMMET", 5),
        ("alphaedit", "NSE", 5),
        ("kmeng01-rome", "ROME", 5),
        ("kmeng01-memit", "MEMIT", 5),
        ("rebuilding-rome", "ROME", 5),
        ("pmet", "PMET", 5),
        ("fastedit", "ROME", -1),
    ],
)
def test_without_a_suffix_the_token_after_the_subject_is_its_last(editor_id: str, method: str, expected: int) -> None:
    batch = batch_of(editor_id, method, "optimise")
    assert index_value(batch, "subject_first_after_last", NOTHING_FOLLOWS) == expected
    assert index_value(batch, "subject_last", NOTHING_FOLLOWS) == expected


@pytest.mark.parametrize("editor_id", ["easyedit", "rebuilding-rome"])
def test_r_romes_options_choose_one_batch_of_keys_and_one_of_values(editor_id: str) -> None:
    for original, prompt_keys, prefix_keys, fact_token in product((True, False), (True, False), (True, False), FACT_TOKENS):
        if not original and prompt_keys == prefix_keys:
            continue  # refused by an assertion
        flags = {
            "original_implementation": original,
            "enable_prompt_keys": prompt_keys,
            "enable_random_prefix_keys": prefix_keys,
            "fact_token": fact_token,
        }
        keys = batch_of(editor_id, "R-ROME", "keys", **flags)
        if fact_token == "last" and prompt_keys:
            assert index_value(keys, "last") == "raises"
        else:
            assert keys.rows == ("templates" if original or prefix_keys or fact_token == "last" else "bare")
            if fact_token != "last":
                assert index_value(keys, fact_token) == (WHOLE if editor_id == "easyedit" else PARTS)[fact_token]
        value = batch_of(editor_id, "R-ROME", "value", **flags)
        assert (value.rows, value.per) == ("templates" if prefix_keys else "bare", "row")
        assert index_value(value, "last") == -1


def test_r_romes_original_implementation_is_the_default_only_in_its_own_repository() -> None:
    assert load_editor("easyedit").methods["R-ROME"].defaults["original_implementation"] is False
    assert load_editor("rebuilding-rome").methods["R-ROME"].defaults["original_implementation"] is True


# -- labels --------------------------------------------------------------------------------------------------

SPANS: list[tuple[str, str, str, dict[str, str], tuple[int, int, str, bool]]] = [
    # (first, last, columns of what, whether they are what is left out)
    ("easyedit", "ROME", "optimise", {}, (7, 9, "slots", False)),
    ("easyedit", "R-ROME", "optimise", {}, (7, 9, "slots", False)),
    ("easyedit", "MEMIT", "optimise", {}, (7, 9, "slots", False)),
    ("easyedit", "EAMET", "optimise", {}, (7, 9, "slots", False)),
    ("kmeng01-rome", "ROME", "optimise", {}, (7, 9, "slots", False)),
    ("kmeng01-memit", "MEMIT", "optimise", {}, (7, 9, "slots", False)),
    ("rebuilding-rome", "ROME", "optimise", {}, (7, 9, "slots", False)),
    ("unified", "EMMET", "optimise", {}, (7, 9, "slots", False)),
    ("alphaedit", "AlphaEdit", "optimise", {}, (7, 9, "slots", False)),
    ("pmet", "PMET", "optimise", {}, (7, 9, "slots", False)),
    ("fastedit", "ROME", "optimise", {}, (10, 12, "slots", False)),
    ("easyedit", "FT", "train", {"objective_optimization": "prompt_last"}, (9, 9, "tokens", False)),
    ("easyedit", "FT", "train", {"objective_optimization": "target_new"}, (12, 13, "tokens", False)),
    ("easyedit", "FT_uns", "train", {"objective_optimization": "target_new"}, (12, 13, "tokens", False)),
    ("easyedit", "WISE", "train", {"objective_optimization": "only_label"}, (0, 8, "tokens", True)),
    ("easyedit", "GRACE", "train", {}, (0, 7, "tokens", True)),
    ("easyedit", "DEFER", "train", {}, (0, 7, "tokens", True)),
    ("easyedit", "MELO", "train", {}, (0, 7, "tokens", True)),
    ("easyedit", "LoRA", "train", {}, (4, 11, "tokens", True)),
    ("easyedit", "LoRA_uns", "train", {}, (4, 11, "tokens", True)),
    ("easyedit", "QLoRA", "train", {}, (0, 13, "tokens", False)),
    ("easyedit", "MEND", "train", {}, (8, 12, "slots", False)),
    ("easyedit", "MALMEN", "train", {}, (8, 12, "slots", False)),
    ("easyedit", "ULTRAEDIT", "train", {}, (8, 12, "slots", False)),
    ("easyedit", "UltraEdit", "train", {}, (8, 12, "slots", False)),
    ("easyedit", "DINM", "train", {}, (8, 12, "slots", False)),
    ("kmeng01-rome", "FT", "train", {}, (9, 9, "tokens", False)),
    ("kmeng01-rome", "MEND", "train", {}, (0, 6, "tokens", True)),
    ("kmeng01-rome", "KE", "train", {}, (0, 6, "tokens", True)),
    ("unified", "MEND", "train", {}, (0, 6, "tokens", True)),
]


@pytest.mark.parametrize(("editor_id", "method", "name", "flags", "expected"), SPANS)
def test_label_spans_have_the_values_worked_out_by_hand(
    editor_id: str, method: str, name: str, flags: Mapping[str, str], expected: tuple[int, int, str, bool]
) -> None:
    span = batch_of(editor_id, method, name, **flags).labels
    assert span is not None
    assert (span.first(COUNTS), span.last(COUNTS), span.on, span.masked) == expected


def test_the_objective_decides_what_ft_and_wise_label() -> None:
    for name in ("FT", "FT_uns"):
        assert batch_of("easyedit", name, "train", objective_optimization="prompt_last").rows == "prompt"
        assert batch_of("easyedit", name, "train", objective_optimization="target_new").rows == "prompt+target"
    ft = load_editor("easyedit").methods["FT"]
    assert not any(batch.when and batch.when({"objective_optimization": "promptz_last"}) for batch in ft.batches)


Case = tuple[dict[str, int], list[int], bool]
"""Counts of one row, the columns that the editor labels, and whether pads lie on the left."""


def padded(rows: list[list[str]], left: bool) -> list[list[str]]:
    width = max(map(len, rows))
    return [["pad"] * (width - len(row)) + row if left else row + ["pad"] * (width - len(row)) for row in rows]


def cases(labelled: Callable[[list[str], list[str], int, int], list[int]]) -> Iterator[Case]:
    """Seeded batches of prompt + target under both sides; `labelled` gets row, target row, prompt, prompt_width."""
    rng = random.Random(7)
    for left, _ in product((True, False), range(200)):
        sizes = [(rng.randint(1, 9), rng.randint(1, 5)) for _ in range(rng.randint(1, 5))]
        rows = padded([["p"] * prompt + ["t"] * target for prompt, target in sizes], left)
        targets = padded([["t"] * target for _, target in sizes], left)
        prompt_width = max(prompt for prompt, _ in sizes)
        for (prompt, target), row, target_row in zip(sizes, rows, targets, strict=True):
            counts = {
                "prompt": prompt,
                "target": target,
                "row": prompt + target,
                "mask": prompt + target,
                "width": len(row),
                "pads": row.count("pad"),
                "target_width": len(target_row),
                "target_pads": target_row.index("t"),
                "trailing": 0 if left else row.count("pad"),
                "prompt_width": prompt_width,
                "joined": prompt + target,
                "bare_prompt": prompt,
            }
            yield counts, labelled(row, target_row, prompt, prompt_width), left


def literal_lora(row: list[str], target_row: list[str], prompt: int, prompt_width: int) -> list[int]:
    labels: list[str | None] = list(row)
    pads = row.count("pad")
    labels[pads : pads + prompt] = [None] * len(labels[pads : pads + prompt])
    return [column for column, label in enumerate(labels) if label is not None and row[column] != "pad"]


def literal_head(row: list[str], target_row: list[str], prompt: int, prompt_width: int) -> list[int]:
    return [column for column in range(len(row))[prompt:] if row[column] != "pad"]


def literal_wise(row: list[str], target_row: list[str], prompt: int, prompt_width: int) -> list[int]:
    """The loss starts at the count of the columns that are left out, pads included, less two logits (WISE.py:146, :274)."""
    kept = [column for column in range(len(row))[prompt_width:] if row[column] != "pad"]
    start = len(row) - len(kept) - 1
    return [column for column in kept if column >= start]


def literal_ft(row: list[str], target_row: list[str], prompt: int, prompt_width: int) -> list[int]:
    return list(range(len(row)))[row.count("pad") + prompt :]


def literal_tail(row: list[str], target_row: list[str], prompt: int, prompt_width: int) -> list[int]:
    """The pads of the shorter targets are labels as well: nothing masks them."""
    slots = list(range(len(row)))[:-1][-len(target_row) :]
    return slots if len(slots) == len(target_row) else []


def literal_kmeng_mend(row: list[str], target_row: list[str], prompt: int, prompt_width: int) -> list[int]:
    masked = range(len(row))[: -target_row.count("t") - row.count("pad")]
    return [column for column in range(len(row)) if column not in masked and row[column] != "pad"]


def literal_attention_sum(row: list[str], target_row: list[str], prompt: int, prompt_width: int) -> list[int]:
    """The locate methods: the last columns of the row's real tokens, as if the pads lay on the right."""
    real = len(row) - row.count("pad")
    return list(range(len(row)))[real - target_row.count("t") : real]


def literal_fastedit(row: list[str], target_row: list[str], prompt: int, prompt_width: int) -> list[int]:
    return list(range(len(row)))[-target_row.count("t") - 1 : -1]


@pytest.mark.parametrize(
    ("editor_id", "method", "flags", "literal"),
    [
        ("easyedit", "LoRA", {}, literal_lora),
        ("easyedit", "MELO", {}, literal_head),
        ("easyedit", "WISE", {"objective_optimization": "only_label"}, literal_wise),
        ("easyedit", "FT", {"objective_optimization": "target_new"}, literal_ft),
        ("easyedit", "MEND", {}, literal_tail),
        ("easyedit", "ULTRAEDIT", {}, literal_tail),
        ("kmeng01-memit", "MEND", {}, literal_kmeng_mend),
        ("easyedit", "ROME", {}, literal_attention_sum),
        ("fastedit", "ROME", {}, literal_fastedit),
    ],
)
def test_label_spans_equal_the_editors_slices(
    editor_id: str, method: str, flags: Mapping[str, str], literal: Callable[..., list[int]]
) -> None:
    name = "optimise" if load_editor(editor_id).methods[method].kind == "locate" else "train"
    span = batch_of(editor_id, method, name, **flags).labels
    assert span is not None
    seen = 0
    for counts, expected, left in cases(literal):
        first, last = span.first(counts), span.last(counts)
        if not expected or first < 0:
            continue
        columns = range(first, last + 1)
        if span.masked:
            start = counts["pads"] if left else 0
            real = range(start, start + counts["mask"])
            assert [column for column in real if column not in columns] == expected
        else:
            assert list(columns) == expected
        seen += 1
    assert seen > 500


# -- how rows are made, and sides ----------------------------------------------------------------------------


def test_what_happens_to_the_target() -> None:
    def of(editor_id: str, method: str) -> tuple[str, str, str]:
        found = load_editor(editor_id).methods[method]
        return found.space, found.target_specials, found.head

    assert of("easyedit", "ROME") == ("unless-blank", "none", "decode")
    assert of("easyedit", "R-ROME") == ("unless-blank", "strip-bos-or-unk", "decode")
    for name in ("MEMIT", "MEMIT-FE", "EMMET", "AlphaEdit", "SPHERE", "CORE"):
        assert of("easyedit", name) == ("unless-leading", "none-strip-bos-or-unk", "decode")
    assert of("easyedit", "PMET") == ("unless-leading-if-gpt", "none", "decode")
    assert of("easyedit", "EAMET") == ("unless-leading", "kept-but-first-of-llama", "decode")
    originals = (
        ("kmeng01-rome", "ROME"),
        ("kmeng01-memit", "MEMIT"),
        ("rebuilding-rome", "ROME"),
        ("pmet", "PMET"),
    )
    for editor_id, name in (*originals, ("unified", "ROME")):
        assert of(editor_id, name) == ("unless-leading", "kept", "decode")
    assert of("unified", "EMMET") == of("alphaedit", "ROME") == ("unless-leading", "strip-bos-or-unk", "decode")
    assert of("fastedit", "ROME") == ("never", "none", "text")


def test_who_replaces_the_subject_and_who_wants_a_template() -> None:
    required = {(editor_id, m.name) for editor_id, m in methods() if m.kind == "locate" and m.requires_template}
    located = {(editor_id, m.name) for editor_id, m in methods() if m.kind == "locate"}
    assert located - required == {*(p for p in located if p[0] == "easyedit"), ("alphaedit", "ROME")}
    assert {(editor_id, m.name) for editor_id, m in methods() if m.replaces_always} == {
        ("easyedit", "AlphaEdit"),
        ("easyedit", "SPHERE"),
    }
    assert {editor_id for editor_id, m in methods() if m.needs_space_before_subject} == {
        "kmeng01-rome", "kmeng01-memit", "rebuilding-rome", "pmet",
    }  # fmt: skip


def test_the_size_of_a_padded_batch() -> None:
    assert batch_of("easyedit", "ROME", "keys").size == 128
    assert batch_of("kmeng01-rome", "ROME", "keys").size == 512
    assert batch_of("kmeng01-memit", "ROME", "keys").size == 128
    assert batch_of("rebuilding-rome", "ROME", "keys").size == 512
    assert batch_of("fastedit", "ROME", "keys").size == 512
    for editor_id, method, batch in batches():
        if method.kind == "locate" and batch.name in {"keys", "current"} and method.templates == "groups":
            assert (batch.per, batch.size) == ("run", 128), (editor_id, method.name)


RIGHT_PADDED = {"ROME", "MEMIT", "EMMET", "EAMET", "R-ROME", "AlphaEdit", "CORE", "SPHERE"}


def test_easyedits_side_rules_name_methods_that_exist() -> None:
    editor = load_editor("easyedit")
    left, right = editor.side_rules
    assert (left.set, right.set) == ("left", "right")
    assert set(right.methods) == RIGHT_PADDED
    assert set(left.unless_methods) == RIGHT_PADDED | {"UnKE", "UnKE_ARE", "FT_uns", "LoRA_uns", "MALMEN"}
    assert {*left.unless_methods, *right.methods} <= set(editor.methods)
    # Their arithmetic needs the right side, and EasyEdit's list leaves them out.
    assert not {"MEMIT-FE", "PMET", "SimIE"} & set(left.unless_methods)


def test_methods_that_set_the_side_themselves() -> None:
    own = {(editor_id, m.name): m.sets_side for editor_id, m in methods() if m.sets_side}
    assert own == {
        ("easyedit", "DPO"): "right",
        ("easyedit", "SERAC"): "left",
        ("easyedit", "SERAC_MULTI"): "left",
    }


@pytest.mark.parametrize("editor_id", IDS)
def test_every_framework_says_where_a_side_can_be_set(editor_id: str) -> None:
    editor = load_editor(editor_id)
    assert {place.kind for place in editor.side_places} >= {"caller"}
    if editor_id not in {"easyedit", "fastedit"}:
        assert editor.side_rules == ()
        assert "tokenizer_config" in {place.kind for place in editor.side_places}


def test_fastedit_loads_a_slow_tokenizer_that_pads_left() -> None:
    editor = load_editor("fastedit")
    assert [rule.set for rule in editor.side_rules] == ["left"]
    assert [(family.contains, family.use_fast) for family in editor.families] == [("", False)]
    kl = editor.methods["ROME"].kl_prompts
    assert [prompt.fact_token for prompt in kl] == [None, "last"]
    assert all(prompt.text.count("{}") == 1 for prompt in kl)


@pytest.mark.parametrize(
    ("path", "contains"),
    [
        ("/data/gpt/llama-2", "gpt"),
        ("gpt-3.5-turbo", "gpt-3.5"),
        ("chatglm-api", "chatglm-api"),
        ("thudm/chatglm2-6b", "chatglm2"),
        ("thudm/chatglm3-6b", "chatglm"),
        ("qwen/qwen2.5-7b", "qwen2"),
        ("qwen/qwen3-8b", "qwen3"),
        ("qwen/qwen-7b", "qwen"),
        ("mistralai/mistral-7b", "mistral"),
        ("mistralai/mixtral-8x7b-of-mistralai", "mistral"),
        ("google/gemma-2-9b", None),
    ],
)
def test_the_first_substring_decides_the_family(path: str, contains: str | None) -> None:
    editor = load_editor("easyedit")
    assert next((family.contains for family in editor.families if family.contains in path), None) == contains
    assert editor.unknown_family == "error"


def test_no_family_is_hidden_by_an_earlier_one() -> None:
    for editor_id in IDS:
        names = [family.contains for family in load_editor(editor_id).families]
        assert not [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if a in b], editor_id


# -- bad data ------------------------------------------------------------------------------------------------

GOOD = """
id = "toy"
title = "Toy"
repository = "nobody/toy"
commit = "0"
hparams = "json"

[index.here]
source = "toy.py:1"
subject_last = "prefix_subject - 1"

[methods.A]
kind = "locate"
source = "toy.py:2"
batches = [{ name = "keys", rows = "templates", per = "request", lookup = "here", source = "toy.py:3" }]

[methods.B]
like = "A"
source = "toy.py:4"
"""


def test_the_toy_file_is_sound() -> None:
    toy = parse_editor(GOOD, "toy")
    assert toy.methods["B"].source == "toy.py:4"
    assert toy.methods["B"].batches == toy.methods["A"].batches


@pytest.mark.parametrize(
    ("old", "new", "place", "what"),
    [
        ('commit = "0"', 'commit = "0"\nside_of = "left"', "rules/editors/toy.toml", "unknown key side_of"),
        ("[index.here]", '[index.here]\nsubject_lst = "1"', "[index.here]", "unknown key subject_lst"),
        ('kind = "locate"', 'kind = "locate"\nspaces = "never"', "[methods.A]", "unknown key spaces"),
        ('lookup = "here"', 'lookup = "here", look = "x"', "[methods.A].batches[0]", "unknown key look"),
        ('lookup = "here"', 'lookup = "there"', "[methods.A].batches[0].lookup", "no [index.there]"),
        ('rows = "templates"', 'rows = "template"', "[methods.A].batches[0].rows", "'template'"),
        ('name = "keys"', 'name = "key"', "[methods.A].batches[0].name", "'key'"),
        ('kind = "locate"', 'kind = "locate"\nspace = "sometimes"', "[methods.A].space", "'sometimes'"),
        ('like = "A"', 'like = "Z"', "[methods.B].like", "no other method Z"),
        (
            "prefix_subject - 1",
            "prefix_subjet - 1",
            "[index.here].subject_last",
            "unknown name prefix_subjet",
        ),
        ("prefix_subject - 1", "prefix_subject -", "[index.here].subject_last", "no expression"),
        ("prefix_subject - 1", "len(prefix)", "[index.here].subject_last", "Call is not allowed"),
        ("prefix_subject - 1", "prefix ** 9", "[index.here].subject_last", "Pow is not allowed"),
        ("prefix_subject - 1", "row.prepared", "[index.here].subject_last", "Attribute is not allowed"),
        (
            'lookup = "here"',
            'lookup = "here", labels = { first = "masked", last = "0" }',
            "[methods.A].batches[0].labels.first",
            "unknown name masked",
        ),
        (
            'lookup = "here"',
            'lookup = "here", labels = { first = "0", last = "0", of = "x" }',
            "[methods.A].batches[0].labels",
            "unknown key of",
        ),
        (
            'lookup = "here"',
            'lookup = "here", when = "width > 3"',
            "[methods.A].batches[0].when",
            "unknown name width",
        ),
        ('id = "toy"', 'id = "toys"', "rules/editors/toy.toml", "'toys'"),
        ('id = "toy"', "id = toy", "rules/editors/toy.toml", "line 2"),
    ],
)
def test_bad_data_is_named_with_its_place(old: str, new: str, place: str, what: str) -> None:
    assert old in GOOD
    with pytest.raises(EditorDataError) as caught:
        parse_editor(GOOD.replace(old, new, 1), "toy")
    assert place in str(caught.value)
    assert what in str(caught.value)


def test_expressions_are_compiled_and_read_only_what_they_name() -> None:
    for _, _, batch in batches():
        for entry in batch.lookup.by_fact_token.values() if batch.lookup else ():
            if isinstance(entry, Expression):
                assert isinstance(entry({name: COUNTS[name] for name in entry.names}), int)


def test_the_keys_that_tell_a_framework_apart() -> None:
    """All of a framework's keys must be there; EasyEdit's, which share names with the originals, have alg_name as well."""
    recognised = {editor_id: set(load_editor(editor_id).recognise_keys) for editor_id in IDS}
    assert {editor_id: keys for editor_id, keys in recognised.items() if keys} == {
        "easyedit": {"alg_name"},
        "pmet": {"rewrite_module_tmps", "nll_loss_factor"},
        "rebuilding-rome": {"enable_prompt_keys", "enable_random_prefix_keys", "original_implementation"},
        "unified": {"calculate_objective_value"},
    }
