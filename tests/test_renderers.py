"""What every renderer promises: complete, in order, aligned, safe with hostile text, and valid in its format."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import padcheck
from padcheck.diagnostics import Finding, Fix, JobError, Place, Related, RequestRef, TextEdit
from padcheck.renderers import RENDERERS, html, json_, strips, svg, text, width, wording
from padcheck.reports import PreflightReport, Remedy, Report, RowView, SideOutcome, TokenCell

SCHEMAS = Path(padcheck.__file__).parent / "schemas"
TOOL = {"name": "padcheck", "version": "0.0.test"}
HOSTILE = "</td><script>x()</script>\x1b[31mred\x9b1m\u202eevil|a\nb\r\tc]]>\u2028%::error::\x00\x07"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
FORMATS = [*RENDERERS, "html"]


def rendered(form: str, report: Report, **options: Any) -> str:
    return html.render(report) if form == "html" else RENDERERS[form](report, **options)


def row(
    tokens: list[str],
    editor: int | None,
    truth: int | None,
    pads: int = 0,
    special: tuple[int, ...] = (),
    **fields: Any,
) -> RowView:
    cells = [TokenCell(column, "<|endoftext|>", pad=True) for column in range(pads)]
    cells += [TokenCell(pads + at, token, special=at in special) for at, token in enumerate(tokens)]
    view = RowView(
        request=0,
        case_id=None,
        batch="optimise",
        row=0,
        kind="lookup",
        editor=editor,
        truth=truth,
        drift=None if editor is None or truth is None else editor - truth,
        cause="pads",
        oracle="offsets",
        width=len(cells),
        pads=pads,
        text="".join(tokens),
        cells=tuple(cells),
    )
    return view.replace(**fields)


ENGLISH = ["The", "Ġmother", "Ġtongue", "Ġof", "ĠDan", "ielle", "Ġis"]


def findings() -> list[Finding]:
    span = Place("hparams/gpt2-xl.yaml", 3, 5, 3, 9)
    return [
        Finding(
            "PAD101",
            "lookup-shifted-by-pads",
            "error",
            "The lookup is shifted.",
            place=span,
            remedy="Pad on the right.",
            message_zh="查找位置偏移。",
            evidence={"key": "k", "requests": 12, "first_ids": list(range(20)), "worst": [{"row": 1}]},
            fix=Fix("set the side", (TextEdit(span, "right"),), "unsafe"),
            related=(Related("set here", Place("tokenizer_config.json", 2)),),
        ),
        Finding("REQ103", "subject-inside-word", "warning", "It is inside a word.", "medium", request=RequestRef(4, "c-4")),
        Finding("IDX111", "oracle-fallback", "note", "Decoding was used.", place=Place("nb.ipynb", 2, 1, cell=3)),
        Finding("TGT101", "target-retokenised", "error", "SUPPRESSED.", place=Place("a.yaml", 1), suppressed=True),
    ]


def preflight(**fields: Any) -> PreflightReport:
    values: dict[str, Any] = {
        "findings": findings(),
        "inspected": 3,
        "verdict": "fail",
        "framework": "easyedit",
        "framework_title": "EasyEdit",
        "framework_because": "inferred from alg_name",
        "method": "ROME",
        "fact_token": "subject_last",
        "hparams_path": "hparams/gpt2-xl.yaml",
        "requests_path": "requests.json",
        "tokenizer_path": "models/gpt2",
        "tokenizer_how": "tokenizer.json, as transformers 5 reads it",
        "templates": "stand-ins of 5 and 10 tokens",
        "padding_side": SideOutcome("left", "--padding-side left was given", ("the folder names no side",)),
        "requests_checked": 12,
        "requests_drifting": 12,
        "drifting_ids": [0, "c-1"],
        "rows_checked": 264,
        "rows_drifting": 252,
        "by_cause": {"pads": 240, "retokenised": 12},
        "by_kind": {"lookup": 240, "label": 12},
        "worst": [row(ENGLISH, 5, 9, pads=4)],
        "remedies": [Remedy("Pad on the right.", "the caller", 'tok.padding_side = "right"', verified=True)],
        "seconds": 0.5,
    }
    return PreflightReport("preflight", TOOL, **(values | fields))


def check(**fields: Any) -> Report:
    values: dict[str, Any] = {"findings": findings(), "inspected": 3}
    return Report("check", TOOL, **(values | fields))


# --- Width: what terminal columns text fills -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "columns"),
    [
        ("", 0),
        ("plain", 5),
        ("東京", 4),
        ("한글", 4),
        ("\u1112\u1161\u11ab", 2),  # the same first syllable, in its letters
        ("ｱ", 1),
        ("Ａ", 2),
        ("é", 1),
        ("e\u0301", 1),
        ("مرحبا", 5),
        ("مَ", 1),
        ("😀", 2),
        ("👍🏽", 2),
        ("👩\u200d👩\u200d👧\u200d👦", 2),
        ("🏳\ufe0f\u200d🌈", 2),
        ("🇩🇪", 2),
        ("🇩🇪🇫🇷", 4),
        ("❤", 1),
        ("❤\ufe0f", 2),
        ("1\ufe0f\u20e3", 2),
        ("\u2068مرحبا\u2069", 5),
        ("a🧑🏽\u200d🚀b", 4),
    ],
)
def test_display_width(shown: str, columns: int) -> None:
    assert width.display_width(shown) == columns
    assert "".join(width.clusters(shown)) == shown


@pytest.mark.parametrize(
    ("text_in", "text_out"),
    [
        ("plain text", "plain text"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31m\x9b\x7f\x00", r"\x1b[31m\x9b\x7f\x00"),
        ("\u202eevil\u2066\u200f", r"\u202eevil\u2066\u200f"),
        ("\u2028\ufeff\u200b\u00ad", r"\u2028\ufeff\u200b\xad"),
        ("\ud83d", r"\ud83d"),
        ("\U000e0067", r"\U000e0067"),
        ("\u0301a", "\u25cc\u0301a"),
        ("a\u0301", "a\u0301"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("👩\u200d", r"👩\u200d"),
        ("\u200d🚀", r"\u200d🚀"),
        ("❤\ufe0f", "❤\ufe0f"),
        ("a\ufe0f", r"a\ufe0f"),
        ("東京 مرحبا", "東京 مرحبا"),
    ],
)
def test_escape(text_in: str, text_out: str) -> None:
    assert width.escape(text_in) == text_out
    assert width.escape(text_out) == text_out


def test_escape_leaves_nothing_that_a_terminal_obeys() -> None:
    for number in (*range(0xE001), *range(0xFE00, 0x11000), *range(0xE0000, 0xE0200)):
        if unicodedata.category(chr(number)) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
            assert width.escape(f"a{chr(number)}b").isascii(), hex(number)


@pytest.mark.parametrize(
    ("plain", "isolated"),
    [
        ("no need", "no need"),
        ("a مرحبا b", "a \u2068مرحبا\u2069 b"),
        ("a مرحبا بالعالم!", "a \u2068مرحبا بالعالم\u2069!"),
        ("שלום abc שלום", "\u2068שלום\u2069 abc \u2068שלום\u2069"),
    ],
)
def test_isolate(plain: str, isolated: str) -> None:
    assert width.isolate(plain) == isolated


@pytest.mark.parametrize("sample", ["<|endoftext|>", "東京は日本の首都です", "a👩\u200d🚀b👍🏽c❤\ufe0fd", "abc"])
@pytest.mark.parametrize("limit", range(1, 16))
def test_clip_fits_and_keeps_both_ends(sample: str, limit: int) -> None:
    clipped = width.clip(sample, limit)
    assert width.display_width(clipped) <= limit
    if clipped != sample:
        head, tail = clipped.split(width.ELLIPSIS)
        assert sample.startswith(head)
        assert sample.endswith(tail)


@pytest.mark.parametrize("limit", [8, 20, 33])
@pytest.mark.parametrize(
    "sample", ["the quick brown fox jumps", "中国的首都是哪里 then English words", "x" * 50, "", "a  b"]
)
def test_fold_loses_nothing_and_fits(sample: str, limit: int) -> None:
    lines = width.fold(sample, limit)
    assert all(width.display_width(line) <= limit for line in lines)
    assert "".join(lines).replace(" ", "") == sample.replace(" ", "")


# --- Strips: tokens made readable -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "labels"),
    [
        (["The", "Ġcat", "Ċ"], ["The", "␣cat", r"\n"]),
        (["æĿ±", "äº", "¬", "Ġis"], ["東", "<E4 BA>", "<AC>", "␣is"]),
        (["▁The", "▁▁cat", "<0xE6>", "<0x9D>", "<0xB1>"], ["␣The", "␣␣cat", "<E6>", "<9D>", "<B1>"]),
        (["The", " cat", " is "], ["The", "␣cat", "␣is␣"]),
        (["Ġgħajn", " Malti"], ["Ġgħajn", "␣Malti"]),  # Maltese, decoded: its Ġ is a letter
        (["中国", "的", "·"], ["中国", "的", "·"]),
        (["a\x1b[31m", "\ud800", "|", "<b>"], [r"a\x1b[31m", r"\ud800", "|", "<b>"]),
    ],
)
def test_readable_tokens(tokens: list[str], labels: list[str]) -> None:
    assert strips.Strip(row(tokens, 0, 0), 20).labels == labels


def test_special_tokens_and_pads_are_not_decoded() -> None:
    strip = strips.Strip(row(["Ġ<s>", "Ġcat"], 0, 1, pads=1, special=(0,)), 20)
    assert strip.labels == ["[pad]", "Ġ<s>", "␣cat"]


@pytest.mark.parametrize(
    ("tokens", "characters"),
    [
        (["æĿ±", "äº", "¬", "Ġis"], [None, "京", "京", None]),
        (["<0xE6>", "<0x9D>", "<0xB1>", "<0xE4>", "<0xBA>", "<0xAC>", "▁is"], [*"東東東京京京", None]),
        (["<0x9D>", "▁is"], [None, None]),
    ],
)
def test_part_of_names_the_character(tokens: list[str], characters: list[str | None]) -> None:
    strip = strips.Strip(row(tokens, 0, 0), 20)
    assert [strip.part_of(column) for column in range(len(tokens))] == characters


def test_the_marked_columns_are_always_shown() -> None:
    strip = strips.Strip(row(["x"] * 5000, 4000, 4990, pads=4000), 20)
    assert strip.columns(lambda columns: len(columns) <= 1) == [4000, 4990]
    chosen = strip.columns(lambda columns: len(columns) <= 8)
    assert {0, 3999, 4000, 4001, 4989, 4990, 4991, 8999} == set(chosen)


# --- Text --------------------------------------------------------------------------------------------------------------

WIDE_ROWS = {
    "cjk": row(["東京", "は", "日本", "の", "首都"], 1, 3),
    "emoji": row(["a", "👩\u200d👩\u200d👧\u200d👦", "❤\ufe0f", "🇩🇪", "👍🏽", "ux", "Ġis"], 2, 5),
    "combining": row(["e\u0301", "\u0301", "कि", "한", "ux"], 0, 4),
    "arabic": row(["▁السلام", "▁عليكم", "ux", "▁is"], 0, 2),
    "hostile": row(["a\nb", "\x1b[31m", "\u202e", "|", "ux"], 1, 4),
    "pads": row(ENGLISH, 5, 12, pads=7),
    "long": row([f"Ġword{number}" for number in range(60)], 3, 57),
    "longer than the line": row(["x" * 300, "Ġis"], 0, 1),
}


def column_starts(line: str) -> dict[int, str]:
    """Terminal column -> what starts there, measured without `padcheck`: every cell is cut at single spaces."""
    starts, column = {}, 0
    for word in line.split(" "):
        starts[column] = word
        column += measured(word) + 1
    return starts


def measured(word: str) -> int:
    """Columns of a word, by the sequences that this file uses: an independent, much cruder count than `width`'s."""
    for sequence in ("👩\u200d👩\u200d👧\u200d👦", "❤\ufe0f", "🇩🇪", "👍🏽", "कि"):
        word = word.replace(sequence, "##")
    total = 0
    for char in word:
        if char in "\u2068\u2069\u25cc\u0301":
            total += char == "\u25cc"
        else:
            total += 2 if unicodedata.east_asian_width(char) in "WF" else 1
    return total


@pytest.mark.parametrize("name", WIDE_ROWS)
@pytest.mark.parametrize("columns", [60, 100])
def test_carets_stand_under_their_tokens(name: str, columns: int) -> None:
    view = WIDE_ROWS[name]
    lines = text.render(preflight(worst=[view], findings=[]), width=columns).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("request 0"))
    numbers, tokens, *marks = lines[at + 2 : at + 8]
    strip = strips.Strip(view, 20)
    carets = [
        line.index("^") if line.lstrip().startswith("^") else measured(line[: line.rindex("^")])
        for line in marks
        if "^" in line
    ]
    assert len(carets) == 2
    for caret, column in zip(carets, (view.editor, view.truth), strict=True):
        assert column is not None
        assert column_starts(numbers)[caret] == str(column)
        shown = column_starts(tokens)[caret].strip("\u2068\u2069")
        assert shown.replace("\u2068", "").replace("\u2069", "") == strip.labels[column]
    assert all(measured(line) <= columns for line in (numbers, tokens, *marks))


def test_color_adds_only_styles() -> None:
    report = preflight(worst=list(WIDE_ROWS.values()))
    plain, colored = text.render(report), text.render(report, color=True)
    assert "\x1b" not in plain
    without = ANSI.sub("", colored)
    assert "\x1b" not in without
    for line in ("The lookup is shifted.", "^ editor reads here (column 1:", 'true: "ielle" (column 12)'):
        assert line in plain
        assert line in without


def test_preflight_text_in_order() -> None:
    shown = text.render(preflight())
    assert shown.startswith("FAIL  12 of 12 requests would be edited at the wrong token\n")
    order = [
        "EasyEdit's ROME changes what a model knows at one place: the last token of the subject.",
        "filled up to equal length with padding",
        "Nothing crashes when this happens",
        "EasyEdit ROME, fact_token subject_last, run edit",
        "because --padding-side left was given",
        "Findings",
        "error PAD101 lookup-shifted-by-pads",
        "at: hparams/gpt2-xl.yaml:3:5",
        "evidence: first ids 0, 1, 2, 3, 4, 5, 6, 7, … (20 in all)",
        "see: tokenizer_config.json:2: set here",
        "help: Pad on the right.",
        "warning REQ103 subject-inside-word (confidence: medium)",
        "about: request 4 (case_id c-4)",
        "note IDX111",
        "The rows that are furthest off",
        "request 0, optimise row 0: lookup  drift -4, padding not counted",
        '^ editor reads here (column 5: "␣mother")',
        '^ true: "ielle" (column 9)',
        "Smallest correct change",
        "(tried: with it no row drifts)",
        '      tok.padding_side = "right"',
        "Found 1 error, 1 warning and 1 note (1 suppressed); 1 held back, fixable with --unsafe-fixes. Checked in 0.50 s.",
        "padcheck explain PAD101",
    ]
    flat = " ".join(shown.split())
    positions = [flat.find(" ".join(part.split())) for part in order]
    assert -1 not in positions, order[positions.index(-1)]
    assert positions == sorted(positions)
    assert "SUPPRESSED" not in shown


@pytest.mark.parametrize(
    ("fields", "first_line"),
    [
        ({"by_kind": {"label": 3}, "requests_drifting": 1}, "FAIL  1 of 12 requests would be trained on the wrong tokens"),
        ({"by_kind": {"kl": 3}}, "FAIL  12 of 12 requests would be compared at the wrong token"),
        ({"requests_checked": 1, "requests_drifting": 1}, "FAIL  1 of 1 request would be edited at the wrong token"),
        (
            {"requests_drifting": 0, "rows_drifting": 0, "by_cause": {}, "by_kind": {}},
            "FAIL  1 error in the plan, though no position was found to be wrong",
        ),
        (
            {"verdict": "pass", "requests_checked": 500, "requests_drifting": 0, "rows_drifting": 0, "findings": []},
            "PASS  all 500 requests would be edited at the right tokens",
        ),
        (
            {"verdict": "pass", "requests_checked": 1, "requests_drifting": 0},
            "PASS  the one request would be edited at the right tokens",
        ),
        ({"verdict": "pass", "requests_checked": 0, "requests_drifting": 0}, "PASS  there was nothing to edit"),
        (
            {"verdict": "corrected"},
            "CORRECTED  12 of 12 requests would have been edited at the wrong token; corrected, none is",
        ),
        (
            {"verdict": "incomplete", "errors": [JobError("no")], "requests_drifting": 0},
            "INCOMPLETE  the plan was not fully checked: 1 part could not be done; 12 requests checked, none found wrong",
        ),
        (
            {"verdict": "incomplete", "errors": [JobError("no")], "requests_checked": 0, "requests_drifting": 0},
            "INCOMPLETE  the plan was not fully checked: 1 part could not be done",
        ),
    ],
)
def test_verdict_line(fields: dict[str, Any], first_line: str) -> None:
    assert text.render(preflight(**fields), width=200).splitlines()[0] == first_line
    assert width.display_width(first_line) < 120
    assert wording.sentence(first_line.split("  ", 1)[1]) in html.render(preflight(**fields))


@pytest.mark.parametrize("cause", wording.CAUSES)
def test_every_cause_is_explained(cause: str) -> None:
    report = preflight(by_cause={cause: 3})
    paragraphs = wording.explanation(report)
    assert wording.CAUSES[cause].sentence in paragraphs
    assert ("Nothing crashes" in paragraphs[-1]) == (cause != "raises")


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (row(ENGLISH, None, 3), "the editor finds no column in this row"),
        (row(ENGLISH, 3, None), "true: this row has no such token"),
        (row(ENGLISH, 40, 3), "the editor reads column 40, but the row has 7 columns"),
        (row(ENGLISH, -1, 3), "the editor reads column -1, but the row has 7 columns"),
        (row(ENGLISH, 3, 3), '^ editor reads here (column 3: "␣of"), and that is right'),
        (row(ENGLISH, 1, 6, pads=3), "^ editor reads here (column 1: <|endoftext|>, padding)"),
        (row(ENGLISH, 1, 6, oracle="decode"), "(the true column was found by decode)"),
        (row(ENGLISH, 1, 6, note="the target is off"), "The target is off"),
        (row(ENGLISH, 1, 6, kind="unheard-of", cause="unheard_of"), "unheard of"),
        (row([], None, None), "request 0, optimise row 0: lookup"),
    ],
)
def test_rows_that_need_words(view: RowView, words: str) -> None:
    assert words in text.render(preflight(worst=[view]))
    page = html.render(preflight(worst=[view]))
    assert "<h3>request 0, optimise row 0" in page


def test_check_text_shows_the_source() -> None:
    place = Place("src/编辑.py", 12, 5, 12, 14)
    finding = Finding("COD101", "side-flips", "error", "It flips.", place=place, fix=Fix("restore it", grade="display"))
    shown = text.render(check(findings=[finding]), excerpt=lambda place: "词 = tokenizer(prompt)  # 填充")
    lines = shown.splitlines()
    assert lines[0] == "src/编辑.py:12:5: error COD101 side-flips"
    source, carets = lines[2], lines[3]
    assert source == "  12 | 词 = tokenizer(prompt)  # 填充"
    assert carets.index("^") == measured(source[: source.index("tokenizer")])
    assert carets.count("^") == len("tokenizer")
    assert lines[4] == "  help: restore it"


def test_a_line_of_a_megabyte_is_cut_around_its_span() -> None:
    line = "x" * 500_000 + "HERE" + "y" * 500_000
    place = Place("requests.json", 1, 500_001, 1, 500_005)
    shown = text.render(
        check(findings=[Finding("REQ101", "subject-absent", "error", "no", place=place)]), excerpt=lambda _: line
    )
    source, carets = shown.splitlines()[2:4]
    assert len(source) <= 100
    assert source[carets.index("^") : carets.rindex("^") + 1] == "HERE"


def test_pasted_lines_are_not_folded() -> None:
    line = "with padcheck.guard(" + "x" * 200 + "):"
    assert line in text.render(preflight(remedies=[Remedy("Do.", line=line)]), width=60)


# --- All formats -------------------------------------------------------------------------------------------------------


def hostile_report() -> PreflightReport:
    finding = Finding(
        "TGT101",
        "target-retokenised",
        "error",
        HOSTILE,
        place=Place(HOSTILE, 1, 1, cell=0),
        request=RequestRef(0, HOSTILE),
        remedy=HOSTILE,
        message_zh=HOSTILE,
        related=(Related(HOSTILE, Place(HOSTILE)),),
        evidence={HOSTILE: HOSTILE, "list": [HOSTILE] * 20, "nan": float("nan"), "set": {1}, "path": Path("a")},
        fix=Fix(HOSTILE, (TextEdit(Place(HOSTILE, 1, 1, 1, 2), HOSTILE),)),
    )
    return preflight(
        findings=[finding, finding.replace(place=Place())],
        errors=[JobError(HOSTILE, Place(HOSTILE, 3), HOSTILE, RequestRef(1, HOSTILE))],
        worst=[row([HOSTILE, "ux"], 0, 1, case_id=HOSTILE, text=HOSTILE, note=HOSTILE, cause=HOSTILE)],
        remedies=[Remedy(HOSTILE, HOSTILE, HOSTILE)],
        written=[HOSTILE],
        padding_side=SideOutcome("left", HOSTILE, (HOSTILE,)),
        framework_title=HOSTILE,
        method=HOSTILE,
        templates=HOSTILE,
        tokenizer_how=HOSTILE,
        by_cause={HOSTILE: 1},
    )


@pytest.mark.parametrize("form", FORMATS)
def test_hostile_text_reaches_no_terminal(form: str) -> None:
    shown = rendered(form, hostile_report())
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") and char not in "\n\t"]
    assert "\u202e" not in shown
    if form in ("html", "junit"):
        assert "<script>" not in shown
    colored = ANSI.sub("", rendered(form, hostile_report(), color=True))
    assert "\x1b" not in colored


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "report",
    [
        Report("check", {}),
        PreflightReport("preflight", {}),
        PreflightReport("preflight", TOOL, verdict="pass", inspected=2),
        Report("check", TOOL, errors=[JobError("no such file: x.yaml", Place("x.yaml"), "is the name right?")]),
        PreflightReport("preflight", TOOL, errors=[JobError("no subject key", request=RequestRef(3))]),
    ],
    ids=["nothing", "nothing planned", "pass", "errors only", "request error only"],
)
def test_reports_with_little_in_them(form: str, report: Report) -> None:
    shown = rendered(form, report)
    for error in report.errors:
        assert error.message in shown
    if form in ("json", "sarif", "gitlab"):
        json.loads(shown)
    if form == "junit":
        ElementTree.fromstring(shown)
    assert shown == "" or shown.endswith("\n")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("report", [check(), preflight()], ids=["check", "preflight"])
def test_suppressed_findings_are_counted_not_shown(form: str, report: Report) -> None:
    shown = rendered(form, report)
    in_machine_formats = form in ("json", "sarif", "junit")  # there they are marked as suppressed
    assert ("SUPPRESSED." in shown) == in_machine_formats
    if form in ("text", "html"):
        assert "1 suppressed" in shown
    assert "The lookup is shifted." in shown


def test_renderers_are_lazy_and_light() -> None:
    script = (
        "import sys; from padcheck.renderers import RENDERERS; from padcheck.reports import Report; "
        "assert 'padcheck.renderers.text' not in sys.modules; RENDERERS['text'](Report('check', {}), color=True, width=80); "
        "RENDERERS['json'](Report('check', {}), color=True, width=80); "
        "print([name for name in ('torch', 'transformers', 'numpy', 'jsonschema', 'rich', 'padcheck.renderers.html') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- Machine-readable formats ------------------------------------------------------------------------------------------


def test_concise() -> None:
    report = check(errors=[JobError("broken\nline", Place("r.json", 312, 7))])
    assert RENDERERS["concise"](report).splitlines() == [
        r"r.json:312:7: fatal broken\nline",
        "<input>: warning REQ103 [subject-inside-word] request 4 (case_id c-4): It is inside a word.",
        "hparams/gpt2-xl.yaml:3:5: error PAD101 [lookup-shifted-by-pads] The lookup is shifted.",
        "nb.ipynb:cell 3:2:1: note IDX111 [oracle-fallback] Decoding was used.",
    ]


FINDING_KEYS = [
    *("rule", "name", "severity", "confidence", "message", "path", "line", "column", "end_line", "end_column", "cell"),
    *("request", "related", "fingerprint", "docs", "suppressed", "evidence", "fix"),
]


def test_json_has_exactly_the_keys_of_the_contract() -> None:
    plain, planned = (json.loads(RENDERERS["json"](report)) for report in (check(errors=[JobError("x")]), preflight()))
    assert list(plain) == ["version", "tool", "command", "findings", "errors", "summary"]
    assert set(planned) == {*plain, "verdict", "requests", "rows", "padding_side"}
    assert all(list(finding) == FINDING_KEYS for finding in plain["findings"])
    assert list(plain["errors"][0]) == ["message", "path", "line", "column", "remedy", "request"]
    assert plain["summary"]["counts"] == {"error": 1, "warning": 1, "note": 1, "suppressed": 1}
    first = next(finding for finding in plain["findings"] if finding["rule"] == "PAD101")
    assert first["docs"] == "padcheck explain PAD101"
    assert first["fix"] == {
        "grade": "unsafe",
        "message": "set the side",
        "edits": [
            {
                "path": "hparams/gpt2-xl.yaml",
                "line": 3,
                "column": 5,
                "end_line": 3,
                "end_column": 9,
                "cell": None,
                "replacement": "right",
            }
        ],
    }
    assert planned["requests"] == {"checked": 12, "drifting": 12, "drifting_ids": [0, "c-1"]}
    assert planned["rows"] == {"checked": 264, "drifting": 252, "by_cause": {"pads": 240, "retokenised": 12}}
    assert planned["padding_side"] == {"value": "left", "because": "--padding-side left was given"}
    assert planned["summary"]["worst"][0]["cells"][0] == {
        "column": 0,
        "text": "<|endoftext|>",
        "pad": True,
        "special": False,
        "mark": None,
    }


def test_a_remedy_in_words_is_a_fix_that_is_only_shown() -> None:
    report = check(findings=[Finding("PAD106", "side-left-to-default", "warning", "m", remedy="Set it.")])
    assert json_.document(report)["findings"][0]["fix"] == {"grade": "display", "message": "Set it.", "edits": []}
    assert "fixable" not in text.render(report)


def test_json_of_values_that_json_has_not() -> None:
    document = json.loads(RENDERERS["json"](hostile_report()))
    evidence = document["findings"][0]["evidence"]
    assert (evidence["nan"], evidence["set"], evidence["path"]) == ("nan", [1], "a")


@pytest.mark.parametrize(
    "report", [check(), preflight(), hostile_report(), Report("check", {}), PreflightReport("preflight", {})], ids=range(5)
)
def test_json_is_valid_against_the_published_schema(report: Report) -> None:
    validator = schema("report")
    validator.validate(json.loads(RENDERERS["json"](report)))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("version",), 2),
        (("findings", 0, "severity"), "fatal"),
        (("findings", 0, "line"), 0),
        (("findings", 0, "extra"), 1),
        (("findings", 0, "fix"), {"grade": "safe"}),
        (("verdict",), "maybe"),
        (("padding_side", "value"), "middle"),
        (("rows",), None),
    ],
)
def test_the_report_schema_refuses(at: tuple[Any, ...], value: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = json.loads(RENDERERS["json"](preflight()))
    part = document
    for step in at[:-1]:
        part = part[step]
    part[at[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        schema("report").validate(document)


CORRECTIONS: dict[str, Any] = {
    "version": 1,
    "tool": TOOL,
    "framework": "easyedit",
    "method": "ROME",
    "fact_token": "subject_last",
    "run": "edit",
    "padding_side": "left",
    "requests_path": "requests.json",
    "templates": "given",
    "requests": ["0123456789abcdef", "fedcba9876543210", None],
    "corrections": [
        {
            "request": 0,
            "case_id": 7,
            "batch": "optimise",
            "row": 3,
            "kind": "lookup",
            "text": "0" * 16,
            "width": 14,
            "from": 5,
            "to": 12,
        },
        {
            "request": 0,
            "case_id": None,
            "batch": "keys",
            "row": 0,
            "kind": "key",
            "text": "1" * 16,
            "width": 6,
            "from": -1,
            "to": 4,
        },
        {
            "request": 1,
            "case_id": "x",
            "batch": "optimise",
            "row": None,
            "kind": "head",
            "from": "English",
            "to": " English",
        },
    ],
}


def test_the_corrections_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = schema("corrections")
    validator.validate(CORRECTIONS)
    first, _, head = CORRECTIONS["corrections"]
    for wrong in (
        first | {"to": "x"},
        first | {"to": -1},
        first | {"kind": "head"},
        first | {"row": None},
        first | {"text": "no digest"},
        first | {"width": 0},
        head | {"from": 3},
        head | {"kind": "label"},
        {name: value for name, value in first.items() if name != "batch"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(CORRECTIONS | {"corrections": [wrong]})


def schema(name: str) -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    document = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


@pytest.mark.parametrize("report", [check(), preflight(), hostile_report(), Report("check", {})], ids=range(4))
def test_sarif_structure(report: Report) -> None:
    """What SARIF 2.1.0 requires of the objects that are used, written down by hand from the standard."""
    log = json.loads(RENDERERS["sarif"](report))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"] == "padcheck"
    assert run["columnKind"] == "unicodeCodePoints"
    assert len({rule["id"] for rule in rules}) == len(rules)
    assert all(rule["shortDescription"]["text"] and rule["help"]["text"] for rule in rules)
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is not bool(report.errors)
    assert len(invocation["toolExecutionNotifications"]) == len(report.errors)
    assert len(run["results"]) == len(report.findings)
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["message"]["text"]
        assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
        for suppression in result.get("suppressions", []):
            assert suppression["kind"] in ("inSource", "external")
        for location in result["locations"] + result.get("relatedLocations", []):
            physical = location["physicalLocation"]
            assert re.fullmatch(r"[A-Za-z0-9._~:/%+-]+", physical["artifactLocation"]["uri"])
            assert_region(physical.get("region", {"startLine": 1}))
        for fix in result.get("fixes", []):
            for change in fix["artifactChanges"]:
                for replacement in change["replacements"]:
                    assert_region(replacement["deletedRegion"])
                    assert isinstance(replacement["insertedContent"]["text"], str)


def assert_region(region: dict[str, int]) -> None:
    assert set(region) <= {"startLine", "startColumn", "endLine", "endColumn"}
    assert region["startLine"] >= 1
    assert all(value >= 1 for value in region.values())


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("a b/编辑#1.py", "a%20b/%E7%BC%96%E8%BE%91%231.py"),
        ("/abs/x.yaml", "file:///abs/x.yaml"),
        ("C:/abs/x.yaml", "file:///C:/abs/x.yaml"),
    ],
)
def test_sarif_uris(path: str, uri: str) -> None:
    report = check(findings=[Finding("PAD101", "lookup-shifted-by-pads", "error", "m", place=Place(path))])
    result = json.loads(RENDERERS["sarif"](report))["runs"][0]["results"][0]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_sarif_suppressions_and_fixes() -> None:
    results = json.loads(RENDERERS["sarif"](check()))["runs"][0]["results"]
    by_rule = {result["ruleId"]: result for result in results}
    assert by_rule["TGT101"]["suppressions"] == [{"kind": "inSource"}]
    assert "suppressions" not in by_rule["PAD101"]
    assert by_rule["PAD101"]["fixes"][0]["artifactChanges"][0]["replacements"] == [
        {
            "deletedRegion": {"startLine": 3, "startColumn": 5, "endLine": 3, "endColumn": 9},
            "insertedContent": {"text": "right"},
        }
    ]
    assert "region" not in by_rule["IDX111"]["locations"][0]["physicalLocation"]  # a cell's lines are not the file's


def test_github() -> None:
    report = check(errors=[JobError("100% broken\nhere", Place("a,b:c.json", 2, 3), "mend it")])
    assert RENDERERS["github"](report).splitlines() == [
        "::error file=a%2Cb%3Ac.json,line=2,col=3,title=padcheck::100%25 broken%0Ahere%0Amend it",
        "::error file=hparams/gpt2-xl.yaml,line=3,endLine=3,col=5,endColumn=9,title=PAD101 lookup-shifted-by-pads::"
        "The lookup is shifted.%0APad on the right.",
        "::warning title=REQ103 subject-inside-word::request 4 (case_id c-4): It is inside a word.",
        "::notice file=nb.ipynb,title=IDX111 oracle-fallback::cell 3 line 2: Decoding was used.",
    ]
    lines = RENDERERS["github"](hostile_report()).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("::error ") for line in lines)


def test_gitlab() -> None:
    twins = [findings()[0].replace(place=Place("a.yaml", line)) for line in (1, 2)]
    report = check(findings=[*findings(), *twins], errors=[JobError("no such file", Place("x.yaml"))])
    issues = json.loads(RENDERERS["gitlab"](report))
    assert len({issue["fingerprint"] for issue in issues}) == len(issues) == 6
    for issue in issues:
        assert set(issue) == {"check_name", "description", "severity", "fingerprint", "location"}
        assert issue["severity"] in ("info", "minor", "major", "critical", "blocker")
        assert issue["location"]["path"]
        assert issue["location"]["lines"]["begin"] >= 1
    assert [issue["severity"] for issue in issues] == ["critical", "major", "major", "major", "minor", "info"]


@pytest.mark.parametrize(
    ("report", "totals"),
    [
        (check(), ("4", "1", "0", "1")),
        (preflight(errors=[JobError("x")]), ("5", "1", "1", "1")),
        (Report("check", TOOL), ("1", "0", "0", "0")),
        (hostile_report(), ("3", "2", "1", "0")),
    ],
)
def test_junit(report: Report, totals: tuple[str, ...]) -> None:
    shown = RENDERERS["junit"](report)
    assert shown.isascii()
    (suite,) = ElementTree.fromstring(shown)
    assert tuple(suite.get(name) for name in ("tests", "failures", "errors", "skipped")) == totals
    counted = [len(suite.findall(path)) for path in ("testcase", "testcase/failure", "testcase/error", "testcase/skipped")]
    assert tuple(map(str, counted)) == totals


# --- Pages and pictures ------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Checks nesting, and that the page asks for nothing from outside."""

    VOID = ("meta", "link", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value is not None
                assert value.startswith("data:")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize(
    "report",
    [check(), preflight(), hostile_report(), preflight(worst=list(WIDE_ROWS.values())), Report("check", {})],
    ids=["check", "preflight", "hostile", "rows", "empty"],
)
def test_html_is_self_contained(report: Report) -> None:
    shown = html.render(report)
    page = Page()
    page.feed(shown)
    page.close()
    assert not page.open
    assert not {"script", "img", "iframe", "object", "base", "form"} & set(page.tags)
    assert "url(" not in shown
    assert "@import" not in shown
    assert "default-src 'none'" in shown


def test_html_says_what_the_terminal_says() -> None:
    page = Page()
    page.feed(html.render(preflight()))
    words = " ".join(" ".join(page.words).split())
    for part in (
        "FAIL",
        "12 of 12 requests would be edited at the wrong token",
        "Nothing crashes when this happens",
        "The lookup is shifted.",
        "查找位置偏移。",
        "padding not counted",
        "drift −4",
        'tok.padding_side = "right"',
        "because --padding-side left was given",
        "252 of 264 rows",
        "padcheck 0.0.test",
    ):
        assert part in words, part


def test_html_of_a_very_long_row_stays_small() -> None:
    view = row(ENGLISH, 5, 8195, pads=8190)
    assert len(html.render(preflight(worst=[view]))) < 60_000


def test_svg_is_the_report() -> None:
    report = preflight(worst=list(WIDE_ROWS.values()))
    picture = svg.terminal_svg(text.render(report, color=True), "padcheck preflight <&>")
    root = ElementTree.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{space}title").text == "padcheck preflight <&>"  # type: ignore[union-attr]
    drawn = " ".join(element.text or "" for element in root.iter(f"{space}text"))
    for part in (
        "FAIL",
        "12 of 12 requests would be edited at the wrong token",
        "東",
        "👩\u200d👩\u200d👧\u200d👦",
        "السلام",
    ):
        assert part in drawn, part
    assert "href" not in picture
    limits = float(root.get("width", "0")), float(root.get("height", "0"))
    for element in root.iter(f"{space}text"):
        assert 0 <= float(element.get("x", "0")) <= limits[0]
        assert 0 <= float(element.get("y", "0")) <= limits[1]


@pytest.mark.parametrize(
    ("ansi", "attributes"),
    [
        ("\x1b[1;31mx\x1b[0m", {"fill": "#ff7b72", "font-weight": "700"}),
        ("\x1b[2mx\x1b[0m", {"opacity": "0.6"}),
        ("\x1b[4mx\x1b[0m", {"text-decoration": "underline"}),
        ("\x1b[1m\x1b[0mx", {}),
        ("\x1b[31m\nx", {"fill": "#ff7b72"}),
    ],
)
def test_svg_styles(ansi: str, attributes: dict[str, str]) -> None:
    root = ElementTree.fromstring(svg.terminal_svg(ansi, "t"))
    drawn = next(element for element in root.iter() if element.text == "x")
    styles = {
        name: value for name, value in drawn.attrib.items() if name in ("fill", "font-weight", "opacity", "text-decoration")
    }
    assert styles == attributes
