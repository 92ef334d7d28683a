"""EasyEdit's own functions, unmodified, run from a checkout that the caller names: what the benchmarks compare with.

Its package is not imported as a whole (that needs dozens of other packages): single modules are, and packages that editing
imports and never uses may be missing. Templates and second moments go into its caches, which is where it looks first.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from missing import Missing
from torch import Tensor, nn

VARIABLE = "EASYEDIT"
"""The environment variable that may name the checkout."""


def checkout_of(given: Path | None) -> Path | None:
    """The checkout to use: the one given, else the one that the environment names. Exits where it holds no EasyEdit."""
    named = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is None:
        return None
    if not (named / "easyeditor" / "models").is_dir():
        sys.exit(f"{named} holds no EasyEdit: there is no easyeditor/models in it.")
    return named.resolve()


class EasyEdit:
    """Attributes: commit, of the checkout, with "-changed" where a file of the package is not as it is there."""

    def __init__(self, checkout: Path) -> None:
        self._base = checkout / "easyeditor"
        self.commit = _commit(checkout)
        sys.meta_path.append(Missing("matplotlib", "datasets", "sklearn", "scipy", "pandas", "nltk"))
        for name in ("", ".models", ".util"):
            self._package(name)
        self._checkout = checkout

    def module(self, name: str) -> Any:
        """A module below `easyeditor.models`, as in "rome.compute_u"."""
        self._package(f".models.{name.partition('.')[0]}")
        here = Path.cwd()
        os.chdir(self._checkout)  # it reads globals.yml from the current folder when it is imported
        try:
            return importlib.import_module(f"easyeditor.models.{name}")
        finally:
            os.chdir(here)

    def prepare(
        self,
        method: str,
        model: Any,
        hparams: Mapping[str, Any],
        groups: Sequence[Sequence[str]],
        covariance: Mapping[str, Tensor],
    ) -> None:
        """Templates and second moments into the caches of `method`."""
        model.config._name_or_path = model.name_or_path = hparams["model_name"]
        home = _HOMES[method]
        main = self.module(f"{home.folder}.{home.stem}_main")
        alone = method in ("ROME", "R-ROME")
        main.CONTEXT_TEMPLATES_CACHE = [text for group in groups for text in group] if alone else list(map(list, groups))
        cache = self.module(f"{home.folder}.compute_u").inv_mom2_cache if alone else main.COV_CACHE
        cache.clear()
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
        for name, moment in covariance.items():
            known = torch.inverse(moment.double()) if alone else moment
            cache[hparams["model_name"].replace("/", "_"), name] = known.to(dtype)

    def edit(
        self,
        method: str,
        model: nn.Module,
        tokenizer: Any,
        requests: Sequence[Mapping[str, Any]],
        hparams: Mapping[str, Any],
        side: str = "right",
    ) -> dict[str, Tensor]:
        """The update of each weight under padding on `side`; the model gets its weights and `requires_grad` back."""
        home = _HOMES[method]
        main = self.module(f"{home.folder}.{home.stem}_main")
        known = getattr(self.module(f"{home.folder}.{home.stem}_hparams"), home.hparams)
        own_side, tokenizer.padding_side = tokenizer.padding_side, side
        templates = hparams.get("rewrite_module_tmps") or [hparams["rewrite_module_tmp"]]
        names = [template.format(layer) + ".weight" for layer in hparams["layers"] for template in templates]
        before = {name: model.get_parameter(name).detach().clone() for name in names}
        flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        updates = {}
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                getattr(main, home.function)(model, tokenizer, list(map(dict, requests)), known(**hparams))
        finally:
            tokenizer.padding_side = own_side
            with torch.no_grad():
                for name in names:
                    updates[name] = model.get_parameter(name).detach() - before[name]
                    model.get_parameter(name).copy_(before[name])
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
        return updates

    def second_moments(
        self, model: Any, tokenizer: Any, texts: Sequence[str], modules: Sequence[str], precision: str
    ) -> dict[str, Tensor]:
        """What its `layer_stats` makes of these documents, one call for each module; nothing is taken from a cache or kept."""
        module = self.module("rome.layer_stats")
        module.load_dataset = lambda name, config: {"train": [{"text": text} for text in texts]}  # from where it downloads
        model.config._name_or_path = "model"
        side, tokenizer.padding_side = tokenizer.padding_side, "right"
        device = types.SimpleNamespace(device=str(model.device))
        found = {}
        try:
            for name in modules:
                with contextlib.redirect_stdout(io.StringIO()):
                    stat = module.layer_stats(
                        model, tokenizer, name, "unused", "wikipedia", ["mom2"], sample_size=len(texts), precision=precision,
                        progress=lambda loader, total: loader, force_recompute=True, hparams=device,
                    )  # fmt: skip
                found[name] = stat.mom2.moment()
        finally:
            tokenizer.padding_side = side
        return found

    def _package(self, name: str) -> None:
        if f"easyeditor{name}" not in sys.modules:
            package = types.ModuleType(f"easyeditor{name}")
            package.__path__ = [str(self._base.joinpath(*name.split(".")))]
            sys.modules[f"easyeditor{name}"] = package


class _Home(types.SimpleNamespace):
    """Where a method lives: folder, stem of its files, function that applies it, class of its hparams."""

    folder: str
    stem: str
    function: str
    hparams: str


_HOMES = {
    "ROME": _Home(folder="rome", stem="rome", function="apply_rome_to_model", hparams="ROMEHyperParams"),
    "R-ROME": _Home(folder="r_rome", stem="r_rome", function="apply_r_rome_to_model", hparams="R_ROMEHyperParams"),
    "MEMIT": _Home(folder="memit", stem="memit", function="apply_memit_to_model", hparams="MEMITHyperParams"),
    "EMMET": _Home(folder="emmet", stem="emmet", function="apply_emmet_to_model", hparams="EMMETHyperParams"),
    "PMET": _Home(folder="pmet", stem="pmet", function="apply_pmet_to_model", hparams="PMETHyperParams"),
    "AlphaEdit": _Home(
        folder="alphaedit", stem="AlphaEdit", function="apply_AlphaEdit_to_model", hparams="AlphaEditHyperParams"
    ),
}


def _commit(checkout: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:

        def git(*arguments: str) -> str:
            # An index of our own: some checkouts have none that fits their files, and theirs is not to be touched.
            environment = {**os.environ, "GIT_INDEX_FILE": f"{folder}/index"}
            command = ["git", "-C", str(checkout), *arguments]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

        try:
            commit = git("rev-parse", "HEAD")
            git("read-tree", "HEAD")
            changed = git("status", "--porcelain", "--untracked-files=no", "--", "easyeditor/models", "easyeditor/util")
        except (OSError, subprocess.CalledProcessError):
            return "unknown"
    return f"{commit}-changed" if changed else commit


def agreement(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> tuple[float, float]:
    """The worst cosine between two sets of updates, and the norm ratio (ours over theirs) that is farthest from 1."""
    pairs = [(ours[name].flatten().double().cpu(), theirs[name].flatten().double().cpu()) for name in theirs]
    cosines = [float(torch.nn.functional.cosine_similarity(mine, other, 0)) for mine, other in pairs]
    ratios = [float(mine.norm() / other.norm()) for mine, other in pairs]
    return min(cosines), max(ratios, key=lambda ratio: abs(ratio - 1))


@contextlib.contextmanager
def forwards(model: nn.Module) -> Iterator[list[tuple[int, int]]]:
    """Rows and columns of every forward pass of the whole model."""
    seen: list[tuple[int, int]] = []

    def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        seen.append((int(ids.shape[0]), int(ids.shape[1])))

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
