"""Linear systems in float64. Shapes: d entries of a key, n keys, o entries of a value."""

from __future__ import annotations

import torch
from torch import Tensor

from padcheck.editing.errors import SolveError


def solve_positive(matrix: Tensor, right: Tensor, what: str) -> Tensor:
    """X with matrix·X = right, matrix [d, d] symmetric and positive definite, right [d, n].

    Raises SolveError where `matrix` is singular, naming it `what`.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise SolveError(
            f"{what} is singular or not positive definite (at pivot {int(failed)} of {matrix.shape[0]}): "
            "were there fewer tokens than entries?"
        )
    solution = torch.cholesky_solve(right, factor)
    return _trusted(matrix, solution, right, what)


def solve_general(matrix: Tensor, right: Tensor, what: str) -> Tensor:
    """X with matrix·X = right for any regular matrix [d, d]. Raises SolveError likewise."""
    solution, failed = torch.linalg.solve_ex(matrix, right)
    if int(failed):
        raise SolveError(f"{what} is singular (at pivot {int(failed)} of {matrix.shape[0]})")
    return _trusted(matrix, solution, right, what)


def _trusted(matrix: Tensor, solution: Tensor, right: Tensor, what: str) -> Tensor:
    if not torch.isfinite(solution).all():
        raise SolveError(f"{what} has no finite solution")
    miss = float((matrix @ solution - right).norm() / right.norm().clamp_min(1e-300))
    if miss > 1e-6:
        raise SolveError(f"{what} is so ill-conditioned that its solution misses by {miss:.1e} (relative)")
    return solution
