"""MEMIT: many facts at once, spread over layers. Δ = R Kᵀ (w·C + K Kᵀ)⁻¹.

Source: Meng et al. 2022 (arXiv 2210.07229), equation 14.
"""

from __future__ import annotations

import torch
from torch import Tensor

from padcheck.editing.architecture import Site
from padcheck.editing.session import Session
from padcheck.editing.solver import solve_positive
from padcheck.editing.spreading import rewrite_layers


def rewrite(session: Session) -> None:
    """Edit all facts together."""
    rewrite_layers(session, update)


def update(session: Session, site: Site, keys: Tensor, residual: Tensor) -> Tensor:
    """The least-squares update that keeps what the second moment stands for."""
    system = torch.addmm(session.moment(site), keys, keys.T, beta=session.hparams.mom2_update_weight)
    return residual @ solve_positive(system, keys, f"w·C + K·Kᵀ of {site.name}").T
