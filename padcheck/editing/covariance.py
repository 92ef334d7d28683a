"""Second moments E[k kᵀ] given by the caller, checked before they are used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from padcheck.editing.architecture import Site
from padcheck.editing.errors import CovarianceError


def second_moment(covariance: Mapping[str, Any] | None, site: Site, why: str) -> Tensor:
    """The second moment of `site`'s keys, [d_in, d_in] in float64 on the weight's device.

    covariance  module name of the weight (or its parameter's name) → tensor or array
    why         what needs it, for the message

    Raises CovarianceError naming what is wrong.
    """
    if covariance is not None and not isinstance(covariance, Mapping):
        raise CovarianceError(f"covariance maps module names to second moments; it is {type(covariance).__name__}")
    given = covariance or {}
    found = given.get(site.name, given.get(site.parameter))
    if found is None:
        there = f"; given are {', '.join(sorted(given))}" if given else ", and no covariance is given"
        raise CovarianceError(f"{why} needs the second moment of {site.name}{there}")
    try:
        moment = torch.as_tensor(found).detach().to(site.weight.device)
    except (TypeError, ValueError, RuntimeError):
        moment = None
    if moment is None or moment.is_complex() or moment.dtype == torch.bool:
        raise CovarianceError(f"the second moment of {site.name} is no matrix of real numbers")
    width = site.d_in
    if moment.shape != (width, width):
        raise CovarianceError(
            f"the second moment of {site.name} is {list(moment.shape)}, but its keys have {width} entries: "
            "is it of another model?"
        )
    scale = float(moment.abs().max())  # NaN if anything is
    if not math.isfinite(scale):
        raise CovarianceError(f"the second moment of {site.name} is not finite")
    if float((moment - moment.T).abs().max()) > 1e-3 * scale:
        raise CovarianceError(f"the second moment of {site.name} is not symmetric, so it is none")
    if float(moment.diagonal().min()) < 0 or scale == 0:
        raise CovarianceError(f"the second moment of {site.name} has a negative or all-zero diagonal, so it is none")
    return moment.double()
