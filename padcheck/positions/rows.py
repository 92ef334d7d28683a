"""The rows that an editor builds, encoded and measured: context templates × (prompt + target head), KL rows, key rows.

`RowBuilder` turns a chunk of requests into `Prepared` ones with one `encode_batch` for the targets, one for the rows and, where
a border is not proven to be a cut (`cuts`), one for the parts that the editor encodes apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from padcheck.positions.cuts import Cuts, cuts_of
from padcheck.positions.editors import Batch, FactToken, Index, Method, Raises
from padcheck.positions.filling import Filled, Stop, fill, is_cjk
from padcheck.positions.truth import Measured, by_decoding, first_visible, measure
from padcheck.sources.requests import Request
from padcheck.sources.token_readers import TokenReader


class Row:
    """One row with everything that an editor's arithmetic may count. Token counts, unpadded; see `arithmetic.COUNTS`."""

    __slots__ = (
        "absent", "bare_prompt", "fact_token", "is_kl", "joined", "label_first", "label_slack", "labels_sound", "mask", "measured", "number",
        "part_prefix", "part_subject", "part_suffix", "prefix", "prefix_subject", "prepared", "prompt", "prompt_width", "row", "specials",
        "subject_end", "target", "target_pads", "target_start", "target_width", "trailing", "truth",
    )  # fmt: skip

    def __init__(self, prepared: Prepared, number: int, measured: Measured, truth: int | None, subject_end: int) -> None:
        self.prepared = prepared
        self.number = number
        self.measured = measured
        self.truth = truth
        self.subject_end = subject_end
        self.is_kl = False
        self.absent = False
        self.fact_token: str | None = None
        n = measured.n
        self.row = n
        self.mask = n
        self.prompt = n
        self.specials = measured.lead + measured.tail
        self.target = prepared.target_count
        self.prefix = self.prefix_subject = self.part_prefix = self.part_subject = self.part_suffix = 0
        self.joined = self.bare_prompt = self.prompt_width = self.target_width = self.target_pads = 0
        self.trailing = self.target_start = 0
        self.label_first: int | None = None
        self.label_slack = 0
        self.labels_sound = True

    def shifted(self, number: int, tokens: int, before: str, characters: int, reader: TokenReader) -> Row:
        """The row of another template whose text before the prompt is `before` instead of `characters` characters of this row.

        `tokens` is the difference in tokens. What is counted from the row's start moves with it, the rest stays.
        """
        measured = self.measured
        moved = len(before) - characters
        row = Row.__new__(Row)
        row.prepared, row.number, row.fact_token, row.is_kl, row.absent = (
            self.prepared,
            number,
            self.fact_token,
            self.is_kl,
            self.absent,
        )
        row.measured = measured.shifted(before + measured.text[characters:], tokens, moved, reader)
        row.truth = None if self.truth is None else self.truth + tokens
        row.subject_end = self.subject_end + moved
        row.row, row.mask, row.prompt = self.row + tokens, self.mask + tokens, self.prompt + tokens
        row.specials, row.target = self.specials, self.target
        row.prefix, row.prefix_subject = self.prefix + tokens, self.prefix_subject + tokens
        row.part_prefix, row.part_subject, row.part_suffix = self.part_prefix + tokens, self.part_subject, self.part_suffix
        row.joined, row.bare_prompt = self.joined, self.bare_prompt
        row.prompt_width = row.target_width = row.target_pads = row.trailing = row.target_start = 0
        row.label_first = None if self.label_first is None else self.label_first + tokens
        row.label_slack, row.labels_sound = self.label_slack, self.labels_sound
        return row


class _Plan(NamedTuple):
    """Rows with the same text before and after the subject (but for a target's head), and that text as the editor cuts it."""

    rows: list[Row]
    before: str
    subject: str
    after: str


_by_number = attrgetter("number")


@dataclass(slots=True)
class Prepared:
    """A request with its rows. `target_ids` are the ids that the method trains; `head` is the text it appends to the prompt."""

    filled: Filled
    target_ids: list[int]
    target_count: int
    head: str
    base: list[Row] = field(default_factory=list)
    headed: list[Row] = field(default_factory=list)
    kl: list[Row] = field(default_factory=list)
    bare: list[Row] = field(default_factory=list)
    train: list[Row] = field(default_factory=list)
    target_extra: int = 0
    """Special tokens among `target_ids` that are not of the target's text; negative where the method cuts ids of its text."""
    running: tuple[int, ...] | None = None
    """The target's ids as they stand in running text, None where the prompt's tokens are not a prefix of prompt + target."""

    @property
    def request(self) -> Request:
        return self.filled.request


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What rows need of a tokenizer besides its reader."""

    bos_id: int | None = None
    unk_id: int | None = None
    model_max_length: int | None = None
    class_name: str = ""


def active_batches(method: Method, flags: dict[str, Any]) -> tuple[Batch, ...]:
    """The batches that the method builds under these hparams."""
    known = {**method.defaults, **flags}
    return tuple(
        batch
        for batch in method.batches
        if batch.when is None or batch.when({name: known.get(name) for name in batch.when.names})
    )


class RowBuilder:
    """Builds the rows of one planned run. Stateless between chunks."""

    def __init__(
        self,
        method: Method,
        batches: Sequence[Batch],
        reader: TokenReader,
        fact_token: FactToken,
        templates: Sequence[str],
        *,
        facts: TokenFacts = TokenFacts(),
        model_path: str = "",
        head_overrides: Mapping[int, str] | None = None,
    ) -> None:
        self.method = method
        self.batches = tuple(batches)
        self.reader = reader
        self.fact_token = fact_token
        self.templates = [split_template(template) for template in templates] or [("", "")]
        self.facts = facts
        self.model_path = model_path
        self.cuts: Cuts = cuts_of(reader)
        self.head_overrides = head_overrides or {}
        kinds = {batch.rows for batch in self.batches}
        self.needs_kl = any("kl" in rows for rows in kinds)
        self.needs_head = any(rows.startswith("templates+") for rows in kinds)
        self.needs_base = self.needs_head or "templates" in kinds
        self.needs_bare = "bare" in kinds
        self.names = {
            name for batch in self.batches for expression in _expressions(batch, fact_token) for name in expression.names
        }
        self.parts = not self.names.isdisjoint({"part_prefix", "part_subject", "part_suffix"})
        self.pivot, self.shifts = self._shared_tail()

    def _shared_tail(self) -> tuple[int, dict[int, int]]:
        """Templates whose rows need not be encoded: the pivot's number, and by how many tokens each of the others differs from it.

        Where the border between "…. " and the prompt is a proven cut (`cuts`), the tokens of a row are those of the template's
        text followed by those of " " + prompt, which are the same for all such templates: one row, the pivot's, gives them all.
        """
        if not self.needs_base:
            return -1, {}
        alike = [
            number
            for number, (before, after) in enumerate(self.templates)
            if not after and len(before) > 1 and before[-1] == " " and self.cuts.safe(before + "x", len(before) - 1)
        ]
        if len(alike) < 2:
            return -1, {}
        counts = [
            len(encoded.ids) for encoded in self.reader.encode_batch([self.templates[number][0][:-1] for number in alike])
        ]
        return alike[0], {number: count - counts[0] for number, count in zip(alike[1:], counts[1:], strict=True)}

    # -- building --------------------------------------------------------------------------------------------------------------

    def build(self, requests: Sequence[Request]) -> list[Prepared | Stop]:
        """The rows of each request, or why the method stops at it; in order."""
        filled = [fill(request, self.method, fact_token=self.fact_token, model_path=self.model_path) for request in requests]
        prepared = self._targets(filled)
        live = [item for item in prepared if isinstance(item, Prepared)]
        if self.method.kind == "locate":
            self._locate_rows(live)
        elif self.method.kind == "train":
            self._train_rows(live)
        return prepared

    def _targets(self, filled: Sequence[Filled | Stop]) -> list[Prepared | Stop]:
        texts = list({item.target: None for item in filled if isinstance(item, Filled)})
        special = self.method.target_specials not in {"none", "none-strip-bos-or-unk"}
        encoded = dict(zip(texts, self.reader.encode_batch(texts, add_special_tokens=special), strict=True))
        result: list[Prepared | Stop] = []
        for item in filled:
            if isinstance(item, Stop):
                result.append(item)
                continue
            own = encoded[item.target]
            ids = list(own.ids)
            stripped = self.method.target_specials.endswith("strip-bos-or-unk")
            if stripped and ids and ids[0] in {self.facts.bos_id, self.facts.unk_id} - {None}:
                ids = ids[1:]
            head_ids = ids[:-1]
            if self.method.target_specials == "kept-but-first-of-llama":
                ids, head_ids = self._eamet_ids(ids)
            if not ids:
                result.append(Stop("TGT106", "the target has no token: there is nothing to train"))
                continue
            head = ""
            if self.method.kind == "locate":
                head = item.target if self.method.head == "text" else self.reader.decode(head_ids)
                head = self.head_overrides.get(item.request.index, head)
                if "{" in head or "}" in head:
                    stop = _formatted_head(head, item)
                    if isinstance(stop, Stop):
                        result.append(stop)
                        continue
                    head = stop
            extra = len(ids) - own.special_tokens_mask.count(0)
            result.append(Prepared(item, ids, len(ids), head, target_extra=extra))
        return result

    def _eamet_ids(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """EAMET drops the first target id by class and path, and from the row's text only for two of the families.

        EasyEdit models/eamet/compute_z.py:95-132.
        """
        path, class_name = self.model_path.lower(), self.facts.class_name.lower()
        both = "llama-3.1" in path or "gemma" in path
        spared = any(name in path for name in ("mistral", "qwen", "deepseek"))
        if both or ("llama" in class_name and not spared):
            return ids[1:], (ids[1:-1] if both else ids[:-1])
        return ids, ids[:-1]

    def _locate_rows(self, live: Sequence[Prepared]) -> None:
        """Rows of methods that look for the subject: encode, measure, count, and shift what is only shifted."""
        wanted = _Texts()
        encoded = [number for number in range(len(self.templates)) if number not in self.shifts]
        for prepared in live:
            filled = prepared.filled
            wanted.add(filled.prompt)
            wanted.add(running_text(filled))
            for number in encoded if self.needs_base else ():
                self._want(wanted, prepared, number)
            for kl in self.method.kl_prompts if self.needs_kl else ():
                wanted.add(kl.text.replace("{}", filled.subject))
        wanted.encode(self.reader)
        plans: list[_Plan] = []
        alone: list[Prepared] = []
        for prepared in live:
            filled = prepared.filled
            start, length = len(filled.before), len(filled.subject)
            if self.needs_base:
                plans.extend(self._templated(prepared, number, wanted) for number in encoded)
                if self.shifts and prepared.base[encoded.index(self.pivot)].measured.oracle != "offsets":
                    alone.append(prepared)
            for offset, kl in enumerate(self.method.kl_prompts if self.needs_kl else ()):
                before, after = kl.text.split("{}")
                text = before + filled.subject + after
                number = len(self.templates) + offset
                row = self._row(prepared, number, text, len(before), len(before) + length, len(text), wanted, kl.fact_token)
                row.is_kl = True
                prepared.kl.append(row)
                plans.append(_Plan([row], before, filled.subject, after))
            if self.needs_bare:
                if self.needs_base and self.templates[0] == ("", ""):
                    prepared.bare.append(prepared.base[0])
                else:
                    row = self._row(prepared, 0, filled.prompt, start, start + length, len(filled.prompt), wanted)
                    prepared.bare.append(row)
                    plans.append(_Plan([row], filled.raw_before, filled.subject, filled.raw_after))
            self._running(prepared, wanted)
        if alone:
            plans += self._encode_the_rest(alone)
        self._counts(plans)
        if self.shifts:
            for prepared in live:
                self._shift(prepared)

    def _want(self, wanted: _Texts, prepared: Prepared, number: int) -> None:
        before, after = self.templates[number]
        text = before + prepared.filled.prompt + after
        wanted.add(text)
        if prepared.head and self.needs_head:
            wanted.add(text + prepared.head)

    def _templated(self, prepared: Prepared, number: int, wanted: _Texts) -> _Plan:
        """The row of one template, and the same with the target's head where that is not empty."""
        filled = prepared.filled
        before, after = self.templates[number]
        text = before + filled.prompt + after
        begin = len(before) + len(filled.before)
        end = begin + len(filled.subject)
        base = self._row(prepared, number, text, begin, end, len(text), wanted)
        prepared.base.append(base)
        rows = [base]
        if self.needs_head:
            headed = base
            if prepared.head:
                headed = self._row(prepared, number, text + prepared.head, begin, end, len(text), wanted)
                headed.prompt = base.row
                rows.append(headed)
            prepared.headed.append(headed)
            self._label(prepared, base, headed)
        return _Plan(rows, before + filled.raw_before, filled.subject, filled.raw_after + after)

    def _encode_the_rest(self, alone: Sequence[Prepared]) -> list[_Plan]:
        """Rows of requests whose offsets are not trusted: what is only proven with them is encoded."""
        wanted = _Texts()
        for prepared in alone:
            for number in self.shifts:
                self._want(wanted, prepared, number)
        wanted.encode(self.reader)
        return [self._templated(prepared, number, wanted) for prepared in alone for number in self.shifts]

    def _shift(self, prepared: Prepared) -> None:
        """The rows of the remaining templates, from the pivot's; then all in the templates' order."""
        for rows in (prepared.base, prepared.headed):
            if rows and len(rows) < len(self.templates):
                pivot = next(row for row in rows if row.number == self.pivot)
                text = self.templates[self.pivot][0]
                for number, tokens in self.shifts.items():
                    rows.append(pivot.shifted(number, tokens, self.templates[number][0], len(text), self.reader))
            rows.sort(key=_by_number)

    def _row(
        self,
        prepared: Prepared,
        number: int,
        text: str,
        start: int,
        end: int,
        prompt_end: int,
        wanted: _Texts,
        fact_token: str | None = None,
    ) -> Row:
        measured = measure(wanted[text], text, start, end, prompt_end, self.reader)
        wanted_token = fact_token or self.fact_token
        row = Row(prepared, number, measured, fact_column(measured, wanted_token, end, prompt_end), end)
        if wanted_token == "subject_first_after_last" and row.truth is not None and measured.prompt_last is not None:
            # One token holds the subject's end and all that follows in the prompt: there is no token after the subject.
            row.absent = row.truth > measured.prompt_last
        row.fact_token = fact_token
        return row

    def _label(self, prepared: Prepared, base: Row, headed: Row) -> None:
        """Where the target's slots truly are in a headed row, and whether the row holds the target's tokens at all."""
        whole, prompt = headed.measured, base.measured
        if self.method.head == "text":
            # The labels are the row's own tokens: they begin with the first one that holds a character of the target.
            first = _first_beyond(whole, len(prompt.text))
            headed.label_first = None if first is None else first - 1
            headed.label_slack = int(first is not None and first == whole.prompt_last)  # one token holds both
            return
        own = prompt.ids[: prompt.n - prompt.tail]
        rest = own if headed is base else whole.ids[: whole.n - whole.tail]
        headed.labels_sound = rest == own + prepared.target_ids[:-1]
        headed.label_first = len(own) - 1 if rest[: len(own)] == own else whole.prompt_last

    def _running(self, prepared: Prepared, wanted: _Texts) -> None:
        """The target's ids as they stand behind the bare prompt."""
        filled = prepared.filled
        bare, joined = _without_tail(wanted[filled.prompt]), _without_tail(wanted[running_text(filled)])
        if joined[: len(bare)] == bare:
            prepared.running = tuple(joined[len(bare) :])

    def _counts(self, plans: Sequence[_Plan]) -> None:
        """The lengths of the parts that the editor encodes apart: read off the row where that is proven, encoded elsewhere."""
        wanted = _Texts()
        pending: list[tuple[Row, str, str]] = []
        for rows, before, subject, after in plans:
            first = rows[0]
            measured = first.measured
            text = before + subject
            if "prefix" in self.names:
                pending.extend((row, "prefix", wanted.add(before)) for row in rows)
            if "prefix_subject" in self.names:
                # `raw` differs from the row's text only where doubled braces were formatted away.
                plain = measured.text.startswith(text)
                if plain and self._last_token_ends_at(first, len(text)):
                    assert measured.last is not None
                    for row in rows:
                        row.prefix_subject = measured.last + 1 + measured.tail
                else:
                    wanted.add(text)
                    pending.extend((row, "prefix_subject", text) for row in rows)
                if not plain:
                    for row in rows:
                        raw = text + after + (row.prepared.head if row is not first else "")
                        pending.append((row, "row", wanted.add(raw)))
            if self.parts:
                part, word = (before[:-1], f" {subject.strip()}") if before else (before, subject)
                for row in rows:
                    pending.append((row, "part_prefix", wanted.add(part)))
                    pending.append((row, "part_subject", wanted.add(word)))
                    tail = row.prepared.head if row is not first else ""
                    if "part_suffix" in self.names:
                        pending.append((row, "part_suffix", wanted.add(after + tail)))
        if pending:
            wanted.encode(self.reader)
            for row, name, text in pending:
                setattr(row, name, len(wanted[text].ids))
        if "joined" in self.names:
            self._joined(plans)

    def _joined(self, plans: Sequence[_Plan]) -> None:
        """FastEdit counts the target on the first template with `{}` still in the subject's place, without special tokens."""
        wanted = _Texts()
        before, after = self.templates[0]
        texts: list[tuple[str, str]] = []
        for plan in plans:
            filled = plan.rows[0].prepared.filled
            bare = before + filled.raw_before + "{}" + filled.raw_after + after
            texts.append((wanted.add(bare), wanted.add(bare + filled.target)))
        wanted.encode(self.reader, add_special_tokens=False)
        for plan, (bare, joined) in zip(plans, texts, strict=True):
            for row in plan.rows:
                row.bare_prompt, row.joined = len(wanted[bare].ids), len(wanted[joined].ids)

    def _last_token_ends_at(self, row: Row, end: int) -> bool:
        """Whether the tokens before `end` are proven to be those of the text before `end` alone."""
        measured = row.measured
        trusted = measured.oracle == "offsets" and measured.last is not None and measured.last_end <= end == row.subject_end
        return trusted and self.cuts.safe(measured.text, end)

    # -- methods that train on prompt + target ----------------------------------------------------------------------------------

    def _train_rows(self, live: Sequence[Prepared]) -> None:
        wanted = _Texts()
        join = self.method.join
        templated = any(batch.rows == "templates+target, locality" for batch in self.batches)
        only_prompt = all(batch.rows == "prompt" for batch in self.batches)
        foreign = any(batch.labels is not None and batch.labels.foreign for batch in self.batches)
        by_ids = any(batch.labels is not None and batch.labels.on == "slots" for batch in self.batches)
        templates = self.templates if templated else [("", "")]
        for prepared in live:
            filled = prepared.filled
            for before, after in templates:
                wanted.add(before + filled.prompt + after)
                wanted.add(before + filled.prompt + join + filled.target + after)
            locality = prepared.request.extra.get("loc_prompt")
            if templated and isinstance(locality, str):
                wanted.add(locality)
        wanted.encode(self.reader)
        for prepared in live:
            filled = prepared.filled
            for number, (before, after) in enumerate(templates):
                prompt_text = before + filled.prompt + after
                prompt_row = wanted[prompt_text]
                text = prompt_text if only_prompt else before + filled.prompt + join + filled.target + after
                begin = len(before) + len(filled.before)
                prompt_end = len(before) + len(filled.prompt)
                row = self._row(prepared, number, text, begin, begin + len(filled.subject), prompt_end, wanted, "last")
                row.prompt = len(prompt_row.ids)
                measured = row.measured
                if self.facts.model_max_length is not None and any(batch.truncates for batch in self.batches):
                    row.mask = min(row.mask, self.facts.model_max_length)
                    row.prompt = min(row.prompt, self.facts.model_max_length)
                if measured.prompt_last is not None:
                    row.label_first = measured.prompt_last + (0 if only_prompt else 1)
                    visible = None if only_prompt else self._first_visible_beyond(measured, prompt_end)
                    if visible is not None:
                        row.label_first, row.label_slack = min(row.label_first, visible), max(0, visible - row.label_first)
                row.target_start = self._target_start(measured, prompt_end + len(join))
                row.labels_sound = not foreign
                if by_ids and not only_prompt:
                    row.labels_sound = measured.ids[-prepared.target_count :] == prepared.target_ids
                prepared.train.append(row)
            locality = prepared.request.extra.get("loc_prompt")
            if templated and isinstance(locality, str):
                row = self._row(prepared, len(templates), locality, 0, 0, len(locality), wanted, "last")
                row.is_kl = True
                prepared.train.append(row)

    def _first_visible_beyond(self, measured: Measured, end: int) -> int | None:
        """Column of the first token that holds a visible character after `text[:end]`; None where no oracle can be trusted."""
        text = measured.text
        character = first_visible(text, end, len(text))
        if character < 0 or measured.oracle == "none":
            return None
        if measured.oracle == "decode":
            columns = by_decoding(self.reader, measured.ids[measured.lead : measured.n - measured.tail], text, (character,))
            return None if columns is None else measured.lead + columns[0][0]
        offsets = measured.encoded.offsets
        return next(
            (at for at in range(measured.lead, measured.n - measured.tail) if offsets[at][0] <= character < offsets[at][1]),
            None,
        )

    def _target_start(self, measured: Measured, begin: int) -> int:
        """What an editor finds that takes the target's tokens from the offsets, true or not: the first one that ends after `begin`."""
        if not self.reader.has_offsets:
            return measured.prompt_last + 1 if measured.prompt_last is not None else measured.n
        offsets = measured.encoded.offsets
        return next((at for at, (start, stop) in enumerate(offsets) if stop > begin and stop > start), measured.n)


class _Texts:
    """Distinct texts, encoded in one call."""

    __slots__ = ("_encoded", "_places")

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._encoded: Sequence[Any] = ()

    def add(self, text: str) -> str:
        self._places.setdefault(text, len(self._places))
        return text

    def encode(self, reader: TokenReader, *, add_special_tokens: bool = True) -> None:
        self._encoded = reader.encode_batch(list(self._places), add_special_tokens=add_special_tokens)

    def __getitem__(self, text: str) -> Any:
        return self._encoded[self._places[text]]


def split_template(template: str) -> tuple[str, str]:
    """What stands before and after the one `{}` of a context template. Raises ValueError where there is not exactly one."""
    parts = template.split("{}")
    if len(parts) != 2:
        raise ValueError(f"a context template needs exactly one {{}}: {template!r}")
    return parts[0], parts[1]


def fact_column(measured: Measured, fact_token: str, subject_end: int, prompt_end: int) -> int | None:
    if fact_token == "subject_last":
        return measured.last
    if fact_token == "subject_first":
        return measured.first
    if fact_token == "last":
        return measured.prompt_last
    if measured.last is None:
        return None
    return measured.last + (1 if measured.text[subject_end:prompt_end].strip() else 0)


def _expressions(batch: Batch, fact_token: str) -> Iterable[Any]:
    if isinstance(batch.lookup, Index):
        for token in (fact_token, "last"):
            entry = batch.lookup.by_fact_token.get(token)
            if entry is not None and not isinstance(entry, Raises):
                yield entry
    if batch.labels is not None:
        yield batch.labels.first
        yield batch.labels.last


def _first_beyond(measured: Measured, end: int) -> int | None:
    """Column of the first token that holds a character after `text[:end]`; None where the offsets are not trusted."""
    if measured.oracle != "offsets":
        return None if measured.prompt_last is None else measured.prompt_last + 1
    offsets = measured.encoded.offsets
    return next((column for column in range(measured.lead, measured.n - measured.tail) if offsets[column][1] > end), None)


def running_text(filled: Filled) -> str:
    """Prompt and target as they stand in text: one space between them, none where there is one or before Chinese and Japanese."""
    prompt, target = filled.prompt, filled.target
    spaced = target[:1].isspace() or prompt[-1:].isspace() or (target and is_cjk(target[0]))
    return prompt + target if spaced else f"{prompt} {target}"


def _formatted_head(head: str, filled: Filled) -> str | Stop:
    """The head goes into the prompt *before* `str.format(subject)`: its braces are fields to it."""
    try:
        formatted = head.format(filled.subject)
    except (IndexError, KeyError, ValueError):
        return Stop("TGT107", "the target's braces are taken for a field when the prompt is formatted")
    if "{}" in head:
        return Stop("TGT107", "the target holds {}: the method counts two places for the subject and stops")
    return formatted


def _without_tail(encoded: Any) -> list[int]:
    ids, special = encoded.ids, encoded.special_tokens_mask
    stop = len(ids)
    while stop and special[stop - 1]:
        stop -= 1
    return list(ids[:stop])
