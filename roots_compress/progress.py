"""How far long work is: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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


class Phases:
    """Shows work in several phases as one bar, and one estimate of the time left for the whole.

    What is left of the current phase is judged by its own pace, the phases to come by their costs and by the
    pace of the whole so far. Lines without a terminal come as those of a `Display`.

    Args:
        console: where it is shown.
        label: the whole.
        costs: what each phase is expected to cost, by its label, in the order of the phases and in any unit.
    """

    def __init__(self, console: Console, label: str, costs: Mapping[str, float]) -> None:
        self.console = console
        self._label, self._costs = label, dict(costs)
        self._silence = _Silence()
        self._phase: tuple[str, float] | None = None
        self._bars: Bars | None = None
        if console.is_terminal:
            columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=24)
            left = TextColumn("{task.fields[left]} left", markup=False)
            self._bars = Bars(*columns, left, console=console, transient=True)
            self._task = self._bars.add_task(label, total=None, left="-:--")

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def begin(self, phase: str) -> None:
        """Note that a phase begins, one of those whose costs were given."""
        assert phase in self._costs, f"{self._label} has no phase {phase}"
        self._phase = phase, time.monotonic()

    def update(self, done: int, total: int) -> None:
        """Show that so much of the current phase is done."""
        assert self._phase is not None
        now, (phase, began) = time.monotonic(), self._phase
        names = list(self._costs)
        before = sum(self._costs[name] for name in names[: names.index(phase)])
        after = sum(self._costs[name] for name in names[names.index(phase) + 1 :])
        spent = before + self._costs[phase] * done / total
        left = (now - began) / max(done, 1) * (total - done)
        if spent > 0:
            left += (now - self._silence.started) / spent * after
        text = f"{self._label}: {phase} {done}/{total}"
        if self._bars:
            whole = sum(self._costs.values())
            self._bars.update(self._task, description=text, completed=spent, total=whole, left=_clock(left))
        elif self._silence.lasted(now):
            self._silence.broken(now)
            line = f"{text}, {_clock(left)} left"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


Place = Console | Phases
"""Where progress is shown: on a bar of one's own, or as a phase of a whole."""


class _Silence:
    """When a line was printed last, and whether the next one is due."""

    def __init__(self) -> None:
        self.started = self._last = time.monotonic()

    def lasted(self, now: float) -> bool:
        """Whether nothing was said for long enough: the longer the work so far, the longer that is."""
        return now - self._last >= max(LINE_SECONDS, (now - self.started) / 20)

    def broken(self, now: float) -> None:
        """Note that a line is printed."""
        self._last = now


class Display:
    """Shows what is done of a whole, and the time left.

    Without a terminal a line is printed after 15 seconds of silence; the longer the work lasts, the longer
    the silences may be (a twentieth of its time so far). Shorter work is silent.

    Args:
        console: where it is shown; in a whole of several phases, the phase's label is `label`.
        label: what is being done.
        done: what was done before.
        in_full: the bar stays when the work ends, and lines also tell of the first step, of the last and of
            every tenth of the way.
    """

    def __init__(self, console: Place, label: str, *, done: int = 0, in_full: bool = False) -> None:
        self._label, self._first, self._in_full = label, done, in_full
        self._silence = _Silence()
        self._done = done
        self._last_tenth: int | None = None
        self._bars: Bars | None = None
        self._whole = console if isinstance(console, Phases) else None
        self._console = console.console if isinstance(console, Phases) else console
        if self._whole:
            self._whole.begin(label)
        elif self._console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TimeRemainingColumn(),
            )
            self._bars = Bars(*columns, console=self._console, transient=not in_full)
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
        if self._whole:
            self._whole.update(done, total)
        elif self._bars:
            self._bars.update(self._task, completed=done, total=total, note=note)
        elif self._line_is_due(done, total, now):
            self._silence.broken(now)
            self._last_tenth = done * 10 // total
            left = (now - self._silence.started) / max(done - self._first, 1) * (total - done)
            parts = (f"{self._label}: {done}/{total}", *([note] if note else []), f"{_clock(left)} left")
            self._console.print(", ".join(parts), markup=False, highlight=False, soft_wrap=True)

    def advance(self, total: int) -> None:
        """Show that one more is done."""
        self.update(self._done + 1, total)

    def _line_is_due(self, done: int, total: int, now: float) -> bool:
        if self._in_full and (self._last_tenth is None or done * 10 // total > self._last_tenth):
            return True
        return self._silence.lasted(now)


@contextmanager
def bar(console: Place, label: str) -> Iterator[Progress]:
    """Show work that tells itself how far it is: by calling the value yielded."""
    with Display(console, label) as display:
        yield display.update


def track(items: Collection[Item], console: Place, label: str) -> Iterator[Item]:
    """Yield the items, and show how many of them have been dealt with."""
    return track_made(items, console, label, total=len(items))


def track_made(items: Iterable[Item], console: Place, label: str, *, total: int) -> Iterator[Item]:
    """Yield items that are made one by one, so many in all, and show how many have been dealt with."""
    with Display(console, label) as display:
        for item in items:
            yield item
            display.advance(total)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
