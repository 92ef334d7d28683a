"""The examples of the rule pages: the bad one is found, the good one is not, and one change turns each into the other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from padcheck.rulebook import Rule, page, rules

from .cases import CASES
from .projects import Project, found, project

RUN = [rule for rule in rules().values() if not rule.example.startswith("none:")]
every_rule = pytest.mark.parametrize("rule", RUN, ids=lambda rule: rule.id)


def ids(example: Project, folder: Path) -> list[str]:
    return [rule for rule, _ in found(example, folder)]


def test_every_rule_is_run_or_says_why_not() -> None:
    left_out = {rule.id: rule.example for rule in rules().values() if rule.example.startswith("none:")}
    assert left_out.keys() == {"IDX105", "LNT101"}
    assert all(len(reason) > 40 for reason in left_out.values())
    assert CASES.keys() == rules().keys() - left_out.keys()


@every_rule
def test_bad_example_is_found(rule: Rule, tmp_path: Path) -> None:
    example = found(project(rule, "bad"), tmp_path)
    assert rule.id in {each for each, _ in example}
    severities = {severity for each, severity in example if each == rule.id}
    ranks = ["note", "warning", "error"]
    assert max(map(ranks.index, severities)) <= ranks.index(rule.severity), "the page names the gravest"


@every_rule
def test_good_example_is_not(rule: Rule, tmp_path: Path) -> None:
    """Neither this rule, nor an error that the bad example has not as well: what a page advises is sound."""
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.mkdir(), good.mkdir()
    example = found(project(rule, "good"), good)
    assert rule.id not in {each for each, _ in example}
    errors = Counter(each for each, severity in example if severity == "error")
    assert errors <= Counter(ids(project(rule, "bad"), bad)) if errors else True


@every_rule
def test_change_of_the_good_example_is_caught(rule: Rule, tmp_path: Path) -> None:
    assert rule.id in ids(project(rule, "good").changed(*CASES[rule.id].catch), tmp_path)


@every_rule
def test_change_of_the_bad_example_silences(rule: Rule, tmp_path: Path) -> None:
    assert rule.id not in ids(project(rule, "bad").changed(*CASES[rule.id].silence), tmp_path)


@every_rule
def test_blocks_stand_under_their_headings(rule: Rule) -> None:
    """`bad` blocks under Example, `good` ones under Use instead: what people read is what runs."""
    text = page(rule)
    before, _, after = text.partition("## Use instead\n")
    assert project(rule, "bad").files
    assert project(rule, "good").files
    for word, part, other in (("bad", before, after), ("good", after, before)):
        assert f" {word}" in "".join(line for line in part.splitlines() if line.startswith("```"))
        assert not any(line.startswith("```") and f" {word}" in line for line in other.splitlines())
