"""What padcheck needs of a tokenizer, and how the three kinds of tokenizers give it.

`FastReader` hands on what the tokenizers library returns. `CallingReader` asks an object of transformers text by text:
for slow tokenizers, and for a model's own classes, whose methods may do more than their backend.
Nothing here imports transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Side = Literal["left", "right"]


class Encoded(Protocol):
    """One encoded text. `offsets` are spans of the text in code points, end exclusive; a `tokenizers.Encoding` is one."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def offsets(self) -> list[tuple[int, int]]: ...
    @property
    def special_tokens_mask(self) -> list[int]: ...
    @property
    def tokens(self) -> list[str]: ...


class TokenReader(Protocol):
    """A tokenizer as positions need it.

    has_offsets   whether `Encoded.offsets` mean anything; where False they are all (0, 0)
    keeps_text    whether two tokens that share a character may be believed (see positions.truth)
    encode_batch  one Encoded for each text, unpadded and untruncated; special tokens are 1 in the mask
    decode        what `tok.decode(ids)` of transformers gives: special tokens kept, spaces tidied as configured
    """

    @property
    def has_offsets(self) -> bool: ...
    @property
    def keeps_text(self) -> bool: ...
    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> Sequence[Encoded]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class FastReader:
    """A TokenReader over a `tokenizers.Tokenizer`.

    decode  what decodes ids in place of the tokenizer; for objects of transformers
    tidy    whether decode() removes spaces before punctuation (transformers' clean_up_tokenization_spaces)
    """

    __slots__ = ("_decode", "_tidy", "keeps_text", "tokenizer")

    has_offsets = True

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        decode: Callable[[Sequence[int]], str] | None = None,
        tidy: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self._decode = decode
        self._tidy = tidy
        self.keeps_text = _keeps_text(tokenizer)

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> Sequence[Encoded]:
        tokenizer = self.tokenizer
        # An object of transformers shares its backend with us and leaves its last padding and truncation in it;
        # it sets both anew before every call of its own.
        if tokenizer.padding is not None:
            tokenizer.no_padding()
        if tokenizer.truncation is not None:
            tokenizer.no_truncation()
        return cast("Sequence[Encoded]", tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens))

    def decode(self, ids: Sequence[int]) -> str:
        if self._decode is not None:
            return self._decode(ids)
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return tidied(text) if self._tidy else text


_FORMS = frozenset(
    {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "BertNormalizer", "Precompiled", "Nmt", "Prepend"}
)


def _keeps_text(tokenizer: Tokenizer) -> bool:
    """Whether the normaliser only changes the form of characters: one that inserts text may give its spans to neighbours."""
    if tokenizer.normalizer is None:
        return True
    state = json.loads(tokenizer.normalizer.__getstate__())
    parts = state["normalizers"] if state["type"] == "Sequence" else [state]
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    return all(part["type"] in _FORMS or part == spaces for part in parts)


@dataclass(frozen=True, slots=True)
class PlainEncoded:
    """An Encoded made of lists."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    special_tokens_mask: list[int]
    tokens: list[str]


class CallingReader:
    """A TokenReader over an object of transformers, through its own call, one text at a time.

    Which tokens are special is found by encoding again without them: the tokens that come on top, before and after.
    """

    __slots__ = ("_around", "_tokenizer", "has_offsets")

    keeps_text = True

    def __init__(self, tokenizer: Any, *, has_offsets: bool = False) -> None:
        self._tokenizer = tokenizer
        self._around: tuple[int, int] | None = None
        self.has_offsets = has_offsets

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> Sequence[Encoded]:
        return [self._encode(text, add_special_tokens) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))

    def _encode(self, text: str, add_special_tokens: bool) -> PlainEncoded:
        wanted = {"return_offsets_mapping": True} if self.has_offsets else {}
        answer = self._tokenizer(text, add_special_tokens=add_special_tokens, **wanted)
        ids = [int(one) for one in answer["input_ids"]]
        offsets = [(int(a), int(b)) for a, b in answer["offset_mapping"]] if self.has_offsets else [(0, 0)] * len(ids)
        mask = self._mask(text, ids) if add_special_tokens else [0] * len(ids)
        return PlainEncoded(ids, offsets, mask, [_shown(t) for t in self._tokenizer.convert_ids_to_tokens(ids)])

    def _mask(self, text: str, ids: list[int]) -> list[int]:
        if self._around is not None and sum(self._around) == 0:
            return [0] * len(ids)
        bare = [int(one) for one in self._tokenizer(text, add_special_tokens=False)["input_ids"]]
        extra = len(ids) - len(bare)
        guesses = [self._around] if self._around is not None else []
        guesses += [(head, extra - head) for head in range(extra, -1, -1)]
        for head, tail in guesses:
            if head + tail == extra and ids[head : len(ids) - tail] == bare:
                # A text that repeats the special token could be read in two ways; the first answer stands for all.
                self._around = (head, tail)
                return [1] * head + [0] * len(bare) + [1] * tail
        return [int(one) for one in self._tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)]


class Wrapped(NamedTuple):
    """A tokenizer made readable. `padding_side` is the object's own, None where it has none."""

    reader: TokenReader
    padding_side: Side | None
    class_name: str
    is_fast: bool


def wrap(tokenizer: Any) -> Wrapped:
    """Make a tokenizer readable: a `tokenizers.Tokenizer`, a tokenizer of transformers (fast or slow), or a TokenReader.

    Raises TypeError for anything else.
    """
    kind = type(tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    side = getattr(tokenizer, "padding_side", None)
    reader: TokenReader
    if backend is not None and getattr(tokenizer, "is_fast", False):
        if kind.__module__.split(".")[0] == "transformers":
            backend.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
            reader = FastReader(backend, decode=lambda ids: str(tokenizer.decode(list(ids))))
        else:
            reader = CallingReader(tokenizer, has_offsets=True)
        return Wrapped(reader, _side(side), kind.__name__, True)
    if callable(tokenizer) and hasattr(tokenizer, "convert_ids_to_tokens"):
        return Wrapped(CallingReader(tokenizer), _side(side), kind.__name__, False)
    if hasattr(tokenizer, "has_offsets") and hasattr(tokenizer, "encode_batch"):
        return Wrapped(tokenizer, _side(side), kind.__name__, bool(tokenizer.has_offsets))
    if hasattr(tokenizer, "encode_batch") and hasattr(tokenizer, "token_to_id"):
        padding = getattr(tokenizer, "padding", None) or {}
        return Wrapped(FastReader(tokenizer), _side(padding.get("direction")), kind.__name__, True)
    raise TypeError(
        f"{kind.__module__}.{kind.__name__} is no tokenizer that padcheck can read; pass one of transformers or tokenizers"
    )


def tidied(text: str) -> str:
    """`text` as transformers' clean_up_tokenization_spaces leaves it."""
    for before, after in _TIDY:
        text = text.replace(before, after)
    return text


_TIDY = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {end}", end) for end in ("n't", "'m", "'s", "'ve", "'re")),
)


def _side(value: Any) -> Side | None:
    return value if value in ("left", "right") else None


def _shown(token: Any) -> str:
    """A token as text; some slow tokenizers have bytes (Qwen 1), and None for an id that they do not know."""
    if isinstance(token, bytes):
        return token.decode("utf-8", errors="replace")
    return "" if token is None else str(token)
