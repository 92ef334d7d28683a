"""Opening a file, and the one exception for a file that cannot be read.

Everything a source reads goes through `open_source`: it unpacks gzip by its magic bytes, drops a UTF-8 byte
order mark, refuses by name what is no text (an archive, UTF-16, a Git LFS pointer), and turns every I/O error
that comes up later, a gzip file cut short included, into a `SourceError`.
"""

from __future__ import annotations

import codecs
import io
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PIECE_BYTES = 64 * 1024
"""How much is read at a time: small enough to stay in the cache, and out of the way of the memory in use."""

STDIN = "-"
"""The path that means standard input."""

_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NO_TEXT = {
    b"PK\x03\x04": "a zip archive (an Excel workbook is one)",
    b"\xfd7zXZ\x00": "an xz archive",
    b"BZh": "a bzip2 archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"PAR1": "a Parquet table",
}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class SourceError(Exception):
    """A file, or the rest of it, that cannot be read.

    message  one plain sentence: what was found and what was expected; it does not repeat the path
    path     the file as the caller named it (`-` for standard input)
    line, column  1-based place in code points, None where there is none
    remedy   what the person can do, or ""
    """

    def __init__(
        self, message: str, *, path: str, line: int | None = None, column: int | None = None, remedy: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.line = line
        self.column = column
        self.remedy = remedy

    def __str__(self) -> str:
        place = "".join(f":{number}" for number in (self.line, self.column) if number is not None)
        return f"{self.path}{place}: {sentence(self.message)} {self.remedy}".rstrip()


def sentence(message: str) -> str:
    """With a capital and a full stop."""
    message = message[:1].upper() + message[1:]
    return message if message.endswith((".", "?", "!")) else message + "."


def read_text(path: Path, shown: str, what: str) -> str:
    """All of a small UTF-8 file, without a byte order mark. `what` it is is said where it cannot be read: "the hparams file".

    Raises SourceError.
    """
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise SourceError(f"{what} does not exist", path=shown, remedy="Check the path.") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{what} is not UTF-8 (byte {error.start})", path=shown, remedy="Save it as UTF-8.") from None
    except OSError as error:
        if path.is_dir():  # asked here because Windows answers "permission denied" for a folder
            raise SourceError(f"this is a folder, and not {what}", path=shown, remedy="Name one file in it.") from None
        raise SourceError(f"{what} cannot be read: {error.strerror}", path=shown, remedy="Check its permissions.") from None


def parse_json(text: str, shown: str) -> Any:
    """The value of a JSON text. Raises SourceError with the place where it breaks."""
    import json

    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(
            f"this is not JSON: {error.msg.lower()}",
            path=shown,
            line=error.lineno,
            column=error.colno,
            remedy="Mend the file at that place.",
        ) from None
    except RecursionError:
        raise SourceError("this JSON is nested too deeply", path=shown, remedy="Is it the right file?") from None


@contextmanager
def open_source(path: str | os.PathLike[str]) -> Iterator[io.BufferedReader]:
    """Open `path` (`-`: standard input) for reading bytes, unpacked and without a byte order mark.

    Raises SourceError where the file is missing, a folder, not readable or no text; reading on from what is
    yielded raises SourceError too, and nothing else.
    """
    name = os.fspath(path)
    with ExitStack() as stack:
        kept = _kept.get()
        if kept is not None and _read_once(name):
            if name not in kept:
                kept[name] = _spooled(name)
            plain: _Bytes = cast(_Bytes, kept[name])
            kept[name].seek(0)
        else:
            plain = cast(_Bytes, sys.stdin.buffer) if name == STDIN else stack.enter_context(_open(name))
        binary = _guarded(plain, name)
        if binary.peek(2).startswith(_GZIP):
            import gzip

            binary = _guarded(stack.enter_context(gzip.GzipFile(fileobj=binary, mode="rb")), name)
        _refuse_what_is_no_text(binary.peek(64), name)
        if binary.peek(3).startswith(codecs.BOM_UTF8):
            binary.read(len(codecs.BOM_UTF8))
        yield binary


@contextmanager
def rereadable() -> Iterator[None]:
    """Within it, standard input and pipes can be opened again and again: their bytes are kept in a temporary file."""
    with ExitStack() as stack:
        kept: dict[str, IO[bytes]] = {}
        token = _kept.set(kept)
        stack.callback(_kept.reset, token)
        try:
            yield
        finally:
            for file in kept.values():
                file.close()


_kept: ContextVar[dict[str, IO[bytes]] | None] = ContextVar("_kept", default=None)


def _read_once(name: str) -> bool:
    try:
        return name == STDIN or stat.S_ISFIFO(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


def _spooled(name: str) -> IO[bytes]:
    import tempfile

    file = tempfile.TemporaryFile()  # noqa: SIM115 - `rereadable` closes it
    with ExitStack() as stack:
        plain = cast(_Bytes, sys.stdin.buffer) if name == STDIN else stack.enter_context(_open(name))
        for piece in pieces(_guarded(plain, name)):
            file.write(piece)
    return file


def pieces(binary: io.BufferedReader, size: int = PIECE_BYTES) -> Iterator[bytes]:
    """The rest of `binary` in pieces of at most `size` bytes."""
    # read1, not read: read would collect several raw reads and lose the first where a later one fails.
    while piece := binary.read1(size):
        yield piece


def decoded(parts: Iterable[bytes], path: str) -> Iterator[str]:
    """`parts` as text; at a byte that is not UTF-8, a SourceError with its place after all text before it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, column = 1, 1
    for part in chain(parts, (None,)):
        fault: UnicodeDecodeError | None = None
        try:
            text = decoder.decode(part or b"", final=part is None)
        except UnicodeDecodeError as error:
            fault = error
            text = error.object[: error.start].decode("utf-8")
        newlines = text.count("\n")
        line += newlines
        column = len(text) - text.rfind("\n") if newlines else column + len(text)
        if text:
            yield text
        if fault is not None:
            raise not_utf8(fault, path, line, column)


def not_utf8(error: UnicodeDecodeError, path: str, line: int, column: int) -> SourceError:
    """The SourceError for a byte that is not UTF-8 at this place."""
    if error.reason == "unexpected end of data":
        message = "The file ends in the middle of a UTF-8 character."
    else:
        message = f"The byte 0x{error.object[error.start]:02X} is not UTF-8."
    return SourceError(message, path=path, line=line, column=column, remedy="Save the file as UTF-8.")


class _Bytes(Protocol):
    """What can give bytes: a file, gzip, standard input."""

    def read1(self, size: int = ..., /) -> bytes: ...


def _damage() -> tuple[type[Exception], ...]:
    """What damaged gzip data raise; asked only once something was raised, since most files are plain."""
    import gzip
    import zlib

    return gzip.BadGzipFile, zlib.error


class _Guard(io.RawIOBase):
    """Hands on the bytes of `inner`, and every way of failing as a SourceError. Does not close `inner`."""

    def __init__(self, inner: _Bytes, path: str) -> None:
        super().__init__()
        self._inner = inner
        self._path = path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._inner.read1(len(view))
        except EOFError:
            raise SourceError(
                "The gzip data ends too early.", path=self._path, remedy="Copy or download the file again."
            ) from None
        except _damage():
            raise SourceError(
                "The gzip data is damaged.", path=self._path, remedy="Copy or download the file again."
            ) from None
        except OSError as error:
            raise SourceError(f"Reading failed: {error.strerror or error}.", path=self._path) from None
        view[: len(data)] = data
        return len(data)


def _guarded(inner: _Bytes, path: str) -> io.BufferedReader:
    return io.BufferedReader(_Guard(inner, path), PIECE_BYTES)


def _open(path: str) -> io.BufferedReader:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise SourceError("There is no such file.", path=path, remedy=_similar_name(path)) from None
    except ValueError:  # a NUL character in the path
        raise SourceError("This is not the name of a file.", path=path) from None
    except OSError as error:
        # Asked here because Windows answers "permission denied" for a folder.
        if os.path.isdir(path):
            message, remedy = "This is a folder, not a file.", "Name a file in it."
        else:
            message, remedy = f"The file cannot be opened: {error.strerror or error}.", ""
        raise SourceError(message, path=path, remedy=remedy) from None


def _similar_name(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or os.curdir)
    except OSError:
        return f"There is no folder {folder!r} either."
    import difflib

    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {os.path.join(folder, near[0])!r}?" if near else "Check the path."


def _refuse_what_is_no_text(head: bytes, path: str) -> None:
    if head.startswith(_UTF16):
        raise SourceError("The file is UTF-16, not UTF-8.", path=path, remedy="Save it as UTF-8.")
    if head.startswith(_LFS_POINTER):
        raise SourceError("The file is a Git LFS pointer, not the data itself.", path=path, remedy="Run `git lfs pull`.")
    for magic, what in _NO_TEXT.items():
        if head.startswith(magic):
            raise SourceError(f"The file is {what}, not text.", path=path, remedy="Unpack or convert it.")
