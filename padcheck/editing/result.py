"""What an edit gives back, and how it is put on a model and taken off again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from padcheck.editing.architecture import unwrapped
from padcheck.editing.errors import StateError
from padcheck.editing.objective import Step
from padcheck.editing.state import EditState
from padcheck.editing.weights import rounded


@dataclass(frozen=True, slots=True)
class EditResult:
    """The updates of one edit.

    Attributes:
        updates: parameter name → what is to be added to it, in its shape; float32, or float64 for a float64 model.
        trace: per request, per evaluation of the objective: loss, nll, kl, weight_decay, probability.
        state: what a later call needs.
        notes: what was decided on the way and should be known.
        rounding: parameter name → ‖round(W + Δ) − W − Δ‖ / ‖Δ‖: what the model's dtype takes of the update.
        templates: the context templates, in groups.
    """

    updates: Mapping[str, Tensor]
    trace: tuple[tuple[Step, ...], ...]
    state: EditState
    notes: tuple[str, ...]
    rounding: Mapping[str, float]
    templates: tuple[tuple[str, ...], ...]

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """The edited model for the length of the block; afterwards every weight is what it was, bit for bit."""
        parameters = self._parameters(model)
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        try:
            self.write(model)
            yield model
        finally:
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(before[name])

    @torch.no_grad()
    def write(self, model: nn.Module) -> None:
        """Add the updates to the model's weights, for good. Raises StateError where they do not fit, before anything
        is written."""
        parameters = self._parameters(model)
        for name, parameter in parameters.items():
            parameter.copy_(rounded(parameter, self.updates[name].to(parameter.device))[0])

    def _parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        there = dict(unwrapped(model).named_parameters())
        for name, update in self.updates.items():
            if name not in there:
                raise StateError(f"the model has no {name}: the updates are of another one")
            if there[name].shape != update.shape:
                raise StateError(
                    f"{name} is {list(there[name].shape)}, but its update is {list(update.shape)}: it is of another model"
                )
        return {name: there[name] for name in self.updates}


def warn_of_rounding(rounding: Mapping[str, float]) -> None:
    """Warn where more than a tenth of an update is lost in the model's dtype."""
    lost = {name: part for name, part in rounding.items() if part > 0.1}
    if lost:
        worst = max(lost, key=lambda name: lost[name])
        warnings.warn(
            f"rounding takes {lost[worst]:.0%} of the update of {worst}: edit the model in float32 to keep it",
            RuntimeWarning,
            stacklevel=3,
        )
