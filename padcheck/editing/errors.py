"""Why an edit was refused or stopped. Every class names one cause; the model is untouched whenever one is raised."""

from __future__ import annotations


class EditError(Exception):
    """An edit that was not made."""


class HparamsError(EditError, ValueError):
    """The hparams do not say what the method needs, or say it with an impossible value."""


class RequestError(EditError, ValueError):
    """A request that cannot be placed: no subject in the prompt, an empty target, no trustworthy positions."""


class TemplateError(EditError, ValueError):
    """Context templates without exactly one `{}`, or without the bare `{}` first."""


class ArchitectureError(EditError, ValueError):
    """A model on which the method's algebra, or our batching, would not hold; or a module that the hparams name wrongly."""


class CovarianceError(EditError, ValueError):
    """A second moment that is missing, misshapen, not finite, not symmetric, or of another module."""


class ObjectiveError(EditError, ArithmeticError):
    """The search for the new value met NaN, or cannot move."""


class SolveError(EditError, ArithmeticError):
    """A linear system without a trustworthy solution."""


class StateError(EditError, ValueError):
    """A state that belongs to another model, method or set of layers."""
