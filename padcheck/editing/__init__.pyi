from padcheck.editing.edits import edit as edit
from padcheck.editing.errors import EditError as EditError
from padcheck.editing.hparams import EditHparams as EditHparams
from padcheck.editing.hparams import load_hparams as load_hparams
from padcheck.editing.result import EditResult as EditResult
from padcheck.editing.state import EditState as EditState

__all__ = ["EditError", "EditHparams", "EditResult", "EditState", "edit", "load_hparams"]
