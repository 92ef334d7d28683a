"""Code that relies on a side, beside other files that state one."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import run

LAST_COLUMN = """
def read(model, tok, templates, word):
    batch = tok([each.format(word) for each in templates], padding=True, return_tensors="pt")
    return model(**batch).logits[:, -1]
"""
LOADS = "tok = AutoTokenizer.from_pretrained(name, padding_side={side!r})\n"


@pytest.mark.parametrize(
    ("sides", "severity"),
    [
        ([], "warning"),
        (["left"], "note"),
        (["right"], "warning"),
        (["left", "right"], "warning"),
        (["left", "left"], "note"),
    ],
    ids="-".join,
)
def test_the_side_that_all_files_state(sides: list[str], severity: str, tmp_path: Path) -> None:
    (tmp_path / "reading.py").write_text(LAST_COLUMN)
    for number, side in enumerate(sides):
        (tmp_path / f"load{number}.py").write_text(LOADS.format(side=side))
    (finding,) = [each for each in run(tmp_path).findings if each.rule == "COD107"]
    assert finding.severity == severity
    assert ("load0.py:1" in finding.message) == (severity == "note")


def test_what_is_known_to_be_wrong_stays_an_error(tmp_path: Path) -> None:
    (tmp_path / "reading.py").write_text(LAST_COLUMN.replace("    batch", '    tok.padding_side = "right"\n    batch'))
    (tmp_path / "load.py").write_text(LOADS.format(side="left"))
    severities = {each.rule: each.severity for each in run(tmp_path).findings}
    assert severities["COD107"] == "error"
