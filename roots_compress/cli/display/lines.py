"""Events as plain lines: for logs, pipes, and terminals whose cursor cannot be moved."""

from __future__ import annotations

import time

from rich.console import Console
from rich.text import Text

from roots_compress.cli.display.console import print_line
from roots_compress.errors import printable
from roots_compress.events import (
    CandidateChosen,
    CandidateStarted,
    Event,
    Message,
    StageFinished,
    StageStarted,
    WorkAdvanced,
    WorkStarted,
)
from roots_compress.progress import clock

LINE_SECONDS = 15.0


def line_of(event: Event) -> str | None:
    """Return the line for an event; None if it has none."""
    match event:
        case Message(text):
            return text
        case StageFinished(origin="reused"):
            return f"{title(event)}: finished earlier, reused"
        case StageFinished(origin="restored"):
            return f"{title(event)}: finished earlier, taken back"
        case StageFinished(summary=summary, largest_difference=difference):
            agrees = (
                "" if difference is None else f", graph agrees with the checkpoint within {difference:.1e}"
            )
            return f"{title(event)}: {summary}{agrees}"
    return None


def title(stage: StageStarted | StageFinished) -> str:
    """Return number and kind of a stage."""
    return f"{stage.index:02d} {stage.kind}"


def heading_of(event: Event) -> str | None:
    """Return the heading under which the lines after an event are; None where it opens no part."""
    match event:
        case StageStarted():
            return title(event)
        case CandidateStarted(number, total, candidate, beginning):
            first = "" if beginning is None else f"; made first: {beginning}"
            return f"candidate {number} of {total}: {candidate}{first}"
        case CandidateChosen(candidate, measured):
            return f"best of {measured} that were measured: {candidate}"
    return None


class Lines:
    """A sink that prints lines.

    Long work prints a line after 15 seconds of silence, later after a twentieth of its time so far. Work with
    more than its progress, such as a training with its loss, also prints a line at the first step, the last,
    and every tenth of its steps.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._paces: dict[str, _Pace] = {}

    def __call__(self, event: Event) -> None:
        """Print an event's line, if any."""
        if (heading := heading_of(event)) is not None:
            self._console.rule(Text(printable(heading)), align="left")
        elif (line := line_of(event)) is not None:
            print_line(self._console, line)
        elif isinstance(event, WorkStarted):
            self._paces[event.work] = _Pace()
        elif isinstance(event, WorkAdvanced) and self._paces.setdefault(event.work, _Pace()).is_due(event):
            print_line(self._console, advance(event))


def advance(event: WorkAdvanced) -> str:
    """Return the progress of some work as a line."""
    phase = f"{event.phase} " if event.phase else ""
    parts = (
        f"{event.work}: {phase}{event.done}/{event.total}",
        event.note,
        f"{clock(event.seconds_left)} left",
    )
    return ", ".join(part for part in parts if part)


class _Pace:
    """When the next line on some work is due."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self._tenth: int | None = None

    def is_due(self, event: WorkAdvanced) -> bool:
        now = time.monotonic()
        tenth = event.done * 10 // max(event.total, 1)
        silent = now - self._last >= max(LINE_SECONDS, (now - self._started) / 20)
        if not silent and (not event.note or (self._tenth is not None and tenth <= self._tenth)):
            return False
        self._last, self._tenth = now, tenth
        return True
