"""The sentences that the readable reports share, for a reader who has never heard of padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from padcheck.diagnostics import Finding, JobError
from padcheck.records import Record
from padcheck.reports import PreflightReport, Report

SHOWN_IDS = 8
"""How many elements of a long list a readable report shows."""


class Cause(Record):
    """Why a position is wrong: a short name, and one sentence that explains it from the beginning."""

    label: str
    sentence: str


CAUSES: Mapping[str, Cause] = {
    "pads": Cause(
        "padding not counted",
        "Sentences that are processed together are filled up to equal length with padding: tokens that mean "
        "nothing. The editor counted its position without the padding of the row, and is off by that many tokens.",
    ),
    "sign": Cause(
        "counted from the wrong end",
        "The editor counts from one end of the row, and the padding stands at that end: it counts pads instead of words.",
    ),
    "special_tokens": Cause(
        "special tokens miscounted",
        "The tokenizer adds special tokens of its own (begin or end of text, a prefix). The editor counts them "
        "twice or not at all, and so lands beside the token it means.",
    ),
    "merged": Cause(
        "one token across the border",
        "One token covers the end of the subject together with the text behind it. The editor measured the "
        "subject alone, in tokens that this sentence does not have.",
    ),
    "boundary": Cause(
        "text cut where tokens join",
        "The editor tokenises the sentence only up to the subject, and the piece it cuts off falls into other "
        "tokens than the whole sentence does.",
    ),
    "occurrence": Cause(
        "another occurrence",
        "The subject stands in the sentence more than once, and the editor finds another occurrence than the one "
        "that is meant.",
    ),
    "truncation": Cause(
        "cut off",
        "The row is longer than what the editor keeps of it: the subject, the new answer or both are cut off.",
    ),
    "retokenised": Cause(
        "answer changes its tokens",
        "The editor turns the new answer into tokens, back into text, and into tokens again, and these are not "
        "the same tokens. The answer is then scored on tokens it does not consist of.",
    ),
    "braces": Cause(
        "braces counted twice",
        "The sentence has escaped braces. The editor counts them as they are written ({{ and }}), but the "
        "sentence has single ones.",
    ),
    "suffix": Cause(
        "nothing behind the subject",
        "The editor wants the token behind the subject. What stands there differs between the rows (nothing, or "
        "already the new answer), and so does the token it finds.",
    ),
    "raises": Cause(
        "the editor stops",
        "For this fact_token the editor computes no position at all: it stops with an exception, after the expensive part.",
    ),
    "inconsistent": Cause(
        "two conventions in one run",
        "One half of the editor counts from the start of the row and the other from its end, so no padding side "
        "is right for both.",
    ),
}


class Kind(Record):
    """What an editor does at a position: the noun, "editor ... here", "true: ...", and what goes wrong elsewhere."""

    title: str
    editor: str
    harm: str


KINDS: Mapping[str, Kind] = {
    "lookup": Kind("lookup", "reads", "the fact is read and written at the wrong token"),
    "label": Kind("answer slots", "scores from", "the new answer is scored on the wrong tokens"),
    "kl": Kind("KL position", "compares", "what should stay as it is gets compared at the wrong token"),
    "key": Kind("key", "reads the key", "the key, which decides where the change takes hold, comes from the wrong token"),
    "value": Kind("value", "reads the value", "the value to be replaced comes from the wrong token"),
    "current": Kind("current output", "reads the output", "the model's present answer is read at the wrong token"),
    "head": Kind("answer text", "inserts", "the new answer is inserted with other tokens"),
}
_EDITED = ("lookup", "key", "value", "current")
_TRAINED = ("label", "head")

_FACT_TOKENS: Mapping[str, str] = {
    "subject_last": "the last token of the subject",
    "subject_first": "the first token of the subject",
    "subject_first_after_last": "the first token behind the subject",
    "last": "the last token of the prompt",
}

_SILENT = (
    "Nothing crashes when this happens: the run ends and a changed model is written, but it is not the edit that was "
    "asked for."
)
_LOG_LOOKS_RIGHT = " The positions that the editor prints look right, because it counts them before the padding is added."


_RIGHT = "In every row that {editor} would build, it reads, scores and compares at the tokens that are meant."
_ONLY_POSITIONS = "Whether the edit then takes is up to the method and its hyperparameters; its positions are in order."


def cause(name: str) -> Cause:
    """The words for a cause; an unknown one is named as it is."""
    return CAUSES.get(name) or Cause(name.replace("_", " "), f"The cause is “{name}”.")


def kind(name: str) -> Kind:
    """The words for a kind of position; an unknown one is named as it is."""
    return KINDS.get(name) or Kind(name, "reads", f"the {name} position is wrong")


def plural(count: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def sentence(text: str) -> str:
    """`text` with a capital letter."""
    return text[:1].upper() + text[1:]


def docs(rule: str) -> str:
    """Where to read more about a rule."""
    return f"padcheck explain {rule}"


def editor_name(report: PreflightReport) -> str:
    """`EasyEdit's ROME`, as far as it is known."""
    framework = report.framework_title or report.framework
    return f"{framework}'s {report.method}" if framework and report.method else report.method or framework or "The editor"


def headline(report: PreflightReport) -> str:
    """The verdict in one line, without the verdict's own word."""
    checked, drifting = report.requests_checked, report.requests_drifting
    share = f"{drifting:,} of {plural(checked, 'request')}"
    errors = report.counts()["error"]
    if report.verdict == "corrected":
        return f"{share} would have been {_misplaced(report)}; corrected, none is"
    if report.verdict == "incomplete":
        why = f"{plural(len(report.errors), 'part')} could not be done" if report.errors else "some positions cannot be told"
        seen = (
            f"; {share} would be {_misplaced(report)}"
            if drifting
            else f"; {plural(checked, 'request')} checked, none found wrong"
        )
        return f"the plan was not fully checked: {why}{seen if checked else ''}"
    if drifting:
        return f"{share} would be {_misplaced(report)}"
    if report.verdict == "fail":
        return f"{plural(errors, 'error')} in the plan, though no position was found to be wrong"
    subject = "the one request" if checked == 1 else f"all {checked:,} requests"
    return f"{subject} would be edited at the right tokens" if checked else "there was nothing to edit"


def _misplaced(report: PreflightReport) -> str:
    wrong = {name for name, rows in report.by_kind.items() if rows}
    if not wrong or wrong & set(_EDITED):
        return "edited at the wrong token"
    if wrong & set(_TRAINED):
        return "trained on the wrong tokens"
    return "compared at the wrong token"


def explanation(report: PreflightReport) -> list[str]:
    """What is wrong and why it matters, in plain language: paragraphs; none where there is nothing to explain."""
    if report.verdict == "pass" and report.rows_checked:
        return [f"{_RIGHT.format(editor=editor_name(report))} {_ONLY_POSITIONS}"]
    if not report.rows_drifting:
        return []
    wrong = [name for name in KINDS if report.by_kind.get(name)][:2] or ["lookup"]
    place = _FACT_TOKENS.get(report.fact_token, "one token of the sentence")
    harm = _listed([kind(name).harm for name in wrong])
    lead = [f"{editor_name(report)} changes what a model knows at one place: {place}. In this run {harm}."]
    sentences = [cause(name).sentence for name, _ in by_count(report.by_cause) if name in CAUSES][:2]
    if report.verdict == "corrected":
        end = "With the correction, a second pass over all rows finds every position right."
    else:
        end = "" if report.by_cause.get("raises") else _SILENT + (_LOG_LOOKS_RIGHT if report.by_cause.get("pads") else "")
    return [*lead, *sentences, *filter(None, [end])]


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The counts above zero, the largest first."""
    return sorted(((name, count) for name, count in counts.items() if count), key=lambda item: (-item[1], item[0]))


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def rows_sentence(report: PreflightReport) -> str:
    """How many rows drift, and for which causes."""
    if not report.rows_checked:
        return ""
    if not report.rows_drifting:
        return f"{plural(report.rows_checked, 'row')} checked, none drifts"
    causes = ", ".join(f"{cause(name).label} ({count:,})" for name, count in by_count(report.by_cause))
    verb = "drifts" if report.rows_drifting == 1 else "drift"
    return f"{report.rows_drifting:,} of {plural(report.rows_checked, 'row')} {verb}" + (f": {causes}" if causes else "")


def summary_sentence(report: Report) -> str:
    """The counts of findings, those that are not shown included."""
    counts = report.counts()
    named = [plural(counts[severity], severity) for severity in ("error", "warning", "note") if counts[severity]]
    sentence = f"Found {_listed(named)}" if named else "No findings"
    if report.command == "check":  # of many files or of none at all: what was looked at is half of the answer
        sentence += (
            f" in {plural(report.inspected, 'file')}" if report.inspected else "" if report.errors else ": no file was found"
        )
    if counts["suppressed"]:
        sentence += f" ({counts['suppressed']:,} suppressed)"
    if report.errors:
        sentence += f"; {plural(len(report.errors), 'part')} of the job could not be done"
    fixes = [finding.fix.grade for finding in report.visible() if finding.fix and finding.fix.edits]
    safe, unsafe = fixes.count("safe"), fixes.count("unsafe")
    if safe:
        sentence += f"; {safe:,} fixable with --fix"
    if unsafe:
        sentence += f"; {unsafe:,} held back, fixable with --unsafe-fixes"
    return sentence + "."


def error_place(error: JobError) -> str:
    """Where something could not be done: the place, the request, both, or nothing."""
    place = "" if error.place.path is None else str(error.place)
    request = "" if error.request is None else str(error.request)
    return f"{place} ({request})" if place and request else place or request


def remedy(finding: Finding) -> str | None:
    """What to do about a finding: its own remedy, else what its fix would do."""
    return finding.remedy or (finding.fix.message if finding.fix else None)


_TOLD_BY_DRIFT = {"key", "cause", "arithmetic", "positions", "kinds", "requests", "padding_side", "worst"}
"""What the message of a finding about drifting rows says already."""


def evidence(finding: Finding) -> list[tuple[str, str]]:
    """The evidence as pairs of words: scalars as they are, lists by their first elements; nested data stays in the JSON."""
    told = _TOLD_BY_DRIFT if "worst" in finding.evidence else {"key"}
    return [
        (name.replace("_", " "), shown)
        for name, value in finding.evidence.items()
        if name not in told and (shown := _shown(value))
    ]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        parts = [f"{name} {_shown(part)}" for name, part in value.items() if _is_scalar(part)]
    elif isinstance(value, (list, tuple)):
        parts = [_shown(part) for part in value if _is_scalar(part)]
    elif isinstance(value, bool):
        return "yes" if value else "no"
    elif isinstance(value, int):
        return f"{value:,}"
    elif isinstance(value, float):
        return f"{value:.4g}"
    else:
        return "" if value is None else str(value)
    more = f", … ({len(parts):,} in all)" if len(parts) > SHOWN_IDS else ""
    return ", ".join(parts[:SHOWN_IDS]) + more


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, int, float))
