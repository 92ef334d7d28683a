"""The guides: their Python runs as it stands, their links lead somewhere, their commands and options exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import padcheck
from tests.running import run

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def test_the_editing_guide_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    (code,) = blocks(ROOT / "docs" / "editing.md", "python")
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(compile(code, "docs/editing.md", "exec"), names)
    (name,) = names["result"].updates  # type: ignore[attr-defined]
    assert name in code
    last = names["result"].trace[0][-1]  # type: ignore[attr-defined]
    assert all(hasattr(last, part) or part in last for part in ("loss", "nll", "kl", "weight_decay", "probability"))
    with torch.no_grad():
        assert all(bool(parameter.isfinite().all()) for parameter in names["model"].parameters())  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("http", "#"))]
    places = [(page.parent / link.partition("#")[0]).resolve() for link in links]
    # The package may be an installed one, elsewhere.
    package, inside = Path(padcheck.__file__).parent, ROOT / "padcheck"
    places = [package / place.relative_to(inside) if place.is_relative_to(inside) else place for place in places]
    assert not [place for place in places if not place.exists()]
    anchors = {
        re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in re.findall(r"(?m)^#+ (.*)$", text)
    }
    assert {link[1:] for link in re.findall(r"\]\((#[^)\s]+)\)", text)} <= anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    said = [line for block in blocks(page, "console") for line in block.splitlines() if "padcheck " in line]
    for line in said:
        if (found := re.search(r"padcheck (check|preflight|verify|edit|stats|rules|explain|demo)\b(.*)", line)) is not None:
            known = run(found[1], "--help").out
            assert all(option in known for option in re.findall(r"--[a-z][a-z-]+", found[2])), line
