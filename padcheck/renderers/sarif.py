"""SARIF 2.1.0 (OASIS standard), as code scanning services read it."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import quote

from padcheck import rulebook
from padcheck.diagnostics import Finding, Fix, JobError, Place
from padcheck.renderers import wording
from padcheck.renderers.json_ import dumps
from padcheck.reports import PreflightReport, Report

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def render(report: Report) -> str:
    """`report` as a SARIF log of one run."""
    findings = sorted(report.findings, key=lambda finding: finding.sort_key)
    rules = sorted({(finding.rule, finding.name) for finding in findings})
    known = rulebook.rules()
    index = {rule: at for at, (rule, _) in enumerate(rules)}
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": report.tool.get("name", "padcheck"),
                **({"version": report.tool["version"]} if "version" in report.tool else {}),
                "rules": [
                    {
                        "id": rule,
                        "name": name,
                        "shortDescription": {"text": known[rule].summary if rule in known else name.replace("-", " ")},
                        "help": {"text": wording.docs(rule)},
                    }
                    for rule, name in rules
                ],
            }
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": not report.errors,
                "toolExecutionNotifications": [_notification(error) for error in report.errors],
            }
        ],
        "results": [_result(finding, index[finding.rule]) for finding in findings],
    }
    if isinstance(report, PreflightReport):
        run["properties"] = report.summary()
    return dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _result(finding: Finding, rule_index: int) -> dict[str, Any]:
    about = f"{finding.request}: " if finding.request else ""
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": rule_index,
        "level": finding.severity,
        "message": {"text": about + finding.message + (f" {finding.remedy}" if finding.remedy else "")},
        "locations": _locations(finding.place),
        "partialFingerprints": {"padcheck/v1": finding.fingerprint},
        "properties": {"confidence": finding.confidence, "evidence": finding.evidence},
    }
    related = [
        {**location, "message": {"text": other.message}} for other in finding.related for location in _locations(other.place)
    ]
    if related:
        result["relatedLocations"] = [{"id": at, **location} for at, location in enumerate(related, 1)]
    if finding.suppressed:
        # A comment stands in a line of source; what has no line was suppressed by the configuration.
        result["suppressions"] = [{"kind": "external" if finding.place.line is None else "inSource"}]
    if finding.fix and (change := _fix(finding.fix)):
        result["fixes"] = [change]
    return result


def _fix(fix: Fix) -> dict[str, Any] | None:
    """A fix whose edits all have an exact span; SARIF has no other."""
    spans = [(edit.place.path, _region(edit.place), edit.replacement) for edit in fix.edits]
    if not spans or any(path is None or region is None for path, region, _ in spans):
        return None
    paths = list(dict.fromkeys(path for path, _, _ in spans if path is not None))
    return {
        "description": {"text": f"{fix.message} ({fix.grade})"},
        "artifactChanges": [
            {
                "artifactLocation": {"uri": _uri(path)},
                "replacements": [
                    {"deletedRegion": region, "insertedContent": {"text": replacement}}
                    for other, region, replacement in spans
                    if other == path
                ],
            }
            for path in paths
        ],
    }


def _notification(error: JobError) -> dict[str, Any]:
    about = f"{error.request}: " if error.request else ""
    return {
        "level": "error",
        "message": {"text": about + error.message + (f" {error.remedy}" if error.remedy else "")},
        "locations": _locations(error.place),
    }


def _locations(place: Place) -> list[dict[str, Any]]:
    if place.path is None:
        return []
    region = _region(place)
    physical = {"artifactLocation": {"uri": _uri(place.path)}} | ({"region": region} if region else {})
    cell = {} if place.cell is None else {"logicalLocations": [{"name": f"cell {place.cell}", "kind": "member"}]}
    return [{"physicalLocation": physical, **cell}]


def _region(place: Place) -> dict[str, int] | None:
    """Lines and columns; None for a notebook's cell, whose lines are not lines of the file."""
    if place.line is None or place.cell is not None:
        return None
    region = {"startLine": place.line, "startColumn": place.column, "endLine": place.end_line, "endColumn": place.end_column}
    return {name: value for name, value in region.items() if value is not None}


def _uri(path: str) -> str:
    """A relative path as a URI reference, an absolute one as a file URI."""
    if PurePosixPath(path).is_absolute():
        return "file://" + quote(path, errors="replace")
    if PureWindowsPath(path).is_absolute():
        return "file:///" + quote(PureWindowsPath(path).as_posix(), safe="/:", errors="replace")
    return quote(path, errors="replace")
