"""docs/coverage.md: made of rules/coverage.toml, complete, and true to what the other tests show."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from padcheck.resources import rules_dir
from padcheck.rulebook import rules
from tests.check.test_hparams import ACROSS_FILES, DEFECTS
from tests.running import ROOT
from tests.test_requests_rules import SILENT

KNOWLEDGE = ROOT.parent / "shared" / "knowledge"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "tabulate_coverage.py"
    if not path.is_file() or not rules_dir().is_relative_to(ROOT):
        pytest.skip("not a checkout")
    spec = importlib.util.spec_from_file_location("tabulate_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_not_stale(script: ModuleType) -> None:
    assert (ROOT / "docs" / "coverage.md").read_text("utf-8") == script.text(), "run scripts/tabulate_coverage.py"


def test_every_row_has_rules_or_a_reason(script: ModuleType) -> None:
    hparams, code, requests = script.tables()
    for row in (*hparams["rows"], *code["rows"], *requests["rows"]):
        assert row.keys() in ({"name", "rules"}, {"name", "why"})
        assert set(row.get("rules", ())) <= rules().keys()
        assert "why" not in row or len(row["why"]) > 40
    assert (len(hparams["rows"]), len(code["rows"]), len(requests["rows"])) == (19, 21, 14)


def test_the_rows_are_what_the_tests_show(script: ModuleType) -> None:
    """Kind of defect → rules that a test has seen to find it; the silent rows of requests likewise."""
    hparams, _, requests = script.tables()
    seen: dict[int, set[str]] = {number: {rule} for number, rule in ACROSS_FILES.items()}
    for defect in DEFECTS:
        seen.setdefault(defect.kind, set()).add(defect.rule)
    for number, row in enumerate(hparams["rows"], 1):
        assert seen[number] <= set(row["rules"]), row["name"]
    for case, row in zip(SILENT, requests["rows"], strict=True):
        assert case[5] in row["rules"], row["name"]


@pytest.mark.parametrize(("name", "begins"), [("hparams.md", "19. "), ("code-hazards.md", "| H20 |")])
def test_no_row_of_the_knowledge_is_left_out(name: str, begins: str) -> None:
    """Where the notes lie beside the checkout: nineteen kinds and twenty patterns, and no twentieth or twenty-first."""
    path: Path = KNOWLEDGE / name
    if not path.is_file():
        pytest.skip(f"no {name} in ../shared")
    lines = path.read_text("utf-8").splitlines()
    following = {"19. ": "20. ", "| H20 |": "| H21 |"}[begins]
    assert any(line.startswith(begins) for line in lines)
    assert not any(line.startswith(following) for line in lines)
