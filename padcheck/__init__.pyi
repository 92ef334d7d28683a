from padcheck.guarding import DriftError as DriftError
from padcheck.guarding import DriftWarning as DriftWarning
from padcheck.guarding import checked_index as checked_index
from padcheck.guarding import guard as guard
from padcheck.locating import locate as locate
from padcheck.preflighting import preflight as preflight

__version__: str
__all__ = ["DriftError", "DriftWarning", "__version__", "checked_index", "guard", "locate", "preflight"]
