"""Linear systems in float64. Shapes: d entries of a key, n keys, o entries of a value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from padcheck.editing.errors import SolveError


@dataclass(frozen=True, slots=True)
class Factored:
    """A symmetric, positive definite matrix [d, d] and its Cholesky factor, for systems with several right sides."""

    matrix: Tensor
    factor: Tensor
    what: str

    def solve(self, right: Tensor) -> Tensor:
        """X with matrix·X = right, right [d, n]. Raises SolveError where no solution can be trusted."""
        return _trusted(self.matrix, torch.cholesky_solve(right, self.factor), right, self.what)


def factored(matrix: Tensor, what: str, why: str = "were there fewer tokens than entries?") -> Factored:
    """`matrix` [d, d] with its factor. Raises SolveError where it is singular, naming it `what` and asking `why`."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise SolveError(f"{what} is singular or not positive definite (at pivot {int(failed)} of {matrix.shape[0]}): {why}")
    return Factored(matrix, factor, what)


def solve_positive(matrix: Tensor, right: Tensor, what: str, why: str = "were there fewer tokens than entries?") -> Tensor:
    """X with matrix·X = right, matrix [d, d] symmetric and positive definite, right [d, n]; see `factored`."""
    return factored(matrix, what, why).solve(right)


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
