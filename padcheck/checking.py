"""The engine of `check`: find files, know what they are, run the rules on each, then the rules across files; fix, ignore, report.

What a file says on its own is kept as facts (plain JSON), which the cache remembers by content; the rules across files always run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from padcheck.caching import FactCache, digest
from padcheck.configuration import KINDS, Settings, SettingsPerFolder, sift, unused
from padcheck.diagnostics import (
    Finding,
    Fix,
    JobError,
    Place,
    Related,
    RequestRef,
    TextEdit,
    relative_posix,
)
from padcheck.discovery import HEAD, LARGE, Candidate, Missing, Recognised, discover, recognise
from padcheck.records import MutableRecord, Record, field, values
from padcheck.reports import Report
from padcheck.rulebook import find
from padcheck.sources.reading import STDIN, SourceError
from padcheck.suppression import Comment, about_comments, comments, hide

Facts = dict[str, Any]
MANY = 200
"""Files from which on several processes are worth their start."""


class Options(MutableRecord):
    """What the command line says."""

    model: Path | None = None
    framework: str | None = None
    method: str | None = None
    fix: bool = False
    unsafe_fixes: bool = False
    diff: bool = False
    jobs: int | None = None
    cache: bool = True
    stdin_filename: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    left_out: Callable[[Path], bool] | None = None
    """Whether a file or folder that is found, not named, is passed over."""


class CheckReport(Report):
    """What `check` did, besides the findings."""

    kinds: dict[str, int] = field(default_factory=dict)
    """Files per kind."""
    shown: list[tuple[str, str, str]] = field(default_factory=list)
    """Path, kind and reason of every file (--show-files)."""
    fixed: int = 0
    diffs: list[str] = field(default_factory=list)
    fixed_stdin: str | None = None


class _Task(Record):
    """One file to look at, in a form that another process can be given."""

    path: str
    shown: str
    kind: str | None
    """The kind of a folder; None for a file, whose content tells."""
    rule: tuple[str, str, str | None, str | None] | None
    named: bool
    enabled: frozenset[str]
    model: str | None
    framework: str | None
    method: str | None
    text: str | None = None


def check(paths: Sequence[str | Path], options: Options, *, only_show: bool = False) -> CheckReport:
    """Check files and folders. Never raises for bad input: what could not be done stands in `errors`."""
    from padcheck import __version__

    report = CheckReport("check", {"name": "padcheck", "version": __version__})
    settings = SettingsPerFolder(options.settings)
    try:
        tasks, texts = _tasks(paths, options, settings, report)
    except SourceError as error:
        report.errors.append(job_error(error))
        return report
    if options.model is not None and not (options.model / "config.json").is_file():
        report.errors.append(
            JobError("There is no config.json in the model's folder.", Place(options.model.as_posix()), "Check --model.")
        )
        return report
    cache = FactCache(str(options.model), _stat(options.model), options.framework, options.method, enabled=options.cache)
    found = _run(tasks, options, cache)
    if options.fix or options.diff:
        tasks, found = _fix(tasks, found, options, report, settings)
    cache.save()
    for task, facts in zip(tasks, found, strict=True):
        report.kinds[facts["kind"]] = report.kinds.get(facts["kind"], 0) + 1
        report.inspected += 1
        report.shown.append((task.shown, facts["kind"], facts["reason"]))
        report.errors += [_error_in(each) for each in facts["errors"]]
    if not only_show:
        _gather(tasks, found, settings, report)
    del texts
    return report


# --- The files --------------------------------------------------------------------------------------------------------------


def _tasks(
    paths: Sequence[str | Path], options: Options, settings: SettingsPerFolder, report: CheckReport
) -> tuple[list[_Task], dict[str, str]]:
    import sys

    tasks: list[_Task] = []
    texts: dict[str, str] = {}
    model = str(options.model) if options.model else None
    files = [path for path in paths if str(path) != STDIN]
    if len(files) < len(paths):
        name = options.stdin_filename or "stdin"
        text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
        own = settings.of_file(name)
        rule = own.file_rule(Path(name).absolute())
        tasks.append(
            _Task(name, name, None, _rule_out(rule), True, own.enabled(), model, options.framework, options.method, text)
        )
    for candidate in discover(files, settings, options.left_out):
        if isinstance(candidate, Missing):
            report.errors.append(_missing(candidate.path))
            continue
        own = settings.of_file(candidate.path, is_folder=candidate.folder_kind is not None)
        tasks.append(_task(candidate, own, options, model))
    return tasks, texts


def _task(candidate: Candidate, own: Settings, options: Options, model: str | None) -> _Task:
    shown = relative_posix(candidate.path, Path.cwd()) if candidate.path.is_absolute() else candidate.path.as_posix()
    return _Task(
        str(candidate.path),
        shown,
        candidate.folder_kind,
        _rule_out(candidate.rule),
        candidate.named,
        own.enabled(),
        model,
        options.framework,
        options.method,
    )


def _rule_out(rule: Any) -> tuple[str, str, str | None, str | None] | None:
    return None if rule is None else (rule.pattern, rule.kind, rule.method, rule.framework)


def _missing(path: Path) -> JobError:
    from difflib import get_close_matches

    folder = path.parent
    near = get_close_matches(path.name, [child.name for child in folder.iterdir()], 1) if folder.is_dir() else []
    return JobError(
        "There is no such file or folder.",
        Place(path.as_posix()),
        f"Did you mean {(folder / near[0]).as_posix()}?" if near else "Check the path.",
    )


# --- Looking at files -------------------------------------------------------------------------------------------------------


def _run(tasks: Sequence[_Task], options: Options, cache: FactCache) -> list[Facts]:
    """The facts of every file, from the cache, here, or in other processes; in the order of `tasks`."""
    import os

    found: list[Facts | None] = [None] * len(tasks)
    keys = []
    for number, task in enumerate(tasks):
        key = _key(task) if options.cache else None
        keys.append(key)
        known = cache.get(key) if key else None
        if known is not None and all(_stat(Path(path)) == state for path, state in known.get("depends", [])):
            found[number] = known
    left = [number for number, facts in enumerate(found) if facts is None]
    jobs = options.jobs if options.jobs is not None else (min(os.cpu_count() or 1, 8) if len(left) >= MANY else 1)
    if jobs > 1 and len(left) > 1:
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(min(jobs, len(left))) as pool:
            results = pool.map(
                look, [tasks[number] for number in left], chunksize=max(1, min(32, len(left) // (4 * jobs) or 1))
            )
            for number, facts in zip(left, results, strict=True):
                found[number] = facts
    else:
        for number in left:
            found[number] = look(tasks[number])
    for number in left:
        key, new = keys[number], found[number]
        if key and new is not None and not new["errors"]:
            cache.put(key, new)
    return [facts for facts in found if facts is not None]


def _key(task: _Task) -> str | None:
    """What the facts of a file depend on; None for one that is not remembered."""
    import hashlib

    try:
        if task.kind is not None:
            content = json.dumps(
                [_stat(path) for path in sorted(Path(task.path).iterdir()) if path.suffix in (".json", ".model", ".txt")]
            )
        elif task.text is not None:
            content = hashlib.sha256(task.text.encode("utf-8", "surrogateescape")).hexdigest()
        else:
            with open(task.path, "rb") as file:
                data = file.read(LARGE + 1)
            if len(data) > LARGE:
                return None
            content = hashlib.sha256(data).hexdigest()
    except OSError:
        return None
    return digest(content, str(Path(task.path).absolute()), task.shown, task.kind, task.rule, _together(task.enabled))


@cache
def _together(ids: frozenset[str]) -> str:
    return digest(sorted(ids))


def _stat(path: Path | None) -> list[int] | None:
    """What tells that a file has changed."""
    if path is None:
        return None
    try:
        state = (path / "config.json" if path.is_dir() else path).stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]


def look(task: _Task) -> Facts:
    """The facts of one file: kind, reason, findings, ignore comments, what the rules across files need, errors. Plain JSON."""
    from padcheck.configuration import FileRule

    facts: Facts = {
        "kind": "other",
        "reason": "",
        "findings": [],
        "comments": [],
        "facts": None,
        "sides": [],
        "errors": [],
        "depends": [],
    }
    rule = FileRule(*task.rule) if task.rule else None
    try:
        if task.kind is not None:
            facts["kind"], facts["reason"] = (
                task.kind,
                "the folder holds " + ("a tokenizer" if task.kind == "tokenizer" else "config.json"),
            )
            facts["findings"] = [finding_out(each) for each in _of_folder(task)]
            return facts
        text = _read(task, rule)
        known = (
            Recognised(rule.kind if rule else "other", f"larger than {LARGE // 1024 // 1024} MB and not named")
            if text is None
            else (recognise(Path(task.shown), text, rule))
        )
        facts["kind"], facts["reason"] = known.kind, known.reason
        if text is None:
            return facts
        found = _OF_KIND.get(known.kind, _nothing)(task, text, facts, rule)
        facts["findings"] = [finding_out(each) for each in found]
        facts["comments"] = [_comment_out(each) for each in comments(text, task.shown, known.kind)]
    except SourceError as error:
        facts["errors"] = [_error_out(job_error(error))]
    except OSError as error:
        facts["errors"] = [
            _error_out(
                JobError(f"The file cannot be read: {error.strerror or error}.", Place(task.shown), "Check its permissions.")
            )
        ]
    return facts


def _read(task: _Task, rule: Any) -> str | None:
    """A file's text; its beginning where it is large; None where it is too large for a file that was only found."""
    if task.text is not None:
        return task.text
    path = Path(task.path)
    size = path.stat().st_size
    if size > LARGE and not (task.named or rule):
        return None
    with open(path, "rb") as file:
        data = (
            file.read()
            if size <= 4 * HEAD or path.suffix.lower() in (".py", ".pyw", ".pyi", ".ipynb", ".yaml", ".yml")
            else file.read(HEAD)
        )
    if data.startswith(b"\x1f\x8b"):
        import gzip

        with gzip.open(path, "rb") as packed:
            try:
                data = packed.read(HEAD)
            except (OSError, EOFError):
                return ""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if path.suffix.lower() in (".py", ".pyw", ".pyi"):
            from padcheck.checks.code import Unreadable, decode_source

            try:
                return decode_source(data)
            except Unreadable:
                return data.decode("utf-8", "replace")
        return data.decode("utf-8", "replace")


def _nothing(task: _Task, text: str, facts: Facts, rule: Any) -> Iterable[Finding]:
    return ()


def _of_hparams(task: _Task, text: str, facts: Facts, rule: Any) -> Iterator[Finding]:
    from padcheck.checks import hparams as checks
    from padcheck.sources.hparams import parse_hparams

    try:
        hparams = parse_hparams(text, task.shown, as_json=task.shown.endswith(".json"))
    except SourceError as error:
        if "LNT104" in task.enabled:
            yield _unreadable(error, task.shown)
        return
    framework, method = (
        (rule.framework, rule.method) if rule and (rule.framework or rule.method) else (task.framework, task.method)
    )
    case = checks.make_case(
        hparams, text, framework=framework, method=method, model=Path(task.model) if task.model else None
    )
    name = case.model_name
    if name:
        config = Path(name) / "config.json"
        facts["depends"] = [[str(config), _stat(config)]]
    if case.method == "SimIE":
        base = str(case.values.get("base_method"))
        other = Path(str(Path(task.path).resolve()).replace("/SimIE/", f"/{base}/"))
        facts["depends"] = [*facts["depends"], [str(other), _stat(other)]]
    facts["facts"] = checks.facts_of(case)
    yield from checks.check_hparams(case, task.enabled, lambda rule_id, error: crashed(rule_id, error, task.shown))


def _of_python(task: _Task, text: str, facts: Facts, rule: Any) -> Iterable[Finding]:
    from padcheck.checks.code import check_source
    from padcheck.checks.code.projects import stated_sides

    facts["sides"] = stated_sides(text)
    return check_source(text, task.shown, select=task.enabled)


def _of_notebook(task: _Task, text: str, facts: Facts, rule: Any) -> Iterable[Finding]:
    from padcheck.checks.code import check_notebook

    return check_notebook(text, task.shown, select=task.enabled)


def _of_requests(task: _Task, text: str, facts: Facts, rule: Any) -> Iterable[Finding]:
    from padcheck.checks.requests_alone import check_requests

    try:
        return list(check_requests(Path(task.path), task.shown, task.enabled))
    except SourceError as error:
        return [_unreadable(error, task.shown)] if "LNT104" in task.enabled else []


def _of_folder(task: _Task) -> Iterable[Finding]:
    from padcheck.checks.tokenizer_rules import check_folder

    return check_folder(
        Path(task.path), task.shown, task.enabled, lambda rule_id, error: crashed(rule_id, error, task.shown)
    )


_OF_KIND: Mapping[str, Callable[[_Task, str, Facts, Any], Iterable[Finding]]] = {
    "hparams": _of_hparams,
    "python": _of_python,
    "notebook": _of_notebook,
    "requests": _of_requests,
}
assert set(_OF_KIND) <= set(KINDS)


def _unreadable(error: SourceError, shown: str) -> Finding:
    rule = find("LNT104")
    message = error.message[:1].upper() + error.message[1:]
    return Finding(
        rule.id,
        rule.name,
        rule.severity,
        message if message.endswith(".") else message + ".",
        place=Place(shown, error.line, error.column),
        remedy=error.remedy or None,
        message_zh=rule.message_zh,
        evidence={"key": "LNT104"},
    )


def crashed(rule_id: str, error: Exception, shown: str) -> Finding:
    """The finding for a rule that stopped (and, with it, exit code 2)."""
    rule = find("LNT101")
    words = f"{type(error).__name__}: {error}"
    return Finding(
        rule.id,
        rule.name,
        rule.severity,
        f"{rule_id} stopped with {words}. This is a bug in padcheck, not in your file.",
        place=Place(shown),
        remedy="Leave the rule out with --ignore until it is mended.",
        message_zh=rule.message_zh,
        evidence={"key": f"LNT101 {rule_id}", "rule": rule_id, "exception": words},
    )


# --- Putting it together ----------------------------------------------------------------------------------------------------


def _gather(tasks: Sequence[_Task], found: Sequence[Facts], settings: SettingsPerFolder, report: CheckReport) -> None:
    """Findings of the files and across them, ignores applied, unused ones reported."""
    by_path: dict[str, list[Finding]] = {
        task.shown: [_finding_in(each) for each in facts["findings"]] for task, facts in zip(tasks, found, strict=True)
    }
    hparams = [facts["facts"] for facts in found if facts["facts"]]
    enabled = frozenset().union(*(task.enabled for task in tasks))
    if len(hparams) > 1:
        from padcheck.checks.hparams import across

        for finding in across(hparams, enabled):
            by_path[finding.place.path or ""].append(finding)
    stated = [(side, task.shown, line) for task, facts in zip(tasks, found, strict=True) for side, line in facts["sides"]]
    if stated:
        from padcheck.checks.code.projects import judged

        by_path = {path: judged(findings, stated) for path, findings in by_path.items()}
    for task, facts in zip(tasks, found, strict=True):
        own = settings.of_file(task.path, is_folder=task.kind is not None)
        known = [_comment_in(each) for each in facts["comments"]]
        findings = sift(hide(by_path[task.shown], known, show=own.no_ignores), own)
        findings += sift(about_comments(known, task.enabled), own)
        report.findings += findings
    paths = [task.shown for task in tasks]
    for each in settings.all():
        report.findings += unused(each, paths, each.enabled())
    report.findings.sort(
        key=lambda finding: (
            finding.place.path or "",
            finding.place.cell or 0,
            finding.place.line or 0,
            finding.place.column or 0,
            finding.rule,
        )
    )
    for finding in report.visible():
        if finding.rule == "LNT101":
            report.errors.append(
                JobError(f"The rule {finding.evidence.get('rule')} could not be run.", finding.place, finding.remedy)
            )


def _fix(
    tasks: Sequence[_Task], found: Sequence[Facts], options: Options, report: CheckReport, settings: SettingsPerFolder
) -> tuple[list[_Task], list[Facts]]:
    """Write what may be written (or show it), and look again at what was changed."""
    from padcheck import fixing

    new_tasks, new_facts = list(tasks), list(found)
    for number, (task, facts) in enumerate(zip(tasks, found, strict=True)):
        if task.kind is not None or facts["kind"] not in ("hparams", "python", "notebook", "other"):
            continue
        wanted = [each for each in facts["findings"] if each["fix"]]
        if not wanted and not facts["comments"]:
            continue
        old = task.text if task.text is not None else _exact(Path(task.path))
        if old is None:
            continue
        own = settings.of_file(task.path, is_folder=task.kind is not None)
        text, count, state = _until_stable(task, old, facts, options, own)
        if text == old:
            continue
        report.fixed += count
        if options.diff:
            report.diffs.append(fixing.unified(old, text, task.shown))
            continue
        if task.text is None:
            try:
                fixing.write_exactly(Path(task.path), text)
            except OSError as error:
                report.errors.append(
                    JobError(
                        f"The file cannot be written: {error.strerror or error}.",
                        Place(task.shown),
                        "Check its permissions.",
                    )
                )
                continue
        else:
            report.fixed_stdin = text
            new_tasks[number] = task.replace(text=text)
        new_facts[number] = state
    return new_tasks, new_facts


def _until_stable(task: _Task, old: str, facts: Facts, options: Options, own: Settings) -> tuple[str, int, Facts]:
    """Fix and look again until nothing is left to fix. A fix that breaks the file is taken back."""
    from padcheck import fixing

    apply = fixing.apply_notebook_fixes if facts["kind"] == "notebook" else fixing.apply_fixes
    text, count = old, 0
    bom = "\ufeff" if old.startswith("\ufeff") else ""
    for _ in range(fixing.ROUNDS):
        known = [_comment_in(each) for each in facts["comments"]]
        findings = sift(hide([_finding_in(each) for each in facts["findings"]], known), own)
        findings += sift(about_comments(known, task.enabled), own)
        new, done = apply(text.removeprefix(bom), fixing.applicable(findings, unsafe=options.unsafe_fixes))
        if not done or bom + new == text:
            break
        state = look(task.replace(text=new))
        if state["errors"] or _unread(state) > _unread(facts):
            break
        text, count, facts = bom + new, count + len(done), state
    return text, count, facts


def _unread(facts: Facts) -> int:
    """How many parts of a file could not be parsed."""
    return sum(each["rule"] == "LNT104" for each in facts["findings"])


def _exact(path: Path) -> str | None:
    from padcheck import fixing

    try:
        return fixing.read_exactly(path)
    except (OSError, UnicodeDecodeError):
        return None


# --- Facts as JSON ----------------------------------------------------------------------------------------------------------


def _place_out(place: Place) -> list[Any]:
    return list(values(place).values())


def finding_out(finding: Finding) -> Facts:
    """A finding as JSON holds it. Not the report's contract: only padcheck's own cache and processes read it."""
    fix = finding.fix
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        "message": finding.message,
        "confidence": finding.confidence,
        "place": _place_out(finding.place),
        "remedy": finding.remedy,
        "evidence": dict(finding.evidence),
        "request": None if finding.request is None else [finding.request.index, finding.request.case_id],
        "related": [[each.message, _place_out(each.place)] for each in finding.related],
        "fix": None
        if fix is None
        else [fix.message, [[_place_out(edit.place), edit.replacement] for edit in fix.edits], fix.grade],
    }


def _finding_in(facts: Facts) -> Finding:
    rule = find(facts["rule"])
    fix = facts["fix"]
    return Finding(
        rule.id,
        rule.name,
        facts["severity"],
        facts["message"],
        facts["confidence"],
        Place(*facts["place"]),
        RequestRef(*facts["request"]) if facts["request"] else None,
        facts["remedy"],
        rule.message_zh,
        tuple(Related(message, Place(*place)) for message, place in facts["related"]),
        facts["evidence"],
        None if fix is None else Fix(fix[0], tuple(TextEdit(Place(*place), text) for place, text in fix[1]), fix[2]),
    )


def _comment_out(comment: Comment) -> list[Any]:
    return [list(comment.words), _place_out(comment.place), comment.first, comment.last, comment.whole_file]


def _comment_in(facts: Sequence[Any]) -> Comment:
    words, place, first, last, whole = facts
    return Comment(tuple(words), Place(*place), first, last, whole)


def _error_out(error: JobError) -> Facts:
    return {"message": error.message, "place": _place_out(error.place), "remedy": error.remedy}


def _error_in(facts: Facts) -> JobError:
    return JobError(facts["message"], Place(*facts["place"]), facts["remedy"])


def job_error(error: SourceError) -> JobError:
    """A SourceError as a report has it."""
    message = error.message[:1].upper() + error.message[1:]
    return JobError(
        message if message.endswith((".", "?", "!")) else message + ".",
        Place(error.path, error.line, error.column),
        error.remedy or None,
    )
