"""Verbs whose options are made from settings, which is too slow for the list of all verbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

from roots_compress.cli.examples import epilog
from roots_compress.cli.help import Verb


@dataclass(frozen=True)
class Deferred:
    """A verb that is made when its options are needed; the list of verbs does not need them."""

    summary: str
    """Its summary in the list."""
    make: Callable[[], Callable[..., None]]
    example: Callable[[], str]
    """Returns a command with the verb, which its help shows."""

    def add_to(self, app: typer.Typer, name: str, panel: str) -> None:
        """Add the verb to an app, under a heading of its help."""
        make, example = self.make, self.example

        class Command(Verb):
            def __init__(self, **details: Any) -> None:
                super().__init__(**details)
                del self.params, self.callback, self.epilog

            def __getattr__(self, name: str) -> Any:
                if name not in ("params", "callback", "epilog"):
                    raise AttributeError(name)
                self.epilog = epilog([example()])
                alone = typer.Typer(add_completion=False)
                alone.command()(make())
                made = typer.main.get_command(alone)
                self.params, self.callback = made.params, made.callback
                return getattr(self, name)

        app.command(name, cls=Command, help=self.summary, rich_help_panel=panel)(lambda: None)
