"""JUnit XML, which every CI server shows as tests.

A finding is a test case. Errors fail it; warnings and notes pass and stand in its output, as they do not fail the run by
default either; suppressed findings are skipped; what could not be done is an error. No findings make one passing case.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import escape as xml_text
from xml.sax.saxutils import quoteattr

from padcheck.diagnostics import Finding, JobError
from padcheck.renderers import wording
from padcheck.reports import PreflightReport, Report

_NOT_XML = re.compile("[^\t\n\r\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even as a character reference, and the C1 controls that it discourages."""


def render(report: Report) -> str:
    """`report` as one test suite."""
    findings = sorted(report.findings, key=lambda finding: finding.sort_key)
    cases = [_error(error) for error in report.errors] + [_case(finding) for finding in findings]
    if not cases:
        cases = [f"    <testcase{_attributes(name='no findings', classname='padcheck')}/>"]
    totals = {
        "tests": len(cases),
        "failures": report.counts()["error"],
        "errors": len(report.errors),
        "skipped": report.counts()["suppressed"],
    }
    seconds = report.seconds if isinstance(report, PreflightReport) else 0.0
    counted = _attributes(
        name=f"padcheck {report.command}", **{name: str(count) for name, count in totals.items()}, time=f"{seconds:.3f}"
    )
    page = "\n".join(
        [
            '<?xml version="1.0" encoding="utf-8"?>',
            f"<testsuites{counted}>",
            f"  <testsuite{counted}>",
            *_properties(report),
            *cases,
            "  </testsuite>",
            "</testsuites>",
            "",
        ]
    )
    return page.encode("ascii", "xmlcharrefreplace").decode()  # the same in every encoding of a pipe


def _properties(report: Report) -> list[str]:
    if not isinstance(report, PreflightReport):
        return []
    named = {"verdict": report.verdict, "method": report.method, "fact_token": report.fact_token}
    if report.padding_side:
        named |= {"padding_side": report.padding_side.value, "because": report.padding_side.because}
    lines = [f"      <property{_attributes(name=name, value=value)}/>" for name, value in named.items()]
    return ["    <properties>", *lines, "    </properties>"]


def _case(finding: Finding) -> str:
    about = f" {finding.request}" if finding.request else ""
    line = {} if finding.place.line is None else {"line": str(finding.place.line)}
    file = {} if finding.place.path is None else {"file": finding.place.path}
    opening = _attributes(
        name=f"{finding.rule} {finding.name} {finding.place}{about}",
        classname=finding.place.path or "padcheck",
        **file,
        **line,
    )
    remedy = wording.remedy(finding)
    detail = _text(
        f"{finding.place}: {finding.message}" + (f"\n{remedy}" if remedy else "") + f"\n{wording.docs(finding.rule)}"
    )
    message = _attributes(message=finding.message, type=finding.severity)
    if finding.suppressed:
        body = f"<skipped{_attributes(message='suppressed: ' + finding.message)}/>"
    elif finding.severity == "error":
        body = f"<failure{message}>{detail}</failure>"
    else:
        body = f"<system-out>{finding.severity}: {detail}</system-out>"
    return f"    <testcase{opening}>{body}</testcase>"


def _error(error: JobError) -> str:
    about = f" {error.request}" if error.request else ""
    opening = _attributes(name=f"could not check {error.place}{about}", classname=error.place.path or "padcheck")
    detail = _text(f"{error.place}: {error.message}" + (f"\n{error.remedy}" if error.remedy else ""))
    return f"    <testcase{opening}><error{_attributes(message=error.message, type='padcheck')}>{detail}</error></testcase>"


def _attributes(**named: str) -> str:
    # Line breaks in an attribute would be read back as spaces.
    breaks = {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
    return "".join(f" {name}={quoteattr(_NOT_XML.sub('', value), breaks)}" for name, value in named.items())


def _text(text: str) -> str:
    return xml_text(_NOT_XML.sub("", text), {"\r": "&#13;"})
