"""Rules about Python code and notebooks (family COD), by the standard library's syntax tree."""

from padcheck.checks.code.checking import check_notebook, check_source
from padcheck.checks.code.reading import Unreadable, decode_source
from padcheck.checks.code.suppressing import Suppression, suppressions

__all__ = ["Suppression", "Unreadable", "check_notebook", "check_source", "decode_source", "suppressions"]
