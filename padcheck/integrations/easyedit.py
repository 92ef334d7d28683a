"""EasyEdit's `BaseEditor` with a guard around each of its runs, and a report of what was found."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from padcheck.correcting import atomic
from padcheck.guarding import guard
from padcheck.guards.errors import DriftWarning
from padcheck.guards.recording import VERSION, tool, versions
from padcheck.guards.watching import Policy, Watch
from padcheck.sources.reading import SourceError

RUNS = ("edit", "batch_edit", "edit_requests", "normal_edit", "generate_edit")
"""The methods of BaseEditor that edit (easyeditor/editors/editor.py:196-628)."""


class GuardedEditor:
    """A `BaseEditor` that edits inside `padcheck.guard`; in everything else the editor that it was made of.

    Attributes are read from, and set on, that editor, and `isinstance` answers as for it. Its tokenizer and model are taken
    anew for each run: some methods exchange them.
    """

    _OWN = frozenset({"_editor", "_policy", "_corrections", "_report", "_runs"})

    def __init__(self, editor: Any, policy: Policy, corrections: str | Path | None, report: str | Path | None) -> None:
        self._editor = editor
        self._policy: Policy = policy
        self._corrections = corrections
        self._report = None if report is None else Path(report).resolve()
        self._runs: list[dict[str, Any]] = []

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._editor)

    def __getattr__(self, name: str) -> Any:
        if name in GuardedEditor._OWN:
            raise AttributeError(name)  # a copy that is being made has none yet
        found = getattr(self._editor, name)
        return self._guarded(name, found) if name in RUNS and callable(found) else found

    def __setattr__(self, name: str, value: Any) -> None:
        if name in GuardedEditor._OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._editor, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._editor, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, tuple(getattr(self, name) for name in ("_editor", "_policy", "_corrections", "_report", "_runs"))

    def __repr__(self) -> str:
        return f"guarded({self._editor!r}, policy={self._policy!r})"

    @property
    def padcheck_report(self) -> dict[str, Any]:
        """The report on the runs so far; see `padcheck/schemas/guard-runs.schema.json`."""
        return {"version": VERSION, "tool": tool(), "versions": versions(), "runs": list(self._runs)}

    def _guarded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            editor = self._editor
            started = time.perf_counter()
            watch: Watch | None = None
            stopped: str | None = None
            try:
                with guard(editor.tok, model=editor.model, policy=self._policy, corrections=self._corrections) as watch:
                    return method(*args, **kwargs)
            except BaseException as error:
                stopped = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                raise
            finally:
                if watch is not None:
                    self._tell(name, watch, stopped, time.perf_counter() - started, args, kwargs)

        return run

    def _tell(
        self, name: str, watch: Watch, stopped: str | None, seconds: float, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._runs.append(
            {
                "function": f"BaseEditor.{name}",
                "method": getattr(self._editor, "alg_name", None),
                "sequential": bool(kwargs.get("sequential_edit", False)),
                "seconds": round(seconds, 3),
                "stopped": stopped,
                **{key: value for key, value in watch.report().items() if key not in ("version", "tool", "versions")},
            }
        )
        if self._report is None:
            return
        try:
            with atomic(self._report) as handle:
                json.dump(self.padcheck_report, handle, ensure_ascii=False, indent=1, default=str)
                handle.write("\n")
        except (OSError, SourceError, ValueError) as error:
            # What the edit gave, or the error that stopped it, counts for more than the report.
            text = f"the report of this run was not written: {error} It is in editor.padcheck_report."
            if stopped is None:
                warnings.warn(text, DriftWarning, stacklevel=3)
                return
            with contextlib.suppress(DriftWarning):
                warnings.warn(text, DriftWarning, stacklevel=3)


def _restored(
    editor: Any, policy: Policy, corrections: str | Path | None, report: Path | None, runs: list[dict[str, Any]]
) -> GuardedEditor:
    """A copy or a pickle of a guarded editor."""
    made = GuardedEditor(editor, policy, corrections, report)
    made._runs = runs
    return made


def _writable(report: str | Path) -> None:
    """Raises ValueError where a report cannot be written: now, not after the edit."""
    path = Path(report)
    folder = path.resolve().parent
    if path.is_dir():
        raise ValueError(f"report={path.as_posix()!r} is a folder; name a file in it")
    if not folder.is_dir():
        raise ValueError(f"report={path.as_posix()!r}: there is no folder {folder.as_posix()}; make it first")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"report={path.as_posix()!r}: the folder {folder.as_posix()} cannot be written to")


def guarded(
    editor: Any,
    *,
    policy: Policy = "correct",
    corrections: str | Path | None = None,
    report: str | Path | None = None,
) -> Any:
    """`editor` with a guard around `edit`, `batch_edit`, `edit_requests`, `normal_edit` and `generate_edit`, sequential or not.

        editor = guarded(BaseEditor.from_hparams(hparams), report="run.padcheck.json")
        metrics, model, _ = editor.edit(prompts=..., subject=..., target_new=...)

    Args:
        editor: EasyEdit's `BaseEditor`, or another editor with its methods and its `tok`, `model` and `hparams`.
        policy, corrections: as for `padcheck.guard`.
        report: a JSON file for the run report, written anew after each run: versions, the tokenizer, the padding sides and why,
            and what drifted and was corrected, by request, place and cause. `editor.padcheck_report` is the same in memory.

    Returns:
        The guarded editor; `editor` itself is left as it is.

    Raises:
        TypeError: `editor` has no `tok`, or it is no tokenizer of transformers (when it edits).
        ValueError: as for `padcheck.guard`; the report cannot be written where `report` says. If that fails later, after a run,
            it is a DriftWarning.
    """
    if not hasattr(editor, "tok") or not hasattr(editor, "edit"):
        raise TypeError(f"guarded() needs a BaseEditor, with its tokenizer as .tok, and {type(editor).__qualname__} is none")
    if report is not None:
        _writable(report)
    guard(editor.tok, policy=policy, corrections=corrections)  # says now what is wrong with policy and corrections
    return GuardedEditor(editor, policy, corrections, report)
