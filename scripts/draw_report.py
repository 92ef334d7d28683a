"""Draw the pictures of the README and the guide, from real reports: docs/report.svg and, where torch is installed, docs/verify.svg.

report.svg is the demo's second run; verify.svg eight edits of the Llama that padcheck ships, as `padcheck verify` shows them.
"""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from padcheck.cli import main as padcheck  # noqa: E402
from padcheck.demonstrating import run_step  # noqa: E402
from padcheck.renderers.svg import terminal_svg  # noqa: E402
from padcheck.renderers.text import render  # noqa: E402


def main() -> None:
    report = run_step("hparams-pmet.yaml", max_rows=2)
    report.seconds = 0.0
    text = render(report, color=True, width=104)
    draw("report", "padcheck preflight hparams-pmet.yaml --requests requests.json --tokenizer llama3-shape", text)
    if find_spec("torch") is not None:
        folder = ROOT / "fixtures" / "shipped" / "models" / "llama-facts"
        arguments = [
            "verify", str(folder / "hparams" / "rome.yaml"), "--model", str(folder), "--requests", str(folder / "facts.json"),
            "--limit", "8", "--device", "cpu",
        ]  # fmt: skip
        shown = io.StringIO()
        with redirect_stdout(shown), redirect_stderr(io.StringIO()):
            padcheck(arguments)
        draw("verify", "padcheck verify rome.yaml --model llama-facts --requests facts.json --limit 8", shown.getvalue())


def draw(name: str, command: str, text: str) -> None:
    title = " ".join(command.split()[:2])
    (ROOT / "docs" / f"{name}.svg").write_text(terminal_svg(f"$ {command}\n\n{text}", title), "utf-8")


if __name__ == "__main__":
    main()
