"""What padcheck keeps between runs: per-file facts, as JSON, in the user's cache folder.

A cache is named after everything that its content depends on, so it is never wrong, only missing. It is written in one
step, and what cannot be read or is not what it should be counts as absent. Nothing is ever written into the user's tree.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from padcheck.resources import rules_dir

FORMAT = 1
COMPILED = "compiled"
"""The folder of an installation's rules that holds what every start would compute alike, written when the wheel is built."""
LIMIT = 20_000
"""Files that one cache remembers; beyond it only those of the last run are kept."""


def cache_dir() -> Path:
    """`$PADCHECK_CACHE_DIR`, else padcheck's folder among the user's caches."""
    own = os.environ.get("PADCHECK_CACHE_DIR")
    if own:
        return Path(own)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home())
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "padcheck"


@cache
def tool_digest() -> str:
    """A digest of padcheck itself, its code and its rules: by name, size and time, which a new version or a mended rule changes."""
    import padcheck

    index = rules_dir() / "index.json"
    if index.exists():  # an installation: its files change with its version, and the index is written anew each time
        state = index.stat()
        return digest(padcheck.__version__, str(index), state.st_size, state.st_mtime_ns, sys.version_info[:3])
    found: list[tuple[str, int, int]] = []
    for root in (Path(__file__).parent, rules_dir()):
        stack = [str(root)]
        while stack:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if entry.name == "__pycache__":
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                    else:
                        state = entry.stat()
                        found.append((entry.path, state.st_size, state.st_mtime_ns))
    return digest(sorted(found), sys.version_info[:3])


def digest(*parts: Any) -> str:
    """A short digest of values that JSON can hold."""
    import hashlib  # late: a run without the cache needs none

    return hashlib.sha256(json.dumps(parts, default=str).encode("utf-8", "surrogatepass")).hexdigest()[:32]


class FactCache:
    """Facts by key. `settings`: what the facts depend on besides the content of the file and padcheck itself."""

    def __init__(self, *settings: Any, enabled: bool = True) -> None:
        self._path = cache_dir() / f"facts-{digest(FORMAT, tool_digest(), *settings)}.json" if enabled else None
        self._old: dict[str, Any] = _read(self._path) if self._path else {}
        self._new: dict[str, Any] = {}
        self._used: set[str] = set()

    def get(self, key: str) -> Any:
        """The facts, or None."""
        facts = self._old.get(key)
        if facts is not None:
            self._used.add(key)
        return facts

    def put(self, key: str, facts: Any) -> None:
        self._new[key] = facts

    def save(self) -> None:
        """Write what is new. A cache that cannot be written is no fault of the run."""
        if self._path is None or not self._new:
            return
        kept = self._old if len(self._old) + len(self._new) <= LIMIT else {key: self._old[key] for key in self._used}
        write_json(self._path, {**kept, **self._new})


def remembered(name: str, compute: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """`compute()`, which depends on nothing but padcheck and its rules: compiled in an installation, else from the cache."""
    compiled = _read(rules_dir() / COMPILED / f"{name}.json")
    if compiled:
        return compiled
    path = cache_dir() / f"{name}-{digest(FORMAT, tool_digest())}.json"
    known = _read(path)
    if known:
        return known
    value = compute()
    write_json(path, value)
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write in one step: another run sees the old file or the new one."""
    import tempfile  # late: most runs write nothing

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".padcheck-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(value, file)
            os.replace(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise
        for old in path.parent.glob(f"{path.name.rsplit('-', 1)[0]}-*.json"):
            if old.name != path.name and _age_in_days(old) > 30:
                old.unlink(missing_ok=True)
    except OSError:
        return


def _age_in_days(path: Path) -> float:
    import time

    return (time.time() - path.stat().st_mtime) / 86_400
