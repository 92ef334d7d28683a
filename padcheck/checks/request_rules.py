"""Rules about single requests: everything that breaks an edit before a position is computed, and what breaks it silently."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from padcheck.diagnostics import Finding, Place, RequestRef, Severity
from padcheck.positions.editors import Method
from padcheck.positions.filling import Stop, is_cjk
from padcheck.positions.rows import Prepared
from padcheck.rulebook import find
from padcheck.sources.requests import Request

_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "′": "'", "–": "-", "—": "-", "\u00a0": " ", "\u3000": " "})


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What the rules need besides the request."""

    requests_path: str
    method: Method
    pad_texts: tuple[str, ...] = ()
    flags: Mapping[str, Any] | None = None


def finding(
    rule_id: str,
    request: Request,
    context: RequestContext,
    message: str,
    remedy: str,
    *,
    severity: Severity | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> Finding:
    """A finding of `rule_id` about `request`, at the request's place in its file."""
    rule = find(rule_id)
    return Finding(
        rule=rule.id,
        name=rule.name,
        severity=severity or rule.severity,
        message=message,
        message_zh=rule.message_zh,
        place=Place(context.requests_path, request.line, request.column),
        request=RequestRef(request.index, request.case_id),
        remedy=remedy,
        evidence={
            "key": rule.id,
            "prompt": request.prompt,
            "subject": request.subject,
            "target_new": request.target_new,
            **(evidence or {}),
        },
    )


def stopped(stop: Stop, request: Request, context: RequestContext) -> Finding:
    """The finding for a request at which the editor raises."""
    if stop.rule == "REQ101":
        return _absent(request, context)
    remedies = {
        "REQ102": "Write the prompt as a template with {} at the one place that is meant.",
        "REQ105": "Keep exactly one {}; write braces that belong to the text as {{ and }}.",
        "REQ106": "Name the subject as it stands in the prompt.",
        "REQ111": "Put a space before {}, or use a framework that does not need one.",
        "TGT106": "Give the new answer as text.",
        "TGT107": "Leave braces out of the target.",
    }
    return finding(stop.rule, request, context, stop.message[0].upper() + stop.message[1:] + ".", remedies[stop.rule])


def hygiene(prepared: Prepared, context: RequestContext) -> Iterator[Finding]:
    """Rules on a request that the editor accepts."""
    request, filled, method = prepared.request, prepared.filled, context.method
    subject, prompt, target = request.subject or "", request.prompt, request.target_new
    locate = method.kind == "locate"
    if locate and filled.subject:
        if subject != subject.strip():
            edge = "ends" if subject != subject.rstrip() else "begins"
            yield finding(
                "REQ104", request, context,
                f"The subject {subject!r} {edge} with a space: the index names a token {'after' if edge == 'ends' else 'before'} the subject's own.",
                f"Use {subject.strip()!r}.", severity="error" if edge == "ends" else "warning",
            )  # fmt: skip
        yield from _inside_word(prepared, context)
    if method.requires_template and "{}" not in prompt:
        yield finding(
            "REQ113", request, context, f"{method.name} takes templates and this prompt has no {{}}; it was read as {filled.raw_before + '{}' + filled.raw_after!r} with the target {filled.target!r}.",
            "Write the prompt with {} in the subject's place before you run it.",
        )  # fmt: skip
    if not method.fills_template and "{}" in prompt:
        yield finding(
            "REQ108", request, context, f"{method.name} does not fill in {{}}: it would train on the braces.",
            f"Write the prompt in full: {prompt.replace('{}', subject)!r}.",
        )  # fmt: skip
    if prompt and prompt[-1].isspace():
        yield finding(
            "REQ107", request, context, "The prompt ends in a space, and the target gets one of its own: the two make a token that running text does not have.",
            f"Use {prompt.rstrip()!r}.",
        )  # fmt: skip
    if method.space != "never":
        if method.space in {"unless-blank", "always"} and target.startswith(" ") and target != " ":
            yield finding(
                "TGT105", request, context, f"The target {target!r} begins with a space and {method.name} puts another before it: two spaces are trained.",
                f"Use {target.lstrip()!r}.",
            )  # fmt: skip
        elif "  " in target.strip():
            yield finding(
                "TGT105", request, context, f"The target {target!r} holds two spaces in a row: they are tokens that running text does not have.",
                f"Use {' '.join(target.split())!r}.",
            )  # fmt: skip
        elif filled.target != target and target[:1] and is_cjk(target[0]):
            yield finding(
                "TGT104", request, context, f"{method.name} puts a space before {target!r}; Chinese and Japanese text has none there, so the token that is trained never occurs.",
                "Edit with a method that forces no space, or expect the answer only after a space.",
            )  # fmt: skip
    if not target.strip() and locate:
        yield finding(
            "TGT106",
            request,
            context,
            "The target is empty: one space would be trained as the new answer.",
            "Give the new answer as text.",
        )
    yield from _missing_fields(request, context)
    for text in context.pad_texts:
        if text and text in prompt:
            yield finding(
                "REQ110", request, context, f"The prompt contains {text!r}, the text of the pad token: what counts pads by their id miscounts this row.",
                "Take it out of the prompt.",
            )  # fmt: skip
            break


def _missing_fields(request: Request, context: RequestContext) -> Iterator[Finding]:
    missing = [
        name
        for name in context.method.needs
        if name not in {"prompt", "subject", "target_new"} and not request.extra.get(name)
    ]
    if missing:
        yield finding(
            "REQ109", request, context, f"{context.method.name} reads {' and '.join(missing)} from each request, and this one has none.",
            f"Add {', '.join(missing)} to the request.", evidence={"key": f"REQ109:{','.join(missing)}"},
        )  # fmt: skip


def _inside_word(prepared: Prepared, context: RequestContext) -> Iterator[Finding]:
    """The subject stands inside a longer word of a literal prompt: "US" in "USA"."""
    request, filled = prepared.request, prepared.filled
    if "{}" in request.prompt:
        return
    before, after = filled.before[-1:], filled.after[:1]
    left = _joins(before, filled.subject[:1])
    right = _joins(filled.subject[-1:], after)
    if not (left or right):
        return
    prompt = filled.prompt
    start, end = len(filled.before), len(filled.before) + len(filled.subject)
    while start and _joins(prompt[start - 1], prompt[start]):
        start -= 1
    while end < len(prompt) and _joins(prompt[end - 1], prompt[end]):
        end += 1
    word = prompt[start:end]
    yield finding(
        "REQ103", request, context, f"The subject {filled.subject!r} is only a part of the word {word!r} in the prompt.",
        f"Is {word!r} meant? Else write the prompt as a template with {{}} where the subject stands.", evidence={"word": word},
    )  # fmt: skip


def _joins(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word of a script that writes spaces between words."""
    return bool(left and right) and left.isalnum() and right.isalnum() and not is_cjk(left) and not is_cjk(right)


def _absent(request: Request, context: RequestContext) -> Finding:
    found = nearest_span(request.prompt, request.subject or "")
    if found is None:
        message = f"The subject {request.subject!r} does not occur in the prompt."
        remedy = "Name the subject as it stands in the prompt, or write the prompt with {} in its place."
        return finding("REQ101", request, context, message, remedy)
    text, why = found
    message = f"The subject {request.subject!r} does not occur in the prompt; {text!r} does ({why})."
    return finding(
        "REQ101",
        request,
        context,
        message,
        f"Use the subject {text!r}, if that is meant.",
        evidence={"nearest": text, "difference": why},
    )


def nearest_span(prompt: str, subject: str) -> tuple[str, str] | None:
    """The part of `prompt` that is most likely meant by `subject`, and in what it differs; None if nothing is near."""
    for why, fold in (
        ("other case", lambda text: text.lower()),
        ("other Unicode form", lambda text: unicodedata.normalize("NFC", text)),
        ("other quotes, dashes or spaces", lambda text: text.translate(_QUOTES)),
        ("other Unicode form or case", lambda text: unicodedata.normalize("NFKC", text).casefold()),
        ("without accents", lambda text: _plain(text)),
    ):
        wanted = fold(subject.strip())
        span = _folded_find(prompt, wanted, fold)
        if wanted and span is not None:
            return span, "spaces at its edges" if why == "other case" and span == subject.strip() else why
    return _fuzzy(prompt, subject)


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.translate(_QUOTES)).casefold()
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def _folded_find(prompt: str, wanted: str, fold: Any) -> str | None:
    """The shortest span of `prompt` whose folded form is `wanted`."""
    if not wanted or wanted not in fold(prompt):
        return None
    for start in range(len(prompt)):
        if not fold(prompt[start:]).startswith(wanted):
            continue
        low, high = start + 1, len(prompt)
        while low < high:
            middle = (low + high) // 2
            if fold(prompt[start:middle]).startswith(wanted):
                high = middle
            else:
                low = middle + 1
        while low < len(prompt) and unicodedata.combining(prompt[low]):
            low += 1
        if start + 1 < len(prompt) and fold(prompt[start + 1 : low]) == wanted:
            continue
        return prompt[start:low]
    return None


def _fuzzy(prompt: str, subject: str) -> tuple[str, str] | None:
    from difflib import SequenceMatcher

    words = prompt.split(" ")
    size = max(1, len(subject.split()))
    best, score = "", 0.0
    for length in {max(1, size - 1), size, size + 1}:
        for start in range(len(words) - length + 1):
            candidate = " ".join(words[start : start + length]).strip(".,;:?!\"'()")
            ratio = SequenceMatcher(None, candidate.lower(), subject.lower()).ratio()
            if ratio > score:
                best, score = candidate, ratio
    return (best, "the nearest words") if score >= 0.7 else None
