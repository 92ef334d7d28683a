"""One pass over the requests: fill, encode, measure, compare and count, a chunk at a time.

Only counts and the worst rows are kept, so that memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from padcheck.checks.drift_rules import Tally, token_at
from padcheck.checks.request_rules import RequestContext, finding, hygiene, stopped
from padcheck.diagnostics import Finding
from padcheck.planning import Plan
from padcheck.positions.drift import Batches, Reading, group_size, subject_shared
from padcheck.positions.editors import Side
from padcheck.positions.filling import Stop
from padcheck.positions.rows import Prepared, RowBuilder
from padcheck.reports import FIRST_IDS
from padcheck.sources.requests import Request, RequestProblem, as_requests, read_requests
from padcheck.sources.templates import Templates

CHUNK = 32
"""Requests encoded together: enough to keep the tokenizer's threads busy, few enough that memory does not grow."""
EACH = 5
"""Findings of one rule about single requests that are listed one by one, where each has a suggestion of its own."""
_ONCE = frozenset({"TGT102", "TGT103", "TGT104", "TGT105", "REQ107", "REQ108", "REQ109", "REQ110", "REQ113", "IDX103"})
"""Rules whose findings say the same for every request: the first stands for all."""


@dataclass(slots=True)
class Outcome:
    """One pass over the requests."""

    tally: Tally = field(default_factory=Tally)
    checked_requests: int = 0
    drifting: bytearray = field(default_factory=bytearray)
    drifting_ids: dict[int, str | int] = field(default_factory=dict)
    rows: int = 0
    unknown: int = 0
    needs_left: int = 0
    needs_right: int = 0
    problems: list[RequestProblem] = field(default_factory=list)
    problem_count: int = 0
    request_findings: _Capped = field(default_factory=lambda: _Capped())
    fallback: int = 0

    @property
    def drifting_requests(self) -> int:
        return self.drifting.count(1)


class _Capped:
    """Findings about single requests: the first ones in full, the rest counted."""

    def __init__(self) -> None:
        self._listed: list[Finding] = []
        self._counts: dict[str, int] = {}
        self._more: dict[str, list[str | int]] = {}

    def add(self, item: Finding) -> None:
        count = self._counts.get(item.rule, 0) + 1
        self._counts[item.rule] = count
        if count <= _each(item.rule):
            self._listed.append(item)
            return
        ids = self._more.setdefault(item.rule, [])
        if item.request is not None and len(ids) < FIRST_IDS:
            ids.append(item.request.index if item.request.case_id is None else item.request.case_id)

    def finish(self) -> list[Finding]:
        """The listed findings; the last of a rule that has more says how many, and in which requests."""
        last = {item.rule: number for number, item in enumerate(self._listed)}
        result = list(self._listed)
        for rule_id, ids in self._more.items():
            item = result[last[rule_id]]
            more = self._counts[rule_id] - _each(rule_id)
            sentence = f"{item.message} The same rule finds {more:,} more request{'' if more == 1 else 's'} (first: {', '.join(map(str, ids[:5]))})."
            result[last[rule_id]] = item.replace(
                message=sentence, evidence={**item.evidence, "more_requests": more, "more_ids": ids}
            )
        return result


def _each(rule_id: str) -> int:
    return 1 if rule_id in _ONCE else EACH


def run_pass(
    plan: Plan,
    requests: str | Path | Iterable[Mapping[str, Any]],
    templates: Templates,
    *,
    side: Side | None = None,
    limit: int | None = None,
    rows_out: Callable[[dict[str, Any]], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
    on_reading: Callable[[Reading], None] | None = None,
    shifts: Mapping[tuple[int, str, int, str], int] | None = None,
    heads: Mapping[int, str] | None = None,
) -> Outcome:
    """One pass over the requests: build, encode, compare, count."""
    outcome = Outcome()
    builder = RowBuilder(
        plan.method, plan.batches, plan.tokenizer.reader, plan.fact_token, templates.texts,
        facts=plan.facts, model_path=plan.model_path, head_overrides=heads,
    )  # fmt: skip
    context = RequestContext(shown(requests), plan.method, pad_texts(plan))

    def observe(reading: Reading) -> None:
        if rows_out is not None:
            rows_out(record(reading))
        if not reading.causes:
            return
        outcome.tally.add(reading)
        request = reading.row.prepared.request
        if not outcome.drifting[request.index]:
            outcome.drifting[request.index] = 1
            if len(outcome.drifting_ids) < 2 * FIRST_IDS:
                outcome.drifting_ids[request.index] = request.index if request.case_id is None else request.case_id
        if on_reading is not None:
            on_reading(reading)

    batches = Batches(
        plan.batches,
        side=side or plan.side.value,
        fact_token=plan.fact_token,
        hparams=plan.flags,
        group_size=group_size(plan.options.run, plan.flags, plan.options.batch_size),
        observe=observe,
        everything=rows_out is not None,
        shifts=shifts,
    )
    for chunk in _chunks(_stream(requests, plan, outcome), CHUNK, limit):
        outcome.drifting.extend(bytes(chunk[-1].index + 1 - len(outcome.drifting)))
        for request, prepared in zip(chunk, builder.build(chunk), strict=True):
            outcome.checked_requests += 1
            if isinstance(prepared, Stop):
                outcome.request_findings.add(stopped(prepared, request, context))
                outcome.drifting[request.index] = 2
                batches.skip()
                continue
            for item in hygiene(prepared, context):
                outcome.request_findings.add(item)
            _running_text(prepared, outcome, context)
            _shared_token(prepared, outcome, context)
            _too_long(prepared, outcome, plan, context)
            batches.add(prepared)
        if on_progress is not None:
            on_progress(outcome.checked_requests)
    batches.end_group()
    outcome.rows, outcome.unknown = batches.checked, batches.unknown
    outcome.needs_left, outcome.needs_right = batches.needs_left, batches.needs_right
    return outcome


def record(reading: Reading) -> dict[str, Any]:
    """A row as `--rows-out` writes it."""
    request = reading.row.prepared.request
    around = sorted(
        {
            column
            for centre in (reading.editor, reading.truth)
            if centre is not None
            for column in range(centre - 1, centre + 2)
        }
    )
    return {
        "request": request.index,
        "case_id": request.case_id,
        "batch": reading.batch.name,
        "row": reading.row.number,
        "kind": reading.kind,
        "editor": reading.editor,
        "truth": reading.truth,
        "drift": reading.drift,
        "cause": reading.causes[0] if reading.causes else None,
        "causes": list(reading.causes),
        "oracle": reading.row.measured.oracle,
        "width": reading.width,
        "pads": reading.pads,
        "tokens": [[column, token_at(reading, column)] for column in around if 0 <= column < reading.width],
    }


def pad_texts(plan: Plan) -> tuple[str, ...]:
    """The text of the token that the run pads with."""
    tokenizer = plan.tokenizer
    pad = (plan.family.pad if plan.family is not None else None) or plan.editor.pad
    if pad == "eos":
        return (tokenizer.eos_token,) if tokenizer.eos_token else ()
    if pad is not None and pad.startswith("id:"):
        return ()
    return (pad,) if pad else (tokenizer.pad_token,) if tokenizer.pad_token else ()


def _stream(requests: str | Path | Iterable[Mapping[str, Any]], plan: Plan, outcome: Outcome) -> Iterator[Request]:
    needed = plan.method.kind == "locate"
    items = (
        read_requests(requests, subject_required=needed, zsre_target=plan.zsre_target)
        if isinstance(requests, (str, Path))
        else as_requests(requests, subject_required=needed, zsre_target=plan.zsre_target)
    )
    for item in items:
        if isinstance(item, RequestProblem):
            outcome.problem_count += 1
            if len(outcome.problems) < EACH:
                outcome.problems.append(item)
        else:
            yield item


def _chunks(requests: Iterator[Request], size: int, limit: int | None) -> Iterator[list[Request]]:
    chunk: list[Request] = []
    for number, request in enumerate(requests):
        if limit is not None and number >= limit:
            break
        chunk.append(request)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _running_text(prepared: Prepared, outcome: Outcome, context: RequestContext) -> None:
    """Are the ids that are trained those of the running text, and free of special tokens?"""
    running = prepared.running
    if running is None or tuple(prepared.target_ids) == running or not prepared.headed or context.method.head == "text":
        return
    if prepared.target_extra > 0:
        outcome.request_findings.add(
            finding(
                "TGT103", prepared.request, context,
                f"The {len(prepared.target_ids)} ids trained for {prepared.filled.target!r} hold {prepared.target_extra} that the tokenizer adds to every text by itself (beginning or end of text): the model is trained to say them too.",
                "Encode the target with add_special_tokens=False.",
                evidence={"trained": prepared.target_ids[:12], "in_text": list(running[:12])},
            )
        )  # fmt: skip
        return
    outcome.request_findings.add(
        finding(
            "TGT102", prepared.request, context,
            f"The {len(prepared.target_ids)} ids trained for {prepared.filled.target!r} are not the {len(running)} that stand for it in the sentence: the tokens trained never occur there.",
            "Take the target's ids from the encoded sentence, not from the target alone.",
            evidence={"trained": prepared.target_ids[:12], "in_text": list(running[:12])},
        )
    )  # fmt: skip


def _too_long(prepared: Prepared, outcome: Outcome, plan: Plan, context: RequestContext) -> None:
    """Rows that the model has no positions for; methods that truncate lose tokens instead (IDX106)."""
    tokenizer = plan.tokenizer
    limit = tokenizer.max_positions or tokenizer.model_max_length
    if limit is None or any(batch.truncates for batch in plan.batches):
        return
    rows = [*prepared.base, *prepared.headed, *prepared.bare, *prepared.train]
    longest = max((row.measured.n for row in rows), default=0)
    if longest <= limit:
        return
    known = tokenizer.max_positions is not None
    where = "the model has" if known else "tokenizer_config.json allows"
    outcome.request_findings.add(
        finding(
            "REQ112", prepared.request, context, f"The longest row of this request has {longest:,} tokens, and {where} {limit:,}: nothing truncates it.",
            "Keep the sentence that states the fact and drop the text around it.",
            # Beyond a table of absolute positions the run stops; rotary ones, and a limit of the tokenizer's alone, leave a doubt.
            severity="error" if known and tokenizer.left_pads_shift else "warning", evidence={"tokens": longest, "limit": limit},
        )
    )  # fmt: skip


def _shared_token(prepared: Prepared, outcome: Outcome, context: RequestContext) -> None:
    if any(row.measured.oracle == "decode" for row in prepared.base[:1] or prepared.bare[:1] or prepared.train[:1]):
        outcome.fallback += 1
    for row in prepared.bare[:1] or prepared.base[:1]:
        measured = row.measured
        if not subject_shared(measured, row.subject_end):
            continue
        token = measured.encoded.tokens[measured.last] if measured.last is not None else ""
        text = measured.text[row.subject_end : measured.last_end]
        outcome.request_findings.add(
            finding(
                "IDX103", prepared.request, context,
                f"The token {token!r} holds the end of the subject {prepared.filled.subject!r} and {text!r} after it: what is written there is not the subject alone.",
                "Rephrase the prompt so that a space or another token follows the subject, if that is possible.",
            )
        )  # fmt: skip


def shown(source: Any) -> str:
    return Path(source).as_posix() if isinstance(source, (str, Path)) else "<memory>"
