"""The static path stays light: what is loaded once `preflight` has *run*, not only been imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT, SHIPPED, TOKENIZERS, write_hparams

HEAVY = {"torch", "transformers", "numpy", "jsonschema", "huggingface_hub"}
PROGRAM = """
import json, sys
{before}
from padcheck.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted({{name.partition(".")[0] for name in sys.modules}})]), file=sys.stderr)
"""


def loaded(*arguments: str | Path, before: str = "") -> tuple[int, set[str]]:
    """Exit code, and the top-level modules that are loaded afterwards. `before`: a line of the program that runs first."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr, done.stdout
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules)


@pytest.mark.parametrize("output_format", ["text", "json", "sarif"])
def test_after_preflight_on_a_tokenizer_json(output_format: str, tmp_path: Path) -> None:
    hparams = write_hparams(tmp_path)
    code, modules = loaded(
        "preflight", hparams, "--requests", SHIPPED / "demo" / "requests.json", "--tokenizer", TOKENIZERS / "gpt2-shape",
        "--padding-side", "left", "--output-format", output_format, "--rows-out", tmp_path / "rows.jsonl", "--html", tmp_path / "page.html",
    )  # fmt: skip
    assert code == 1
    assert "tokenizers" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize("name", ["llama2-prepend", "qwen-shape", "t5-shape", "bert-shape", "lying-overlap"])
def test_every_family_is_read_without_transformers(name: str, tmp_path: Path) -> None:
    hparams = write_hparams(tmp_path, "MEMIT", model="./models/llama")
    code, modules = loaded(
        "preflight", hparams, "--requests", SHIPPED / "demo" / "requests.json", "--tokenizer", TOKENIZERS / name
    )
    assert code in {0, 1}
    assert not modules & HEAVY


def test_a_correction_is_written_without_them_too(tmp_path: Path) -> None:
    hparams = write_hparams(tmp_path, "PMET")
    requests = tmp_path / "requests.json"
    requests.write_bytes((SHIPPED / "demo" / "requests.json").read_bytes())
    code, modules = loaded("preflight", hparams, "--requests", requests, "--tokenizer", TOKENIZERS / "gpt2-shape", "--fix")
    assert code in {0, 1}
    assert (tmp_path / "requests.json.padcheck.json").is_file()
    assert not modules & HEAVY


@pytest.mark.parametrize("arguments", [("--version",), ("rules",), ("explain", "PAD101")])
def test_the_other_commands(arguments: tuple[str, ...]) -> None:
    code, modules = loaded(*arguments)
    assert code in {0, 1}
    assert not modules & HEAVY


def test_the_demo_where_torch_is_not_installed() -> None:
    """Where it is, the demo ends with edits of a model."""
    code, modules = loaded("demo", before="sys.modules['torch'] = None")
    assert code == 0
    assert not modules & (HEAVY - {"torch"})


def test_version_loads_next_to_nothing() -> None:
    _, modules = loaded("--version")
    assert not modules & {"tokenizers", "yaml"}


def test_public_names_load_only_what_they_need() -> None:
    program = "import json, sys, padcheck; padcheck.locate; padcheck.preflight; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert not {name.partition(".")[0] for name in json.loads(done.stdout)} & HEAVY
