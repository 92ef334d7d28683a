"""Where second moments lie: the file that `padcheck stats` writes unless told, and the caches that the frameworks keep."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from padcheck.editing.errors import CovarianceError

if TYPE_CHECKING:
    from torch import Tensor

_SUM, _COUNT = "mom2.mom2", "mom2.count"
"""Arrays of such a cache: Σ k kᵀ and the count of tokens (EasyEdit 14cea82, easyeditor/util/runningstats.py:502-511)."""


def own_file(stats_dir: str, model: Path, templates: Sequence[str], layers: Sequence[int]) -> Path:
    """The file for these modules of the model in the folder `model`, as in `stats/llama-2-7b/second_moments.mlp.down_proj.4-5-6.safetensors`."""
    parts = "+".join(template.rpartition("{}")[2].strip(".") or template.replace("{}", "n") for template in templates)
    numbers = "-".join(map(str, layers))
    return Path(stats_dir) / model.resolve().name / f"second_moments.{parts}.{numbers}.safetensors"


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


def cached_files(folder: Path, modules: Sequence[str]) -> dict[str, Path]:
    """The frameworks' cache of each module below `folder`; empty where there is none at all.

    They are named `<module>_<precision>_mom2[_<samples>].npz` (EasyEdit 14cea82, easyeditor/models/rome/layer_stats.py:159-169).
    Raises CovarianceError where some modules have none, or one has several.
    """
    found = {module: sorted(folder.rglob(f"{module}_*mom2*.npz")) for module in modules}
    if not any(found.values()):
        return {}
    for module, files in found.items():
        if len(files) != 1:
            there = "no file" if not files else f"{len(files)} files ({', '.join(file.name for file in files)})"
            raise CovarianceError(f"{folder} holds {there} of second moments for {module}, and one is needed")
    return {module: files[0] for module, files in found.items()}


def read_cached(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """Module name → E[k kᵀ], [d, d], of each cache. Raises CovarianceError for a file that is none."""
    import zipfile

    import numpy
    import torch

    moments = {}
    for module, file in files.items():
        try:
            with numpy.load(file, allow_pickle=False) as arrays:
                total, count = arrays[_SUM], float(arrays[_COUNT])
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise CovarianceError(f"{file} holds no second moments that can be read: {error}") from error
        if not count > 0:
            raise CovarianceError(f"{file} counts {count:g} tokens")
        moments[module] = torch.from_numpy(total) / count
    return moments
