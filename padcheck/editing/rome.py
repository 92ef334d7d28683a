"""ROME: one fact, one layer, one rank.

u = C⁻¹ k̄ normalised, with k̄ the mean key over the templates (C = I without mom2_adjustment); the bare prompt's key k* is to
give the value found: Δ = (v* − W k*) uᵀ / (k*ᵀ u). As v* is W k* + δ, the residual is δ itself.
Source: Meng et al. 2022 (arXiv 2202.05262), section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from padcheck.editing.architecture import Site
from padcheck.editing.errors import SolveError
from padcheck.editing.keys import Walk
from padcheck.editing.objective import Place, search
from padcheck.editing.rows import Fact
from padcheck.editing.session import Session


def rewrite(session: Session) -> None:
    """Edit fact after fact, each on the model that the ones before have left."""
    for number, fact in enumerate(session.facts):
        for (site,) in session.architecture.sites:
            keys, _, _, delta = read(session, number, fact, site)
            session.ledger.add(site, rank_one(delta, keys[0], direction(session, site, keys.mean(0))))


def read(session: Session, number: int, fact: Fact, site: Site) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For one fact at one site, in float64: keys [templates, d_in] and outputs [templates, d_out] at the lookups, the bare
    row's output before, and the δ that was found for it, [d_out] each."""
    place = Place(site.layer, (site.module,), on_stream=site.factor == 1.0)
    (found,) = search(session.decoder, [fact], place, session.goal(), watch=site.module)
    session.traces[number].extend(found.trace)
    keys, outputs = found.keys, found.outputs
    assert keys is not None
    assert outputs is not None
    if session.compat is not None:  # there the answered rows are read again from text, and may differ before the lookup
        keys = Walk(session.decoder, [fact]).keys(site.layer, site.module)
        outputs = Walk(session.decoder, [fact]).keys(site.layer, site.module, outputs=True)
    return keys.double(), outputs.double(), found.initial[0].double(), found.delta[0].double()


def direction(session: Session, site: Site, key: Tensor) -> Tensor:
    """u of length 1, [d_in]: the direction in key space that the update answers to."""
    if session.hparams.mom2_adjustment:
        key = session.factored_moment(site).solve(key.to(site.weight.device)[:, None])[:, 0]
    return nn.functional.normalize(key, dim=0)


def rank_one(residual: Tensor, key: Tensor, u: Tensor) -> Tensor:
    """Δ [d_out, d_in] along `u` that moves the output for `key` by `residual`."""
    key, residual = key.to(u.device), residual.to(u.device)
    overlap = torch.dot(key, u)
    if not abs(float(overlap)) > 1e-9 * float(key.norm()):
        raise SolveError(
            f"the key does not overlap with the direction that is written ({float(overlap):.1e}): the update "
            "would be boundless"
        )
    return torch.outer(residual / overlap, u)
