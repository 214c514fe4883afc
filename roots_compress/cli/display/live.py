"""The live display of a terminal: the chain of a run, its running stage, and remarks above them."""

from __future__ import annotations

from rich.console import Console
from rich.live import Live as RichLive

from roots_compress.cli.display.console import print_line
from roots_compress.cli.display.lines import line_of
from roots_compress.cli.display.view import View
from roots_compress.events import Event, StageFinished


class Terminal(Console):
    """A terminal whose cursor is always visible, so that a killed program leaves it usable."""

    def show_cursor(self, show: bool = True) -> bool:
        """Do nothing."""
        return False


class Live:
    """A sink that shows the current work, and leaves the chain of a run on the terminal at the end.

    Args:
        console: a terminal whose cursor can be moved.
    """

    def __init__(self, console: Console) -> None:
        self._console, self._view = console, View()
        self._live: RichLive | None = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        # The result of a finished stage is in its line of the chain.
        if not isinstance(event, StageFinished) and (line := line_of(event)) is not None:
            print_line(self._console, line)
        was_run = self._view.run_is_open
        self._view.take(event)
        if self._view.is_busy and self._live is None:
            self._live = RichLive(self._view, console=self._console, vertical_overflow="crop")
            self._live.start(refresh=True)
        elif not self._view.is_busy:
            self._stop(leave=was_run)

    def close(self, failed: bool) -> None:
        """End the display in any case."""
        was_run = self._view.run_is_open
        self._view.stop(failed=failed)
        self._stop(leave=was_run)

    def _stop(self, *, leave: bool) -> None:
        if self._live is not None:
            self._live.transient = not leave
            self._live.stop()
            self._live = None
