from padcheck.locating import locate as locate
from padcheck.preflighting import preflight as preflight

__version__: str
__all__ = ["__version__", "locate", "preflight"]
