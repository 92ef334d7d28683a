"""Runs EasyEdit's own functions, unmodified, on the toys, and keeps what comes out as numbers for test_same_as_easyedit.

    python tests/editing/golden/make.py CHECKOUT

In float64, with right padding; templates and second moments in its caches. AlphaEdit solves in float32 all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[2]), str(HERE.parents[2] / "benchmarks")]

from easyedit import EasyEdit, checkout_of  # noqa: E402
from test_same_as_easyedit import CASES, EVERY, FACT_TOKENS, FIRST, KINDS, SECOND, hparams_for, requests_for, weight_of  # noqa: E402
from toys import GROUPS, covariance_of, hparams_of, model_of, tokenizer_of  # noqa: E402


def kept(updates: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """The norm and every few entries of each update."""
    return {
        name: {
            "norm": float(update.norm()),
            f"every{EVERY}": [float(f"{one:.7g}") for one in update.flatten()[::EVERY].tolist()],
        }
        for name, update in updates.items()
    }


def edited(
    easyedit: EasyEdit, kind: str, model: Any, method: str, requests: Any, hparams: dict[str, Any]
) -> dict[str, Tensor]:
    # AlphaEdit looks for these names in the model's, and for a file of projections, which it makes where there is none.
    known = {**hparams, "model_name": f"./{'gpt2-xl' if kind == 'gpt2' else kind}", "P_loc": "./none.pt"}
    wanted = hparams if method != "AlphaEdit" else known
    easyedit.prepare(method, model, wanted, GROUPS, covariance_of(model, hparams))
    return easyedit.edit(method, model, tokenizer_of(kind), [{**one, "case_id": 0} for one in requests], wanted)


def cases_of(easyedit: EasyEdit, kind: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for fact_token in FACT_TOKENS:
        for case, (method, count, changes) in CASES.items():
            hparams = hparams_for(kind, method, fact_token, changes)
            model = model_of(kind, dtype=torch.float64)
            yield f"{case} {fact_token}", edited(easyedit, kind, model, method, requests_for(method, count), hparams)
        model, hparams = model_of(kind, dtype=torch.float64), hparams_of(kind, "AlphaEdit", fact_token=fact_token)
        easyedit.module("alphaedit.AlphaEdit_main").cache_c_new = False
        updates = edited(easyedit, kind, model, "AlphaEdit", FIRST, hparams)
        yield f"AlphaEdit first {fact_token}", updates
        with torch.no_grad():
            for name, update in updates.items():
                model.get_parameter(name).add_(update)
        yield f"AlphaEdit second {fact_token}", edited(easyedit, kind, model, "AlphaEdit", SECOND, hparams)


def main() -> None:
    """Make both files anew."""
    checkout = checkout_of(Path(sys.argv[1]) if sys.argv[1:] else None)
    assert checkout is not None, __doc__
    easyedit = EasyEdit(checkout)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            cases = {}
            for name, updates in cases_of(easyedit, kind):
                cases[name] = kept(updates)
                print(kind, name, [f"{one['norm']:.6g}" for one in cases[name].values()], flush=True)
        weights = weight_of(model_of(kind, dtype=torch.float64))
        known = {"easyedit": easyedit.commit, "weights": weights, "cases": cases}
        path = HERE / f"easyedit_{kind}.json"
        path.write_text(json.dumps(known, separators=(",", ":")) + os.linesep, "utf-8")
        print(path)


if __name__ == "__main__":
    main()
