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


class _Shown:
    """Long work as it is shown: a bar on a terminal, elsewhere a line after a silence."""

    _bars: Bars | None = None

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started = self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def _is_silent(self, now: float) -> bool:
        """Whether nothing was said for long enough: the longer the work so far, the longer that is."""
        return now - self._last >= max(LINE_SECONDS, (now - self._started) / 20)

    def _say(self, line: str, now: float) -> None:
        self._last = now
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class Phases(_Shown):
    """Shows work in several phases as one bar, and one estimate of the time left for the whole.

    What is left of the current phase is judged by its own pace, the phases to come by their costs and by the
    pace of the whole so far. Lines without a terminal come as those of a `Display`.

    Args:
        console: where it is shown.
        label: the whole.
        costs: what each phase is expected to cost, by its label, in the order of the phases and in any unit.
    """

    def __init__(self, console: Console, label: str, costs: Mapping[str, float]) -> None:
        super().__init__(console)
        self._label, self._costs = label, dict(costs)
        self._phase: tuple[str, float] | None = None
        if console.is_terminal:
            columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=24)
            left = TextColumn("{task.fields[left]} left", markup=False)
            self._bars = Bars(*columns, left, console=console, transient=True)
            self._task = self._bars.add_task(label, total=None, left="-:--")

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
            left += (now - self._started) / spent * after
        text = f"{self._label}: {phase} {done}/{total}"
        if self._bars:
            whole = sum(self._costs.values())
            self._bars.update(self._task, description=text, completed=spent, total=whole, left=_clock(left))
        elif self._is_silent(now):
            self._say(f"{text}, {_clock(left)} left", now)


Place = Console | Phases
"""Where progress is shown: on a bar of one's own, or as a phase of a whole."""


class Display(_Shown):
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
        super().__init__(console.console if isinstance(console, Phases) else console)
        self._label, self._first, self._done, self._in_full = label, done, done, in_full
        self._last_tenth: int | None = None
        self._whole = console if isinstance(console, Phases) else None
        if self._whole:
            self._whole.begin(label)
        elif self.console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TimeRemainingColumn(),
            )
            self._bars = Bars(*columns, console=self.console, transient=not in_full)
            self._task = self._bars.add_task(label, total=None, completed=done, note="")

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show that so much is done; the note is told beside it."""
        now, self._done = time.monotonic(), done
        tenth = done * 10 // max(total, 1)
        if self._whole:
            self._whole.update(done, total)
        elif self._bars:
            self._bars.update(self._task, completed=done, total=total, note=note)
        elif self._is_silent(now) or (
            self._in_full and (self._last_tenth is None or tenth > self._last_tenth)
        ):
            self._last_tenth = tenth
            left = (now - self._started) / max(done - self._first, 1) * (total - done)
            parts = (f"{self._label}: {done}/{total}", *([note] if note else []), f"{_clock(left)} left")
            self._say(", ".join(parts), now)

    def advance(self, total: int) -> None:
        """Show that one more is done."""
        self.update(self._done + 1, total)


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
