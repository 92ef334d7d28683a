"""How far a long job is, on stderr and where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click


def counter(count: int, noun: str = "requests") -> Callable[[int], None] | None:
    """Something to call with the number done, which shows it on one line and takes that away at the end; None where nobody
    looks."""
    if not sys.stderr.isatty():
        return None

    def tick(done: int) -> None:
        click.echo(f"\r\x1b[K{done} of {count} {noun}" if done < count else "\r\x1b[K", nl=False, err=True)

    tick(0)
    return tick
