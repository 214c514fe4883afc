"""How far long work is: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

LINE_SECONDS = 15.0

Item = TypeVar("Item")
Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do."""


class Display:
    """Shows what is done of a whole, and the time left.

    Without a terminal a line is printed after 15 seconds of silence; the longer the work lasts, the longer
    the silences may be (a twentieth of its time so far). Shorter work is silent.

    Args:
        console: where it is shown.
        label: what is being done.
        done: what was done before.
        in_full: the bar stays when the work ends, and lines also tell of the first step, of the last and of
            every tenth of the way.
    """

    def __init__(self, console: Console, label: str, *, done: int = 0, in_full: bool = False) -> None:
        self._console, self._label, self._first, self._in_full = console, label, done, in_full
        self._started = self._last_line = time.monotonic()
        self._done = done
        self._last_tenth: int | None = None
        self._bars: Bars | None = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TimeRemainingColumn(),
            )
            self._bars = Bars(*columns, console=console, transient=not in_full)
            self._task = self._bars.add_task(label, total=None, completed=done, note="")

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show that so much is done; the note is told beside it."""
        now, self._done = time.monotonic(), done
        if self._bars:
            self._bars.update(self._task, completed=done, total=total, note=note)
        elif self._line_is_due(done, total, now):
            self._last_line, self._last_tenth = now, done * 10 // total
            left = (now - self._started) / max(done - self._first, 1) * (total - done)
            parts = (f"{self._label}: {done}/{total}", *([note] if note else []), f"{_clock(left)} left")
            self._console.print(", ".join(parts), markup=False, highlight=False, soft_wrap=True)

    def advance(self, total: int) -> None:
        """Show that one more is done."""
        self.update(self._done + 1, total)

    def _line_is_due(self, done: int, total: int, now: float) -> bool:
        if self._in_full and (self._last_tenth is None or done * 10 // total > self._last_tenth):
            return True
        return now - self._last_line >= max(LINE_SECONDS, (now - self._started) / 20)


@contextmanager
def bar(console: Console, label: str) -> Iterator[Progress]:
    """Show work that tells itself how far it is: by calling the value yielded."""
    with Display(console, label) as display:
        yield display.update


def track(items: Collection[Item], console: Console, label: str) -> Iterator[Item]:
    """Yield the items, and show how many of them have been dealt with."""
    return track_made(items, console, label, total=len(items))


def track_made(items: Iterable[Item], console: Console, label: str, *, total: int) -> Iterator[Item]:
    """Yield items that are made one by one, so many in all, and show how many have been dealt with."""
    with Display(console, label) as display:
        for item in items:
            yield item
            display.advance(total)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
