"""Notebooks: cells, magics, places."""

from __future__ import annotations

import json
from typing import Any

import pytest

from padcheck.checks.code import check_notebook
from padcheck.checks.code.notebooks import cells, python_of

ASSERT = "assert x or print('no')\n"


def notebook(*sources: str | list[str], **metadata: Any) -> str:
    return json.dumps(
        {"cells": [{"cell_type": "code", "source": source} for source in sources], "metadata": metadata, "nbformat": 4}
    )


def test_places_carry_the_cell_and_the_line_in_it() -> None:
    text = json.dumps({
        "cells": [
            {"cell_type": "markdown", "source": "# " + ASSERT},
            {"cell_type": "code", "source": ["%matplotlib inline\n", "x = 1\n", ASSERT]},
            {"cell_type": "code", "source": ASSERT},
        ]
    })  # fmt: skip
    found = check_notebook(text, "n.ipynb")
    assert [(each.rule, each.place.path, each.place.cell, each.place.line, each.place.column) for each in found] == [
        ("COD117", "n.ipynb", 2, 3, 1),
        ("COD117", "n.ipynb", 3, 1, 1),
    ]
    assert str(found[0].place) == "n.ipynb:cell 2:3:1"


def test_cell_that_does_not_parse_is_a_warning_and_the_others_are_checked() -> None:
    found = check_notebook(notebook(ASSERT + "def f(:\n", ASSERT), "n.ipynb")
    assert [(each.rule, each.severity, each.place.cell) for each in found] == [
        ("LNT104", "warning", 1),
        ("COD117", "note", 2),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%load_ext autoreload\nx = 1", "pass\nx = 1"),
        ("!pip install -q \\\n  transformers\nx = 1", "pass\n\nx = 1"),
        ("if x:\n    !ls\n    y", "if x:\n    pass\n    y"),
        ("files = !ls *.py\nf", "files = None\nf"),
        ("t = %timeit -o f(x)", "t = None"),
        ("model?\nmodel??", "pass\npass"),
        ("?model", "pass"),
        ("%%time\nx = 1", "pass\nx = 1"),
        ("%%bash\npip list | grep x", ""),
        ("%%writefile x.py\nassert x or print(1)", ""),
        ("x = (a\n % b)", "x = (a\n % b)"),
        ("x = a \\\n  % b", "x = a \\\n  % b"),
        ("x = 'a' != b", "x = 'a' != b"),
        ("x = a % b", "x = a % b"),
        ("", ""),
    ],
)
def test_magics(text: str, expected: str) -> None:
    assert python_of(text) == expected


def test_other_languages_are_left_alone() -> None:
    assert cells(notebook(ASSERT, kernelspec={"language": "R"})) == []
    assert len(cells(notebook(ASSERT, kernelspec={"language": "Python"}))) == 1


def test_nbformat_3() -> None:
    text = json.dumps({"worksheets": [{"cells": [{"cell_type": "code", "input": [ASSERT]}]}], "nbformat": 3})
    assert [each.rule for each in check_notebook(text, "n.ipynb")] == ["COD117"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 3}', "[" * 100_000, '"x"'])
def test_what_is_no_notebook_is_a_finding(text: str) -> None:
    (finding,) = check_notebook(text, "n.ipynb")
    assert finding.rule == "LNT104"


@pytest.mark.parametrize(
    "cell", [3, {"cell_type": "code"}, {"cell_type": "code", "source": None}, {"cell_type": "code", "source": [1, None]}]
)
def test_odd_cells_are_passed_over(cell: object) -> None:
    assert check_notebook(json.dumps({"cells": [cell]}), "n.ipynb") == []
