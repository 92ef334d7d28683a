"""The JSON contract, version 1: `schemas/report.schema.json` describes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Any

from padcheck.diagnostics import Finding, Fix, JobError, Place, RequestRef
from padcheck.records import Record, values
from padcheck.renderers import wording
from padcheck.reports import JSON_VERSION, PreflightReport, Report


def render(report: Report) -> str:
    """`report` as one JSON object. ASCII alone: safe on every terminal and in every encoding of a pipe."""
    return dumps(document(report))


def dumps(value: Any) -> str:
    """JSON as padcheck prints it."""
    return json.dumps(plain(value), indent=2, allow_nan=False) + "\n"


def document(report: Report) -> dict[str, Any]:
    """The object of the contract."""
    summary: dict[str, Any] = {"inspected": report.inspected, "counts": report.counts()}
    result: dict[str, Any] = {
        "version": JSON_VERSION,
        "tool": dict(report.tool),
        "command": report.command,
        "findings": [_finding(finding) for finding in sorted(report.findings, key=lambda finding: finding.sort_key)],
        "errors": [_error(error) for error in report.errors],
        "summary": summary,
    }
    if isinstance(report, PreflightReport):
        summary |= _planned(report)
        result |= report.summary()
    return result


def _planned(report: PreflightReport) -> dict[str, Any]:
    """What a preflight run knew and did beyond the contract's own keys."""
    names = (
        *("framework", "framework_title", "framework_because", "method", "fact_token", "run", "hparams_path"),
        *("requests_path", "tokenizer_path", "tokenizer_how", "transformers", "templates", "by_kind", "worst", "remedies"),
        *("corrections_path", "written", "seconds"),
    )
    steps = report.padding_side.steps if report.padding_side else ()
    return {name: getattr(report, name) for name in names} | {"padding_side_steps": steps}


def _finding(finding: Finding) -> dict[str, Any]:
    # A remedy in words alone is a fix that can only be shown.
    fix = Fix(finding.remedy, grade="display") if finding.fix is None and finding.remedy else finding.fix
    return {
        "rule": finding.rule,
        "name": finding.name,
        "severity": finding.severity,
        "confidence": finding.confidence,
        "message": finding.message,
        **_place(finding.place),
        "request": _request(finding.request),
        "related": [{"message": other.message, **_place(other.place)} for other in finding.related],
        "fingerprint": finding.fingerprint,
        "docs": wording.docs(finding.rule),
        "suppressed": finding.suppressed,
        "evidence": finding.evidence,
        "fix": None if fix is None else _fix(fix),
    }


def _fix(fix: Fix) -> dict[str, Any]:
    edits = [{**_place(edit.place), "replacement": edit.replacement} for edit in fix.edits]
    return {"grade": fix.grade, "message": fix.message, "edits": edits}


def _error(error: JobError) -> dict[str, Any]:
    place = error.place
    return {
        "message": error.message,
        "path": place.path,
        "line": place.line,
        "column": place.column,
        "remedy": error.remedy,
        "request": _request(error.request),
    }


def _place(place: Place) -> dict[str, Any]:
    return values(place)


def _request(request: RequestRef | None) -> dict[str, Any] | None:
    return None if request is None else {"index": request.index, "case_id": request.case_id}


def plain(value: Any) -> Any:
    """`value` in what JSON has: mappings, lists, strings, finite numbers, booleans, null; anything else as its text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (set, frozenset)):
        return [plain(part) for part in sorted(value, key=str)]
    if isinstance(value, Record):
        return {name: plain(part) for name, part in values(value).items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        return [plain(part) for part in value]
    return str(value)
