"""What the methods share while one call of `edit` runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from padcheck.editing.architecture import Architecture, Site
from padcheck.editing.covariance import second_moment
from padcheck.editing.decoder import Decoder
from padcheck.editing.errors import ArchitectureError
from padcheck.editing.hparams import EditHparams
from padcheck.editing.objective import Found, Goal, Readout, Step
from padcheck.editing.rows import Fact, Groups
from padcheck.editing.solver import Factored, factored
from padcheck.editing.state import EditState
from padcheck.editing.weights import Ledger


@dataclass(slots=True)
class Session:
    """One edit in the making.

    Attributes:
        state: what was handed in, or a fresh one; methods that carry something on put it there.
        traces: one list per request.
        notes: what the user should know about how it was done.
        factors: second moments that were factorised, by the site's name.
    """

    architecture: Architecture
    hparams: EditHparams
    facts: list[Fact]
    groups: Groups
    covariance: Mapping[str, Any] | None
    compat: str | None
    state: EditState
    notes: list[str]
    ledger: Ledger = field(default_factory=Ledger)
    traces: list[list[Step]] = field(default_factory=list)
    factors: dict[str, Factored] = field(default_factory=dict)

    @property
    def decoder(self) -> Decoder:
        return self.architecture.decoder

    def moment(self, site: Site) -> Tensor:
        """E[k kᵀ] of `site`, float64; see `second_moment`."""
        return second_moment(self.covariance, site, self.hparams.method)

    def factored_moment(self, site: Site) -> Factored:
        """The same with its factor, worked out once for all facts."""
        if site.name not in self.factors:
            self.factors[site.name] = factored(self.moment(site), f"the second moment of {site.name}")
        return self.factors[site.name]

    def goal(self, *, nll_factor: float = 1.0, eases: bool = False) -> Goal:
        """The search that the hparams ask for."""
        h = self.hparams
        return Goal(h.v_num_grad_steps, h.v_lr, h.v_weight_decay, h.clamp_norm_factor, h.kl_factor, nll_factor, eases)

    def keep_traces(self, found: list[Found]) -> None:
        for trace, one in zip(self.traces, found, strict=True):
            trace.extend(one.trace)

    def readout(self) -> Readout | None:
        """Under compat="easyedit", the MEMIT family's own way to the logits; otherwise None: the model's."""
        if self.compat != "easyedit":
            return None
        h = self.hparams
        if h.ln_f_module is None or h.lm_head_module is None:
            raise ArchitectureError("compat='easyedit' needs 'ln_f_module' and 'lm_head_module' in the hparams")
        head = self.architecture.module(h.lm_head_module, "lm_head_module")
        weight, bias = head.weight, getattr(head, "bias", None)
        assert isinstance(weight, Tensor)
        last = len(self.decoder.layers) - 1
        layer = max(last if h.v_loss_layer is None else h.v_loss_layer, h.layers[-1])
        if layer > last:
            raise ArchitectureError(f"'v_loss_layer' names layer {layer}, but the last layer is {last}")
        return Readout(
            layer,
            self.architecture.module(h.ln_f_module, "ln_f_module"),
            weight,
            bias if isinstance(bias, torch.Tensor) else None,
        )
