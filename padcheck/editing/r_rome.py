"""R-ROME: ROME with the same key above and below the line.

enable_random_prefix_keys (default): the mean key over the templates in u and in the denominator; the residual is
    the bare row's value + δ − the mean of the current outputs over the templates (not δ alone).
enable_prompt_keys: the bare prompt's key and output alone.
original_implementation: ROME; under compat="easyedit" the averaged denominator too, unless enable_random_prefix_keys is off.
Source: Gupta et al. 2024 (arXiv 2403.07175).
"""

from __future__ import annotations

from padcheck.editing.errors import HparamsError
from padcheck.editing.rome import direction, rank_one, read
from padcheck.editing.session import Session


def rewrite(session: Session) -> None:
    """Edit fact after fact, each on the model that the ones before have left."""
    hparams = session.hparams
    original = hparams.original_implementation
    averaged = hparams.enable_random_prefix_keys and (not original or session.compat == "easyedit")
    if hparams.fact_token == "last" and hparams.enable_prompt_keys and not original and session.compat == "easyedit":
        raise HparamsError("EasyEdit's R-ROME refuses fact_token 'last' with enable_prompt_keys")
    for number, fact in enumerate(session.facts):
        for (site,) in session.architecture.sites:
            keys, outputs, initial, delta = read(session, number, fact, site)
            if averaged:
                mean = keys.mean(0)
                update = rank_one(initial + delta - outputs.mean(0), mean, direction(session, site, mean))
            else:
                update = rank_one(delta, keys[0], direction(session, site, keys.mean(0) if original else keys[0]))
            session.ledger.add(site, update)
