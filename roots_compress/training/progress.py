"""Progress of a training run: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 15.0


class TrainingProgress:
    """Shows step, loss, tokens per second and the time left.

    Without a terminal a line is printed at the first step and the last, at every tenth of the way, and
    after 15 seconds of silence; the longer a run lasts, the longer the silences may be (a twentieth of its
    time so far).
    """

    def __init__(self, console: Console, label: str, *, steps: int, first_step: int) -> None:
        self._console, self._label, self._steps, self._first = console, label, steps, first_step
        self._started = self._last_line = time.monotonic()
        self._last_tenth = first_step * 10 // steps
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} tokens/s"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(
                label, total=steps, completed=first_step, loss=float("nan"), speed=0.0
            )

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, step: int, *, loss: float, tokens: int) -> None:
        """Show that `step` steps are done; `tokens` were read since this object was made."""
        now = time.monotonic()
        speed = tokens / max(now - self._started, 1e-9)
        if self._bar:
            self._bar.update(self._task, completed=step, loss=loss, speed=speed)
        elif self._line_is_due(step, now):
            self._last_line, self._last_tenth = now, step * 10 // self._steps
            left = (now - self._started) / (step - self._first) * (self._steps - step)
            self._console.print(
                f"{self._label}: step {step}/{self._steps}, loss {loss:.3f}, {speed:,.0f} tokens/s, "
                f"{_clock(left)} left",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _line_is_due(self, step: int, now: float) -> bool:
        if step == self._first + 1 or step * 10 // self._steps > self._last_tenth:
            return True
        return now - self._last_line >= max(LINE_SECONDS, (now - self._started) / 20)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
