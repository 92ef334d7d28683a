"""Places to write to, tried before the work and not after it."""

from __future__ import annotations

import tempfile
from pathlib import Path

PROVENANCE = "padcheck-edit.json"
"""What `padcheck edit` writes beside a model: how it came about."""


def check_writable(out: Path, *, overwrite: bool) -> None:
    """Try whether a file can be written at `out`, before hours are spent on it. Nothing stays behind.

    Raises OSError where it cannot, or where a file is there that is not to be overwritten.
    """
    try:
        if out.is_dir():
            raise IsADirectoryError(f"{out} is a folder; name a file in it")
        if out.is_symlink() and not out.exists():
            raise FileNotFoundError(
                f"{out} is a link to {out.readlink()}, which does not exist; remove it, or name another file"
            )
        if out.exists() and not out.is_file():
            raise OSError(f"{out} is no plain file, and is not written over; name another")
        if out.exists() and not overwrite:
            raise FileExistsError(f"{out} exists already; name another file, or overwrite it with --overwrite")
        for folder in out.parents:
            if folder.is_dir():
                break
            if folder.exists() or folder.is_symlink():
                raise NotADirectoryError(f"{out} cannot be written: {folder} is no folder")
        missing = [folder for folder in out.parents if not folder.exists()]
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            # As long as the longest name that is written beside it.
            with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.partial."):
                pass
        finally:
            for folder in missing:
                if folder.is_dir():
                    folder.rmdir()
    except OSError as error:
        if error.strerror is None:  # one of the sentences above
            raise
        raise OSError(f"{out} cannot be written: {error.strerror}") from error
