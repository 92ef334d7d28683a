"""Rules about a tokenizer's folder: its files against each other, against the model's config, and per transformers generation.

Nothing of the folder is run, and neither transformers nor torch is imported: what only transformers can read is said so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from padcheck.checks.building import finding
from padcheck.diagnostics import Finding, Place, Related
from padcheck.sources.reading import SourceError
from padcheck.sources.tokenizer_folder import TOKENIZER_CONFIG, TOKENIZER_JSON, TokenizerFolder, read_from_files

_MAP = "special_tokens_map.json"
_GENERATION = "generation_config.json"
_MODEL = "config.json"
_GENERATIONS: tuple[Literal[4], Literal[5]] = (4, 5)
_ROLES = ("bos", "eos", "pad")
_PROBES = (
    "Paris",
    "New York",
    "the United Kingdom",
    "3.14159",
    "Barack Obama",
    "soccer player",
    "São Paulo",
    "北京大学",
    "東京",
    "naïve café",
)
"""Answers as they stand in edit requests, of one and of several tokens."""


@dataclass(frozen=True)
class Folder:
    """A folder's small JSON files, with their texts for places."""

    path: Path
    shown: str
    texts: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path, shown: str) -> tuple[Folder, list[SourceError]]:
        """The folder, and what in it is no JSON."""
        texts: dict[str, str] = {}
        files: dict[str, Mapping[str, Any]] = {}
        broken = []
        for name in (TOKENIZER_CONFIG, _MAP, _GENERATION, _MODEL, "added_tokens.json"):
            try:
                text = (path / name).read_text("utf-8-sig")
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                broken.append(SourceError(f"The file cannot be read: {error}.", path=f"{shown}/{name}"))
                continue
            try:
                value = json.loads(text)
            except (json.JSONDecodeError, RecursionError) as error:
                place = {"line": error.lineno, "column": error.colno} if isinstance(error, json.JSONDecodeError) else {}
                words = error.msg.lower() if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
                broken.append(
                    SourceError(
                        f"This is not JSON: {words}.", path=f"{shown}/{name}", remedy="Mend the file at that place.", **place
                    )
                )
                continue
            if isinstance(value, dict):
                texts[name], files[name] = text, value
        return cls(path, shown, texts, files), broken

    def get(self, name: str, key: str) -> Any:
        return self.files.get(name, {}).get(key)

    def place(self, name: str, key: str) -> Place:
        """Where a top-level key stands in one of the files."""
        shown = f"{self.shown}/{name}"
        found = re.search(rf'^[ \t{{]*"{re.escape(key)}"\s*:', self.texts.get(name, ""), re.MULTILINE) or re.search(
            rf'"{re.escape(key)}"\s*:', self.texts.get(name, "")
        )
        if found is None:
            return Place(shown)
        text = self.texts[name]
        at = found.start() + found[0].index('"')
        line, column = text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1
        return Place(shown, line, column, line, column + len(key) + 2)

    def token(self, name: str, role: str) -> str | None:
        """The text of a special token in one of the files."""
        value = self.get(name, f"{role}_token")
        if isinstance(value, dict):
            value = value.get("content")
        return value if isinstance(value, str) and value else None

    @cached_property
    def vocab_size(self) -> int | None:
        config = self.files.get(_MODEL, {})
        inner = config.get("text_config")
        for table in (inner if isinstance(inner, dict) else {}, config):
            for key in ("vocab_size", "padded_vocab_size"):
                if isinstance(table.get(key), int):
                    return int(table[key])
        return None

    @cached_property
    def readings(self) -> tuple[dict[int, TokenizerFolder], str | None]:
        """The folder as transformers 4 and 5 read it, as far as that is known without them; and why it is not."""
        from padcheck.sources.tokenizer_recipes import NotStatic

        found: dict[int, TokenizerFolder] = {}
        reason: str | None = None
        for generation in _GENERATIONS:
            try:
                found[generation] = read_from_files(self.path, generation)
            except SourceError as error:
                reason = error.message
            except NotStatic as why:
                reason = str(why)
        return found, reason

    @cached_property
    def backend(self) -> Mapping[str, Any]:
        """The parts of tokenizer.json that are small: padding, truncation, added_tokens."""
        try:
            text = (self.path / TOKENIZER_JSON).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            return {}
        head = text[: text.find('"normalizer"')] if '"normalizer"' in text else ""
        try:
            value = json.loads(head.rstrip().rstrip(",") + "}") if head else json.loads(text)
        except ValueError:
            try:
                value = json.loads(text)
            except ValueError:
                return {}
        return value if isinstance(value, dict) else {}


def check_folder(
    path: Path, shown: str, enabled: frozenset[str], crashed: Callable[[str, Exception], Finding]
) -> Iterator[Finding]:
    """The findings of one folder. A check that raises is reported by `crashed`, and the others still run."""
    folder, broken = Folder.read(path, shown)
    for error in broken:
        if "LNT104" in enabled:
            yield finding("LNT104", error.message, Place(error.path, error.line, error.column), error.remedy or None)
    if not folder.files and not (path / TOKENIZER_JSON).exists():
        return
    tokenizer = (path / TOKENIZER_JSON).exists() or TOKENIZER_CONFIG in folder.files
    for check, ids, needs_tokenizer in _CHECKS:
        if enabled.isdisjoint(ids) or (needs_tokenizer and not tokenizer):
            continue
        try:
            yield from [finding for finding in check(folder) if finding.rule in enabled]
        except Exception as error:  # a broken rule is a finding, not silence
            yield crashed(ids[0], error)


# --- The side ---------------------------------------------------------------------------------------------------------------


def _side(folder: Folder) -> Iterator[Finding]:
    stated = folder.get(TOKENIZER_CONFIG, "padding_side")
    padding = folder.backend.get("padding")
    direction = str(padding.get("direction")).lower() if isinstance(padding, dict) and padding.get("direction") else None
    if stated not in (None, "left", "right"):
        yield finding(
            "TOK111",
            f'padding_side is {json.dumps(stated)}; it should be "left" or "right".',
            folder.place(TOKENIZER_CONFIG, "padding_side"),
            severity="error",
            key="value",
        )
        return
    if stated and direction and stated != direction:
        yield finding(
            "TOK111",
            f"{TOKENIZER_CONFIG} says {stated}, and the padding section of {TOKENIZER_JSON} says {direction}: transformers pads on the {stated}, the tokenizers library alone on the {direction}.",
            folder.place(TOKENIZER_CONFIG, "padding_side"),
            "Write the same side in both.",
            severity="warning",
            related=[Related("padding.direction", Place(f"{folder.shown}/{TOKENIZER_JSON}"))],
        )
    if stated or direction:
        return
    found, _ = folder.readings
    sides = {generation: reading.padding_side for generation, reading in found.items()}
    place = Place(f"{folder.shown}/{TOKENIZER_CONFIG if TOKENIZER_CONFIG in folder.files else TOKENIZER_JSON}")
    remedy = 'Write "padding_side" into tokenizer_config.json.'
    slow = _slow_side(found[4].class_name) if 4 in found else None
    if len(set(sides.values())) > 1:
        yield finding(
            "TOK110",
            f"No file states the padding side: {found[4].class_name} pads on the {sides[4]} in transformers 4, "
            f"{found[5].class_name} on the {sides[5]} in transformers 5.",
            place,
            remedy,
            severity="warning",
            key="generation",
        )
    elif slow is not None and slow != sides[4]:
        yield finding(
            "TOK110",
            f"No file states the padding side: {found[4].class_name} pads on the {sides[4]}, and with use_fast=False its slow class on the {slow}.",
            place,
            remedy,
            severity="warning",
            key="use_fast",
        )
    elif sides:
        side = next(iter(sides.values()))
        yield finding(
            "TOK110",
            f"No file states the padding side; it is {side} by the default of {found[max(found)].class_name}.",
            place,
            remedy,
            severity="note",
            key="default",
        )


def _slow_side(class_name: str) -> str | None:
    """The default side of the slow class beside a fast one, in transformers 4."""
    from padcheck.sources.tokenizer_classes import releases

    release = [each for each in releases() if each.generation == 4][-1]
    slow = release.by_name(class_name.removesuffix("Fast")) if class_name.endswith("Fast") else None
    return slow.padding_side if slow is not None else None


# --- Special tokens ---------------------------------------------------------------------------------------------------------


def _pad(folder: Folder) -> Iterator[Finding]:
    own = TOKENIZER_CONFIG if TOKENIZER_CONFIG in folder.files else _MAP
    pad = folder.token(TOKENIZER_CONFIG, "pad") or folder.token(_MAP, "pad")
    if pad is None:
        found, _ = folder.readings
        if not any(reading.pad_token for reading in found.values()) and own in folder.files:
            yield finding(
                "TOK113",
                "No file names a pad token: padding a batch stops unless the code sets one.",
                Place(f"{folder.shown}/{own}"),
                "Name a token of the vocabulary that texts do not contain.",
            )
        return
    for role in ("eos", "bos"):
        text = folder.token(TOKENIZER_CONFIG, role) or folder.token(_MAP, role)
        if text == pad:
            yield finding(
                "TOK112",
                f"The pad token {pad!r} is the {role.upper()} token too: code that counts pads by their id counts the {role.upper()} of a text as one.",
                folder.place(own if folder.token(own, "pad") else _MAP, "pad_token"),
                "Use a reserved token as the pad, or count by the attention mask.",
                severity="warning" if role == "bos" else "note",
                key=role,
            )


def _contradictions(folder: Folder) -> Iterator[Finding]:
    for role in (*_ROLES, "unk"):
        here, there = folder.token(TOKENIZER_CONFIG, role), folder.token(_MAP, role)
        if here and there and here != there:
            yield finding(
                "TOK120",
                f"{role}_token is {here!r} in {TOKENIZER_CONFIG} and {there!r} in {_MAP}.",
                folder.place(TOKENIZER_CONFIG, f"{role}_token"),
                "Write the same in both.",
                related=[Related("the other value", folder.place(_MAP, f"{role}_token"))],
                key=role,
            )


def _ids(folder: Folder) -> Iterator[Finding]:
    """Ids in config.json and generation_config.json against each other, the tokenizer and the embedding."""
    found, _ = folder.readings
    reading = found.get(5) or found.get(4)
    size = folder.vocab_size
    for role in _ROLES:
        key = f"{role}_token_id"
        by_file: dict[str, list[int]] = {}
        for name in (_MODEL, _GENERATION):
            value = folder.get(name, key)
            ids = (
                [value]
                if isinstance(value, int)
                else [each for each in value if isinstance(each, int)]
                if isinstance(value, list)
                else []
            )
            if ids:
                by_file[name] = ids
            beyond = [each for each in ids if size is not None and (each >= size or each < -1)]
            if beyond:
                yield finding(
                    "TOK114",
                    f"{key} {beyond[0]} is beyond the embedding of {size} rows.",
                    folder.place(name, key),
                    "Name an id of the vocabulary, or resize the embedding.",
                    key=f"{name}:{key}",
                    related=[Related("vocab_size", folder.place(_MODEL, "vocab_size"))],
                )
        names = list(by_file)
        if len(names) == 2 and not set(by_file[names[0]]) & set(by_file[names[1]]):
            yield finding(
                "TOK115",
                f"{key} is {_listed(by_file[_MODEL])} in {_MODEL} and {_listed(by_file[_GENERATION])} in {_GENERATION}.",
                folder.place(_GENERATION, key),
                "Name the same token.",
                related=[Related("the other id", folder.place(_MODEL, key))],
                key=key,
            )
        own = getattr(reading, f"{role}_id") if reading is not None else None
        if own is not None and by_file and not any(own in ids for ids in by_file.values()):
            name = next(iter(by_file))
            yield finding(
                "TOK115",
                f"{key} is {_listed(by_file[name])} in {name}, and the tokenizer's {role.upper()} {getattr(reading, f'{role}_token')!r} is {own}.",
                folder.place(name, key),
                "Name the same token.",
                key=f"tokenizer:{key}",
                severity="note" if role != "eos" else None,
            )


def _listed(ids: list[int]) -> str:
    return ", ".join(map(str, ids))


def _added(folder: Folder) -> Iterator[Finding]:
    """Added tokens beyond the embedding; a pad among them is certain to be embedded."""
    size = folder.vocab_size
    if size is None:
        return
    listed: dict[int, str] = {}
    for each in folder.backend.get("added_tokens") or []:
        if isinstance(each, dict) and isinstance(each.get("id"), int):
            listed[each["id"]] = str(each.get("content"))
    decoder = folder.get(TOKENIZER_CONFIG, "added_tokens_decoder")
    if isinstance(decoder, dict):
        listed |= {
            int(number): str(each.get("content"))
            for number, each in decoder.items()
            if number.isdigit() and isinstance(each, dict)
        }
    for text, number in folder.files.get("added_tokens.json", {}).items():
        if isinstance(number, int):
            listed[number] = text
    beyond = {number: text for number, text in sorted(listed.items()) if number >= size}
    if not beyond:
        return
    pads = {folder.token(TOKENIZER_CONFIG, role) or folder.token(_MAP, role) for role in ("pad", "bos")}
    certain = [f"{text!r} ({number})" for number, text in beyond.items() if text in pads]
    shown = ", ".join(certain or [f"{text!r} ({number})" for number, text in list(beyond.items())[:4]])
    yield finding(
        "TOK114",
        f"{'The special token' if certain else 'Added tokens'} {shown} {'lies' if certain else 'lie'} beyond the embedding of {size} rows (vocab_size).",
        folder.place(_MODEL, "vocab_size"),
        "Call model.resize_token_embeddings(len(tok)), or take an existing token.",
        severity="error" if certain else "warning",
        key="added",
    )


# --- What encoding does -----------------------------------------------------------------------------------------------------


def _generations(folder: Folder) -> Iterator[Finding]:
    found, reason = folder.readings
    place = Place(f"{folder.shown}/{TOKENIZER_CONFIG if TOKENIZER_CONFIG in folder.files else TOKENIZER_JSON}")
    auto = folder.get(TOKENIZER_CONFIG, "auto_map")
    remote = auto.get("AutoTokenizer") if isinstance(auto, dict) else None
    if remote:
        yield finding(
            "TOK103",
            "The folder names a tokenizer class of its own (auto_map), which is code: it was not run, and may tokenize and pad in its own way.",
            folder.place(TOKENIZER_CONFIG, "auto_map"),
            severity="note",
            key="auto_map",
        )
    elif not found and reason:
        yield finding(
            "TOK119",
            f"Without transformers this tokenizer cannot be read: {reason[:1].lower() + reason[1:].rstrip('.')}.",
            place,
            key="static",
        )
    seen = set()
    for generation, reading in sorted(found.items(), reverse=True):
        for note in reading.notes:
            if note.key.startswith("ignored-add") and note.key not in seen:
                seen.add(note.key)
                yield finding(
                    "TOK117",
                    note[:1].upper() + note[1:] + ".",
                    folder.place(TOKENIZER_CONFIG, note.key.removeprefix("ignored-").replace("-", "_")),
                    key=note.key,
                )
        if generation == 5 and reading.other_generation is not None:
            other = reading.other_generation
            differs = [each for each in other.differs if each != "side"]
            if differs:
                yield finding(
                    "TOK101",
                    f"Another generation reads another tokenizer: {other.because}.",
                    place,
                    severity="note",
                    key=",".join(differs),
                )


def _twice(folder: Folder) -> Iterator[Finding]:
    found, _ = folder.readings
    for generation, reading in found.items():
        for role, ids in (("BOS", reading.prefix_specials), ("EOS", reading.suffix_specials)):
            own = reading.bos_id if role == "BOS" else reading.eos_id
            if own is not None and list(ids).count(own) > 1:
                yield finding(
                    "TOK116",
                    f"{role} is added {list(ids).count(own)} times around every text in transformers {generation}.",
                    Place(f"{folder.shown}/{TOKENIZER_JSON}"),
                    "Leave it to one place.",
                    key=role,
                )
                return


def _targets(folder: Folder) -> Iterator[Finding]:
    """Decode the head of an answer, append it to a prompt, read it again: are these the answer's tokens?"""
    found, _ = folder.readings
    changed: dict[int, list[str]] = {}
    tried = 0
    for generation, reading in found.items():
        reader = reading.reader
        for text in _PROBES:
            ids = list(reader.encode_batch([" " + text], add_special_tokens=False)[0].ids)
            if len(ids) < 2:
                continue
            tried += 1
            prompt = "The answer is"
            before = list(reader.encode_batch([prompt], add_special_tokens=False)[0].ids)
            after = list(reader.encode_batch([prompt + reader.decode(ids[:-1])], add_special_tokens=False)[0].ids)
            if after != before + ids[:-1]:
                changed.setdefault(generation, []).append(text)
    if not changed:
        return
    generation, texts = next(reversed(changed.items()))
    per = tried // max(1, len(found))
    both = "" if len(changed) == len(found) else f" in transformers {generation}"
    yield finding(
        "TOK118",
        f"{len(texts)} of {per} answers of several tokens are other tokens once decoded and read again{both}, for example {texts[0]!r}: editors that decode the target score it on the wrong labels.",
        Place(f"{folder.shown}/{TOKENIZER_JSON}"),
        "Preflight says which of your requests are hit.",
        severity="warning" if len(texts) * 2 > per else "note",
        evidence={"answers": texts, "generation": generation},
    )


_Check = Callable[[Folder], Iterator[Finding]]
_CHECKS: tuple[tuple[_Check, tuple[str, ...], bool], ...] = (
    (_side, ("TOK110", "TOK111"), True),
    (_pad, ("TOK112", "TOK113"), True),
    (_contradictions, ("TOK120",), True),
    (_ids, ("TOK114", "TOK115"), False),
    (_added, ("TOK114",), True),
    (_generations, ("TOK101", "TOK103", "TOK117", "TOK119"), True),
    (_twice, ("TOK116",), True),
    (_targets, ("TOK118",), True),
)
"""Each check, its rules, and whether it needs a tokenizer in the folder."""
