"""Rules about hparams files: one file at a time, and across the files of a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from padcheck.checks.hparams import model_rules, place_rules, run_rules, schema_rules  # noqa: F401  (each declares its rules)
from padcheck.checks.hparams.case import CHECKS, Case, folder_parts
from padcheck.checks.hparams.models import Model, built, from_config, profile
from padcheck.checks.hparams.schemas import Variant, converted, nearest_variant, variants
from padcheck.checks.hparams.tree_rules import RULES as TREE_RULES
from padcheck.checks.hparams.tree_rules import across, facts_of
from padcheck.diagnostics import Finding
from padcheck.discovery import schema_methods
from padcheck.sources.hparams import Hparams

__all__ = ["RULES", "across", "check_hparams", "facts_of", "make_case"]

RULES: frozenset[str] = frozenset({rule for ids in CHECKS.values() for rule in ids} | set(TREE_RULES))
"""Every rule that this package may report."""

_ORDER = ("easyedit", "kmeng01-rome", "kmeng01-memit", "unified", "rebuilding-rome", "alphaedit", "pmet")
_NAMES = {"UltraEdit": "ULTRAEDIT", "r_rome": "R-ROME"}


def make_case(
    hparams: Hparams, text: str, *, framework: str | None = None, method: str | None = None, model: Path | None = None
) -> Case:
    """What the rules need to know about a file. `framework` and `method` as the caller or the configuration says, `model` a folder."""
    variant, because, sure = _variant(hparams, framework, method)
    values = converted(hparams.values, variant)
    case = Case(
        hparams,
        text,
        variant.framework if variant else framework,
        variant.method if variant else method,
        because,
        sure,
        variant,
        None,
        values,
    )
    return case.replace(model=_model(case, model))


def check_hparams(case: Case, enabled: frozenset[str], crashed: Callable[[str, Exception], Finding]) -> Iterable[Finding]:
    """The findings of one file. A check that raises is reported by `crashed`, and the others still run."""
    for check, ids in CHECKS.items():
        if not enabled.isdisjoint(ids):
            try:
                yield from [finding for finding in check(case) if finding.rule in enabled]
            except Exception as error:  # a broken rule is a finding, not silence
                yield crashed(ids[0], error)


def _variant(hparams: Hparams, framework: str | None, method: str | None) -> tuple[Variant | None, str, bool]:
    known = schema_methods()
    written = hparams.values.get("alg_name", hparams.values.get("alg"))
    if framework is None and method is None and isinstance(written, str):
        name = _NAMES.get(written, written)
        folder = next(iter(folder_parts(hparams.path)), "")
        name = folder if folder in ("FT_uns", "LoRA_uns") and folder.startswith(name) else name
        if name not in known["easyedit"]:
            return None, "it names a method that EasyEdit's editors do not have", False
        return nearest_variant(variants("easyedit", name), hparams.values), f"alg_name is {written}", True
    folded = {each.lower(): each for methods in known.values() for each in methods}
    if method is None:
        method = next((folded[part.lower()] for part in folder_parts(hparams.path) if part.lower() in folded), None)
        because = f"the folder {method}" if method else ""
    else:
        method, because = folded.get(method.lower(), method), "--method"
    frameworks = [framework] if framework else [each for each in _ORDER if method in known[each]]
    found = (
        [variant for each in frameworks if method in known.get(each, ()) for variant in variants(each, method)]
        if method
        else []
    )
    if not found:
        return None, "no method is named", False
    return nearest_variant(found, hparams.values), because, framework is not None or because == "--method"


@cache
def _asked_for(folder: Path) -> Model | None:
    return built(folder)


def _model(case: Case, folder: Path | None) -> Model | None:
    if folder is not None:
        return _asked_for(folder)
    name: Any = case.values.get("model_name", case.values.get("model_name_or_path"))
    if isinstance(name, str) and name.strip():
        own = Path(name)
        return (from_config(own) if (own / "config.json").is_file() else None) or profile(name)
    if case.variant is not None and "model_name" not in case.variant.properties:
        return profile(Path(case.path).stem)
    return None
