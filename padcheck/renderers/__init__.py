"""One module per output format, each with `render(report, ...) -> str`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from padcheck.reports import Report

Renderer = Callable[..., str]
"""`renderer(report, **options)`; an option that means nothing to the format (`color` to JSON) is ignored."""


def _lazy(module: str, *options: str) -> Renderer:
    """The `render` of a module that is imported when it is first called: most runs need one format."""

    def render(report: Report, **given: Any) -> str:
        implementation: Renderer = import_module(f"padcheck.renderers.{module}").render
        return implementation(report, **{name: value for name, value in given.items() if name in options})

    return render


RENDERERS: dict[str, Renderer] = {
    "text": _lazy("text", "color", "width", "excerpt"),
    "concise": _lazy("concise", "color"),
    "json": _lazy("json_"),
    "sarif": _lazy("sarif"),
    "github": _lazy("github"),
    "gitlab": _lazy("gitlab"),
    "junit": _lazy("junit"),
}
"""The values of `--output-format`. The page for `--html` is `padcheck.renderers.html.render`."""
