"""Call sites: the functions of a framework that pad rows, count columns or read them. Data of `rules/editors`, `[guard]`.

`padcheck.guard` knows a function by the end of its file's path, its name and its variables: a fork that kept them is known
too, and a function that merely bears the name is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from padcheck.positions.arithmetic import Expression
from padcheck.sources.token_readers import Side

SiteKind = Literal["pads", "counts", "reads", "generates", "edits"]


@dataclass(frozen=True, slots=True)
class Site:
    """One function. The values of most fields name variables of it; `a.b` is an attribute or a key of the variable `a`.

    kind       what the function does:
               pads       builds the padded batch of one request: rows with the target's head, then the KL rows
               counts     returns the columns of subjects in rows
               reads      is given rows and columns, and reads there
               generates  continues padded prompts, and counts their columns
               edits      starts an edit: nothing has been computed for it yet
    file       the end of the file's path
    function   its name, `Class.method` for a method
    source     where it stands, in the repository at the commit of the file
    tokenizer  the tokenizer
    side       the side that its columns need (not for "counts", which follow the batch, and "edits")
    unless     a variable that, where true, hands the batch to code which needs no side (generates)
    """

    kind: SiteKind
    file: str
    function: str
    source: str
    tokenizer: str = "tok"
    side: Side | None = None
    unless: str | None = None

    # pads
    request: str | None = None
    """The request: a mapping with prompt, subject and target."""
    target: str | None = None
    """The ids that are trained; `head` where the ids whose text enters the row are others; or the count of them."""
    head: str | None = None
    head_is_text: bool = False
    """Whether the target's text enters the row as it is, instead of its ids but the last, decoded."""
    kl: str | None = None
    """The texts of the KL rows, which stand last in the batch."""
    labels: Expression | None = None
    """The first column that is scored."""

    # counts, reads
    rows: str | None = None
    """The rows' texts, or templates with one `{}`: a string or a list."""
    subjects: str | None = None
    token: str | None = None
    """Which token is meant; `token_prefix` before it gives the name of a fact token."""
    token_prefix: str = ""
    prompt: str | None = None
    """The row without target text, where the function is told."""
    index: Mapping[str, str] | None = None
    """The function's arithmetic by fact token, as text."""
    columns: str | None = None

    # edits
    method: str | None = None
    """The method's name; None where the hparams say it."""
    requests: str | None = None
    """The requests (one or a list), or `prompts` and `targets` (and `subjects`), from which the function makes them."""
    prompts: str | None = None
    targets: str | None = None
    hparams: str | None = None
    run: Literal["edit", "batch"] = "edit"
    templates: str | None = None
    """The module's variable that holds the context templates once they are sampled."""
    evaluates: bool = False
    """Whether the function also evaluates: then it decides no side."""

    @property
    def variables(self) -> frozenset[str]:
        """The variables that the function must have."""
        named = (
            self.tokenizer, self.unless, self.request, self.target, self.head, self.kl, self.rows, self.subjects, self.token,
            self.prompt, self.columns, self.requests, self.prompts, self.targets, self.hparams,
        )  # fmt: skip
        return frozenset(name.partition(".")[0] for name in named if name is not None)


KEYS: Mapping[SiteKind, tuple[frozenset[str], frozenset[str]]] = {
    "pads": (frozenset({"request"}), frozenset({"side", "target", "kl", "head", "head_is_text", "labels"})),
    "counts": (frozenset({"rows", "index"}), frozenset({"subjects", "token", "token_prefix", "prompt"})),
    "reads": (frozenset({"rows", "columns"}), frozenset({"side"})),
    "generates": (frozenset(), frozenset({"side", "unless"})),
    "edits": (
        frozenset({"hparams"}),
        frozenset({"method", "requests", "prompts", "targets", "subjects", "run", "templates", "evaluates"}),
    ),
}
"""What an entry of each kind must say and may say, besides file, function, source and tokenizer."""
