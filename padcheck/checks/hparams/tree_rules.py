"""Rules across the hparams of a tree. They run on facts, one mapping per file, so that cached files take part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from padcheck.checks.building import finding
from padcheck.checks.hparams.case import Case
from padcheck.checks.hparams.models import plain_name
from padcheck.diagnostics import Finding, Place, Related

Facts = Mapping[str, Any]
RULES = ("STA101", "STA102", "STA103")


def facts_of(case: Case) -> dict[str, Any]:
    """What the rules across files need of one file; places as lists."""
    names = ("model_name", "stats_dir", "P_loc", "layers")
    places = {name: _place_out(case.place(name)) for name in names if name in case.hparams.places}
    model = case.model_name or case.values.get("model_name_or_path")
    return {
        "path": case.path,
        "method": case.method,
        "framework": case.framework,
        "places": places,
        "model_name": model if isinstance(model, str) else None,
        "stats": case.reads("mom2_dataset") and isinstance(model, str),
        **{name: case.values.get(name) for name in ("stats_dir", "P_loc", "layers")},
    }


def across(facts: Sequence[Facts], enabled: frozenset[str]) -> Iterator[Finding]:
    """Findings that need more than one file; both places are said."""
    if "STA101" in enabled:
        yield from _shared_projection(facts)
    if "STA102" in enabled:
        yield from _spellings(facts)
    if "STA103" in enabled:
        yield from _stats_collide(facts)


def _shared_projection(facts: Iterable[Facts]) -> Iterator[Finding]:
    """One P_loc for different models or layers: the first run writes it, the others load it."""
    by_path: dict[str, list[Facts]] = defaultdict(list)
    for each in facts:
        if isinstance(each["P_loc"], str) and each["model_name"]:
            by_path[PurePosixPath(each["P_loc"]).as_posix()].append(each)
    for path, users in by_path.items():
        first = users[0]
        for other in users[1:]:
            model = _model(first) != _model(other)
            if model or first["layers"] != other["layers"]:
                what = (
                    f"of {plain_name(other['model_name'])} and of {plain_name(first['model_name'])}"
                    if model
                    else f"for layers {other['layers']} and for {first['layers']}"
                )
                yield finding(
                    "STA101",
                    f"P_loc {path} is the projection {what}: whichever runs second loads the other's.",
                    _place(other, "P_loc"),
                    "Name a file per model and layers.",
                    key="P_loc",
                    related=[Related("the other file", _place(first, "P_loc"))],
                )


def _model(facts: Facts) -> str:
    return plain_name(facts["model_name"]).replace("-", "")


def _spellings(facts: Iterable[Facts]) -> Iterator[Finding]:
    """One model under several names: its second moments are stored under the name's last part, and computed again for each."""
    by_model: dict[str, dict[str, Facts]] = defaultdict(dict)
    for each in facts:
        if each["stats"]:
            last = each["model_name"].rstrip("/").rpartition("/")[2]
            by_model[_model(each)].setdefault(last, each)
    for spelled in by_model.values():
        (first_name, first), *others = spelled.items()
        for name, other in others:
            yield finding(
                "STA102",
                f"The same model is called {name!r} here and {first_name!r} elsewhere: its second moments are stored under the name's last part, so each name computes its own.",
                _place(other, "model_name"),
                f"Write {first_name} everywhere.",
                key="model_name",
                related=[Related("the other name", _place(first, "model_name"))],
            )


def _stats_collide(facts: Iterable[Facts]) -> Iterator[Finding]:
    """Two models whose paths end alike share a folder of second moments."""
    by_key: dict[tuple[str, str], dict[str, Facts]] = defaultdict(dict)
    for each in facts:
        if each["stats"] and each["framework"] == "easyedit" and "/" in each["model_name"].strip("./"):
            parts = [part for part in PurePosixPath(each["model_name"]).parts if part not in (".", "/")]
            if len(parts) >= 2:
                owner = parts[-2].lower()
                by_key[str(each["stats_dir"]), parts[-1]].setdefault(owner, each)
    for (folder, last), owners in by_key.items():
        published = [(owner, each) for owner, each in owners.items() if not each["model_name"].startswith((".", "/", "~"))]
        if len(published) < 2:
            continue
        (first_owner, first), *others = published
        for owner, other in others:
            yield finding(
                "STA103",
                f"{owner}/{last} and {first_owner}/{last} store their second moments under the same {folder}/{last}: one loads the other's.",
                _place(other, "model_name"),
                "Give each its own stats_dir.",
                key="stats_dir",
                related=[Related("the other model", _place(first, "model_name"))],
            )


def _place_out(place: Place) -> list[Any]:
    return [place.line, place.column, place.end_line, place.end_column]


def _place(facts: Facts, key: str) -> Place:
    return Place(facts["path"], *facts["places"].get(key, (None, None, None, None)))
