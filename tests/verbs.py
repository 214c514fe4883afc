"""The verbs of the command line, as the app has them."""

from __future__ import annotations

from typer.core import TyperGroup
from typer.main import get_command

from roots_compress.cli.app import app


def verbs() -> tuple[str, ...]:
    """Return the name of every verb."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return tuple(sorted(group.commands))
