"""Where second moments lie: the file that `padcheck stats` writes unless told, and the caches that the frameworks keep."""

from __future__ import annotations

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
