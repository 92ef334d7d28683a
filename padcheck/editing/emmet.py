"""EMMET: ROME's exact constraint for many facts at once.

With C' = w·C + update_norm_lambda·I and D = Kᵀ C'⁻¹ K + emmet_lambda·I:  Δ = R D⁻¹ Kᵀ C'⁻¹.
emmet_lambda = 0 is the exact constraint. As w scales C first, Kᵀ C'⁻¹ K can be far smaller than emmet_lambda: the
update then reaches only a part of what was asked for, which is noted.
Source: Gupta et al. 2024 (arXiv 2403.14236).
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
    """The update that gives each key its new value, softened by emmet_lambda."""
    hparams = session.hparams
    moment = hparams.mom2_update_weight * session.moment(site)
    moment.diagonal().add_(hparams.update_norm_lambda)
    whitened = solve_positive(moment, keys, f"w·C of {site.name}")
    gram = keys.T @ whitened
    gram = (gram + gram.T) / 2
    strength = float(gram.diagonal().mean())
    if strength < hparams.emmet_lambda:
        session.notes.append(
            f"{site.name}: kᵀC⁻¹k is {strength:.1e}, below emmet_lambda {hparams.emmet_lambda:g}: the facts "
            "are written only in part"
        )
    system = gram + hparams.emmet_lambda * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return residual @ solve_positive(system, whitened.T, f"Kᵀ·C⁻¹·K of {site.name}", "are two facts the same?")
