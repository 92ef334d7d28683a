"""The public tokenizer behind a re-enactment: one string at a time, nothing but `encode` and `decode`.

Two adapters, both duck-typed so that neither library is imported here:
`Fast` over a `tokenizers.Tokenizer`, `Hugging` over any transformers tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens as the editor left them (EasyEdit sets `pad` to `eos` for most models)."""

    bos: int | None = None
    eos: int | None = None
    unk: int | None = None
    pad: int | None = None


class PublicTokenizer(Protocol):
    """What a re-enactment may ask of a tokenizer."""

    special: SpecialTokens
    class_name: str
    """Name of the tokenizer's class, where an editor looks at it (EAMET)."""
    bos_switch: bool
    """Whether `tok.add_bos_token = False` really drops the BOS (EAMET sets it)."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def offsets(self, text: str) -> list[tuple[int, int]] | None:
        """Character spans of `encode(text)`, or None where the tokenizer has none."""


_CLEAN_UP = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


@dataclass
class Fast:
    """A `tokenizers.Tokenizer`. `clean_up` is transformers' `clean_up_tokenization_spaces`."""

    raw: Any
    special: SpecialTokens
    clean_up: bool = False
    class_name: str = ""
    bos_switch: bool = True

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(self.raw.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, ids: Sequence[int]) -> str:
        text = str(self.raw.decode(list(ids), skip_special_tokens=False))
        if self.clean_up:
            for loose, tight in _CLEAN_UP:
                text = text.replace(loose, tight)
        return text

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [(int(start), int(end)) for start, end in self.raw.encode(text).offsets]

    @classmethod
    def from_folder(cls, folder: Path, pad: str | None = None) -> Fast:
        """Read tokenizer.json and the special tokens of tokenizer_config.json.

        The pad token is `pad`, else the config's, else the EOS, else id 0.
        Raises OSError or ValueError where a file is missing or broken.
        """
        from tokenizers import Tokenizer  # type: ignore[import-untyped]

        raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
        raw.no_padding()
        raw.no_truncation()
        config_file = folder / "tokenizer_config.json"
        config = json.loads(config_file.read_text("utf-8")) if config_file.exists() else {}

        def number(key: str) -> int | None:
            entry = config.get(key)
            token = entry.get("content") if isinstance(entry, dict) else entry
            return None if token is None else raw.token_to_id(token)

        eos = number("eos_token")
        pad_id = raw.token_to_id(pad) if pad is not None else number("pad_token")
        if pad_id is None:
            pad_id = eos if eos is not None else 0
        return cls(
            raw,
            SpecialTokens(number("bos_token"), eos, number("unk_token"), pad_id),
            clean_up=bool(config.get("clean_up_tokenization_spaces", False)),
            class_name=str(config.get("tokenizer_class", "")),
        )


@dataclass
class Hugging:
    """A transformers tokenizer, fast, slow or with remote code."""

    raw: Any
    special: SpecialTokens
    class_name: str = ""
    bos_switch: bool = True

    @classmethod
    def of(cls, raw: Any) -> Hugging:
        special = SpecialTokens(raw.bos_token_id, raw.eos_token_id, raw.unk_token_id, raw.pad_token_id)
        return cls(raw, special, class_name=type(raw).__name__)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(self.raw.encode(text, add_special_tokens=add_special_tokens))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.raw.decode(list(ids)))

    def offsets(self, text: str) -> list[tuple[int, int]] | None:
        if not getattr(self.raw, "is_fast", False):
            return None
        found = self.raw(text, return_offsets_mapping=True)["offset_mapping"]
        return [(int(start), int(end)) for start, end in found]


@dataclass
class WithoutBos:
    """The same tokenizer after `tok.add_bos_token = False`: the BOS in front is gone, the rest stays."""

    base: PublicTokenizer
    class_name: str = ""
    bos_switch: bool = True

    @property
    def special(self) -> SpecialTokens:
        return self.base.special

    @special.setter
    def special(self, value: SpecialTokens) -> None:
        self.base.special = value

    def _has_bos(self, text: str) -> bool:
        ids = self.base.encode(text)
        plain = self.base.encode(text, add_special_tokens=False)
        return ids[:1] == [self.base.special.bos] and ids[1 : 1 + len(plain)] == plain

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = self.base.encode(text, add_special_tokens=add_special_tokens)
        return ids[1:] if add_special_tokens and self._has_bos(text) else ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.base.decode(ids)

    def offsets(self, text: str) -> list[tuple[int, int]] | None:
        spans = self.base.offsets(text)
        return spans[1:] if spans is not None and self._has_bos(text) else spans
