"""Build hook: compiles the front matter of rules/*.md into the index that an installation reads."""

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
    """Puts `padcheck/_data/rules/index.json` into the wheel. The source tree is left alone: a checkout reads the pages."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the index. `version` is "standard" or "editable"; the latter reads the pages of the checkout."""
        if version == "editable":
            return
        self._scratch = Path(tempfile.mkdtemp(prefix="padcheck-index-"))
        index = self._scratch / "index.json"
        compiled = self._rulebook().compile_index(Path(self.root) / "rules")
        index.write_text(json.dumps(compiled, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        build_data["force_include"][str(index)] = "padcheck/_data/rules/index.json"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the scratch folder once the wheel stands."""
        if version != "editable":
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _rulebook(self) -> Any:
        """padcheck.rulebook of *this* tree; it needs nothing that is not installed for the build."""
        sys.path.insert(0, self.root)
        try:
            return importlib.import_module("padcheck.rulebook")
        finally:
            sys.path.remove(self.root)
