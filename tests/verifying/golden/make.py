"""Runs EasyEdit's own functions, unmodified, on the shipped models with left padding, and keeps what comes out as numbers.

    python tests/verifying/golden/make.py CHECKOUT [METHOD]...

Made under transformers 5: under 4, EasyEdit makes another edit of eager GPT-2's left pads. Methods that are not named stay as
they are.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "editing")]

from easyedit import EasyEdit, checkout_of  # noqa: E402
from toys import covariance_of  # noqa: E402

from tests.verifying.models import NAMES, TEMPLATES, opened, requests  # noqa: E402
from tests.verifying.test_as_easyedit import EVERY, METHODS, hparams_for  # noqa: E402


def edited(easyedit: EasyEdit, name: str, attention: str, method: str) -> dict[str, object]:
    """The norm and every few entries of each update; null where it is not finite."""
    model, tokenizer = opened(name, attention)
    known = {**hparams_for(name, method), "model_name": "./gpt2-xl" if "gpt2" in name else "./llama", "device": "cpu"}
    if method == "AlphaEdit":
        known["P_loc"] = "./none.pt"  # it makes the file where there is none
        easyedit.module("alphaedit.AlphaEdit_main").cache_c_new = False
    own = model.name_or_path, model.config._name_or_path
    one = requests(name, 3)[2]
    space = " " if method == "PMET" and "gpt" not in name else ""
    request = {"prompt": one.prompt, "subject": one.subject, "target_new": space + one.target_new, "case_id": 0}
    groups = [list(TEMPLATES[:1]), list(TEMPLATES[1:3])]
    try:
        easyedit.prepare(method, model, known, groups, covariance_of(model, known))
        updates = easyedit.edit(method, model, tokenizer, [request], known, side="left")
    finally:
        model.name_or_path, model.config._name_or_path = own
    return {
        parameter: {
            "norm": float(update.norm()),
            f"every{EVERY}": [float(f"{one:.6g}") for one in update.flatten()[::EVERY].tolist()],
        }
        if bool(update.isfinite().all())
        else None
        for parameter, update in updates.items()
    }


def main() -> None:
    """Make the file anew."""
    checkout = checkout_of(Path(sys.argv[1]) if sys.argv[1:] else None)
    assert checkout is not None, __doc__
    easyedit = EasyEdit(checkout)
    torch.set_num_threads(1)
    path = HERE / "easyedit_left.json"
    known = json.loads(path.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in NAMES:
            for attention in ("sdpa", "eager"):
                for method in sys.argv[2:] or METHODS:
                    found = edited(easyedit, name, attention, method)
                    before = known.get(f"{name} {attention} {method}")
                    known[f"{name} {attention} {method}"] = found
                    print(
                        name,
                        attention,
                        method,
                        "new" if before is None else "as before" if close(before, found) else "OTHER",
                    )
    lines = ",\n".join(f" {json.dumps(case)}: {json.dumps(values)}" for case, values in known.items())
    path.write_text(f"{{\n{lines}\n}}\n", "utf-8")


def close(before: dict[str, object], now: dict[str, object]) -> bool:
    """Whether two runs on different machines agree to rounding."""

    def numbers(kept: dict[str, object]) -> list[float]:
        return [number for one in kept.values() if isinstance(one, dict) for number in (one["norm"], *one[f"every{EVERY}"])]

    old, new = torch.tensor(numbers(before)), torch.tensor(numbers(now))
    nulls = [one is None for one in before.values()] == [one is None for one in now.values()]
    return (
        nulls
        and old.shape == new.shape
        and bool(torch.allclose(old, new, rtol=1e-3, atol=1e-4 * float(new.abs().max() if len(new) else 0)))
    )


if __name__ == "__main__":
    main()
