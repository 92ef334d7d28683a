"""Where a text may be cut without changing its tokens, so that a part need not be encoded again.

Editors count `len(encode(prefix + subject))`. At many borders that number can be read off the whole row instead: where the
tokenizer provably never builds a token across the border, the tokens before it are the same whether the rest is there or not.
What is proven, and only that:

- Pre-tokenizers that split at the border (byte-level with the GPT-2, Llama-3 or Qwen patterns, whitespace splitters, Metaspace
  with `split`): before a space that follows a visible character, and for the three patterns also between an ASCII letter or
  digit and ASCII punctuation, unless an added token (`<|endoftext|>`) reaches over it.
- SentencePiece-style BPE over the whole sentence (Metaspace without `split`, or the normaliser that replaces spaces): before a
  space that follows a visible character, if no token of the vocabulary holds ▁ after another character. No merge can then
  cross the border, and merges on its two sides do not see each other.

Everything else answers "not proven", and the part is encoded. `tests/test_cuts.py` checks the claim on random texts.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from typing import Any

from padcheck.sources.token_readers import FastReader, TokenReader

_PUNCTUATION = frozenset(string.punctuation)
_ALNUM = frozenset(string.ascii_letters + string.digits)
_BORDER = re.compile(rf"[A-Za-z0-9][{re.escape(string.punctuation)}]")

# The split patterns of Llama-3 and of Qwen2/2.5/3: facts of their published tokenizer.json files.
_WORD_PATTERNS = frozenset(
    rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in ("{1,3}", "")
)


class Cuts:
    """What is proven for one tokenizer: `safe(text, position)`."""

    __slots__ = ("_added", "_longest", "_starts", "at_punctuation", "at_space")

    def __init__(self, at_space: bool, at_punctuation: bool, added: Sequence[str] = ()) -> None:
        self.at_space = at_space
        self.at_punctuation = at_punctuation
        self._added = tuple(content for content in added if _BORDER.search(content))
        self._starts = tuple({content[0] for content in self._added})
        self._longest = max(map(len, self._added), default=0)

    def safe(self, text: str, position: int) -> bool:
        """True if `encode(text[:position])` is proven to be the tokens of `text` before `position` (and the special tokens)."""
        if position >= len(text):
            return True
        if not self.at_space or position == 0:
            return False
        left, right = text[position - 1], text[position]
        if right == " ":
            return not left.isspace() and left != "▁"  # a ▁ of the text is a space to SentencePiece
        return self.at_punctuation and right in _PUNCTUATION and left in _ALNUM and not self._in_added(text, position)

    def _in_added(self, text: str, position: int) -> bool:
        """Whether an added token (`<|endoftext|>`) reaches over `position`."""
        before = text[max(0, position - self._longest + 1) : position]
        if not any(start in before for start in self._starts):
            return False
        return any(
            text.find(content, max(0, position - len(content) + 1), position + len(content) - 1) >= 0
            for content in self._added
        )


NEVER = Cuts(False, False)


def cuts_of(reader: TokenReader) -> Cuts:
    """What is proven for this tokenizer (`NEVER` for slow and remote ones)."""
    if not isinstance(reader, FastReader):
        return NEVER
    backend = reader.tokenizer
    try:
        normalizers = _parts(backend.normalizer, "normalizers")
        splitters = _parts(backend.pre_tokenizer, "pretokenizers")
        model = type(backend.model).__name__
        if model == "BPE" and backend.model.dropout:
            return NEVER
        tokens = list(backend.get_added_tokens_decoder().values())
        added = [token.content for token in tokens]
    except (AttributeError, TypeError, ValueError):
        return NEVER
    if any(re.search(r"\S\s", content) or content.isspace() for content in added):
        return NEVER  # an added token could lie across the border
    replaces_space = False
    for part in normalizers:
        if part["type"] == "Prepend" or part["type"] == "NFC":
            continue
        if part["type"] == "Replace" and part.get("pattern") == {"String": " "} and part.get("content") == "▁":
            replaces_space = True
            continue
        return NEVER
    words = [_splits_words(part) for part in splitters]
    if any(kind == "unknown" for kind in words):
        return NEVER
    if "pattern" in words and not replaces_space:
        # An added token that stands only between non-word characters takes _ for a part of a word.
        return Cuts(True, not any(token.single_word for token in tokens), added)
    if "space" in words:
        return Cuts(True, False)
    whole_sentence = (replaces_space and not splitters) or words == ["sentence"]
    if (
        whole_sentence
        and model == "BPE"
        and not any(re.search(r"[^▁]▁", token) for token in backend.get_vocab(with_added_tokens=False))
    ):
        return Cuts(True, False)
    return NEVER


def _parts(component: Any, key: str) -> list[dict[str, Any]]:
    if component is None:
        return []
    state: dict[str, Any] = json.loads(component.__getstate__())
    if state["type"] == "Sequence":
        return list(state[key])
    return [state]


def _splits_words(part: dict[str, Any]) -> str:
    """ "pattern" and "space": splits there; "sentence" and "none": does not split; "unknown": nothing is proven."""
    kind = part["type"]
    if kind == "ByteLevel":
        return "pattern" if part.get("use_regex", True) else "none"
    if kind == "Split":
        known = (
            part.get("pattern", {}).get("Regex") in _WORD_PATTERNS
            and part.get("behavior") == "Isolated"
            and not part.get("invert")
        )
        return "pattern" if known else "unknown"
    if kind == "Metaspace":
        return "space" if part.get("split", True) and part.get("replacement") == "▁" else "sentence"
    if kind in {"WhitespaceSplit", "Whitespace", "BertPreTokenizer"}:
        return "space"
    return "unknown"
