"""Context templates: read from a file, or stand-ins of the lengths that the hparams ask for.

The editors sample their templates from the model, so without weights their text is unknown; their *lengths* are not. What
padding does depends on lengths alone, so stand-ins are cut to length with the tokenizer at hand, in several length profiles.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from padcheck.sources.reading import SourceError, parse_json, read_text
from padcheck.sources.token_readers import TokenReader

PROFILES = 3
"""Length profiles that an error must survive before it is called certain."""

_STARTS = ("The", "Therefore", "Because", "I", "You")  # what EasyEdit and kmeng01 let the model continue
_WORDS = [
    "old",
    "house",
    "by",
    "the",
    "river",
    "was",
    "quiet",
    "and",
    "nobody",
    "knew",
    "who",
    "had",
    "left",
    "the",
    "door",
    "open",
    "after",
    "the",
    "rain",
    "so",
    "we",
    "walked",
    "along",
    "the",
    "road",
    "until",
    "a",
    "small",
    "light",
    "appeared",
    "between",
    "the",
    "trees",
    "and",
    "someone",
    "called",
    "our",
    "names",
    "from",
    "far",
    "away",
    "with",
    "a",
    "voice",
    "that",
    "sounded",
    "like",
    "an",
    "early",
    "morning",
    "in",
    "spring",
    "when",
    "people",
    "begin",
    "to",
    "work",
    "again",
    "and",
    "children",
    "run",
    "to",
    "school",
    "through",
    "the",
    "wet",
    "streets",
]


@dataclass(frozen=True, slots=True)
class Templates:
    """One set of context templates, the bare `{}` first. `said`: how they came about, for the report."""

    texts: tuple[str, ...]
    said: str


def read_templates(path: Path, shown: str) -> Templates:
    """Templates from a JSON file (a list of strings, or a list of lists) or a text file with one template per line.

    Raises:
        SourceError: the file cannot be read, or a template does not have exactly one `{}`.
    """
    text = read_text(path, shown, "the file of context templates")
    flat: list[tuple[str, int | None]]
    if path.suffix.lower() == ".json":
        flat = [(template, None) for template in flatten(parse_json(text, shown), shown)]
    else:
        flat = [(line, number) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for template, line in flat:
        if template.count("{}") != 1 or template.replace("{}", "").count("{") or template.replace("{}", "").count("}"):
            raise SourceError(
                f"a context template needs exactly one {{}} and no other braces: {template!r}",
                path=shown, line=line, remedy="The editors put the prompt where {} stands.",
            )  # fmt: skip
    texts = [template for template, _ in flat]
    if not texts:
        raise SourceError("the file holds no template", path=shown, remedy='Write one template per line, "{}" first.')
    said = f"{len(texts)} templates from {shown}"
    if texts[0] != "{}":
        texts = ["{}", *[template for template in texts if template != "{}"]]
        said += ' (the bare "{}" put first, as every editor does)'
    return Templates(tuple(texts), said)


def flatten(data: Any, shown: str = "<templates>") -> list[str]:
    """A list of templates, or of groups of them, as one flat list."""
    result: list[str] = []
    if isinstance(data, Sequence) and not isinstance(data, str):
        for item in data:
            if isinstance(item, str):
                result.append(item)
            elif isinstance(item, Sequence) and all(isinstance(inner, str) for inner in item):
                result.extend(item)
            else:
                raise SourceError(
                    "context templates are strings, or groups of strings", path=shown, remedy="See the README."
                )
        return result
    raise SourceError(
        "context templates are a list of strings, or of groups of strings", path=shown, remedy="See the README."
    )


def asked_lengths(values: Mapping[str, Any], kind: str) -> list[int]:
    """Lengths in tokens of the templates that the editor will sample, without the bare one.

    ROME and kin: `context_template_length_params` [[length, count], …], count // 5 per start word (EasyEdit rome_main.py:168-183).
    MEMIT and kin: five of length 10 (EasyEdit memit_main.py:330-345).
    """
    if kind == "none":
        return []
    if kind == "groups":
        return [10] * 5
    lengths: list[int] = []
    for entry in values.get("context_template_length_params") or []:
        if isinstance(entry, Sequence) and len(entry) == 2 and all(isinstance(number, int) for number in entry):
            length, count = entry
            lengths += [length] * (count // 5 * 5)
    return lengths


def stand_ins(lengths: Sequence[int], reader: TokenReader, profile: int, seed: int = 0) -> Templates:
    """Templates of about `lengths` tokens. Profile 0 has just these lengths; the others shorten each by a seeded share."""
    generator = random.Random(f"{seed}:{profile}")
    texts = ["{}"]
    for number, length in enumerate(lengths):
        wanted = length if profile == 0 else max(2, length - generator.randint(0, max(1, length // 2)))
        start = generator.randrange(len(_WORDS))
        words = [_STARTS[number % len(_STARTS)], *(_WORDS[(start + step) % len(_WORDS)] for step in range(wanted))]
        candidates = [" ".join(words[: count + 1]) for count in range(len(words))]
        counts = [len(encoded.ids) for encoded in reader.encode_batch(candidates)]
        best = max((count for count in range(len(words)) if counts[count] <= wanted), default=0)
        texts.append(candidates[best] + ". {}")
    shown = ", ".join(f"{lengths.count(length)} of {length} tokens" for length in dict.fromkeys(lengths)) or "none"
    return Templates(tuple(texts), f"stand-ins ({shown}); the editor samples its own from the model")
