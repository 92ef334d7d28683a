"""Build hook: compiles rules/ into the JSON that an installation reads: the index of the rule pages, models, frameworks."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class RuleIndexHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts `index.json` and `compiled/*.json` into the wheel's rules. The source tree is left alone: a checkout reads the sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the index. `version` is "standard" or "editable"; the latter reads the pages of the checkout."""
        if version == "editable":
            return
        self._scratch = Path(tempfile.mkdtemp(prefix="padcheck-index-"))
        for name, value in self._compiled().items():
            path = self._scratch / name.replace("/", "-")
            path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
            build_data["force_include"][str(path)] = f"padcheck/_data/rules/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the scratch folder once the wheel stands."""
        if version != "editable":
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _compiled(self) -> dict[str, Any]:
        """File below rules/ → its content, by padcheck of *this* tree, which needs nothing that is not installed for the build."""
        sys.path.insert(0, self.root)
        try:
            rulebook = importlib.import_module("padcheck.rulebook")
            caching = importlib.import_module("padcheck.caching")
            facts = importlib.import_module("padcheck.checks.hparams.compiled").facts()
        finally:
            sys.path.remove(self.root)
        index = {rulebook.INDEX_NAME: rulebook.compile_index(Path(self.root) / "rules")}
        return index | {f"{caching.COMPILED}/{name}.json": value for name, value in facts.items()}
