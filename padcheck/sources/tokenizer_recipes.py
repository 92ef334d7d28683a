"""How transformers turns tokenizer.json and its neighbours into a tokenizer, done without transformers.

A class of transformers 4 takes tokenizer.json as it is and then adds tokens and mends single parts. Many classes of
transformers 5 take only vocabulary, merges and post-processor from it and build all else anew. What each does is a recipe,
named in `rules/models/tokenizer_classes.toml`; tests/test_tokenizer_folder.py compares every one with AutoTokenizer.

Only what changes ids, offsets or decoded text is followed. Where a setting leads off the proven way, NotStatic says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as token_models

from padcheck.sources.tokenizer_classes import Generation, TokenizerClass

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# Keys of tokenizer_config.json that make transformers read other files or other values than this module does.
_ELSEWHERE = (
    "tokenizer_file",
    "vocab_file",
    "merges_file",
    "fast_tokenizer_files",
    "from_slow",
    "init_inputs",
    "tokenizer_object",
    "vocab",
    "merges",
    "post_processor",
    "gguf_file",
    "fix_mistral_regex",
    "backend_tokenizer",
)

# How Qwen's tokenizers cut text into words, as their own tokenizer.json has it.
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS_AND_MARKS = _LETTERS.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
_INFILLING = {
    "prefix": "▁<PRE>",
    "middle": "▁<MID>",
    "suffix": "▁<SUF>",
    "eot": "▁<EOT>",
    "fill": "<FILL_ME>",
}

Token: TypeAlias = str | AddedToken


class NotStatic(Exception):
    """Only transformers itself can tell what becomes of this folder; the text says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """The files of a tokenizer folder, read once.

    backend      tokenizer.json as the tokenizers library loads it, untouched; None where there is no such file
    config, special_tokens_map, added_tokens    the JSON files of these names; {} or None where there is none
    """

    folder: Path
    backend: Tokenizer | None
    config: Mapping[str, Any]
    special_tokens_map: Mapping[str, Any] | None = None
    added_tokens: Mapping[str, int] | None = None


@dataclass(slots=True)
class Parts:
    """What a tokenizer consists of beside model and added tokens; objects of the tokenizers library or None."""

    normalizer: Any = None
    pre_tokenizer: Any = None
    decoder: Any = None
    post_processor: Any = None

    def differing(self, other: Parts) -> list[str]:
        """Names of the parts that are not the same; post-processors are compared by what they add."""
        names = ("normalizer", "pre_tokenizer", "decoder", "post_processor")
        return [name for name in names if str(getattr(self, name)) != str(getattr(other, name))]


@dataclass(slots=True)
class Reading:
    """What the files say once they are merged as transformers merges them.

    said      keys and values as they reach the class; tokens are str or AddedToken
    named     bos_token, eos_token … (and a model's own names), in transformers' order; None where there is none
    extra     further special tokens
    listed    the added tokens of the files, by index
    """

    said: dict[str, Any]
    named: dict[str, Token | None]
    extra: list[Token]
    listed: dict[int, AddedToken]
    parts: Parts = field(default_factory=Parts)

    def text(self, key: str) -> str | None:
        """A named special token as text."""
        token = self.named.get(key)
        return None if token is None else str(token)


def read(files: FolderFiles, row: TokenizerClass, generation: Generation) -> Reading:
    """Merge what the files and the class say, without building anything yet. Raises NotStatic."""
    for key in _ELSEWHERE:
        if files.config.get(key):
            raise NotStatic(f'of the key "{key}" in tokenizer_config.json')
    reading = _read_4(files, row) if generation == 4 else _read_5(files, row)
    if files.backend is not None:
        reading.parts = Parts(
            files.backend.normalizer,
            files.backend.pre_tokenizer,
            files.backend.decoder,
            files.backend.post_processor,
        )
    recipe = (_RECIPES_4 if generation == 4 else _RECIPES_5).get(row.recipe or "")
    if recipe is None:
        raise NotStatic(f"{row.name} makes its tokenizer in a way that padcheck does not follow")
    recipe(files, row, reading)
    return reading


def build(files: FolderFiles, row: TokenizerClass, generation: Generation, reading: Reading) -> Tokenizer:
    """The tokenizer itself. `files.backend` may be used up: call `read` for other classes before. Raises NotStatic."""
    if generation == 4 and row.recipe == "gpt2-slow":
        return _build_gpt2_slow(files, reading)
    rebuilt = generation == 5 and row.recipe != "as-is"
    if files.backend is None and not (rebuilt and row.recipe == "gpt2"):
        raise NotStatic("there is no tokenizer.json, and the class converts another file")
    if rebuilt:
        backend = Tokenizer(_MODELS_5[row.recipe or ""](files, reading))
        _set_parts(backend, reading.parts)
    else:
        assert files.backend is not None
        backend = files.backend
    if reading.said.get("split_special_tokens"):
        backend.encode_special_tokens = True
    _add_tokens(backend, reading, generation)
    if generation == 5 and row.recipe == "qwen2":
        names = dict.fromkeys([*(str(t) for t in reading.named.values() if t is not None), *map(str, reading.extra)])
        backend.add_tokens([AddedToken(name, special=True) for name in names])
    if generation == 5 and row.recipe == "cohere":
        tokens = [*(t for t in reading.named.values() if t is not None), *reading.extra]
        backend.add_special_tokens(
            [t if isinstance(t, AddedToken) else AddedToken(t, special=True, normalized=False) for t in tokens]
        )
    if not rebuilt:
        _set_parts(backend, reading.parts)
    _set_post_processor(backend, row, generation, reading)
    backend.no_padding()
    backend.no_truncation()
    return backend


def adds(reading: Reading, row: TokenizerClass, generation: Generation) -> tuple[bool, bool] | None:
    """Whether bos and eos are put round every text by a template that the class writes; None: the file's own one stays."""
    if generation == 4:
        if row.recipe != "bos-eos":
            return None
        return (
            bool(reading.said.get("add_bos_token", row.add_bos)),
            bool(reading.said.get("add_eos_token", row.add_eos)),
        )
    if row.recipe in ("code-llama", "gpt-neox-bos-eos") or (
        row.recipe not in ("t5", "bert") and reading.parts.post_processor is None
    ):
        # transformers 5 drops add_bos_token and add_eos_token of tokenizer_config.json where there is a tokenizer.json.
        bos = bool(reading.said.get("add_bos_token", row.add_bos))
        eos = bool(reading.said.get("add_eos_token", row.add_eos))
        return bos and reading.text("bos_token") is not None, eos and reading.text("eos_token") is not None
    return None


def template(backend: Tokenizer, reading: Reading, bos: bool, eos: bool) -> Any:
    """The post-processor that adds bos and eos, as transformers writes it."""
    first, last = reading.text("bos_token") if bos else None, reading.text("eos_token") if eos else None

    def around(text: str, of: int) -> str:
        parts = (f"{first}:{of}" if first else None, f"{text}:{of}", f"{last}:{of}" if last else None)
        return " ".join(part for part in parts if part)

    keys = [key for key, text in (("bos_token", first), ("eos_token", last)) if text]
    return processors.TemplateProcessing(
        single=around("$A", 0),
        pair=f"{around('$A', 0)} {around('$B', 1)}",
        special_tokens=[(str(reading.text(key)), _id(backend, reading, key)) for key in keys],
    )


# --- What the files say ---------------------------------------------------------------------------------------------


def _read_4(files: FolderFiles, row: TokenizerClass) -> Reading:
    said: dict[str, Any] = dict(files.config)
    listed, by_content = _listed(files, said)
    if "added_tokens_decoder" not in files.config:
        for key, value in (files.special_tokens_map or {}).items():
            if isinstance(value, Mapping):
                value = AddedToken(**{**value, "special": True})
            elif key == "additional_special_tokens" and isinstance(value, list):
                tokens = list(said.get(key) or [])
                for token in value:
                    token = AddedToken(**{**token, "special": True}) if isinstance(token, Mapping) else token
                    if token not in tokens:
                        tokens.append(token)
                value = tokens
            said[key] = value
        _add_legacy(files, said, listed, by_content, (*NAMED, "additional_special_tokens"))
    said = {key: _revived(value) for key, value in said.items()}
    if not isinstance(said.get("extra_special_tokens") or {}, Mapping):
        raise NotStatic("extra_special_tokens in tokenizer_config.json is a list, which transformers 4 does not take")
    named = _named(files, row, said, by_content)
    named.update(said.get("extra_special_tokens") or {})
    return Reading(said, named, _tokens(said.get("additional_special_tokens")), listed)


def _read_5(files: FolderFiles, row: TokenizerClass) -> Reading:
    said: dict[str, Any] = dict(files.config)
    if files.backend is not None:
        said.pop("add_bos_token", None)
        said.pop("add_eos_token", None)
    if "additional_special_tokens" in said:
        if "extra_special_tokens" in said:
            raise NotStatic("tokenizer_config.json has both additional_special_tokens and extra_special_tokens")
        said["extra_special_tokens"] = said.pop("additional_special_tokens")
    own = {k: said.pop(k) for k in list(said) if _is_own_name(k, said[k])}
    if isinstance(said.get("extra_special_tokens"), Mapping):
        own.update(said.pop("extra_special_tokens"))
    if own:
        said["model_specific_special_tokens"] = own
    listed, by_content = _listed(files, said)
    if "added_tokens_decoder" not in files.config:
        for key, value in (files.special_tokens_map or {}).items():
            if isinstance(value, Mapping) and key != "extra_special_tokens":
                value = AddedToken(**{**value, "special": True})
            elif key in ("extra_special_tokens", "additional_special_tokens"):
                if not isinstance(value, list) or said.get("extra_special_tokens") or key == "extra_special_tokens":
                    raise NotStatic(f"of {key} in special_tokens_map.json")
                key = "extra_special_tokens"
            said[key] = value
        _add_legacy(files, said, listed, by_content, NAMED)
    said = {key: _revived(value) for key, value in said.items()}
    named = _named(files, row, said, by_content)
    named.update({k: v for k, v in said.items() if _is_own_name(k, v)})
    if row.recipe == "code-llama":
        named.update({f"{key}_token": said.get(f"{key}_token", text) for key, text in _INFILLING.items()})
    named.update(said.get("model_specific_special_tokens") or {})
    return Reading(said, named, _tokens(said.get("extra_special_tokens")), listed)


def _is_own_name(key: str, value: Any) -> bool:
    return key.endswith("_token") and key not in NAMED and isinstance(value, str | AddedToken)


def _listed(files: FolderFiles, said: dict[str, Any]) -> tuple[dict[int, AddedToken], dict[str, AddedToken]]:
    """The added tokens that tokenizer_config.json lists, by index and by text."""
    listed = {
        int(index): AddedToken(**{k: v for k, v in token.items() if k != "__type"})
        for index, token in (said.pop("added_tokens_decoder", None) or {}).items()
    }
    return listed, {str(token): token for token in listed.values()}


def _add_legacy(
    files: FolderFiles,
    said: Mapping[str, Any],
    listed: dict[int, AddedToken],
    by_content: dict[str, AddedToken],
    keys: Iterable[str],
) -> None:
    """The added tokens of added_tokens.json and tokenizer.json, which count where tokenizer_config.json lists none."""
    if files.added_tokens is not None:
        special: set[str] = set()
        for key in keys:
            value = said.get(key)
            special.update(map(str, value) if isinstance(value, list) else [str(value)] if value else [])
        for text, index in files.added_tokens.items():
            listed[index] = AddedToken(
                text, rstrip=False, lstrip=False, normalized=text not in special, special=text in special
            )
            by_content[text] = listed[index]
    if files.backend is not None:
        listed.update(files.backend.get_added_tokens_decoder())
        by_content.update({str(token): token for token in files.backend.get_added_tokens_decoder().values()})


def _named(
    files: FolderFiles, row: TokenizerClass, said: Mapping[str, Any], by_content: Mapping[str, AddedToken]
) -> dict[str, Token | None]:
    named: dict[str, Token | None] = {}
    for key in NAMED:
        if key in said:
            value = said[key]
            if value is not None and not isinstance(value, str | AddedToken):
                raise NotStatic(f"{key} in tokenizer_config.json is no token")
            named[key] = by_content.get(str(value), value)
        else:
            named[key] = row.specials.get(key)
    if "pad_token" not in said and "pad_token" not in row.specials and files.backend is not None and files.backend.padding:
        named["pad_token"] = files.backend.padding["pad_token"]
    return named


def _revived(value: Any) -> Any:
    """`value` with every {"__type": "AddedToken", …} in it made an AddedToken."""
    if isinstance(value, Mapping):
        if value.get("__type") == "AddedToken":
            return AddedToken(**{k: v for k, v in value.items() if k != "__type"})
        return {key: _revived(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_revived(part) for part in value]
    return value


def _tokens(value: Any) -> list[Token]:
    tokens = list(value or [])
    if not all(isinstance(token, str | AddedToken) for token in tokens):
        raise NotStatic("a special token of tokenizer_config.json is neither text nor a marked AddedToken")
    return tokens


# --- Recipes: what a class changes ----------------------------------------------------------------------------------


def _as_is_4(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
    stated = reading.said.get("add_prefix_space")
    if row.from_slow:
        if stated is not None:
            raise NotStatic(f"of add_prefix_space, for which {row.name} converts the slow tokenizer")
        return
    prefix = reading.said.get("add_prefix_space", False)
    if prefix and row.name in ("BloomTokenizerFast", "CohereTokenizerFast"):
        raise NotStatic(f"of add_prefix_space, for which {row.name} changes its decoder too")
    if row.name == "CodeGenTokenizerFast" and reading.said.get("add_bos_token"):
        raise NotStatic("CodeGenTokenizerFast refuses add_bos_token")
    if reading.parts.pre_tokenizer is None:
        return
    state = json.loads(reading.parts.pre_tokenizer.__getstate__())
    if state.get("add_prefix_space", prefix) != prefix:
        kind = getattr(pre_tokenizers, state.pop("type"))
        reading.parts.pre_tokenizer = kind(**{**state, "add_prefix_space": prefix})


def _bos_eos_4(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
    _as_is_4(files, row, reading)
    if row.name == "CodeLlamaTokenizerFast":
        reading.extra += [reading.said.get(f"{key}_token", _INFILLING[key]) for key in list(_INFILLING)[:4]]
        reading.extra = [token for token in reading.extra if token is not None]
    for key in ("bos_token", "eos_token"):
        if reading.said.get(f"add_{key}", row.add_bos if key == "bos_token" else row.add_eos) and not reading.text(key):
            raise NotStatic(f"add_{key} is true but there is no {key}, which {row.name} refuses")


def _qwen2_4(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
    _as_is_4(files, row, reading)
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        token = reading.named[key]
        if isinstance(token, str):
            reading.named[key] = AddedToken(token, lstrip=False, rstrip=False, special=True, normalized=False)


def _t5_4(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
    _as_is_4(files, row, reading)
    count = reading.said.get("extra_ids", 100)
    there = [token for token in reading.extra if "<extra_id_" in str(token)]
    if not there:
        reading.extra += [f"<extra_id_{i}>" for i in range(count)]
    elif count > 0 and count != len(there):
        raise NotStatic("extra_ids and additional_special_tokens disagree, which T5TokenizerFast refuses")


def _bert_4(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
    _as_is_4(files, row, reading)
    if reading.parts.normalizer is None:
        raise NotStatic(f"tokenizer.json has no normalizer, which {row.name} needs")
    state = json.loads(reading.parts.normalizer.__getstate__())
    wanted = {
        "lowercase": reading.said.get("do_lower_case", True),
        "strip_accents": reading.said.get("strip_accents"),
        "handle_chinese_chars": reading.said.get("tokenize_chinese_chars", True),
    }
    if any(state.get(key, value) != value for key, value in wanted.items()):
        kind = getattr(normalizers, state.pop("type"))
        reading.parts.normalizer = kind(**{**state, **wanted})


def _gpt2_slow_4(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
    if reading.said.get("add_prefix_space"):
        raise NotStatic("of add_prefix_space, which the slow class follows in its own way")
    bytes_to_tokens = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reading.parts = Parts(None, bytes_to_tokens, decoders.ByteLevel(), None)


def _as_is_5(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
    return


def _llama_5(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
    prefix = reading.said.get("add_prefix_space")
    prefix = True if prefix is None else bool(prefix)
    scheme = "never" if not prefix else "always" if reading.said.get("legacy", False) else "first"
    _sentencepiece_5(reading, scheme, strip=prefix)


def _code_llama_5(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
    prefix = reading.said.get("add_prefix_space")
    _sentencepiece_5(reading, "first" if prefix is None or prefix else "never", strip=True)
    if "extra_special_tokens" not in reading.said:
        reading.extra = [token for key in _INFILLING if (token := reading.said.get(f"{key}_token", _INFILLING[key]))]


def _sentencepiece_5(reading: Reading, scheme: str, *, strip: bool) -> None:
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if strip:
        steps.append(decoders.Strip(content=" ", left=1))
    reading.parts.normalizer = None
    reading.parts.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    reading.parts.decoder = decoders.Sequence(steps)


def _gemma_5(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
    reading.parts.normalizer = normalizers.Replace(" ", "▁")
    reading.parts.pre_tokenizer = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous", invert=False)
    reading.parts.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def _byte_level_5(normalizer: Any, pre_tokenizer: Callable[[bool], Any]) -> Callable[..., None]:
    def recipe(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
        prefix = bool(reading.said.get("add_prefix_space"))
        reading.parts.normalizer = normalizer
        reading.parts.pre_tokenizer = pre_tokenizer(prefix)
        reading.parts.decoder = decoders.ByteLevel()
        if row.recipe == "codegen" and reading.parts.post_processor is None:
            reading.parts.post_processor = processors.ByteLevel(add_prefix_space=True, use_regex=True, trim_offsets=False)

    return recipe


def _split_5(pattern: str) -> Callable[[bool], Any]:
    return lambda prefix: pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
        ]
    )


def _plain_5(prefix: bool) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix)


def _gpt_neox_5(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
    trim = reading.said.get("trim_offsets", True)
    _byte_level_5(normalizers.NFC(), lambda prefix: pre_tokenizers.ByteLevel(add_prefix_space=prefix, trim_offsets=trim))(
        files, row, reading
    )


def _digits_5(prefix: bool) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=prefix, trim_offsets=True),
        ]
    )


def _t5_5(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
    if "extra_special_tokens" not in reading.said:
        reading.extra = [f"<extra_id_{i}>" for i in range(reading.said.get("extra_ids", 100))]
    charsmap = _precompiled(reading.parts.normalizer)
    reading.parts.normalizer = None if charsmap is None else charsmap
    reading.parts.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        ]
    )
    reading.parts.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)


def _precompiled(normalizer: Any) -> Any:
    """The SentencePiece character map of a normaliser or of a sequence of them."""
    if normalizer is None:
        return None
    state = json.loads(normalizer.__getstate__())
    for one in state.get("normalizers", [state]):
        if one.get("type") == "Precompiled" and "precompiled_charsmap" in one:
            import base64

            return normalizers.Precompiled(base64.b64decode(one["precompiled_charsmap"]))
    return None


def _bert_5(files: FolderFiles, row: TokenizerClass, reading: Reading) -> None:
    reading.parts.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=reading.said.get("tokenize_chinese_chars", True),
        strip_accents=reading.said.get("strip_accents"),
        lowercase=reading.said.get("do_lower_case", True),
    )
    reading.parts.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    reading.parts.decoder = decoders.WordPiece(prefix="##")


_Recipe = Callable[[FolderFiles, TokenizerClass, Reading], None]
_RECIPES_4: dict[str, _Recipe] = {
    "as-is": _as_is_4,
    "bos-eos": _bos_eos_4,
    "qwen2": _qwen2_4,
    "t5": _t5_4,
    "bert": _bert_4,
    "gpt2-slow": _gpt2_slow_4,
}
_RECIPES_5: dict[str, _Recipe] = {
    "as-is": _as_is_5,
    "llama": _llama_5,
    "code-llama": _code_llama_5,
    "gemma": _gemma_5,
    "gpt2": _byte_level_5(None, _plain_5),
    "codegen": _byte_level_5(None, _plain_5),
    "qwen2": _byte_level_5(normalizers.NFC(), _split_5(_LETTERS)),
    "qwen3.5": _byte_level_5(normalizers.NFC(), _split_5(_LETTERS_AND_MARKS)),
    "gpt-neox": _gpt_neox_5,
    "gpt-neox-bos-eos": _gpt_neox_5,
    "cohere": _byte_level_5(normalizers.NFC(), _digits_5),
    "t5": _t5_5,
    "bert": _bert_5,
}


# --- Building -------------------------------------------------------------------------------------------------------


def _set_parts(backend: Tokenizer, parts: Parts) -> None:
    backend.normalizer = parts.normalizer
    backend.pre_tokenizer = parts.pre_tokenizer
    backend.decoder = parts.decoder
    if parts.post_processor is not None:
        backend.post_processor = parts.post_processor


def _add_tokens(backend: Tokenizer, reading: Reading, generation: Generation) -> None:
    """Add the listed tokens and then the special ones that are missing, with the flags that transformers gives them."""
    tokens: list[Token] = [token for _, token in sorted(reading.listed.items())]
    there: list[Token] = [token.content for token in backend.get_added_tokens_decoder().values()]
    there += map(str, tokens)
    seen: set[str] = set()
    for token in [*reading.named.values(), *reading.extra]:
        if token is None or (generation == 4 and not token):
            continue
        # 4 compares the token itself, so that an AddedToken is never found among texts; 5 compares its text.
        known = (str(token) if generation == 5 else token) in there
        if not known and token not in tokens and not (generation == 4 and str(token) in seen):
            tokens.append(token)
        seen.add(str(token))
    named = {str(token) for token in reading.named.values() if token}
    special = named | {str(token) for token in reading.extra}
    ready = []
    for token in tokens:
        if isinstance(token, str):
            token = AddedToken(token, special=token in special)
        elif generation == 4:
            token.special = token.special or str(token) in special
        elif str(token) in named:
            token.special = True
        ready.append(token)
    if ready:
        backend.add_tokens(ready)


def _set_post_processor(backend: Tokenizer, row: TokenizerClass, generation: Generation, reading: Reading) -> None:
    written = adds(reading, row, generation)
    if written is not None:
        backend.post_processor = template(backend, reading, *written)
    elif generation == 5 and row.recipe == "t5":
        backend.post_processor = processors.TemplateProcessing(
            single=["$A", "</s>"],
            pair=["$A", "</s>", "$B", "</s>"],
            special_tokens=[("</s>", _id(backend, reading, "eos_token"))],
        )
    elif generation == 5 and row.recipe == "bert":
        cls, sep = reading.text("cls_token"), reading.text("sep_token")
        if cls is None or sep is None:
            raise NotStatic("cls_token or sep_token is null, which the class does not expect")
        backend.post_processor = processors.TemplateProcessing(
            single=f"{cls}:0 $A:0 {sep}:0",
            pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
            special_tokens=[
                (cls, _id(backend, reading, "cls_token")),
                (sep, _id(backend, reading, "sep_token")),
            ],
        )


def _id(backend: Tokenizer, reading: Reading, key: str) -> int:
    """The id of a named special token; as in transformers, that of the unknown token where the vocabulary has it not."""
    for name in (key, "unk_token"):
        text = reading.text(name)
        found: int | None = None if text is None else backend.token_to_id(text)
        if found is not None:
            return found
    raise NotStatic(f"the vocabulary does not hold {key} {reading.text(key)!r}")


def _bpe(**options: Any) -> Callable[[FolderFiles, Reading], Any]:
    """The BPE model of tokenizer.json with these options in place of its own; it keeps vocabulary and merges."""

    def model(files: FolderFiles, reading: Reading) -> Any:
        if files.backend is None:
            return _bpe_of_files(files.folder)
        found = files.backend.model
        if not isinstance(found, token_models.BPE):
            raise NotStatic(f"tokenizer.json holds a {type(found).__name__} model where the class builds a BPE one")
        if found.continuing_subword_prefix or found.end_of_word_suffix:
            raise NotStatic("tokenizer.json marks the inside or the end of words, which the class does not")
        wanted: dict[str, Any] = {
            "fuse_unk": False,
            "byte_fallback": False,
            "unk_token": None,
            "dropout": None,
            "ignore_merges": False,
        }
        wanted.update(options)
        if wanted["unk_token"] == "unk":
            wanted["unk_token"] = str(reading.named["unk_token"])
        for key, value in wanted.items():
            if getattr(found, key) != value:
                setattr(found, key, value)
        return found

    return model


def _bpe_of_files(folder: Path) -> Any:
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    try:
        return token_models.BPE.from_file(str(vocab), str(merges))
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise NotStatic(f"vocab.json and merges.txt do not fit together ({error})") from None


def _unigram(files: FolderFiles, reading: Reading) -> Any:
    model = json.loads((files.folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    if model.get("type") != "Unigram":
        raise NotStatic("tokenizer.json holds no Unigram model, which the class builds")
    return token_models.Unigram([(piece, score) for piece, score in model["vocab"]], unk_id=2, byte_fallback=False)


def _word_piece(files: FolderFiles, reading: Reading) -> Any:
    found = files.backend.model if files.backend is not None else None
    if not isinstance(found, token_models.WordPiece):
        raise NotStatic("tokenizer.json holds no WordPiece model, which the class builds")
    for key, value in {
        "unk_token": str(reading.named["unk_token"]),
        "max_input_chars_per_word": 100,
        "continuing_subword_prefix": "##",
    }.items():
        if getattr(found, key) != value:
            setattr(found, key, value)
    return found


_byte_bpe = _bpe()
_MODELS_5: dict[str, Callable[[FolderFiles, Reading], Any]] = {
    "llama": _bpe(fuse_unk=True, byte_fallback=True),
    "code-llama": _bpe(fuse_unk=True, byte_fallback=True, unk_token="unk"),
    "gemma": _bpe(fuse_unk=True, byte_fallback=True, unk_token="unk"),
    "gpt2": _byte_bpe,
    "codegen": _byte_bpe,
    "qwen2": _byte_bpe,
    "qwen3.5": _byte_bpe,
    "gpt-neox": _byte_bpe,
    "gpt-neox-bos-eos": _byte_bpe,
    "cohere": _byte_bpe,
    "t5": _unigram,
    "bert": _word_piece,
}


def _build_gpt2_slow(files: FolderFiles, reading: Reading) -> Tokenizer:
    """The slow GPT2Tokenizer of transformers 4: the same ids and text, and offsets, which it has not itself."""
    merges = files.folder / "merges.txt"
    if not merges.is_file() or not (files.folder / "vocab.json").is_file():
        raise NotStatic("the slow GPT2Tokenizer reads vocab.json and merges.txt, which are not both there")
    text = merges.read_text(encoding="utf-8")
    if not text.startswith("#version") or not text.endswith("\n"):
        raise NotStatic("merges.txt is not as the slow GPT2Tokenizer expects it: it drops the first line and the last")
    backend = Tokenizer(_bpe_of_files(files.folder))
    _set_parts(backend, reading.parts)
    named = {str(token) for token in reading.named.values() if token}
    _add_tokens(backend, reading, 4)
    for index, token in reading.listed.items():
        if str(token) not in named:
            raise NotStatic(f"of the added token {str(token)!r}, round which the slow GPT2Tokenizer decodes spaces")
        if backend.token_to_id(str(token)) != index:
            raise NotStatic(f"of the added token {str(token)!r}, whose id leaves a gap behind the vocabulary")
    if reading.said.get("add_bos_token"):
        backend.post_processor = template(backend, reading, True, False)
    return backend
