"""What findings about code say, on the examples of their pages (tests/rule_pages runs these for every rule)."""

from __future__ import annotations

import pytest

from padcheck.checks.code import check_source
from padcheck.checks.code.rule import RULES
from padcheck.rulebook import rules
from tests.rule_pages.projects import project

every_rule = pytest.mark.parametrize("rule_id", sorted(RULES))


def bad(rule_id: str) -> str:
    """The text of the page's bad example."""
    (text,) = project(rules()[rule_id], "bad").files.values()
    return text


def good(rule_id: str) -> str:
    (text,) = project(rules()[rule_id], "good").files.values()
    return text


def found(text: str) -> list[str]:
    return [finding.rule for finding in check_source(text, "example.py")]


def test_every_rule_has_a_page() -> None:
    pages = {rule.id for rule in rules().values() if rule.family == "COD"}
    assert pages == RULES.keys()


@every_rule
def test_bad_example_is_found_once(rule_id: str) -> None:
    assert found(bad(rule_id)).count(rule_id) == 1


@every_rule
def test_good_example_is_silent(rule_id: str) -> None:
    assert found(good(rule_id)) == []


@every_rule
def test_finding_says_what_where_and_what_to_do(rule_id: str) -> None:
    (finding,) = [each for each in check_source(bad(rule_id), "example.py") if each.rule == rule_id]
    assert finding.name == rules()[rule_id].name
    assert finding.message_zh == rules()[rule_id].message_zh
    assert finding.message.endswith(".")
    assert finding.remedy
    assert finding.place.path == "example.py"
    assert finding.place.line
    assert finding.evidence["key"].startswith(rule_id)


@every_rule
def test_fingerprint_survives_when_lines_move(rule_id: str) -> None:
    (here,) = [each for each in check_source(bad(rule_id), "e.py") if each.rule == rule_id]
    (there,) = [each for each in check_source("import torch\n\n\n" + bad(rule_id), "e.py") if each.rule == rule_id]
    assert here.fingerprint == there.fingerprint
    assert here.place != there.place
