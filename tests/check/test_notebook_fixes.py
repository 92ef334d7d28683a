"""Fixes in notebooks: the one cell is written anew, in the layout that it had, and every other byte stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from padcheck.checks.code.notebooks import cells, with_cells
from padcheck.cli import main

from .conftest import run

SWITCH = [
    "def generate(model, tok, prompts):\n",
    "    side = tok.padding_side\n",
    '    tok.padding_side = "left"\n',
    "    batch = tok(prompts, padding=True)\n",
    "    answers = model.generate(**batch)\n",
    "    tok.padding_side = side\n",
    "    return answers",
]


def notebook(*sources: Any, **layout: Any) -> str:
    found = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# 标题 [x]\n", 'a "quoted" ]']},
        *({"cell_type": "code", "metadata": {"source": "x"}, "outputs": [{"cells": 1}], "source": each} for each in sources),
    ]
    return json.dumps({"metadata": {"cells": 3}, "cells": found, "nbformat": 4}, **layout) + "\n"


LAYOUTS = {
    "indented": {"indent": 1},
    "wide": {"indent": 4, "ensure_ascii": False},
    "one-line": {},
    "tight": {"separators": (",", ":")},
}


@pytest.mark.parametrize("as_list", [True, False], ids=["lines", "text"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_fix_changes_its_cell_alone(layout: str, as_list: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = SWITCH if as_list else "".join(SWITCH)
    path = tmp_path / "n.ipynb"
    path.write_bytes(notebook(["x = 1  # ümlaut\n"], source, "y = 2", **LAYOUTS[layout]).encode())
    before = path.read_text("utf-8")
    assert {finding.rule for finding in run(path).findings} == {"COD102"}
    run(path, fix=True)
    after = path.read_text("utf-8")
    assert not run(path).findings
    old, new = json.loads(before), json.loads(after)
    fixed = new["cells"][2]["source"]
    assert isinstance(fixed, list) == as_list
    text = "".join(fixed)
    assert "    try:\n        batch = tok(prompts, padding=True)\n" in text
    assert "    finally:\n        tok.padding_side = side\n    return answers" in text
    assert after == json.dumps(new, **LAYOUTS[layout]) + "\n"
    new["cells"][2]["source"] = old["cells"][2]["source"]
    assert new == old


def test_an_ignore_that_hides_nothing_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "n.ipynb"
    path.write_text(notebook(["x = 1\n", "y = 2  # padcheck: ignore[COD102] gone\n"], indent=1))
    run(path, fix=True)
    assert json.loads(path.read_text())["cells"][1]["source"] == ["x = 1\n", "y = 2  \n"]


def test_magics_are_left_alone(tmp_path: Path) -> None:
    """A line of IPython's own may be indented with the others, never rewritten."""
    path = tmp_path / "n.ipynb"
    path.write_text(notebook([*SWITCH[:4], "    !nvidia-smi -L\n", *SWITCH[4:]], indent=1))
    run(path, fix=True)
    assert "        !nvidia-smi -L\n" in json.loads(path.read_text())["cells"][1]["source"]
    assert not run(path).findings


def test_diff_shows_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "n.ipynb"
    path.write_text(notebook(SWITCH, indent=1))
    before = path.read_bytes()
    assert main(["check", "--isolated", "--no-cache", "--diff", "n.ipynb"]) == 1
    assert '+    "    try:\\n",' in capsys.readouterr().out
    assert path.read_bytes() == before


@given(
    sources=st.lists(st.one_of(st.text(), st.lists(st.text())), min_size=1, max_size=4),
    new=st.text(),
    layout=st.sampled_from(sorted(LAYOUTS)),
    data=st.data(),
)
def test_any_cell_can_be_written(sources: list[Any], new: str, layout: str, data: st.DataObject) -> None:
    text = notebook(*sources, **LAYOUTS[layout])
    number = data.draw(st.integers(2, len(sources) + 1))
    after = json.loads(with_cells(text, {number: new}))
    written = after["cells"][number - 1]["source"]
    assert "".join(written) == new
    after["cells"][number - 1]["source"] = json.loads(text)["cells"][number - 1]["source"]
    assert after == json.loads(text)
    assert with_cells(text, {}) == text
    assert len(cells(with_cells(text, {number: new}))) == len(sources)
