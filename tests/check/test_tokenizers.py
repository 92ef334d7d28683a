"""Tokenizer folders: a good one, and one change per rule."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from padcheck.resources import shipped_dir

from .conftest import run, said

SHAPES = sorted(path.name for path in (shipped_dir() / "tokenizers").iterdir())


def folder(tmp_path: Path, shape: str, **files: Mapping[str, Any]) -> Path:
    """A copy of a shipped tokenizer with changed JSON files (`config` → config.json); None removes a key."""
    target = tmp_path / shape
    shutil.copytree(shipped_dir() / "tokenizers" / shape, target, dirs_exist_ok=True)
    for stem, changes in files.items():
        path = target / f"{stem}.json"
        old = json.loads(path.read_text("utf-8")) if path.exists() else {}
        new = {key: value for key, value in {**old, **changes}.items() if value is not None}
        path.write_text(json.dumps(new, indent=1, ensure_ascii=False), "utf-8")
    return target


@pytest.mark.parametrize("shape", SHAPES)
def test_shipped_tokenizers_raise_no_error(shape: str, tmp_path: Path) -> None:
    report = run(folder(tmp_path, shape))
    assert not said(report, "error"), [finding.message for finding in report.findings]
    assert report.inspected == 1


CASES: list[tuple[str, str, str, dict[str, dict[str, Any]]]] = [
    ("TOK110", "warning", "llama2-metaspace", {"tokenizer_config": {"padding_side": None}}),
    ("TOK111", "error", "gpt2-shape", {"tokenizer_config": {"padding_side": "middle"}}),
    (
        "TOK111",
        "warning",
        "gpt2-shape",
        {
            "tokenizer_config": {"padding_side": "left"},
            "tokenizer": {
                "padding": {
                    "strategy": "BatchLongest",
                    "direction": "Right",
                    "pad_to_multiple_of": None,
                    "pad_id": 0,
                    "pad_type_id": 0,
                    "pad_token": "<|endoftext|>",
                }
            },
        },
    ),
    ("TOK112", "note", "gpt2-shape", {"tokenizer_config": {"pad_token": "<|endoftext|>"}}),
    ("TOK113", "note", "gpt2-shape", {"tokenizer_config": {"pad_token": None}, "special_tokens_map": {"pad_token": None}}),
    ("TOK114", "error", "gpt2-shape", {"config": {"model_type": "gpt2", "vocab_size": 10, "eos_token_id": 10}}),
    (
        "TOK115",
        "warning",
        "gpt2-shape",
        {"config": {"model_type": "gpt2", "vocab_size": 90000, "eos_token_id": 7}, "generation_config": {"eos_token_id": 8}},
    ),
    ("TOK118", "warning", "llama2-metaspace", {}),
    ("TOK120", "warning", "gpt2-shape", {"special_tokens_map": {"eos_token": "other"}}),
    ("TOK103", "note", "gpt2-shape", {"tokenizer_config": {"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}}),
    ("TOK117", "note", "llama2-metaspace", {"tokenizer_config": {"add_bos_token": False}}),
]


@pytest.mark.parametrize(
    ("rule", "severity", "shape", "files"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_defects(rule: str, severity: str, shape: str, files: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    report = run(folder(tmp_path, shape, **files))
    assert rule in said(report, severity), [(finding.rule, finding.severity, finding.message) for finding in report.findings]


def test_places_are_those_of_the_key(tmp_path: Path) -> None:
    path = folder(tmp_path, "gpt2-shape", tokenizer_config={"padding_side": "middle"})
    (finding,) = [each for each in run(path).findings if each.rule == "TOK111"]
    line = (path / "tokenizer_config.json").read_text("utf-8").splitlines()[(finding.place.line or 0) - 1]
    assert line[(finding.place.column or 0) - 1 :].startswith('"padding_side"')


def test_broken_json_is_a_finding(tmp_path: Path) -> None:
    path = folder(tmp_path, "gpt2-shape")
    (path / "special_tokens_map.json").write_text("{")
    assert "LNT104" in said(run(path), "error")
