"""How far long work is: what emits it, and how much time is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

from roots_compress.events import Events, WorkAdvanced, WorkFinished, WorkStarted
from roots_compress.system.memory import resident_bytes

MEMORY_SECONDS = 1.0
"""How long a reading of the memory serves."""

Item = TypeVar("Item")
Progress: TypeAlias = Callable[[int, int], None]
"""Called with what is done and what there is to do."""


class _Work:
    """Long work: it begins and ends as a block does."""

    def __init__(self, events: Events, label: str) -> None:
        self._events, self._label = events, label
        self._started = time.monotonic()
        self._memory: tuple[float, int | None] | None = None

    def __enter__(self) -> Self:
        self._events.emit(WorkStarted(self._label))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.emit(WorkFinished(self._label))

    def _tell(
        self, done: int, total: int, fraction: float, left: float, note: str = "", phase: str | None = None
    ) -> None:
        now = time.monotonic()
        if self._memory is None or now - self._memory[0] >= MEMORY_SECONDS:
            self._memory = now, resident_bytes()
        fraction = min(max(fraction, 0.0), 1.0)
        self._events.emit(
            WorkAdvanced(self._label, phase, done, total, fraction, left, note, self._memory[1])
        )


class Phases(_Work, Events):
    """Work in several phases with one estimate of the time left for the whole.

    What is given these events in the place of others is a phase. What is left of the current phase is judged
    by its own pace, the phases to come by their costs and by the pace of the whole so far.

    Args:
        costs: what each phase is expected to cost, by its label, in the order of the phases and in any unit.
    """

    def __init__(self, events: Events, label: str, costs: Mapping[str, float]) -> None:
        Events.__init__(self, *events.sinks, stage=events.stage)
        _Work.__init__(self, events, label)
        self._costs = dict(costs)
        self._phase: tuple[str, float] | None = None

    def begin(self, phase: str) -> None:
        """Note that a phase begins, one of those whose costs were given."""
        assert phase in self._costs, f"{self._label} has no phase {phase}"
        self._phase = phase, time.monotonic()

    def update(self, done: int, total: int) -> None:
        """Tell that so much of the current phase is done."""
        assert self._phase is not None
        now, (phase, began) = time.monotonic(), self._phase
        names = list(self._costs)
        before = sum(self._costs[name] for name in names[: names.index(phase)])
        after = sum(self._costs[name] for name in names[names.index(phase) + 1 :])
        spent = before + self._costs[phase] * done / max(total, 1)
        left = (now - began) / max(done, 1) * (total - done)
        if spent > 0:
            left += (now - self._started) / spent * after
        self._tell(done, total, spent / max(sum(self._costs.values()), spent, 1e-9), left, phase=phase)


class Display(_Work):
    """Work that is counted: what is done of a whole, and the time left.

    Args:
        events: where it is told; of `Phases`, it is the phase `label`.
    """

    def __init__(self, events: Events, label: str, *, done: int = 0) -> None:
        super().__init__(events, label)
        self._first, self._done = done, done
        self._whole = events if isinstance(events, Phases) else None

    def __enter__(self) -> Self:
        if self._whole is None:
            return super().__enter__()
        self._whole.begin(self._label)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._whole is None:
            super().__exit__(kind, error, trace)

    def update(self, done: int, total: int, note: str = "") -> None:
        """Tell that so much is done; the note is told with it."""
        self._done = done
        if self._whole is not None:
            self._whole.update(done, total)
            return
        left = (time.monotonic() - self._started) / max(done - self._first, 1) * (total - done)
        self._tell(done, total, done / max(total, 1), left, note)

    def advance(self, total: int) -> None:
        """Tell that one more is done."""
        self.update(self._done + 1, total)


@contextmanager
def bar(events: Events, label: str) -> Iterator[Progress]:
    """Tell of work that says itself how far it is: by calling the value yielded."""
    with Display(events, label) as display:
        yield display.update


def track(items: Collection[Item], events: Events, label: str) -> Iterator[Item]:
    """Yield the items, and tell how many of them have been dealt with."""
    return track_made(items, events, label, total=len(items))


def track_made(items: Iterable[Item], events: Events, label: str, *, total: int) -> Iterator[Item]:
    """Yield items that are made one by one, so many in all, and tell how many have been dealt with."""
    with Display(events, label) as display:
        for item in items:
            yield item
            display.advance(total)


def clock(seconds: float) -> str:
    """Return a time as people read it: `0:45`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
