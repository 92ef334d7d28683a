"""Requests as rows of tokens: context templates × prompt, the target's ids, the KL row, and where each one is looked up.

Positions come from `padcheck.positions.truth` on the tokenizer's own offsets of the whole row, resolved once per template on
prompt and subject without target text, and serve keys, values and lookups alike.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from padcheck.diagnostics import RequestRef
from padcheck.editing.errors import RequestError, TemplateError
from padcheck.positions.rows import fact_column as true_column
from padcheck.positions.rows import split_template
from padcheck.positions.truth import measure
from padcheck.sources.requests import Request, RequestProblem, as_requests
from padcheck.sources.token_readers import Encoded, TokenReader

Groups = tuple[tuple[str, ...], ...]
"""Context templates in groups; the first one holds the bare `{}` alone. Keys are averaged in a group, then over groups."""

KL_PROMPT = "{} is a"


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids of one row (no pads, no special tokens at its end) and the 0-based column that is looked up.

    head: how many tokens stand before the subject's first; rows with the same text there have them in common.
    """

    ids: tuple[int, ...]
    lookup: int
    head: int = 0


@dataclass(frozen=True, slots=True)
class Fact:
    """One request as an editor needs it.

    Attributes:
        request: where it came from.
        prompts: a row per template, without target; the first is the bare prompt.
        answered: the same rows with the target's ids but the last after them.
        labels: for each answered row, the column whose logits are to give the first of `target`; the next ones follow.
        target: the target's ids.
        kl: the row "{subject} is a", up to its lookup.
    """

    request: Request
    prompts: tuple[Row, ...]
    answered: tuple[Row, ...]
    labels: tuple[int, ...]
    target: tuple[int, ...]
    kl: Row


def grouped(templates: Sequence[str] | Sequence[Sequence[str]]) -> Groups:
    """Context templates as groups: a flat list means the bare one alone and the rest together.

    Raises TemplateError unless each has exactly one `{}` and the first is the bare `{}`.
    """
    groups: list[tuple[str, ...]]
    if all(isinstance(one, str) for one in templates):
        texts = [str(one) for one in templates]
        groups = [tuple(texts[:1]), tuple(texts[1:])] if len(texts) > 1 else [tuple(texts)]
    elif all(isinstance(one, list | tuple) and all(isinstance(text, str) for text in one) for one in templates):
        groups = [tuple(group) for group in templates if group]
    else:
        raise TemplateError("context templates are strings, or lists of strings, and not both")
    for text in (text for group in groups for text in group):
        try:
            split_template(text)
        except ValueError as error:
            raise TemplateError(str(error)) from None
    if not groups or groups[0] != ("{}",):
        raise TemplateError(
            "the first context template (the first group) must be the bare '{}' alone: the norm clamp and the weight decay are "
            "taken from it"
        )
    return tuple(groups)


def requests_of(records: Iterable[Mapping[str, Any] | Request] | Mapping[str, Any]) -> list[Request]:
    """Requests of records in every shape that the frameworks read. Raises RequestError naming the first that is none."""
    given: Any = [records] if isinstance(records, Mapping) else records
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise RequestError(f"requests are records, not {type(given).__name__}: read a file with padcheck.sources.requests")
    found: list[Request] = []
    for ready, several in groupby(given, lambda one: isinstance(one, Request)):
        if ready:
            found.extend(several)
            continue
        for one in as_requests(several):
            if isinstance(one, RequestProblem):
                raise RequestError(f"{RequestRef(one.index, one.case_id)}: {one.message} {one.remedy}".rstrip())
            found.append(one)
    if not found:
        raise RequestError("there is no request")
    return found


def facts_of(
    requests: Sequence[Request],
    reader: TokenReader,
    templates: Groups,
    fact_token: str,
    *,
    compat: str | None = None,
    unknown: int | None = None,
) -> tuple[list[Fact], list[str]]:
    """The rows of each request, and notes on what was decided.

    unknown: the id that stands for what the tokenizer cannot read; a subject or target that is nothing else is refused.
    compat: "easyedit" puts a space before every target, and makes the rows by decoding the target's head and reading
    it again.
    """
    texts = [text for group in templates for text in group]
    notes: list[str] = []
    facts = [_fact(request, reader, texts, fact_token, compat, notes) for request in requests]
    for fact in facts:
        _check_known(fact, unknown)
    return facts, notes


def _check_known(fact: Fact, unknown: int | None) -> None:
    """Raises RequestError where the token that is looked up, or one that is trained, is the unknown one."""
    name, bare = f"request {fact.request.index}", fact.prompts[0]
    if unknown is not None and bare.ids[bare.lookup] == unknown:
        raise RequestError(
            f"{name}: the tokenizer reads the subject {fact.request.subject!r} as the unknown token: is it the model's?"
        )
    if unknown is not None and unknown in fact.target:
        raise RequestError(f"{name}: the tokenizer reads the target {fact.request.target_new!r} as the unknown token")


def _fact(
    request: Request, reader: TokenReader, texts: Sequence[str], fact_token: str, compat: str | None, notes: list[str]
) -> Fact:
    name = str(RequestRef(request.index, request.case_id))
    before, after = _parts(request, name)
    prompt = before + request.subject + after
    start = len(before)
    if not request.target_new.strip():
        raise RequestError(f"{name}: the target is empty")
    if fact_token == "subject_first_after_last" and not after.strip():
        notes.append(f"{name}: nothing follows the subject, so subject_first_after_last is subject_last")

    whole: list[str] = []
    places: list[tuple[int, int]] = []
    for text in texts:
        left, right = split_template(text)
        whole.append(left + prompt + right)
        places.append((len(left) + start, len(left) + start + len(request.subject)))
    kl_before, kl_after = split_template(KL_PROMPT)
    whole.append(kl_before + request.subject + kl_after)
    places.append((len(kl_before), len(kl_before) + len(request.subject)))
    rows = [
        _row(encoded, text, place, reader, fact_token, name)
        for encoded, text, place in zip(reader.encode_batch(whole), whole, places, strict=True)
    ]
    *prompts, kl = rows
    kl = Row(kl.ids[: kl.lookup + 1], kl.lookup, kl.head)
    if compat == "easyedit":
        answered, labels, target = _as_easyedit(request, reader, whole[:-1], prompts, name)
    else:
        target = _target(prompt, request.target_new, reader, name, notes)
        answered = [Row(row.ids + target[:-1], row.lookup, row.head) for row in prompts]
        labels = [len(row.ids) - 1 for row in prompts]
    return Fact(request, tuple(prompts), tuple(answered), tuple(labels), target, kl)


def _parts(request: Request, name: str) -> tuple[str, str]:
    """What stands before and after the subject in the prompt."""
    if not request.subject.strip():
        raise RequestError(f"{name}: the subject is empty")
    pieces = request.prompt.split("{}")
    if len(pieces) == 2:
        return pieces[0], pieces[1]
    if len(pieces) > 2:
        raise RequestError(f"{name}: the prompt has {len(pieces) - 1} places {{}} for the subject instead of one")
    pieces = request.prompt.split(request.subject)
    if len(pieces) == 2:
        return pieces[0], pieces[1]
    if len(pieces) == 1:
        raise RequestError(f"{name}: the subject {request.subject!r} does not stand in the prompt {request.prompt!r}")
    raise RequestError(
        f"{name}: the subject stands {len(pieces) - 1} times in the prompt; write {{}} where the one that is meant stands"
    )


def _row(encoded: Encoded, text: str, place: tuple[int, int], reader: TokenReader, fact_token: str, name: str) -> Row:
    measured = measure(encoded, text, place[0], place[1], len(text), reader)
    column = true_column(measured, fact_token, place[1], len(text))
    if column is None:
        raise RequestError(f"{name}: neither offsets nor decoding show where {fact_token} stands in {text!r}")
    return Row(tuple(measured.ids[: measured.n - measured.tail]), column, min(measured.first or 0, column))


def _target(prompt: str, target: str, reader: TokenReader, name: str, notes: list[str]) -> tuple[int, ...]:
    """The target's ids as they stand after the prompt."""
    separator = "" if target[0].isspace() or prompt[-1:].isspace() or _written_without_spaces(target[0]) else " "
    alone, joined, bare = (
        _content(encoded) for encoded in (*reader.encode_batch([prompt, prompt + separator + target]),
        *reader.encode_batch([separator + target], add_special_tokens=False))
    )  # fmt: skip
    ids = joined[len(alone) :]
    if joined[: len(alone)] == alone and ids:
        return tuple(ids)
    notes.append(f"{name}: the target's tokens merge with the prompt's end in running text; it is trained in its own tokens")
    # A SentencePiece dummy prefix reads as nothing: the ids without it decode to the same visible text.
    while len(bare) > 1 and reader.decode(bare[1:]).strip() == reader.decode(bare).strip():
        bare = bare[1:]
    if not bare:
        raise RequestError(f"{name}: the target {target!r} has no token")
    return tuple(bare)


def _written_without_spaces(character: str) -> bool:
    """Chinese, Japanese, Thai and the like put no space between words."""
    kind = unicodedata.name(character, "")
    return kind.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "FULLWIDTH", "IDEOGRAPHIC"))


def _content(encoded: Encoded) -> list[int]:
    ids, special = list(encoded.ids), encoded.special_tokens_mask
    while ids and special[len(ids) - 1]:
        ids.pop()
    return ids


def _as_easyedit(
    request: Request, reader: TokenReader, texts: Sequence[str], prompts: Sequence[Row], name: str
) -> tuple[list[Row], list[int], tuple[int, ...]]:
    """EasyEdit's way: ids of " target" on its own; rows of text with the target's head decoded behind it."""
    target = request.target_new if request.target_new[0] == " " else " " + request.target_new
    ids = list(reader.encode_batch([target], add_special_tokens=False)[0].ids)
    if not ids:
        raise RequestError(f"{name}: the target {target!r} has no token")
    head = reader.decode(ids[:-1]) if len(ids) > 1 else ""
    rows: list[Row] = []
    labels: list[int] = []
    for encoded, prompt in zip(reader.encode_batch([text + head for text in texts]), prompts, strict=True):
        content = _content(encoded)
        rows.append(Row(tuple(content), prompt.lookup))
        labels.append(len(content) - len(ids))
    return rows, labels, tuple(ids)
