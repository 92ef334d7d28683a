"""The tokenizer as positions need it.

It lives among the sources, because a tokenizer folder is a source and gives one; imports go one way.
"""

from padcheck.sources.token_readers import (
    CallingReader,
    Encoded,
    FastReader,
    PlainEncoded,
    TokenReader,
    Wrapped,
    wrap,
)

__all__ = ["CallingReader", "Encoded", "FastReader", "PlainEncoded", "TokenReader", "Wrapped", "wrap"]
