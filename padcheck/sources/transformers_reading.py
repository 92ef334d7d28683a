"""Reading a tokenizer folder with transformers itself: slow classes, a folder's own classes, settings that are not proven.

The only module outside editing that imports transformers, and only when `load` is called.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from padcheck.sources.reading import SourceError
from padcheck.sources.token_readers import Side, TokenReader, wrap


class Loaded(NamedTuple):
    """What transformers made of a folder.

    is_fast_class  isinstance(tok, PreTrainedTokenizerFast)
    named          bos, eos, unk, pad: (text, id), None where the tokenizer has none
    """

    reader: TokenReader
    class_name: str
    is_fast: bool
    is_fast_class: bool
    padding_side: Side
    model_max_length: float | None
    named: dict[str, tuple[str, int] | None]


def load(folder: Path, *, trust_remote_code: bool, class_override: str | None, use_fast: bool | None) -> Loaded:
    """Load with AutoTokenizer, or with the class that the editor names. Raises SourceError."""
    try:
        import transformers
    except ImportError as error:
        raise SourceError(
            f"transformers is installed but cannot be imported ({error}).",
            path=str(folder),
            remedy="Mend it.",
        ) from None

    loader: Any = transformers.AutoTokenizer
    options: dict[str, Any] = {"local_files_only": True}
    if class_override is not None:
        loader = getattr(transformers, class_override, None)
        if loader is None:
            raise SourceError(f"transformers {transformers.__version__} has no class {class_override!r}.", path=str(folder))
    else:
        options["trust_remote_code"] = trust_remote_code
        if use_fast is not None:
            options["use_fast"] = use_fast
    tokenizer = _quietly(transformers, lambda: loader.from_pretrained(str(folder), **options), folder)
    wrapped = wrap(tokenizer)
    return Loaded(
        reader=wrapped.reader,
        class_name=wrapped.class_name,
        is_fast=wrapped.is_fast,
        is_fast_class=isinstance(tokenizer, transformers.PreTrainedTokenizerFast),
        padding_side=wrapped.padding_side or "right",
        model_max_length=getattr(tokenizer, "model_max_length", None),
        named={name: _named(tokenizer, name) for name in ("bos", "eos", "unk", "pad")},
    )


def _quietly(transformers: Any, call: Callable[[], Any], folder: Path) -> Any:
    """Run `call` without transformers' warnings, which are about models; its errors become a SourceError."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        return call()
    except Exception as error:  # a loader, and even more a folder's own code, can raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise SourceError(
            f"transformers {transformers.__version__} refuses this tokenizer: {type(error).__name__}: "
            f"{lines[0] if lines else 'no reason given'}",
            path=str(folder),
            remedy="The editor would stop in the same way.",
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)


def _named(tokenizer: Any, name: str) -> tuple[str, int] | None:
    text, found = getattr(tokenizer, f"{name}_token", None), getattr(tokenizer, f"{name}_token_id", None)
    return None if text is None or not isinstance(found, int) else (str(text), found)
