"""Draw docs/report.svg, the README's picture: the real report of the demo's second run, as the terminal shows it."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from padcheck.demonstrating import run_step  # noqa: E402
from padcheck.renderers.svg import terminal_svg  # noqa: E402
from padcheck.renderers.text import render  # noqa: E402


def main() -> None:
    report = run_step("hparams-pmet.yaml", max_rows=2)
    report.seconds = 0.0
    text = render(report, color=True, width=104)
    command = "$ padcheck preflight hparams-pmet.yaml --requests requests.json --tokenizer llama3-shape"
    (ROOT / "docs" / "report.svg").write_text(terminal_svg(f"{command}\n\n{text}", "padcheck preflight"), "utf-8")


if __name__ == "__main__":
    main()
