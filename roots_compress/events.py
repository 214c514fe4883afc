"""What happens while a verb works, as values: the pipeline emits events; sinks show or write them.

A sink is any function of an event: the display of a terminal, lines in a log, JSON, a tracker of experiments,
a caller's own. The fields of an event are its JSON form (`docs/reference/events.md`); SCHEMA grows when one
changes its meaning or goes. New events and new fields may come at any time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

SCHEMA = 1


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    @classmethod
    def label(cls) -> str:
        """Return the event's name in JSON: that of its class, in small letters."""
        return re.sub("(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def to_json(self) -> dict[str, Any]:
        """Return the event as an object of JSON."""
        return {"schema": SCHEMA, "event": self.label(), **asdict(self)}


@dataclass(frozen=True)
class VerbStarted(Event):
    """A verb of the command line begins; the first event of all."""

    verb: str
    """As it is typed: `run`, `data prepare`."""
    version: str
    """Of roots-compress."""


@dataclass(frozen=True)
class RunStarted(Event):
    """A run is opened; what is finished of it will be reused."""

    name: str
    folder: str


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a chain that is ahead."""

    index: int
    kind: str
    """`baseline` for the untouched model, or the stage's `kind` in a recipe."""
    name: str
    expected_seconds: float | None = None
    """About what it will take: as when it was made before, or by an estimate as the run begins; null where
    there is none."""


@dataclass(frozen=True)
class ChainPlanned(Event):
    """The stages that the run, or a candidate of its search, consists of; finished ones are among them."""

    stages: tuple[PlannedStage, ...]


@dataclass(frozen=True)
class CandidateStarted(Event):
    """A search begins to make and measure a candidate; the events of its stages follow."""

    number: int
    """From 1. Where the candidates have an order, as those of `compress`, the place in it."""
    total: int
    candidate: str
    beginning: str | None = None
    """What is made and measured now, where it is only what the candidate begins with."""


@dataclass(frozen=True)
class CandidateChosen(Event):
    """A search has ended; the run is made the best candidate's."""

    candidate: str
    measured: int
    """How many could be made and measured, the beginnings of others among them."""


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage begins."""

    index: int
    kind: str
    name: str


@dataclass(frozen=True)
class StageFinished(Event):
    """A stage is committed, or was found finished. Its figures come as `figure` events before this one."""

    index: int
    kind: str
    name: str
    origin: Literal["made", "reused", "restored"]
    """`reused`: an earlier run of the same recipe had made it. `restored`: it was taken back from the run's
    stage cache."""
    seconds: float
    """What it took when it was made, with its graph and its figures."""
    summary: str
    """Size and quality in words."""
    largest_difference: float | None = None
    """Between the graph's outputs and the checkpoint's; null where the stage was not made now."""


@dataclass(frozen=True)
class WorkStarted(Event):
    """Some work of seconds or more begins."""

    work: str
    """What is being done."""


@dataclass(frozen=True)
class WorkAdvanced(Event):
    """How far some work is."""

    work: str
    phase: str | None
    """The part of the work that is being done, where it has several."""
    done: int
    total: int
    """Of the phase, or of the work where it has none."""
    fraction: float
    """What is done of the whole work, from 0 to 1."""
    seconds_left: float
    """Estimate for the whole work."""
    note: str = ""
    """What else is known, in words."""
    memory_bytes: int | None = None
    """What the process holds, looked up now and then; null where the system does not tell."""


@dataclass(frozen=True)
class WorkFinished(Event):
    """Some work has ended; it failed where an `error` follows."""

    work: str


@dataclass(frozen=True)
class Figure(Event):
    """A number that was measured: a loss at a step of a training, or what a finished stage came to."""

    name: str
    """`loss`, or a key of a row of `metrics.json`; a speed has the length of its context in `context`."""
    value: float | None
    """The figure. It is null if it is not a finite number, such as the perplexity of a broken model."""
    stage: int | None = None
    """The index of the stage."""
    work: str | None = None
    """The training that it belongs to."""
    step: int | None = None
    """Of that training."""
    context: int | None = None
    """Tokens of context, of a speed."""


@dataclass(frozen=True)
class GateJudged(Event):
    """Whether a bound was kept."""

    gate: str
    limit: float
    value: float | None
    passed: bool
    stage: str
    """The name of the row that was bounded."""
    against: str
    """What it was compared with; empty where a figure was bounded by itself."""
    note: str


@dataclass(frozen=True)
class RunFinished(Event):
    """A run is complete: its figures and its report are written."""

    name: str
    folder: str


@dataclass(frozen=True)
class Message(Event):
    """A remark for people."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True)
class OutputLine(Event):
    """A line that the verb wrote for people, besides its result or in its place."""

    text: str


@dataclass(frozen=True)
class Result(Event):
    """What the verb was asked for. The page of events says what each verb's holds."""

    verb: str
    result: Any


@dataclass(frozen=True)
class Error(Event):
    """The verb cannot go on."""

    message: str
    where: str | None
    """The file, key, line or option that is at fault."""
    remedy: str | None
    exit_code: int


@dataclass(frozen=True)
class VerbFinished(Event):
    """The verb ends; the last event of all."""

    exit_code: int


Sink: TypeAlias = Callable[[Event], None]
"""What is told of events. One that raises ends the work."""


class Events:
    """Tells sinks of events. Without sinks, the work is silent.

    Args:
        sinks: each is told of every event, in this order.
        stage: the index of the stage that emits them.
    """

    def __init__(self, *sinks: Sink, stage: int | None = None) -> None:
        self.sinks, self.stage = sinks, stage

    def of_stage(self, index: int) -> Events:
        """Return the same, for a stage to emit its events by."""
        return Events(*self.sinks, stage=index)

    def emit(self, event: Event) -> None:
        """Tell all sinks of an event."""
        for sink in self.sinks:
            sink(event)

    def say(self, text: str) -> None:
        """Emit a remark for people."""
        self.emit(Message(text))

    def figure(self, name: str, value: float, *, work: str | None = None, step: int | None = None) -> None:
        """Emit a number that was measured in this stage."""
        self.emit(Figure(name, value, self.stage, work, step))
