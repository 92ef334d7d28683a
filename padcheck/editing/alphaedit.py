"""AlphaEdit: MEMIT's update confined to the null space of the second moment, with the keys of earlier edits kept.

P projects on the eigenvectors of C below nullspace_threshold; Δᵀ solves (P (K Kᵀ + Σ) + L2·I) Δᵀ = P K Rᵀ, where Σ is
K Kᵀ of all edits before, with keys measured on the weights after each edit. Σ belongs to the model's content: it travels in
the state. Source: Fang et al. 2024 (arXiv 2410.02355).
"""

from __future__ import annotations

import torch
from torch import Tensor

from padcheck.editing.architecture import Site
from padcheck.editing.digest import tensor_digest
from padcheck.editing.errors import CovarianceError, StateError
from padcheck.editing.keys import Walk
from padcheck.editing.session import Session
from padcheck.editing.solver import solve_general
from padcheck.editing.spreading import rewrite_layers, site_keys
from padcheck.editing.state import Projection


def rewrite(session: Session) -> None:
    """Edit all facts together, and add their keys to the state's.

    Raises StateError where the state's projections are of another threshold or second moment than this edit is given.
    """
    for (site,) in session.architecture.sites:
        _check_projection(session, site)
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
        threshold, moment = session.hparams.nullspace_threshold, session.moment(site)
        values, vectors = torch.linalg.eigh(moment)
        small = vectors[:, values < threshold]
        if not small.shape[1]:
            raise CovarianceError(
                f"no eigenvalue of the second moment of {site.name} is below nullspace_threshold "
                f"{threshold:g} (the smallest is {float(values[0]):.2e}): nothing may be changed"
            )
        if small.shape[1] == len(values):
            session.notes.append(f"{site.name}: every eigenvalue is below nullspace_threshold, so nothing is protected")
        known = session.state.projections[site.name] = Projection((small @ small.T).cpu(), threshold, tensor_digest(moment))
    return known.matrix.to(site.weight.device)


def _check_projection(session: Session, site: Site) -> None:
    known, threshold = session.state.projections.get(site.name), session.hparams.nullspace_threshold
    if known is None:
        return
    if known.threshold != threshold:
        raise StateError(
            f"the state's projection of {site.name} is for nullspace_threshold {known.threshold:g}, not {threshold:g}: edits in "
            "a row share one"
        )
    if session.covariance and known.moment != tensor_digest(session.moment(site)):
        raise StateError(
            f"the state's projection of {site.name} is of another second moment than the one given: edits in a row share one"
        )
