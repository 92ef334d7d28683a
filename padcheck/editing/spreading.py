"""The loop of the MEMIT family: one z per fact at the last layer, approached layer by layer.

At each layer the keys and what is still missing of z are measured anew, on the weights written so far.
Shapes: K [d_in, facts], R [d_out, facts], Δ [d_out, d_in], all float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from padcheck.editing.architecture import Site, additive
from padcheck.editing.keys import Walk, averaged
from padcheck.editing.objective import Place, search
from padcheck.editing.session import Session

Solve = Callable[[Session, Site, Tensor, Tensor], Tensor]
"""Δ of a site's keys K and residual R."""


def rewrite_layers(session: Session, solve: Solve) -> None:
    """Find every z, then write layer after layer, an equal share of what is missing each time."""
    sites = [site for (site,) in session.architecture.sites]
    additive(sites, session.hparams.method)
    last = sites[-1].layer
    found = search(session.decoder, session.facts, Place(last), session.goal(), readout=session.readout())
    session.keep_traces(found)
    target = torch.stack([(one.initial[0] + one.delta[0]).double() for one in found])
    walk = Walk(session.decoder, session.facts)
    for left, site in zip(range(len(sites), 0, -1), sites, strict=True):
        assert site.factor is not None
        keys = site_keys(session, walk, site)
        missing = target - walk.values(last).double().to(target.device)
        residual = missing.T.to(keys.device) / (left * site.factor)
        session.ledger.add(site, solve(session, site, keys, residual))


def site_keys(session: Session, walk: Walk, site: Site) -> Tensor:
    """K of a site, averaged over the groups of templates: [d_in, facts], on the weight's device."""
    keys = averaged(walk.keys(site.layer, site.module).double(), session.groups)
    return keys.T.to(site.weight.device)
