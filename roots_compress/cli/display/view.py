"""The live display's state of a verb's work, and its lines.

A line is never folded: parts that do not fit the terminal's width are left out, least important first, then
the line is cut. So the display always has the height with which it is drawn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.text import Text

from roots_compress.cli.display.lines import heading_of
from roots_compress.errors import printable
from roots_compress.events import (
    CandidateChosen,
    CandidateStarted,
    ChainPlanned,
    Event,
    PlannedStage,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    WorkAdvanced,
    WorkFinished,
    WorkStarted,
)
from roots_compress.progress import clock
from roots_compress.system.memory import resident_bytes

State = Literal["waiting", "running", "finished", "failed"]
MARKS: dict[State, str] = {"waiting": "·", "running": "▸", "finished": "✓", "failed": "✗"}
PLAIN_MARKS: dict[State, str] = {"waiting": ".", "running": ">", "finished": "+", "failed": "x"}
STYLES: dict[State, str] = {"waiting": "dim", "running": "bold", "finished": "green", "failed": "red"}
BAR_WIDTH, BARLESS_WIDTH = 20, 60
"""A bar is drawn on terminals that are wide enough."""


@dataclass
class _Row:
    """A stage of the chain."""

    plan: PlannedStage
    state: State = "waiting"
    summary: str = ""
    seconds: float | None = None
    """Seconds of the stage, if it has finished."""
    started: float = 0.0


@dataclass
class _Work:
    label: str
    advance: WorkAdvanced | None = None
    at: float = field(default_factory=time.monotonic)
    """Time of its last progress, or of its beginning."""

    def seconds_left(self) -> float | None:
        """Return the estimate, which decreases until the next progress."""
        if self.advance is None:
            return None
        return max(0.0, self.advance.seconds_left - (time.monotonic() - self.at))


class View:
    """The state of the display; as a renderable of rich, its lines."""

    def __init__(self) -> None:
        self._name, self._part = "", ""
        self._rows: list[_Row] = []
        self._works: list[_Work] = []
        self._started = time.monotonic()
        self.run_is_open = False

    @property
    def is_busy(self) -> bool:
        """Whether something is going on."""
        return self.run_is_open or bool(self._works)

    def take(self, event: Event) -> None:
        """Note an event."""
        match event:
            case RunStarted(name):
                self._name, self.run_is_open, self._started = name, True, time.monotonic()
            case ChainPlanned(stages):
                self._rows = [_Row(stage) for stage in stages]
            case CandidateStarted() | CandidateChosen():
                self._part = heading_of(event) or ""
            case StageStarted(index):
                for row in self._rows[index : index + 1]:
                    row.state, row.started = "running", time.monotonic()
            case StageFinished(index):
                for row in self._rows[index : index + 1]:
                    row.state, row.summary, row.seconds = "finished", event.summary, event.seconds
            case WorkStarted(label):
                self._works.append(_Work(label))
            case WorkAdvanced(label):
                for work in (each for each in self._works if each.label == label):
                    work.advance, work.at = event, time.monotonic()
            case WorkFinished(label):
                self._works = [work for work in self._works if work.label != label]
            case RunFinished():
                self.run_is_open = False

    def stop(self, *, failed: bool) -> None:
        """Record that the work has ended."""
        self._works, self.run_is_open = [], False
        for row in self._rows:
            if row.state == "running":
                row.state = "failed" if failed else "waiting"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines."""
        plain = options.legacy_windows or options.ascii_only
        lines = list(self.lines(options.max_width, plain=plain))
        for line in _fitting(lines, console.size.height - 1):
            # An escape of a character that the encoding lacks would make the line longer.
            shown = line.plain.encode(console.encoding, "replace").decode(console.encoding)
            yield Text(shown, style=line.style, no_wrap=True, overflow="crop", end="")
            yield Segment.line()

    def lines(self, width: int, *, plain: bool = False) -> Iterator[Text]:
        """Yield the lines for a width in columns; `plain` ones are of ASCII where names are."""
        if self._rows or self.run_is_open:
            if self._part:
                yield Text(_cut(self._part, width), style="dim")
            yield Text(_line(self._name, self._figures(), width), style="bold")
        marks = PLAIN_MARKS if plain else MARKS
        label_width = max((len(_title(row.plan)) for row in self._rows), default=0)
        for row in self._rows:
            left = f"{marks[row.state]} {_title(row.plan):{label_width}}"
            yield Text(_line(left, self._row_parts(row), width), style=STYLES[row.state])
        for work in self._works:
            yield from self._work_lines(work, width, plain=plain)

    def _figures(self) -> list[str]:
        """Return time, time left and memory of the run, the most important first."""
        parts = [clock(time.monotonic() - self._started)]
        if self.run_is_open:
            left, whole = self._seconds_left()
            if left is not None:
                parts.append(f"{'about' if whole else 'over'} {clock(left)} left")
            if (memory := resident_bytes()) is not None:
                parts.append(f"{memory / 1e9:.1f} GB")
        return parts

    def _row_parts(self, row: _Row) -> list[str]:
        if row.state == "finished":
            return [row.summary, *([clock(row.seconds)] if row.seconds is not None else [])]
        if row.state == "running":
            left = self._row_seconds_left(row)
            spent = clock(time.monotonic() - row.started)
            return [spent, *([f"about {clock(left)} left"] if left is not None else [])]
        expected = row.plan.expected_seconds
        return [f"about {clock(expected)}"] if expected is not None and row.state == "waiting" else []

    def _work_lines(self, work: _Work, width: int, *, plain: bool) -> Iterator[Text]:
        indent = "    " if self._rows else ""
        advance = work.advance
        if advance is None:
            yield Text(_cut(f"{indent}{printable(work.label)} ...", width))
            return
        label = f"{work.label}: {advance.phase}" if advance.phase else work.label
        counts, left = f"{advance.done}/{advance.total}", work.seconds_left()
        clause = "" if left is None else f"{clock(left)} left"
        bar = ""
        if width >= BARLESS_WIDTH:
            done = round(advance.fraction * BAR_WIDTH)
            full, empty = ("#", "-") if plain else ("━", "─")
            bar = f"  {full * done}{empty * (BAR_WIDTH - done)}"
        yield Text(_line(f"{indent}{printable(label)}{bar}  {counts}", [clause], width))
        if advance.note:
            yield Text(_cut(f"{indent}{printable(advance.note)}", width), style="cyan")

    def _row_seconds_left(self, row: _Row) -> float | None:
        """Return the remaining seconds of a running stage: as expected, or by its work, if that is more."""
        work = max((left for each in self._works if (left := each.seconds_left()) is not None), default=None)
        if row.plan.expected_seconds is None:
            return work
        return max(work or 0.0, row.plan.expected_seconds - (time.monotonic() - row.started))

    def _seconds_left(self) -> tuple[float | None, bool]:
        """Return the known remaining seconds of the run, and whether all are known."""
        left, whole = 0.0, True
        for row in self._rows:
            if row.state == "finished":
                continue
            own = self._row_seconds_left(row) if row.state == "running" else row.plan.expected_seconds
            left, whole = left + (own or 0.0), whole and own is not None
        if all(row.state == "finished" for row in self._rows):
            left += sum(work.seconds_left() or 0.0 for work in self._works)
        return (left if left else None), whole


def _title(stage: PlannedStage) -> str:
    name = "" if stage.name == stage.kind else f" ({printable(stage.name)})"
    return f"{stage.index:02d} {stage.kind}{name}"


def _line(left: str, parts: list[str], width: int) -> str:
    """Return a line: on the left a text, on the right as many of the parts as fit, from the first on."""
    left, right = printable(left).rstrip(), ""
    for part in filter(None, parts):
        longer = f"{right}, {part}" if right else printable(part)
        if cell_len(left) + 2 + cell_len(longer) > width:
            break
        right = longer
    if not right:
        first = next(filter(None, parts), "")
        return _cut(f"{left}  {printable(first)}".rstrip(), width)
    return set_cell_size(left, width - cell_len(right)) + right


def _cut(text: str, width: int) -> str:
    text = printable(text).replace("\n", " ").replace("\t", " ")
    return text if cell_len(text) <= width else set_cell_size(text, width)


def _fitting(lines: list[Text], height: int) -> list[Text]:
    """Return as many lines as a terminal shows: the last ones, where the work is, below the heading."""
    if len(lines) <= max(height, 1):
        return lines
    return lines[-1:] if height < 2 else [lines[0], *lines[-(height - 1) :]]
