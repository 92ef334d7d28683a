"""What one edit hands on to the next, and how it is known whether the model is still the one that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from padcheck.editing.errors import StateError


@dataclass(frozen=True, slots=True)
class Projection:
    """P on the null space of a second moment, and what it was made of.

    Attributes:
        matrix: [d_in, d_in] float64, on the CPU.
        threshold: eigenvalues below it span the null space.
        moment: digest of the second moment.
    """

    matrix: Tensor
    threshold: float
    moment: str


@dataclass(slots=True)
class EditState:
    """What a later edit of the same model needs.

    Attributes:
        method, modules: what was run, and which weights it rewrites.
        fingerprint: `model_digest` of the model *with the edits applied*.
        edits: requests edited so far.
        key_cache: AlphaEdit's Σ K Kᵀ per module, [d_in, d_in] float64.
        projections: AlphaEdit's null-space projections per module.
    """

    method: str
    modules: tuple[str, ...]
    fingerprint: str = ""
    edits: int = 0
    key_cache: dict[str, Tensor] = field(default_factory=dict)
    projections: dict[str, Projection] = field(default_factory=dict)

    def successor(self) -> EditState:
        """A state of its own to work on: what was handed in stays as it is."""
        return EditState(
            self.method, self.modules, self.fingerprint, self.edits, dict(self.key_cache), dict(self.projections)
        )

    def check(self, method: str, modules: tuple[str, ...], fingerprint: str) -> None:
        """Raises StateError unless the state fits the method, the modules and the model's content."""
        if self.method != method:
            raise StateError(f"the state is of {self.method}, not of {method}")
        if self.modules != modules:
            raise StateError(f"the state is of {', '.join(self.modules)}, but {', '.join(modules)} are to be rewritten")
        if self.fingerprint != fingerprint:
            raise StateError(
                "the model is not the one that this state describes: its edits were not applied, were undone, "
                "or the weights changed since"
            )
