"""The rules as data: every page keeps the form that `padcheck explain` promises, and the index says what the pages say."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from padcheck import rulebook
from padcheck.resources import rules_dir
from padcheck.rulebook import Rule, RulePageError, UnknownRule, compile_index, find, matching, page, rules

HEADINGS = ["What it does", "Why it matters", "Example", "Use instead", "When it is fine", "Fix safety", "References"]
ALL = list(rules().values())
every_rule = pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.id)


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced code blocks of a page in one of the languages."""
    return [
        body
        for language, body in re.findall(r"^```(\w+)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        if language in languages
    ]


def write_page(folder: Path, file: str = "PAD901-some-name.md", /, **changes: str | None) -> None:
    front = {
        "id": "PAD901",
        "name": "some-name",
        "family": "PAD",
        "severity": "error",
        "since": "0.1.0",
        "summary": "One sentence.",
        "message_zh": "一句话。",
    }
    front |= changes
    lines = [f"{key}: {value}" for key, value in front.items() if value is not None]
    folder.joinpath(file).write_text("\n".join(["---", *lines, "---", "", "## What it does", ""]), encoding="utf-8")


# --- The pages -----------------------------------------------------------------------------------------------------------


@every_rule
def test_page_has_the_headings_in_order_and_text_under_each(rule: Rule) -> None:
    sections = re.split(r"^## (.+)$", page(rule), flags=re.MULTILINE)
    assert sections[0].split("\n\n")[0] == f"# {rule.title}"
    assert rule.summary in sections[0]
    assert rule.message_zh in sections[0]
    assert sections[1::2] == HEADINGS
    assert all(len(text.strip()) > 5 for text in sections[2::2])


@every_rule
def test_page_is_short_enough_to_read_and_long_enough_to_help(rule: Rule) -> None:
    assert 25 <= page(rule).partition("## ")[2].count("\n") <= 80


@every_rule
def test_page_shows_something_concrete(rule: Rule) -> None:
    example = page(rule).split("## Example")[1].split("## Use instead")[0]
    assert blocks(example, "json", "yaml", "python", "text", "console")


@every_rule
def test_code_blocks_of_the_page_parse(rule: Rule) -> None:
    text = page(rule)
    for block in blocks(text, "json"):
        json.loads(block)
    for block in blocks(text, "yaml"):
        if rule.id != "LNT104":  # about what does not parse
            assert isinstance(yaml.safe_load(block), dict)
    for block in blocks(text, "python"):
        ast.parse(textwrap.dedent(block))


@every_rule
def test_rules_that_the_page_names_exist(rule: Rule) -> None:
    prose = re.sub(r"^```.*?^```$", "", page(rule), flags=re.MULTILINE | re.DOTALL)
    assert {word for word in re.findall(r"\b[A-Z]{3}[1-9]\d\d\b", prose) if word[:3] in rulebook.FAMILIES} <= rules().keys()


@every_rule
def test_metadata(rule: Rule) -> None:
    assert rule.page == f"{rule.id}-{rule.name}.md"
    assert rule.id[:3] == rule.family
    assert rule.severity in ("error", "warning", "note")
    assert re.fullmatch(r"\d+\.\d+\.\d+", rule.since)
    assert re.fullmatch(r"[^.].*[^.]\.", rule.summary)
    assert re.search(r"[\u4e00-\u9fff]{2}", rule.message_zh)
    assert rule.message_zh.endswith("。")
    assert not re.search(r"[\u4e00-\u9fff][,;:]", rule.message_zh), "half-width punctuation after a Chinese character"


def test_ids_and_names_are_unique_and_in_order() -> None:
    assert all(rule_id == rule.id for rule_id, rule in rules().items())
    assert len({rule.name for rule in ALL}) == len(ALL)
    families = list(rulebook.FAMILIES)
    assert [rule.id for rule in sorted(ALL, key=lambda rule: (families.index(rule.family), rule.id))] == list(rules())


def test_every_page_is_a_rule() -> None:
    assert sorted(path.name for path in rules_dir().glob("*.md")) == sorted(rule.page for rule in ALL)


# --- The index -----------------------------------------------------------------------------------------------------------


def test_index_says_what_the_pages_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = compile_index(rules_dir())
    (tmp_path / "index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(rulebook, "rules_dir", lambda: tmp_path)
    assert rulebook.rules.__wrapped__() == rules()


def test_index_is_read_without_yaml(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps(compile_index(rules_dir())), encoding="utf-8")
    program = (
        "import sys, pathlib; from padcheck import rulebook; rulebook.rules_dir = lambda: pathlib.Path(sys.argv[1]);"
        "assert 'PAD101' in rulebook.rules(); assert not {'yaml', 'difflib', 'click'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


def test_rules_are_read_only() -> None:
    with pytest.raises(TypeError):
        rules()["PAD101"] = ALL[0]  # type: ignore[index]
    with pytest.raises(AttributeError):
        ALL[0].severity = "note"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"summary": None}, "missing keys ['summary']"),
        ({"sumary": "twice"}, "unknown keys ['sumary']"),
        ({"severity": "fatal"}, "severity 'fatal'"),
        ({"since": "1.0"}, "non-empty string"),
        ({"message_zh": "''"}, "non-empty string"),
        ({"family": "IDX"}, "id 'PAD901'"),
        ({"id": "PAD91"}, "id 'PAD91'"),
        ({"name": "Some Name"}, "kebab-case"),
        ({"name": "other-name"}, "should be called PAD901-other-name.md"),
        ({"summary": "a: b: c"}, "not YAML"),
        ({"redirects": "PAD900"}, "redirects is not a list"),
    ],
)
def test_a_bad_page_is_refused_by_name(tmp_path: Path, changes: dict[str, str | None], reason: str) -> None:
    write_page(tmp_path, **changes)
    with pytest.raises(RulePageError, match=re.escape(reason)) as caught:
        compile_index(tmp_path)
    assert "PAD901-some-name.md" in str(caught.value)


@pytest.mark.parametrize("text", ["", "no front matter", "---\nid: PAD901\n", "---\n- a\n---\n"])
def test_a_page_without_front_matter_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "PAD901-some-name.md").write_text(text, encoding="utf-8")
    with pytest.raises(RulePageError, match=r"PAD901-some-name\.md"):
        compile_index(tmp_path)


def test_two_pages_cannot_share_a_name_or_a_former_name(tmp_path: Path) -> None:
    write_page(tmp_path)
    write_page(tmp_path, "PAD902-new-name.md", id="PAD902", name="new-name", redirects="[some-name]")
    with pytest.raises(RulePageError, match=r"some-name is already taken by PAD901-some-name\.md"):
        compile_index(tmp_path)


def test_a_former_id_leads_to_its_successor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_page(tmp_path, redirects="[PAD900, old-name]")
    monkeypatch.setattr(rulebook, "rules", lambda: {"PAD901": Rule(**compile_index(tmp_path)["rules"][0])})
    monkeypatch.setattr(rulebook, "_by_any_name", rulebook._by_any_name.__wrapped__)
    assert find("pad900").id == find("old-name").id == "PAD901"


# --- Finding and selecting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["PAD101", "pad101", " PAD101 ", "lookup-shifted-by-pads"])
def test_find(given: str) -> None:
    assert find(given).title == "PAD101 (lookup-shifted-by-pads)"


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("PAD1O1", "PAD101"),
        ("PAD11", "PAD101"),
        ("lookup-shifted", "PAD101"),
        ("kl-shifted-by-pad", "PAD103"),
        ("zzzz", None),
    ],
)
def test_a_typo_gets_the_nearest_rule(given: str, nearest: str | None) -> None:
    with pytest.raises(UnknownRule) as caught:
        find(given)
    assert caught.value.given == given
    assert (caught.value.nearest.id if caught.value.nearest else None) == nearest
    assert given in str(caught.value)
    assert nearest is None or nearest in str(caught.value)


def test_matching() -> None:
    assert matching([]) == set()
    assert matching(["PAD101", "subject-absent"]) == {"PAD101", "REQ101"}
    assert matching(["REQ"]) == {rule.id for rule in ALL if rule.family == "REQ"}
    assert matching(["idx11"]) == {"IDX110", "IDX111"}
    assert matching(["TGT", "TGT101"]) == matching(["TGT1"])
    assert matching(["EDT"]) == set()  # a family whose rules are still to come


@pytest.mark.parametrize("selector", ["", "P", "PADD", "PAD9", "PAD999", "XYZ", "subject-absentt"])
def test_a_selector_that_names_nothing_is_an_error(selector: str) -> None:
    with pytest.raises(UnknownRule):
        matching(["PAD101", selector])
