"""From drifting readings to findings: one per rule, cause and convention, with its count, the first ids and the worst rows."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from padcheck.diagnostics import Finding, Place, RequestRef, Severity
from padcheck.positions.drift import Cause, Kind, Reading
from padcheck.rulebook import find

WORST = 20
"""How many of a group's rows are kept."""

_PADS_RULE: Mapping[Kind, str] = {
    "lookup": "PAD101", "value": "PAD101", "label": "PAD102", "kl": "PAD103", "key": "PAD104", "current": "PAD104",
}  # fmt: skip
_CAUSE_RULE: Mapping[Cause, str] = {
    "sign": "IDX107", "special_tokens": "IDX101", "merged": "IDX102", "boundary": "IDX104", "occurrence": "IDX105",
    "truncation": "IDX106", "retokenised": "TGT101", "braces": "IDX110", "suffix": "IDX108", "raises": "IDX109", "inconsistent": "PAD105",
}  # fmt: skip

NOUN: Mapping[Kind, str] = {
    "lookup": "the lookup token", "value": "the value's token", "label": "the label slots", "kl": "the KL position",
    "key": "the key's token", "current": "the current value's token",
}  # fmt: skip


def rule_for(kind: Kind, cause: Cause) -> str:
    return _PADS_RULE[kind] if cause == "pads" else _CAUSE_RULE[cause]


def pages(found: Iterable[tuple[Kind, Cause]]) -> str:
    """Where these causes are explained: `More: padcheck explain PAD101`; empty where there are none."""
    rules = dict.fromkeys(rule_for(kind, cause) for kind, cause in found)
    return f"More: {', '.join(f'padcheck explain {rule}' for rule in rules)}" if rules else ""


@dataclass(slots=True)
class Group:
    """All readings with one rule, cause and convention."""

    rule: str
    cause: Cause
    arithmetic: str
    source: str
    kinds: dict[str, int] = field(default_factory=dict)
    count: int = 0
    requests: int = 0
    first_ids: list[str | int] = field(default_factory=list)
    worst: list[tuple[int, int, Reading]] = field(default_factory=list)
    first_index: int = -1
    _last_request: int = -1

    def add(self, reading: Reading) -> None:
        self.count += 1
        self.kinds[reading.kind] = self.kinds.get(reading.kind, 0) + 1
        request = reading.row.prepared.request
        if self.first_index < 0:
            self.first_index = request.index
        if request.index > self._last_request:
            self._last_request = request.index
            self.requests += 1
            if len(self.first_ids) < 10:
                self.first_ids.append(request.index if request.case_id is None else request.case_id)
        drift = reading.drift
        size = abs(drift) if drift is not None else 0
        if len(self.worst) < WORST:
            heapq.heappush(self.worst, (size, -self.count, reading))
        elif size > self.worst[0][0]:
            heapq.heapreplace(self.worst, (size, -self.count, reading))

    @property
    def key(self) -> tuple[str, str, str]:
        return self.rule, self.cause, self.arithmetic

    def worst_before(self, limit: int) -> bool:
        """Whether one of the first `limit` requests shows it: only then can a sample of them speak against it."""
        return self.first_index < limit

    def readings(self) -> list[Reading]:
        """The worst first."""
        return [reading for _, _, reading in sorted(self.worst, key=lambda item: (-item[0], -item[1]))]


class Tally:
    """Counts drifting readings by rule, cause and convention, in bounded memory."""

    def __init__(self) -> None:
        self.groups: dict[tuple[str, Cause, str], Group] = {}
        self.by_cause: dict[str, int] = {}
        self.by_kind: dict[str, int] = {}
        self.drifting = 0

    def add(self, reading: Reading) -> None:
        if not reading.causes:
            return
        self.drifting += 1
        kind = reading.kind
        self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
        primary = reading.causes[0]
        self.by_cause[primary] = self.by_cause.get(primary, 0) + 1
        for cause in reading.causes:
            key = (rule_for(kind, cause), cause, reading.arithmetic)
            group = self.groups.get(key)
            if group is None:
                group = self.groups[key] = Group(*key, source=reading.batch.source)
            group.add(reading)

    def ordered(self) -> list[Group]:
        return sorted(self.groups.values(), key=lambda group: (-group.count, group.rule))


def token_at(reading: Reading, column: int | None) -> str | None:
    """The token in a column of the padded row; "<pad>" where a pad stands; None outside the row."""
    if column is None or not 0 <= column < reading.width:
        return None
    alone = column - (reading.pads if reading.left else 0)
    tokens = reading.row.measured.encoded.tokens
    return tokens[alone] if 0 <= alone < len(tokens) else "<pad>"


def evidence(reading: Reading) -> dict[str, Any]:
    """One row as evidence: row, token, index."""
    request = reading.row.prepared.request
    return {
        "request": request.index,
        "case_id": request.case_id,
        "batch": reading.batch.name,
        "row": reading.row.number,
        "kind": reading.kind,
        "editor": reading.editor,
        "editor_token": token_at(reading, reading.editor),
        "truth": reading.truth,
        "truth_token": token_at(reading, reading.truth),
        "drift": reading.drift,
        "width": reading.width,
        "pads": reading.pads,
    }


def findings(
    groups: Iterable[Group],
    *,
    requests_path: str,
    uncertain: Mapping[tuple[str, str, str], str],
    side_because: str,
    explain_side: str,
) -> list[Finding]:
    """The findings of all groups. `uncertain`: groups that not every length profile of the stand-in templates shows, and why."""
    result = []
    for group in groups:
        rule = find(group.rule)
        worst = group.readings()
        shown = worst[0]
        doubt = uncertain.get(group.key)
        severity: Severity = "warning" if doubt else rule.severity
        message = _message(group, shown, explain_side)
        if doubt:
            message += f" {doubt}"
        request = shown.row.prepared.request
        result.append(
            Finding(
                rule=rule.id,
                name=rule.name,
                severity=severity,
                message=message,
                message_zh=rule.message_zh,
                confidence="medium" if doubt else "high",
                place=Place(requests_path, request.line, request.column),
                request=RequestRef(request.index, request.case_id),
                remedy=None,
                evidence={
                    "key": "/".join(group.key),
                    "cause": group.cause,
                    "arithmetic": group.arithmetic,
                    "source": group.source,
                    "positions": group.count,
                    "kinds": dict(group.kinds),
                    "requests": group.requests,
                    "first_ids": list(group.first_ids),
                    "padding_side": side_because,
                    "worst": [evidence(reading) for reading in worst[:5]],
                },
            )
        )
    return result


def _message(group: Group, worst: Reading, explain_side: str) -> str:
    """Two sentences: what goes wrong and how often; the worst row as proof."""
    where = f"request {worst.row.prepared.request.index}, row {worst.row.number} of {worst.batch.name}"
    share = f"{_plural(group.count, 'position')} in {_plural(group.requests, 'request')}"
    editor, truth = token_at(worst, worst.editor), token_at(worst, worst.truth)
    label = worst.kind == "label"
    if label:
        worst_row = f"Worst: {where}: the first label is at column {worst.editor}"
        worst_row += (
            f" ({editor!r}), it belongs at {worst.truth} ({truth!r})." if worst.truth is not None else f" ({editor!r})."
        )
    else:
        worst_row = f"Worst: {where}: the editor reads column {worst.editor} ({editor!r}), {NOUN[worst.kind]} is in column {worst.truth} ({truth!r})."
    text = {
        "pads": f"Counted from the row's start ({group.arithmetic}), but {explain_side} puts pads there first: {share} are shifted by the pads of their row.",
        "sign": f"Counted from the row's end ({group.arithmetic}), but {explain_side} puts pads there: {share} are shifted by the pads of their row.",
        "special_tokens": f"Special tokens are counted that do not stand there ({group.arithmetic}): {share} are off by them.",
        "merged": f"One token holds the subject's end and what follows, so the index counted on the subject alone ({group.arithmetic}) names another token: {share}.",
        "boundary": f"The text cut at the subject's border has other tokens than the whole row ({group.arithmetic}): {share} are off.",
        "occurrence": f"The index names another occurrence of the subject: {share}.",
        "truncation": f"The row is cut at the tokenizer's maximal length before the position is reached: {share}.",
        "retokenised": f"The target is decoded and read again as other tokens, so the labels do not stand on their tokens: {share}.",
        "braces": f"Doubled braces are counted in the index but are single in the row ({group.arithmetic}): {share}.",
        "suffix": f"The index counts target text ({group.arithmetic}), so it points past the prompt: {share}.",
        "inconsistent": f"The labels are the target's ids at columns of a row that does not hold the target ({group.arithmetic}): no side is right for {share}.",
        "raises": f"The method {group.arithmetic}: {share}.",
    }[group.cause]
    if group.cause == "raises":
        return text
    if group.cause == "retokenised":
        row = worst.row.measured
        return f"{text} Worst: {where} reads “…{row.text[-28:]}”: its last tokens are {row.encoded.tokens[-max(2, worst.row.target) :]}, the labels are for {_target_tokens(worst)}."
    return f"{text} {worst_row}"


def _target_tokens(reading: Reading) -> str:
    return repr(reading.row.prepared.filled.target)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
