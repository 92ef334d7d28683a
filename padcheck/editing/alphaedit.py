"""AlphaEdit: MEMIT's update confined to the null space of the second moment, with the keys of earlier edits kept.

P projects on the eigenvectors of C below nullspace_threshold; Δᵀ solves (P (K Kᵀ + Σ) + L2·I) Δᵀ = P K Rᵀ, where Σ is
K Kᵀ of all edits before, with keys measured on the weights after each edit. Σ belongs to the model's content: it travels in
the state. Source: Fang et al. 2024 (arXiv 2410.02355).
"""

from __future__ import annotations

import torch
from torch import Tensor

from padcheck.editing.architecture import Site
from padcheck.editing.errors import CovarianceError
from padcheck.editing.keys import Walk
from padcheck.editing.session import Session
from padcheck.editing.solver import solve_general
from padcheck.editing.spreading import rewrite_layers, site_keys


def rewrite(session: Session) -> None:
    """Edit all facts together, and add their keys to the state's."""
    rewrite_layers(session, update)
    walk = Walk(session.decoder, session.facts)
    for (site,) in session.architecture.sites:
        keys = site_keys(session, walk, site).cpu()
        cache = session.state.key_cache
        cache[site.name] = keys @ keys.T + cache.get(site.name, 0.0)


def update(session: Session, site: Site, keys: Tensor, residual: Tensor) -> Tensor:
    """The ridge solution inside the null space."""
    projection = null_space(session, site)
    gram = keys @ keys.T
    earlier = session.state.key_cache.get(site.name)
    if earlier is not None:
        gram += earlier.to(gram.device)
    system = projection @ gram
    system.diagonal().add_(session.hparams.L2)
    return solve_general(system, projection @ keys @ residual.T, f"P·(K·Kᵀ + Σ) + L2 of {site.name}").T


def null_space(session: Session, site: Site) -> Tensor:
    """P of a site, [d_in, d_in] float64; worked out once for all edits in a row."""
    known = session.state.projections.get(site.name)
    if known is None:
        values, vectors = torch.linalg.eigh(session.moment(site))
        small = vectors[:, values < session.hparams.nullspace_threshold]
        if not small.shape[1]:
            raise CovarianceError(
                f"no eigenvalue of the second moment of {site.name} is below nullspace_threshold "
                f"{session.hparams.nullspace_threshold:g} (the smallest is {float(values[0]):.2e}): nothing may be changed"
            )
        if small.shape[1] == len(values):
            session.notes.append(f"{site.name}: every eigenvalue is below nullspace_threshold, so nothing is protected")
        known = (small @ small.T).cpu()
        session.state.projections[site.name] = known
    return known.to(site.weight.device)
