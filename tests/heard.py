"""Events as those who look at a log get to know of them."""

from __future__ import annotations

import io

from rich.console import Console

from roots_compress.cli.display.lines import Lines
from roots_compress.events import Event, Events


class Heard(Events):
    """Events that are kept, and the lines that tell of them."""

    def __init__(self) -> None:
        self._file = io.StringIO()
        self.events: list[Event] = []
        super().__init__(Lines(Console(file=self._file, width=400)), self.events.append)

    @property
    def text(self) -> str:
        """What was printed."""
        return self._file.getvalue()
