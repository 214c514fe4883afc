"""The verbs of the command line, as the app has them."""

from __future__ import annotations

from functools import cache

import typer.main
import typer.testing
from typer.core import TyperGroup
from typer.main import get_command

from roots_compress.cli.app import app


def verbs() -> tuple[str, ...]:
    """Return the name of every verb."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return tuple(sorted(group.commands))


def build_once() -> None:
    """Build the verbs and their options once, for all commands of this process and of those that it forks."""
    built = cache(typer.main.get_command)
    typer.main.get_command = built
    typer.testing._get_command = built  # type: ignore[attr-defined]
    group = built(app)
    assert isinstance(group, TyperGroup)
    for verb in group.commands.values():
        _ = verb.params  # made when they are first asked for
