"""`preflight`: will the planned run read, write and score at the right tokens?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from padcheck.checks.drift_rules import Group, findings
from padcheck.checks.run_rules import run_findings
from padcheck.correcting import correct
from padcheck.diagnostics import Finding, JobError, Place, RequestRef
from padcheck.passes import Outcome, run_pass, shown
from padcheck.planning import BadFactToken, Options, Plan, settle
from padcheck.remedies import find_remedies
from padcheck.reports import FIRST_IDS, PreflightReport, SideOutcome
from padcheck.rulebook import find
from padcheck.sources.reading import SourceError, rereadable, sentence
from padcheck.viewing import row_view

SAMPLE = 64
"""Requests on which the other length profiles of stand-in templates are tried."""


def preflight(
    hparams: str | Path | Mapping[str, Any],
    requests: str | Path | Iterable[Mapping[str, Any]],
    *,
    tokenizer: Any = None,
    model: str | Path | None = None,
    max_rows: int = 20,
    fix: bool = False,
    diff: bool = False,
    rows_out: Callable[[dict[str, Any]], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
    **options: Any,
) -> PreflightReport:
    """Check a planned edit run without weights.

    Args:
        hparams: an hparams file (EasyEdit's YAML, kmeng01's JSON) or its content.
        requests: a file of edit requests, or EasyEdit-style dictionaries (a collection that can be iterated again).
        tokenizer: a tokenizer folder, a `tokenizers.Tokenizer` or a transformers tokenizer; `model`: a model folder instead.
        max_rows: rows shown in `report.worst`.
        fix: write the correction and look again; `diff`: look again without writing.
        rows_out: called with the record of every row (see `--rows-out`).
        on_progress: called with the number of requests done.
        options: the fields of `planning.Options` (framework, method, padding_side, run, batch_size, context_templates, …).

    Returns:
        The report. It never raises for bad input: what could not be done stands in `report.errors` (exit code 2).
    """
    started = time.perf_counter()
    report = PreflightReport("preflight", _tool(), hparams_path=shown(hparams), requests_path=shown(requests))
    try:
        if tokenizer is None and model is None:
            raise SourceError("no tokenizer is named", path="--tokenizer", remedy="Give --tokenizer DIR or --model DIR.")
        plan = settle(hparams, tokenizer if tokenizer is not None else model, Options(**options))
        report.inspected = 1
        _describe(report, plan)
        with rereadable():
            outcome = run_pass(plan, requests, plan.templates, rows_out=rows_out, on_progress=on_progress)
            finish(report, plan, outcome, requests, max_rows)
            if (fix or diff) and isinstance(requests, (str, Path)):
                correct(plan, requests, outcome, report, write=not diff)
    except BadFactToken as error:
        rule = find("HPR103")
        report.inspected = 1
        report.verdict = "fail"
        report.findings.append(
            Finding(
                rule.id, rule.name, rule.severity, sentence(error.message), place=Place(error.path, error.line, error.column),
                remedy=error.remedy, message_zh=rule.message_zh, evidence={"key": rule.id},
            )
        )  # fmt: skip
    except SourceError as error:
        report.errors.append(job_error(error))
        report.verdict = "incomplete"
    report.seconds = time.perf_counter() - started
    return report


def finish(
    report: PreflightReport, plan: Plan, outcome: Outcome, requests: str | Path | Iterable[Mapping[str, Any]], max_rows: int
) -> None:
    """Turn the pass into findings, verdict, worst rows and remedies."""
    report.inspected += 1
    report.requests_checked = outcome.checked_requests
    report.requests_drifting = outcome.drifting_requests
    report.drifting_ids = [outcome.drifting_ids[index] for index in sorted(outcome.drifting_ids)][:FIRST_IDS]
    report.rows_checked, report.rows_drifting = outcome.rows, outcome.tally.drifting
    report.by_cause = dict(sorted(outcome.tally.by_cause.items(), key=lambda item: -item[1]))
    report.by_kind = dict(outcome.tally.by_kind)
    for problem in outcome.problems:
        ref = None if problem.stopped else RequestRef(problem.index, problem.case_id)
        report.errors.append(
            JobError(problem.message, Place(shown(requests), problem.line, problem.column), problem.remedy, ref)
        )
    hidden = outcome.problem_count - len(outcome.problems)
    if hidden:
        report.errors.append(
            JobError(f"{hidden:,} more records cannot be used, for reasons like these.", Place(shown(requests)))
        )
    if not outcome.checked_requests and not outcome.problems:
        report.errors.append(JobError("There is no request in the file.", Place(shown(requests)), "Is it the right file?"))
    groups = outcome.tally.ordered()
    uncertain = doubts(plan, requests, groups)
    report.findings.extend(run_findings(plan, outcome.needs_left, outcome.needs_right))
    report.findings.extend(
        findings(
            groups,
            requests_path=shown(requests),
            uncertain=uncertain,
            side_because=plan.side.because,
            explain_side=f"{plan.side.value} padding",
        )
    )
    report.findings.extend(outcome.request_findings.finish())
    if outcome.unknown:
        rule = find("IDX111")
        report.findings.append(
            Finding(
                rule.id, rule.name, "warning",
                f"In {outcome.unknown:,} of {outcome.rows:,} positions neither the tokenizer's offsets nor decoding can be trusted: nothing is said about them.",
                message_zh=rule.message_zh, place=Place(report.tokenizer_path), evidence={"key": "unknown", "positions": outcome.unknown},
            )
        )  # fmt: skip
    elif outcome.fallback:
        rule = find("IDX111")
        report.findings.append(
            Finding(
                rule.id, rule.name, "note",
                f"The tokenizer's offsets fail their self-test in rows of {outcome.fallback:,} request{'' if outcome.fallback == 1 else 's'}; positions there come from decoding growing prefixes of the row.",
                message_zh=rule.message_zh, place=Place(report.tokenizer_path), evidence={"key": "fallback", "requests": outcome.fallback},
            )
        )  # fmt: skip
    report.findings.sort(key=lambda item: item.sort_key)
    seen: set[tuple[int, str, int, str]] = set()
    for position in range(max_rows):
        for group in groups:
            readings = group.readings()
            if position < len(readings) and len(report.worst) < max_rows:
                reading = readings[position]
                key = (reading.row.prepared.request.index, reading.batch.name, reading.row.number, reading.kind)
                if key not in seen:
                    seen.add(key)
                    report.worst.append(row_view(reading))
    report.remedies = find_remedies(plan, outcome.tally, outcome.needs_left, outcome.needs_right)
    wrong = any(item.severity == "error" for item in report.findings)
    report.verdict = "fail" if wrong else "incomplete" if report.errors or outcome.unknown else "pass"


def doubts(
    plan: Plan, requests: str | Path | Iterable[Mapping[str, Any]], groups: Sequence[Group]
) -> dict[tuple[str, str, str], str]:
    """Groups that do not show up under every length profile of the stand-in templates."""
    if len(plan.profiles) < 2 or not groups:
        return {}
    result: dict[tuple[str, str, str], str] = {}
    for profile in plan.profiles[1:]:
        tried = run_pass(plan, requests, profile, limit=SAMPLE)
        for group in groups:
            if (group.rule, group.cause, group.arithmetic) not in tried.tally.groups and group.worst_before(SAMPLE):
                result[group.key] = (
                    "It depends on the context templates: with stand-ins of other lengths it does not happen (give the real ones with --context-templates)."
                )
    return result


def job_error(error: SourceError) -> JobError:
    return JobError(sentence(error.message), Place(error.path, error.line, error.column), error.remedy or None)


def _describe(report: PreflightReport, plan: Plan) -> None:
    report.framework, report.framework_title = plan.editor.id, plan.editor.title
    report.framework_because = plan.framework_because
    report.method, report.fact_token, report.run = plan.method_name, plan.fact_token, plan.options.run
    report.tokenizer_path, report.tokenizer_how = Path(plan.tokenizer.path).as_posix(), plan.tokenizer.how
    report.transformers = plan.tokenizer.generation
    report.templates = plan.templates.said
    report.padding_side = SideOutcome(plan.side.value, plan.side.because, plan.side.steps)


def _tool() -> dict[str, str]:
    from padcheck import __version__

    return {"name": "padcheck", "version": __version__}
