"""`preflight --fix`: write what the editor can be told, then look again.

The side is written where the framework reads it (tokenizer_config.json, hparams). Where it cannot be told a side, or no side is
right for all positions, side and columns go to `<requests>.padcheck.json`, which `padcheck.guard(corrections=PATH)` obeys: it
pads the editor's batches on that side and hands it those columns. Label slots are counted inside the editor, out of its reach,
so the side is the one that is right for them. "corrected" is said only after a second pass with the correction finds no drift.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from padcheck.diagnostics import relative_posix
from padcheck.passes import Outcome, run_pass
from padcheck.planning import Plan
from padcheck.positions.drift import Reading, anchored_at_row_end
from padcheck.positions.editors import Side
from padcheck.positions.rows import Prepared, running_text
from padcheck.remedies import right_side, usable_places
from padcheck.reports import PreflightReport, Remedy
from padcheck.sources.reading import STDIN, SourceError
from padcheck.sources.requests import RequestProblem, read_requests
from padcheck.sources.token_readers import TokenReader

VERSION = 1


@dataclass(slots=True)
class Correction:
    """What would be written. `config`: (path, new text) of a tokenizer_config.json; `guarded`: the side that a guard must keep."""

    side: Side | None = None
    guarded: Side | None = None
    config: tuple[Path, str, str] | None = None
    shifts: dict[tuple[int, str, int, str], int] = field(default_factory=dict)
    heads: dict[int, str] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    written: list[str] = field(default_factory=list)


def correct(
    plan: Plan, requests: str | Path, outcome: Outcome, report: PreflightReport, *, write: bool = True
) -> Correction | None:
    """Find the correction, look again with it, and write it; None where nothing drifts or nothing helps.

    With `write=False` (`--diff`) nothing is written. Sets `report.verdict` to "corrected" only after a pass without drift in which
    no other error is left.
    """
    if not outcome.tally.drifting:
        return None
    correction = Correction()
    other = right_side(plan, outcome.tally, outcome.needs_left, outcome.needs_right)
    if other is not None and not plan.side.stated_by_caller:
        places = usable_places(plan)
        if places and places[0].kind == "tokenizer_config":
            correction.side = other
            correction.config = _config_edit(Path(plan.tokenizer.path), other)
    side: Side = correction.side or _side_of_labels(plan)
    if side != (correction.side or plan.side.value):
        correction.guarded = side
    causes = {group.cause for group in outcome.tally.groups.values()}
    if "retokenised" in causes:
        _find_heads(plan, requests, side, correction)
    _find_shifts(plan, requests, side, correction)
    again = run_pass(plan, requests, plan.templates, side=side, shifts=correction.shifts, heads=correction.heads)
    left_over = again.tally.drifting
    if left_over and not correction.entries and correction.config is None and not left_over < outcome.tally.drifting:
        return None
    if write:
        _write(plan, requests, side, correction)
        report.written.extend(correction.written)
    state = "Written" if write else "To write"
    if correction.config is not None:
        if report.remedies and report.remedies[0].line == f'"padding_side": "{side}"':
            report.remedies.pop(0)  # the advice that is followed here
        shown = relative_posix(correction.config[0], Path.cwd())
        report.remedies.insert(
            0, Remedy(f"{state}: padding_side {side}.", shown, f'"padding_side": "{side}"', not left_over)
        )
    if correction.entries or correction.guarded:
        report.corrections_path = relative_posix(corrections_path(requests), Path.cwd())
        line = f'with padcheck.guard(tokenizer, model=model, corrections="{report.corrections_path}"): ...'
        what = f"{side} padding for the editor's batches" if correction.guarded else ""
        columns = f"{len(correction.entries):,} corrections" if correction.entries else ""
        report.remedies.insert(
            0,
            Remedy(f"{state}: {' and '.join(filter(None, (what, columns)))}.", report.corrections_path, line, not left_over),
        )
    drift_rules = {group.rule for group in outcome.tally.groups.values()} | {"PAD105", "PAD106"}
    other_errors = any(item.severity == "error" and item.rule not in drift_rules for item in report.findings)
    if write and not left_over and not other_errors and not report.errors:
        report.verdict = "corrected"
    return correction


def request_digest(prompt: str, subject: str, target: str) -> str:
    """A request's mark: the filled prompt, the subject, and the target without the spaces that editors put around it."""
    return digest("\x1f".join((prompt.replace("{}", subject), subject, target.strip())))


def digest(text: str) -> str:
    """A text's mark: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _side_of_labels(plan: Plan) -> Side:
    """The side that is right for the label slots: those columns cannot be handed to the editor."""
    if plan.side.forced_by_method:
        return plan.side.value
    at_end = {anchored_at_row_end(batch.labels) for batch in plan.batches if batch.labels is not None}
    return plan.side.value if len(at_end) != 1 else "left" if at_end.pop() else "right"


def _stand_in(plan: Plan) -> bool:
    """Whether the context templates are not those that the editor will sample."""
    return plan.options.context_templates is None and len(plan.templates.texts) > 1


def corrections_path(requests: str | Path) -> Path:
    """`<requests>.padcheck.json`, beside the requests; requests.padcheck.json here for standard input."""
    path = Path("requests" if str(requests) == STDIN else requests)
    return path.with_name(path.name + ".padcheck.json")


def _find_heads(plan: Plan, requests: str | Path, side: Side, correction: Correction) -> None:
    seen: set[int] = set()

    def look(reading: Reading) -> None:
        prepared = reading.row.prepared
        index = prepared.request.index
        if "retokenised" not in reading.causes or index in seen:
            return
        seen.add(index)
        head = right_head(prepared, plan.tokenizer.reader)
        if head is not None:
            correction.heads[index] = head
            correction.entries.append(
                {
                    "request": index, "case_id": prepared.request.case_id, "batch": reading.batch.name, "row": None, "kind": "head",
                    "from": prepared.head, "to": head,
                }
            )  # fmt: skip

    run_pass(plan, requests, plan.templates, side=side, on_reading=look)


def right_head(prepared: Prepared, reader: TokenReader) -> str | None:
    """The beginning of the target's text that is read again as `target_ids[:-1]` behind the prompt; None if there is none."""
    prompt = prepared.filled.prompt
    target = running_text(prepared.filled)[len(prompt) :]
    (own,) = reader.encode_batch([prompt])
    own_ids = [token for token, special in zip(own.ids, own.special_tokens_mask, strict=True) if not special]
    wanted = own_ids + prepared.target_ids[:-1]
    for end in range(len(target) + 1):
        (encoded,) = reader.encode_batch([prompt + target[:end]])
        ids = [token for token, special in zip(encoded.ids, encoded.special_tokens_mask, strict=True) if not special]
        if ids == wanted:
            return target[:end]
        if len(ids) > len(wanted) + 4:
            break
    return None


def _find_shifts(plan: Plan, requests: str | Path, side: Side, correction: Correction) -> None:
    stand_in = _stand_in(plan)

    def look(reading: Reading) -> None:
        if reading.editor is None or reading.truth is None or not reading.drift or reading.kind == "label":
            return
        row = reading.row
        request = row.prepared.request
        key = (request.index, reading.batch.name, row.number, reading.kind)
        correction.shifts[key] = -reading.drift
        if stand_in and row.number and not row.is_kl:
            return  # the editor will build another row; a guard corrects it when it sees it
        correction.entries.append(
            {
                "request": request.index, "case_id": request.case_id, "batch": reading.batch.name, "row": row.number,
                "kind": reading.kind, "text": digest(row.measured.text), "width": reading.width,
                "from": reading.editor, "to": reading.truth,
            }
        )  # fmt: skip

    run_pass(plan, requests, plan.templates, side=side, heads=correction.heads, on_reading=look)


def _config_edit(folder: Path, side: Side) -> tuple[Path, str, str]:
    """(path, text before, text after) of tokenizer_config.json with `padding_side` set, everything else as it was."""
    path = (folder if folder.is_dir() else folder.parent) / "tokenizer_config.json"
    try:
        before = path.read_bytes().decode("utf-8")  # line ends as they are
        data = json.loads(before)
    except FileNotFoundError:
        return path, "", json.dumps({"padding_side": side}, indent=2) + "\n"
    except (OSError, ValueError) as error:
        raise SourceError(
            f"tokenizer_config.json cannot be mended: {error}", path=path.as_posix(), remedy="Set padding_side by hand."
        ) from None
    if "padding_side" in data:
        return path, before, _replace_value(before, side)
    brace = before.index("{") + 1
    rest = before[brace:]
    indent = rest[: len(rest) - len(rest.lstrip())] if rest.lstrip() != rest else ""
    comma = "," if data else ""
    return path, before, f'{before[:brace]}{indent}"padding_side": "{side}"{comma}{rest if indent else " " + rest}'


def _replace_value(text: str, side: Side) -> str:
    """Replace the value of the top-level key (the last one, which counts), and nothing else."""
    decoder = json.JSONDecoder()
    position = text.index("{") + 1
    span = (0, 0)
    while True:
        while text[position] in " \t\r\n,":
            position += 1
        if text[position] == "}":
            return f'{text[: span[0]]}"{side}"{text[span[1] :]}'
        key, position = decoder.raw_decode(text, position)
        while text[position] in " \t\r\n:":
            position += 1
        _, end = decoder.raw_decode(text, position)
        if key == "padding_side":
            span = position, end
        position = end


def _write(plan: Plan, requests: str | Path, side: Side, correction: Correction) -> None:
    if correction.config is not None:
        path, _, after = correction.config
        with atomic(path) as handle:
            handle.write(after)
        correction.written.append(relative_posix(path, Path.cwd()))
    if correction.entries or correction.guarded:
        path = corrections_path(requests)
        with atomic(path) as handle:
            for piece in _pieces(plan, requests, side, correction.entries):
                handle.write(piece)
        correction.written.append(relative_posix(path, Path.cwd()))


def _pieces(plan: Plan, requests: str | Path, side: Side, entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    from padcheck import __version__

    head = {
        "version": VERSION, "tool": {"name": "padcheck", "version": __version__}, "framework": plan.editor.id, "method": plan.method_name,
        "fact_token": plan.fact_token, "run": plan.options.run, "padding_side": side,
        "requests_path": relative_posix(requests, Path.cwd()), "templates": "stand-in" if _stand_in(plan) else "given",
    }  # fmt: skip
    yield json.dumps(head, ensure_ascii=False, indent=1)[:-2]
    yield from _listed("requests", _marks(plan, requests))
    yield from _listed("corrections", entries)
    yield "\n}\n"


def _listed(key: str, values: Iterable[Any]) -> Iterator[str]:
    """A list of the file, a line for each value."""
    yield f',\n "{key}": ['
    separator = "\n  "
    for value in values:
        yield separator + json.dumps(value, ensure_ascii=False)
        separator = ",\n  "
    yield "\n ]"


def _marks(plan: Plan, requests: str | Path) -> Iterator[str | None]:
    """The digest of each request, in the file's order; None for a record that is none."""
    needed = plan.method.kind == "locate"
    for item in read_requests(requests, subject_required=needed, zsre_target=plan.zsre_target):
        if isinstance(item, RequestProblem):
            yield None
        else:
            yield request_digest(item.prompt, item.subject, item.target_new)


@contextmanager
def atomic(path: Path) -> Iterator[IO[str]]:
    """Write a text file so that it is there whole or not at all."""
    try:
        handle = tempfile.NamedTemporaryFile(  # noqa: SIM115 (closed below; making it alone may fail)
            "w", encoding="utf-8", newline="\n", dir=path.parent, prefix=f".{path.name}.", delete=False
        )
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        with handle:
            yield handle
        if path.exists():
            os.chmod(handle.name, path.stat().st_mode)
        os.replace(handle.name, path)
    except BaseException as error:
        Path(handle.name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from None
        raise


def _unwritable(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"the file cannot be written: {error.strerror}", path=path.as_posix(), remedy="Check the folder's permissions."
    )
