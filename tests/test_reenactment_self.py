"""The oracle of the tests, tested: known answers on toy tokenizers, executed facts, and its broken copies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from .reenactment import BATCH_EDIT, METHODS, Fast, Reenactment, Row, SpecialTokens, reenact
from .reenactment.rows import Broken

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
FIXTURES = ROOT / "fixtures" / "shipped"

PAD, UNK, BOS, EOS = 0, 1, 2, 3


@dataclass
class Words:
    """A tokenizer of words between white space; decoding puts a space before each word, or between them."""

    bos: bool = False
    eos: bool = False
    keeps_space: bool = True
    class_name: str = ""
    bos_switch: bool = True

    def __post_init__(self) -> None:
        self.names = ["<pad>", "<unk>", "<s>", "</s>"]
        self.special = SpecialTokens(BOS if self.bos else None, EOS, UNK, PAD)

    def spans(self, text: str) -> list[tuple[int, int]]:
        found, at = [], 0
        for word in text.split():
            start = text.index(word, at)
            at = start + len(word)
            found.append((start, at))
        return found

    def number(self, word: str) -> int:
        if word not in self.names:
            self.names.append(word)
        return self.names.index(word)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = [self.number(text[start:end]) for start, end in self.spans(text)]
        if not add_special_tokens:
            return ids
        return [BOS] * self.bos + ids + [EOS] * self.eos

    def decode(self, ids: Sequence[int]) -> str:
        text = "".join(" " + self.names[token] for token in ids)
        return text if self.keeps_space else text[1:]

    def offsets(self, text: str) -> list[tuple[int, int]] | None:
        return [(0, 0)] * self.bos + self.spans(text) + [(0, 0)] * self.eos


@dataclass
class Bytes:
    """A token per UTF-8 byte; `lie` shifts every span by one character."""

    lie: bool = False
    class_name: str = ""
    bos_switch: bool = True

    def __post_init__(self) -> None:
        self.special = SpecialTokens(pad=256)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(token for token in ids if token < 256).decode("utf-8", errors="replace")

    def offsets(self, text: str) -> list[tuple[int, int]] | None:
        shift = int(self.lie)
        return [(at + shift, at + 1 + shift) for at, char in enumerate(text) for _ in char.encode()]


def word(tok: Words, row: Row, column: int | None) -> str | None:
    return None if column is None else tok.names[row.ids[column]]


def run(
    tok: Any,
    request: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    templates: Any = ("{}",),
    framework: str = "easyedit",
    method: str = "ROME",
    fact: str = "subject_last",
    side: Any = "left",
    **more: Any,
) -> Reenactment:
    requests = [request] if isinstance(request, Mapping) else request
    return reenact(
        tok,
        framework=framework,
        method=method,
        fact_token=fact,
        side=side,
        run=more.pop("run", "edit"),
        requests=requests,
        templates=templates,
        **more,
    )


# --- the executed demonstration ----------------------------------------------------------------------------

TOWER = {"prompt": "{} is located in", "subject": "Eiffel Tower", "target_new": "Paris Rome"}
TEMPLATES = ["{}", "Therefore I know . {}", "Because . {}"]
FACTS = ["subject_last", "subject_first", "subject_first_after_last", "last"]

DEMO: dict[tuple[str, int], tuple[list[str], list[str]]] = {
    # (side, row): the words hit for each of FACTS, and the words the label slots sit on; row 3 is the KL row
    ("right", 0): (["Tower", "in", "is", "<pad>"], ["in", "Paris"]),
    ("right", 1): (["Tower", "Eiffel", "is", "Paris"], ["in", "Paris"]),
    ("right", 3): (["Tower", "<pad>", "is", "<pad>"], []),
    ("left", 0): (["<pad>", "Eiffel", "<pad>", "Paris"], ["Eiffel", "Tower"]),
    ("left", 1): (["Tower", "Eiffel", "is", "Paris"], ["in", "Paris"]),
    ("left", 2): ([".", "Eiffel", "Eiffel", "Paris"], ["is", "located"]),
    ("left", 3): (["<pad>", "Eiffel", "<pad>", "a"], []),
}


@pytest.mark.parametrize(("side", "row"), DEMO)
def test_the_demonstration_with_three_templates(side: str, row: int) -> None:
    hit, labelled = DEMO[side, row]
    tok = Words()
    for fact, expected in zip(FACTS, hit, strict=True):
        done = run(tok, TOWER, [["{}"], TEMPLATES[1:]], method="MEMIT", fact=fact, side=side)
        found = [r for r in done.rows if r.batch == "optimise" and r.row == row]
        places = [r for r in found if r.kind in ("lookup", "kl")]
        assert [word(tok, r, r.editor) for r in places] == [expected]
        labels = [r for r in found if r.kind == "label"]
        assert [word(tok, r, at) for r in labels for at, _ in r.editor_labels] == labelled
        assert [r.labels_right for r in labels] == [labelled == ["in", "Paris"]] * len(labels)


def test_the_truth_of_the_demonstration() -> None:
    tok = Words()
    true = {
        "subject_last": "Tower",
        "subject_first": "Eiffel",
        "subject_first_after_last": "is",
        "last": "in",
    }
    for side in ("left", "right"):
        for fact, expected in true.items():
            done = run(tok, TOWER, TEMPLATES, fact=fact, side=side)
            for row in done.rows:
                if row.kind != "label":
                    wanted = "a" if (fact, row.kind) == ("last", "kl") else expected
                    assert word(tok, row, row.truth) == wanted
            assert not done.disagreements
            assert not done.dishonest


# --- facts of the editors ----------------------------------------------------------------------------------


def test_left_padding_leaves_only_the_longest_rows_right() -> None:
    done = run(Words(), TOWER, TEMPLATES, side="left")
    for row in done.rows:
        assert row.drifts == (row.pads > 0)
        if row.editor is not None and row.truth is not None:
            assert row.truth - row.editor == row.pads
    assert {row.pads for row in done.rows if row.batch == "value"} == {0}
    assert not any(row.drifts for row in run(Words(), TOWER, TEMPLATES, side="right").rows)


def test_a_first_token_has_no_right_side_in_easyedit() -> None:
    for side in ("left", "right"):
        assert any(row.drifts for row in run(Words(), TOWER, TEMPLATES, fact="subject_first", side=side).rows)
        assert any(row.drifts for row in run(Words(), TOWER, TEMPLATES, fact="last", side=side).rows)
    kmeng = run(Words(), TOWER, TEMPLATES, framework="kmeng01-rome", fact="subject_first", side="right")
    assert not any(row.drifts for row in kmeng.rows)


def test_last_in_the_keys_of_memit_is_an_exception() -> None:
    done = run(Words(), TOWER, TEMPLATES, method="MEMIT", fact="last", side="left")
    assert {row.batch for row in done.rows if row.raises} == {"keys", "current"}
    assert all(row.editor is None and row.truth is not None for row in done.rows if row.raises)
    assert run(Words(), TOWER, TEMPLATES, method="EAMET", fact="last").raised.keys() == {0}


def test_fastedit_is_right_on_the_left_and_wrong_on_the_right() -> None:
    request = {"prompt": "{} is located in", "subject": "Eiffel Tower", "target": " Paris Rome"}
    for fact in FACTS:
        left = run(Words(), request, TEMPLATES, framework="fastedit", fact=fact, side="left")
        right = run(Words(), request, TEMPLATES, framework="fastedit", fact=fact, side="right")
        assert [row.row for row in left.rows if row.kind == "kl"] == [3, 4]
        if fact == "last":  # it stands behind the target's text in the batch, and is -1
            assert all(row.drifts for row in left.rows if row.kind == "lookup")
        else:
            assert not any(row.drifts for row in left.rows)
        assert any(row.drifts for row in right.rows)


def test_a_bos_shifts_kmengs_pieces_by_one_and_stays_in_the_targets() -> None:
    prompt = {**TOWER, "prompt": "{} is located in the"}
    kmeng = run(Words(bos=True), prompt, TEMPLATES, framework="kmeng01-rome", side="right")
    for row in kmeng.rows:
        if row.kind != "label":
            assert row.truth is not None
            assert row.editor == row.truth + 1
    assert all(row.bos_in_labels for row in kmeng.rows if row.kind == "label")
    easyedit = run(Words(bos=True), prompt, TEMPLATES, side="right")
    assert not any(row.drifts or row.bos_in_labels for row in easyedit.rows)


def test_an_eos_behind_the_text_makes_the_index_one_too_big() -> None:
    for row in run(Words(eos=True), TOWER, side="right").rows:
        if row.kind in ("lookup", "kl", "key", "value"):
            assert row.truth is not None
            assert row.editor == row.truth + 1


def test_a_target_that_loses_its_space_when_decoded_is_scored_on_other_tokens() -> None:
    for target, right in (("Paris", True), ("Paris Rome", False)):
        done = run(Words(keeps_space=False), {**TOWER, "target_new": target}, TEMPLATES, side="right")
        assert {row.labels_right for row in done.rows if row.kind == "label"} == {right}
        assert not any(row.drifts for row in done.rows if row.kind != "label")


def test_keys_across_requests_are_padded_together() -> None:
    requests = [TOWER, {"prompt": "{} is in", "subject": "Big Ben", "target_new": "London"}]
    apart = run(Words(), requests, [["{}"]], method="MEMIT", side="left")
    together = run(Words(), requests, [["{}"]], method="MEMIT", side="left", run="batch")
    assert not any(row.drifts for row in apart.rows if row.batch in ("keys", "current"))
    drifting = [(row.request, row.batch) for row in together.rows if row.drifts and row.batch != "optimise"]
    assert drifting == [(1, "keys"), (1, "current")]
    many = run(Words(), [requests[1]] * 127 + [TOWER, requests[1]], [["{}"]], method="MEMIT", run="batch")
    widths = [row.width for row in many.rows if row.batch == "keys"]
    assert widths == [5] * 128 + [4]  # chunks of 128


def test_r_rome_reads_its_templates_one_by_one() -> None:
    done = run(Words(), TOWER, TEMPLATES, method="R-ROME", side="left")
    assert [(row.row, row.pads) for row in done.rows if row.batch == "value"] == [(0, 0), (1, 0), (2, 0)]
    alone = {"enable_prompt_keys": True, "enable_random_prefix_keys": False}
    done = run(Words(), TOWER, TEMPLATES, method="R-ROME", side="left", hparams=alone)
    assert [row.row for row in done.rows if row.batch in ("keys", "value")] == [0, 0]
    both = {"enable_prompt_keys": True}
    assert run(Words(), TOWER, TEMPLATES, method="R-ROME", hparams=both).raised.keys() == {0}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({**TOWER, "prompt": "It is located in"}, "AssertionError"),
        ({**TOWER, "prompt": "Eiffel Tower and Eiffel Tower"}, "IndexError"),
        ({**TOWER, "prompt": "{} is {x}"}, "KeyError"),
        ({"prompt": "{} is", "target_new": "x"}, "KeyError"),
        ({"prompt": "{} is", "subject": "x"}, "KeyError"),
    ],
)
def test_requests_on_which_rome_raises(request_: Mapping[str, Any], reason: str) -> None:
    done = run(Words(), [request_, TOWER], TEMPLATES)
    assert done.raised.keys() == {0}
    assert done.raised[0].startswith(reason)
    assert {row.request for row in done.rows} == {1}


def test_a_training_batch_goes_on_without_a_request_that_raises() -> None:
    for method in ("LoRA", "FT", "MEND", "WISE", "UnKE", "QLoRA"):
        bad = {"prompt": "{} is", "subject": "x"}
        good = {**LONG, "loc_prompt": "q"}
        done = run(Words(), [good, bad, good], method=method, run="batch")
        assert done.raised.keys() == {1}
        assert {row.request for row in done.rows} == {0, 2}


def test_what_cannot_be_batched() -> None:
    for method in METHODS["easyedit"]:
        done = run(Words(), [{**TOWER, "ground_truth": "x"}] * 2, TEMPLATES, method=method, run="batch")
        assert done.rows or done.raised
        if method in ("ROME", "R-ROME", "GRACE", "DEFER", "MELO", "KN", "IKE"):
            assert method not in BATCH_EDIT
            assert done.raised.keys() == {0, 1}


# --- training batches, with the figures that were executed on the real code ---------------------------------

LONG = {"prompt": "a b c", "subject": "a", "target_new": "T1 T2"}
SHORT = {"prompt": "a", "subject": "a", "target_new": "T3"}


def trained(method: str, side: str, **more: Any) -> list[list[str]]:
    """The words each row labels, the expected ids as words, and whether that is right."""
    tok = Words()
    done = run(tok, more.pop("requests", [LONG, SHORT]), method=method, side=side, run="batch", **more)
    return [
        [word(tok, row, at) or "" if at < row.width else "-" for at, _ in row.editor_labels]
        + ["|"]
        + [tok.names[token] for _, token in row.editor_labels]
        + ["right" if row.labels_right else "wrong"]
        for row in done.rows
        if row.kind == "label"
    ]


def test_lora_counts_pads_and_prompt_from_the_left() -> None:
    assert trained("LoRA", "left")[1] == ["T3", "|", "T3", "right"]
    # a at column 0 is masked by none, but never scored: what is left is nothing of the target
    assert trained("LoRA", "right", requests=[LONG, {**SHORT, "prompt": "a b"}])[1][-1] == "wrong"


def test_fine_tuning_needs_the_right_for_one_objective_and_the_left_for_the_other() -> None:
    for objective, good, bad in (("prompt_last", "right", "left"), ("target_new", "left", "right")):
        assert [row[-1] for row in trained("FT", good, objective=objective)] == ["right", "right"]
        assert trained("FT", bad, objective=objective)[1][-1] == "wrong"
        assert trained("FT", bad, objective=objective, requests=[SHORT])[0][-1] == "right"


def test_mend_lays_padded_targets_over_the_tail() -> None:
    assert trained("MEND", "left")[1] == ["a", "T3", "|", "<pad>", "T3", "wrong"]
    assert trained("MEND", "right")[1] == ["<pad>", "<pad>", "|", "T3", "<pad>", "wrong"]
    assert trained("MEND", "left", requests=[SHORT]) == [["T3", "|", "T3", "right"]]
    assert [row[-1] for row in trained("SERAC", "left")] == [
        "right",
        "right",
    ]  # pads of the labels are ignored


def test_wise_slices_up_to_the_padded_width_of_the_prompts() -> None:
    def rows(side: str, local: str) -> list[list[str]]:
        request = {**LONG, "loc_prompt": local}
        return trained("WISE", side, requests=[request], templates=["{}", "x y z {}"])

    assert rows("left", "q")[0] == ["T1", "T2", "|", "T1", "T2", "right"]
    assert rows("left", "q q q q q q q q q q")[0] == [
        "b",
        "c",
        "T1",
        "T2",
        "|",
        "b",
        "c",
        "T1",
        "T2",
        "wrong",
    ]
    assert rows("right", "q")[0] == ["|", "wrong"]


def test_grace_and_defer_on_one_row() -> None:
    tok = Words(bos=True)
    grace = run(tok, LONG, method="GRACE", side="left").rows
    assert [word(tok, row, row.editor) for row in grace] == ["c", "T1"]
    defer = run(tok, LONG, method="DEFER", side="left").rows
    assert [word(tok, row, row.editor) for row in defer] == ["T2", "T1"]
    assert not any(row.drifts for row in grace + defer)


def test_qlora_trains_pads() -> None:
    for side in ("left", "right"):
        rows = run(Words(), LONG, method="QLoRA", side=side, hparams={"max_length": 8}).rows
        assert [len(row.editor_labels) for row in rows] == [7]
        assert all(row.drifts and row.width == 8 for row in rows)


def test_dpo_sets_its_own_side() -> None:
    requests = [{**LONG, "target_neg": "N1"}, {**SHORT, "target_neg": "N2"}]
    for side in ("left", "right"):
        rows = run(Words(), requests, method="DPO", side=side, run="batch").rows
        assert [(row.request, row.row) for row in rows] == [(0, 0), (1, 0), (0, 1), (1, 1)]
        assert not any(row.drifts for row in rows)


def test_a_bos_is_trained_where_targets_keep_their_special_tokens() -> None:
    for method in ("MEND", "ULTRAEDIT", "MALMEN", "IKE"):
        rows = run(Words(bos=True), LONG, method=method, side="left").rows
        assert [(row.labels_right, row.bos_in_labels) for row in rows] == [(False, True)]
    llama = run(Words(bos=True), LONG, method="IKE", side="left", hparams={"model_name": "llama"}).rows
    assert [row.labels_right for row in llama] == [True]


def test_ultraedit_drops_what_does_not_fill_a_chunk() -> None:
    requests = [LONG, SHORT, LONG]
    done = run(Words(), requests, method="ULTRAEDIT", run="batch", hparams={"batch_size_once": 2})
    assert done.raised.keys() == {2}


def test_unke_counts_the_mask_and_its_windows_count_from_the_end() -> None:
    requests = [{"question": "a b c", "answer": " T1 T2 T3 T4"}, {"question": "a", "answer": " T5 T6"}]
    for method, window in (("UnKE", {}), ("UnKE_ARE", {"window_size": 3, "overlap": 1})):
        for side, drifting in (("right", set()), ("left", {1})):
            rows = run(Words(), requests, method=method, side=side, run="batch", hparams=window).rows
            assert not any(row.drifts for row in rows if row.batch == "optimise")
            assert {row.request for row in rows if row.drifts} == drifting


def test_a_window_of_nothing_but_overlap_is_scored_one_column_late() -> None:
    """The last window lies in the text already, and its label on the very token it should predict."""
    request = {"question": "a", "answer": " T5 T6 T7"}
    rows = run(Words(), request, method="UnKE_ARE", hparams={"window_size": 3, "overlap": 1}).rows
    assert [(row.batch, row.row) for row in rows if row.drifts] == [
        ("optimise", 1),
        ("optimise", 1),
        ("keys", 1),
    ]


# --- the truth ---------------------------------------------------------------------------------------------

TOKYO = {"prompt": "{} is in", "subject": "東京", "target_new": "Japan"}


def test_the_last_byte_of_a_character() -> None:
    done = run(Bytes(), TOKYO, side="right")
    assert {row.truth for row in done.rows if row.kind != "label"} == {5}
    assert {row.truth for row in run(Bytes(), TOKYO, fact="subject_first", side="right").rows[:1]} == {0}
    assert not done.disagreements


def test_lying_offsets_do_not_move_the_truth() -> None:
    honest, lying = run(Bytes(), TOKYO), run(Bytes(lie=True), TOKYO)
    assert [row.truth for row in lying.rows] == [row.truth for row in honest.rows]
    assert lying.dishonest
    assert lying.disagreements


def test_spaces_at_the_end_of_a_prompt_may_predict_the_target() -> None:
    """The fact token `last` is the token of the last visible character; a label may follow the bare space."""
    request = {"prompt": "a b ", "subject": "a", "target_new": "T"}
    done = run(Bytes(), request, side="right")
    label = next(row for row in done.rows if row.kind == "label")
    assert (label.editor, label.truth, label.labels_right) == (3, 3, True)
    lookup = next(row for row in run(Bytes(), request, fact="last", side="right").rows if row.kind == "lookup")
    assert (lookup.editor, lookup.truth) == (3, 2)


@pytest.mark.parametrize("broken", get_args(Broken))
def test_every_broken_copy_differs(broken: Broken) -> None:
    def rows(tok: Any, how: Broken | None) -> list[Row]:
        requests = [TOKYO, {**TOKYO, "subject": "Kyoto"}]
        return run(tok, requests, ["{}", "The sun . {}"], method="MEMIT", side="left", broken=how).rows

    assert any(rows(tok, broken) != rows(tok, None) for tok in (Words(bos=True), Bytes()))


def test_every_method_can_be_called() -> None:
    request = {
        **TOWER,
        "ground_truth": "x",
        "target_neg": "y",
        "loc_prompt": "z",
        "prompt": "Eiffel Tower is in",
        "locality": {"general knowledge constraint": {"prompt": "a", "ground_truth": "b"}},
    }
    for framework, methods in METHODS.items():
        for method in methods:
            if framework != "easyedit":
                request = {**TOWER}
            done = run(Words(), request, TEMPLATES, framework=framework, method=method)
            assert done.rows, (framework, method, done.raised)
    with pytest.raises(ValueError, match="no re-enactment"):
        run(Words(), TOWER, method="ROMEO")


# --- real and shipped tokenizers, where they are ------------------------------------------------------------


def test_counterfact_on_the_right_and_on_the_left() -> None:
    data = SHARED / "data" / "counterfact_500.json"
    if not data.exists():
        pytest.skip("the shared data are not here")
    requests = json.loads(data.read_text("utf-8"))
    templates = ["{}", "The quick brown fox. {}", "Therefore, I have been. {}"]
    # requests with labels off their tokens under right padding (the hub's shape as its bare file reads)
    for name, expected in (("gpt2", 0), ("mistral-v1", 177), ("mistral-v1-hub-shape", 500)):
        tok = Fast.from_folder(SHARED / "tokenizers" / name)
        right = run(tok, requests, templates, side="right")
        assert len({row.request for row in right.rows if row.drifts}) == expected
        assert not any(row.drifts for row in right.rows if row.kind != "label")
        left = run(tok, requests[:100], templates, side="left")
        assert len({row.request for row in left.rows if row.drifts}) == 100
        assert not right.disagreements
        assert not left.disagreements


def test_the_two_oracles_agree_on_the_shipped_tokenizers() -> None:
    folders = sorted(path for path in (FIXTURES / "tokenizers").glob("*") if (path / "tokenizer.json").exists())
    probes = sorted((FIXTURES / "probes").glob("*.json"))
    if not folders or not probes:
        pytest.skip("no tokenizers or probes are shipped yet")
    requests = [record for path in probes for record in json.loads(path.read_text("utf-8"))]
    for folder in folders:
        tok = Fast.from_folder(folder)
        found = {
            fact: run(tok, requests, ["{}", "因为. {}"], method=method, fact=fact, side="right").disagreements
            for method, fact in (("ROME", "subject_last"), ("ROME", "subject_first"), ("LoRA", "last"))
        }
        assert any(found.values()) == folder.name.startswith("lying"), folder.name
