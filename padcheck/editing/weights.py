"""The rewritten weights while an edit is being computed: written between steps, put back bit for bit at the end."""

from __future__ import annotations

import torch
from torch import Tensor

from padcheck.editing.architecture import Site
from padcheck.editing.errors import SolveError


class Ledger:
    """What was added to which weight so far, and the weights as they were.

    Attributes:
        updates: parameter name → sum of the updates, in the parameter's shape and in wide dtype.
        rounding: parameter name → ‖round(W + Δ) − W − Δ‖ / ‖Δ‖, of the sum.
    """

    def __init__(self) -> None:
        self.updates: dict[str, Tensor] = {}
        self.rounding: dict[str, float] = {}
        self._before: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def add(self, site: Site, update: Tensor) -> None:
        """Add `update` [d_out, d_in] to a site's weight, on the model. Raises SolveError, having written nothing, if
        it is not finite."""
        if not torch.isfinite(update).all():
            raise SolveError(f"the update of {site.parameter} is not finite")
        weight, name = site.weight, site.parameter
        if name not in self._before:
            self._before[name] = weight, weight.detach().clone()
        original = self._before[name][1]
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        change = site.shaped(update).to(device=weight.device)
        if name in self.updates:
            change = change.double() + self.updates[name].double()
        self.updates[name] = change.to(wide)
        written, self.rounding[name] = rounded(original, self.updates[name])
        weight.copy_(written)

    @torch.no_grad()
    def restore(self) -> None:
        """Put every weight back as it was."""
        for weight, original in self._before.values():
            weight.copy_(original)


def rounded(weight: Tensor, update: Tensor) -> tuple[Tensor, float]:
    """`weight` + `update` in the weight's dtype, and the part of the update that rounding took (0 for an update of zero)."""
    exact = weight.double() + update.double()
    written = exact.to(weight.dtype)
    size = float(update.double().norm())
    return written, float((written.double() - exact).norm()) / size if size else 0.0
