"""Running the command line in tests: in this process, or as the installed command. And the shipped fixtures it runs on."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from padcheck.cli import main

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "fixtures" / "shipped"
TOKENIZERS = SHIPPED / "tokenizers"
FOLDERS = sorted(path.name for path in TOKENIZERS.iterdir() if path.is_dir())
LYING = [name for name in FOLDERS if name.startswith("lying-")]
HONEST = [name for name in FOLDERS if name not in LYING]
PROBES = sorted((SHIPPED / "probes").glob("*.json"))
BROKEN = ROOT / "fixtures" / "tests" / "requests" / "broken.json"


@dataclass(frozen=True)
class Ran:
    """What a run left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.out))


def run(*arguments: str | Path, cwd: Path | None = None) -> Ran:
    """`padcheck` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with chdir(cwd or Path.cwd()), redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def run_installed(*arguments: str | Path, cwd: Path | None = None, stdin: str | None = None, **environment: str) -> Ran:
    """`padcheck` as a process of its own."""
    known = {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "COLUMNS": "100", **environment}
    done = subprocess.run(
        [sys.executable, "-m", "padcheck", *map(str, arguments)],
        cwd=cwd, input=stdin, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False, env={**os.environ, **known},
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)


def preflight(hparams: Path, requests: Path | str, tokenizer: Path | str, *more: str | Path, cwd: Path | None = None) -> Ran:
    """`padcheck preflight` in this process, reported as JSON."""
    return run(
        "preflight", hparams, "--requests", requests, "--tokenizer", tokenizer, "--output-format", "json", *more, cwd=cwd
    )


def write_hparams(folder: Path, method: str = "ROME", model: str = "./models/gpt2-xl", **values: Any) -> Path:
    """EasyEdit's YAML with what positions depend on."""
    content = {"alg_name": method, "model_name": model, "fact_token": "subject_last", "layers": [5], "batch_size": 1}
    if method in {"ROME", "R-ROME"}:
        content["context_template_length_params"] = [[5, 10], [10, 10]]
    path = folder / f"{method.lower()}.yaml"
    path.write_text(json.dumps({**content, **values}), "utf-8")  # JSON is YAML
    return path


def write_requests(folder: Path, requests: list[dict[str, Any]], name: str = "requests.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(requests, ensure_ascii=False, indent=1), "utf-8")
    return path


def request(prompt: str, subject: str, target: str = "Oslo", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "subject": subject, "target_new": target, **more}


def rules_of(report: dict[str, Any], severity: str | None = None) -> set[str]:
    return {item["rule"] for item in report["findings"] if severity in (None, item["severity"])}
