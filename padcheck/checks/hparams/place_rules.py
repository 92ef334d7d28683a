"""Rules about what belongs to one machine, and about weights far from the published ones."""

from __future__ import annotations

import re
from collections.abc import Iterator

from padcheck.checks.building import finding
from padcheck.checks.hparams.case import Case, rule
from padcheck.diagnostics import Finding

_PRIVATE = re.compile(
    r"^(?:/(?:home|Users|mnt|data\d*|newdisk\d*|root|share\d*|disk\d*|nas|ssd\d*|hdd\d*|nfs)/|[A-Za-z]:[\\/])"
)
_PLACEHOLDER = re.compile(
    r"(?:^|/)(?:your|path[/_-]to|xxx+)(?:[/_-]|$)|<[^<>]+>|\$\{[^}]*\}|^\s*(?:todo|fixme)\b| or \./", re.IGNORECASE
)
_PATHS = (
    "model_name",
    "tokenizer_name",
    "stats_dir",
    "P_loc",
    "archive",
    "results_dir",
    "model_name_or_path",
    "small_name",
    "cls_name",
    "check_dir",
)
_WEIGHTS = {"MEMIT": 15_000.0, "MEMIT-FE": 15_000.0, "PMET": 6_000.0, "CORE": 15_000.0}
"""The published mom2_update_weight of each method, for which a factor of 100 is far away."""


@rule("HPR128", "HPR129")
def private_paths(case: Case) -> Iterator[Finding]:
    """Absolute paths of somebody's machine, and placeholders that were never filled in."""
    for key in _PATHS:
        value = case.hparams.values.get(key)
        if not isinstance(value, str):
            continue
        if _PLACEHOLDER.search(value):
            yield finding(
                "HPR129",
                f"{key} {value!r} is a placeholder: nothing can be loaded from it.",
                case.place(key),
                "Write the path of your model.",
                key=key,
            )
        elif _PRIVATE.match(value):
            yield finding(
                "HPR128",
                f"{key} {value!r} is a path of one machine.",
                case.place(key),
                "Write a path relative to the project.",
                severity="note",
                key=key,
            )
        elif value != value.strip():
            yield finding(
                "HPR128",
                f"{key} {value!r} has a space at its edge: no folder is called that.",
                case.place(key),
                "Remove the space.",
                severity="warning",
                key=key,
            )


@rule("HPR130")
def device(case: Case) -> Iterator[Finding]:
    """A GPU with a high number: the author's, not everybody's."""
    value = case.hparams.values.get("device")
    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str) and (found := re.fullmatch(r"cuda:(\d+)", value.strip())):
        number = int(found[1])
    if number is not None and number > 0:
        yield finding(
            "HPR130",
            f"device {value} needs {number + 1} GPUs in the machine.",
            case.place("device"),
            "Write 0, and choose the GPU with CUDA_VISIBLE_DEVICES.",
            key="device",
        )


@rule("HPR134")
def second_moment_weight(case: Case) -> Iterator[Finding]:
    """A weight of the second moments that is orders of magnitude away from the published one."""
    value, published = case.values.get("mom2_update_weight"), _WEIGHTS.get(case.method or "")
    if (
        published is None
        or not isinstance(value, int | float)
        or isinstance(value, bool)
        or value <= 0
        or not case.reads("mom2_update_weight")
    ):
        return
    factor = max(value / published, published / value)
    if factor >= 100:
        yield finding(
            "HPR134",
            f"mom2_update_weight {value:g} is {factor:,.0f} times {'above' if value > published else 'below'} the {published:g} that {case.method} was published with: it decides how much of the model's knowledge the edit may overwrite.",
            case.place("mom2_update_weight"),
            key="mom2_update_weight",
        )
