"""Writes docs/coverage.md: every known fault, and the rules that find it or the reason why none does.

    python scripts/tabulate_coverage.py

The rows stand in rules/coverage.toml; what the rules are called, in their pages. A test fails where the page is stale.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from padcheck.resources import rules_dir
from padcheck.rulebook import rules

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "coverage.md"


def tables() -> list[dict[str, Any]]:
    """The tables of rules/coverage.toml: title, about, and rows with a name and either rules or why."""
    document = tomllib.loads((rules_dir() / "coverage.toml").read_text("utf-8"))
    found: list[dict[str, Any]] = document["table"]
    return found


def text() -> str:
    """The page."""
    known = rules()
    lines = [
        "# What padcheck looks for",
        "",
        "Made by `scripts/tabulate_coverage.py` of `rules/coverage.toml`; mend that file, not this one. Each rule has a page with an",
        "example that is run as a test; `padcheck explain RULE` shows it.",
    ]
    for table in tables():
        lines += ["", f"## {table['title']}", "", table["about"], "", "| | what goes wrong | rules |", "|--:|---|---|"]
        for number, row in enumerate(table["rows"], 1):
            named = [f"[{each}](../rules/{known[each].page}) {known[each].name}" for each in row.get("rules", ())]
            lines.append(f"| {number} | {row['name']} | {'<br>'.join(named) or 'none: ' + row['why']} |")
    mapped = {each for table in tables() for row in table["rows"] for each in row.get("rules", ())}
    others = [rule for rule in known.values() if rule.id not in mapped]
    lines += ["", "## Other rules", "", "| rule | what it finds |", "|---|---|"]
    lines += [f"| [{rule.id}](../rules/{rule.page}) {rule.name} | {rule.summary} |" for rule in others]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), "utf-8")
