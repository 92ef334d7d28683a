"""What a command reports: pure data that every renderer shows and the JSON contract is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from padcheck.diagnostics import SEVERITIES, Finding, JobError, at_least
from padcheck.records import MutableRecord, Record, field

JSON_VERSION = 1
FIRST_IDS = 1000
"""How many ids of drifting requests a report lists."""

Verdict = Literal["pass", "fail", "corrected", "incomplete"]
Mark = Literal["editor", "truth", "both"]


class TokenCell(Record):
    """One column of a padded row: its token as text, whether it is a pad or a special token, and who points at it."""

    column: int
    text: str
    pad: bool = False
    special: bool = False
    mark: Mark | None = None


class RowView(Record):
    """A row as a person looks at it: the whole padded row (`cells[i].column == i`) with the editor's and the true column."""

    request: int
    case_id: str | int | None
    batch: str
    row: int
    kind: str
    editor: int | None
    truth: int | None
    drift: int | None
    cause: str | None
    oracle: str
    width: int
    pads: int
    text: str
    cells: tuple[TokenCell, ...]
    note: str | None = None
    """One sentence for what the marks cannot show, e.g. labels that are not on their tokens."""


class Remedy(Record):
    """The smallest change that makes the run right: what, where, the line to paste, and whether it was tried."""

    message: str
    place: str | None = None
    line: str | None = None
    verified: bool = False


class SideOutcome(Record):
    """The padding side that results, and every step of how it got there."""

    value: Literal["left", "right"]
    because: str
    steps: tuple[str, ...] = ()


class Report(MutableRecord):
    """Common to all commands."""

    command: str
    tool: Mapping[str, str]
    findings: list[Finding] = field(default_factory=list)
    errors: list[JobError] = field(default_factory=list)
    inspected: int = 0
    """Files opened, whether they were ours or not."""

    def visible(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.suppressed]

    def counts(self) -> dict[str, int]:
        """Unsuppressed findings per severity, then the number suppressed."""
        result: dict[str, int] = dict.fromkeys(SEVERITIES, 0)
        for finding in self.visible():
            result[finding.severity] += 1
        result["suppressed"] = len(self.findings) - len(self.visible())
        return result

    def exit_code(self, fail_on: str = "error") -> int:
        """0 nothing at or above `fail_on`, 1 findings, 2 the job could not be done, 3 no file at all. 2 beats 1 beats 3."""
        if self.errors:
            return 2
        if any(at_least(finding.severity, fail_on) for finding in self.visible()):
            return 1
        return 0 if self.inspected else 3


class PreflightReport(Report):
    """The verdict on a planned run."""

    verdict: Verdict = "incomplete"
    framework: str = ""
    framework_title: str = ""
    framework_because: str = ""
    method: str = ""
    fact_token: str = ""
    run: str = "edit"
    hparams_path: str = ""
    requests_path: str = ""
    tokenizer_path: str = ""
    tokenizer_how: str = ""
    transformers: int = 5
    templates: str = ""
    """How the context templates came about, e.g. "stand-ins of 5 and 10 tokens, 3 length profiles"."""
    padding_side: SideOutcome | None = None
    requests_checked: int = 0
    requests_drifting: int = 0
    drifting_ids: list[str | int] = field(default_factory=list)
    rows_checked: int = 0
    rows_drifting: int = 0
    by_cause: dict[str, int] = field(default_factory=dict)
    by_kind: dict[str, int] = field(default_factory=dict)
    worst: list[RowView] = field(default_factory=list)
    remedies: list[Remedy] = field(default_factory=list)
    corrections_path: str | None = None
    written: list[str] = field(default_factory=list)
    """Files that --fix wrote, relative POSIX paths."""
    seconds: float = 0.0

    def exit_code(self, fail_on: str = "error") -> int:
        """As for every report; findings that a correction has cured (verdict "corrected") count no more."""
        return 0 if self.verdict == "corrected" and not self.errors else Report.exit_code(self, fail_on)

    def summary(self) -> dict[str, Any]:
        """`verdict`, `requests`, `rows`, `padding_side` as the JSON contract names them."""
        return {
            "verdict": self.verdict,
            "requests": {
                "checked": self.requests_checked,
                "drifting": self.requests_drifting,
                "drifting_ids": self.drifting_ids[:FIRST_IDS],
            },
            "rows": {"checked": self.rows_checked, "drifting": self.rows_drifting, "by_cause": dict(self.by_cause)},
            "padding_side": None
            if self.padding_side is None
            else {"value": self.padding_side.value, "because": self.padding_side.because},
        }
