"""PMET: MEMIT with δ on the outputs of attention and MLP together, and only the named weights written.

The values are those of the modules themselves at the last layer; what is missing is divided by the square root of the layers
left. The search eases off once every label is the likeliest token. Source: Li et al. 2023 (arXiv 2308.08742).
"""

from __future__ import annotations

import torch

from padcheck.editing.architecture import Site
from padcheck.editing.errors import HparamsError
from padcheck.editing.hparams import EditHparams
from padcheck.editing.keys import Walk
from padcheck.editing.memit import update
from padcheck.editing.objective import Place, search
from padcheck.editing.session import Session
from padcheck.editing.spreading import site_keys


def value_of(hparams: EditHparams, site: Site) -> int:
    """Whose value a site's weight is written for: 0 the MLP's, 1 the attention's, by the module that it is, or is a part of.

    Raises HparamsError where it is in neither.
    """
    homes = [(template or "").format(site.layer) for template in (hparams.mlp_module_tmp, hparams.attn_module_tmp)]
    inside = [place for place, home in enumerate(homes) if home and f"{site.name}.".startswith(f"{home}.")]
    if not inside:
        raise HparamsError(
            f"'rewrite_module_tmps' names {site.name}, which is no part of {' or '.join(homes)} ('mlp_module_tmp', "
            "'attn_module_tmp'): PMET has no value for it"
        )
    return max(inside, key=lambda place: len(homes[place]))


def rewrite(session: Session) -> None:
    """Edit all facts together."""
    hparams, last = session.hparams, session.hparams.layers[-1]
    if hparams.mlp_module_tmp is None or hparams.attn_module_tmp is None:
        raise HparamsError("PMET needs 'mlp_module_tmp' and 'attn_module_tmp'")
    mlp = session.architecture.module(hparams.mlp_module_tmp.format(last), "mlp_module_tmp")
    attention = session.architecture.module(hparams.attn_module_tmp.format(last), "attn_module_tmp")
    found = search(
        session.decoder,
        session.facts,
        Place(last, (mlp, attention), on_stream=False),
        session.goal(nll_factor=hparams.nll_loss_factor, eases=True),
        readout=session.readout(),
    )
    session.keep_traces(found)
    targets = [torch.stack([(one.initial[place] + one.delta[place]).double() for one in found]) for place in range(2)]
    walk = Walk(session.decoder, session.facts)
    for left, sites in zip(range(len(session.architecture.sites), 0, -1), session.architecture.sites, strict=True):
        for site, at_last in zip(sites, session.architecture.sites[-1], strict=True):
            keys = site_keys(session, walk, site)
            target = targets[value_of(hparams, site)]
            missing = target - walk.values(last, at_last.module).double().to(target.device)
            session.ledger.add(site, update(session, site, keys, missing.T.to(keys.device) / left**0.5))
