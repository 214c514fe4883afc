"""Forecasts a run before it starts: shapes, bytes, time, memory and disk.

Shapes and bytes follow from the settings, stage by stage (`Stage.expect`). Time and memory follow from a
probe of some seconds on this machine (`probe.py`). `resources.py` has lower bounds, which may refuse a run;
these are expected values, which refuse none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from roots_compress.events import Events
from roots_compress.io.disk import free_disk
from roots_compress.io.temporary import temporary_folder
from roots_compress.pipeline.forecast.costs import RowCosts, TrainingCosts, body, trained
from roots_compress.pipeline.forecast.expected_rows import ExpectedRow, expected_rows
from roots_compress.pipeline.forecast.probe import Probe
from roots_compress.pipeline.forecast.probe_training import make_first
from roots_compress.pipeline.forecast.weights import graph_overhead, weight_bytes
from roots_compress.pipeline.preflight import Setting
from roots_compress.pipeline.shape import Shape
from roots_compress.pipeline.statuses import statuses_of
from roots_compress.progress import Display
from roots_compress.stages.registry import stage_of
from roots_compress.system.memory import available_memory


@dataclass(frozen=True)
class StageForecast:
    """The forecast of one row of a run."""

    index: int
    kind: str
    name: str
    action: Literal["make", "again", "reuse"]
    reasons: tuple[str, ...]
    """Why it is made again."""
    shape: Shape
    parameters: int
    checkpoint_bytes: int
    graph_bytes: int
    certain: bool
    """Whether shape and bytes follow from the settings; otherwise a measurement decides."""
    work_seconds: float = 0.0
    """Seconds of the stage's own work."""
    check_seconds: float = 0.0
    """Seconds of the checkpoint, the graph, its check and its figures."""
    memory_bytes: int = 0
    """Peak memory of the run's process; 0 if nothing is to be made, or if it was not measured."""
    working_bytes: int = 0
    """Bytes of disk while the stage works."""

    @property
    def seconds(self) -> float:
        """All seconds of the row, without the timing of all graphs at the end."""
        return self.work_seconds + self.check_seconds


@dataclass(frozen=True)
class Forecast:
    """The forecast of a run."""

    name: str
    stages: tuple[StageForecast, ...]
    search: tuple[StageForecast, ...]
    """A search's choices, each as if it followed the stages."""
    timing_seconds: float
    """Seconds of the timing of all graphs at the end."""
    probe_seconds: float
    """Seconds of measuring this machine; 0 if it was not measured, so that times are unknown."""
    free_disk_bytes: int
    available_memory_bytes: int | None
    """None if the system does not report it."""
    search_minutes: float | None = None
    """Minutes after which a search begins no further candidate; None without a search."""

    @property
    def to_make(self) -> tuple[StageForecast, ...]:
        """The rows that are not reused."""
        return tuple(each for each in self.stages if each.action != "reuse")

    @property
    def to_try(self) -> tuple[StageForecast, ...]:
        """The search's choices that are not reused."""
        return tuple(each for each in self.search if each.action != "reuse")

    @property
    def seconds(self) -> float | None:
        """Remaining seconds of a run, up to a search; None if unknown."""
        if not self.probe_seconds:
            return None
        return sum(each.seconds for each in self.to_make) + self.timing_seconds

    @property
    def memory_bytes(self) -> int:
        """Peak memory of the run's process; 0 if it was not measured."""
        return max((each.memory_bytes for each in (*self.to_make, *self.to_try)), default=0)

    @property
    def disk_bytes(self) -> int:
        """The most additional disk space of the run; with a search, a lower bound.

        A search keeps everything that it tries; each choice is counted once, as if it followed the stages.
        """
        made = (*self.to_make, *self.to_try)
        kept = sum(each.checkpoint_bytes + each.graph_bytes for each in made)
        return kept + max((each.working_bytes for each in made), default=0)


def forecast(setting: Setting, folder: Path, events: Events, *, measured: bool = True) -> Forecast:
    """Return the forecast of a run in a folder. Nothing is written into the folder.

    Args:
        measured: whether to measure this machine, for some seconds; without it times and memory are unknown.

    Raises:
        InputError: a stage cannot be carried out on the result of the stages before it.
    """
    began = time.monotonic()
    statuses = statuses_of(setting, folder)
    rows = expected_rows(setting, statuses)
    plain, chained = [_plain(row) for row in rows], len(statuses)
    probed = measured and any(each.action != "reuse" for each in plain)
    timing = 0.0
    if probed:
        events.say("measuring this machine with models of a few layers")
        with temporary_folder() as made, Display(events, "probe") as display:
            plain, timing = _with_costs(setting, rows, plain, chained, made.resolve(), display)
    return Forecast(
        name=setting.recipe.name,
        stages=tuple(plain[:chained]),
        search=tuple(plain[chained:]),
        timing_seconds=timing,
        probe_seconds=time.monotonic() - began if probed else 0.0,
        free_disk_bytes=free_disk(folder),
        available_memory_bytes=available_memory(),
        search_minutes=None if setting.recipe.search is None else setting.recipe.search.max_minutes,
    )


def _plain(row: ExpectedRow) -> StageForecast:
    """Return a row's forecast without time and memory."""
    status, model = row.status, row.expected.model
    size = weight_bytes(model)
    graph = status.reused.result.metrics.bytes if status.reused is not None else size
    parameters = model.spec.parameters
    working = 0.0
    if row.config is not None and status.reused is None:
        stage = stage_of(row.config)
        start = row.before or stage.begun(row.config)
        working = stage.estimate(row.config, start.spec.parameters, device="cpu").working
    return StageForecast(
        index=status.index,
        kind=status.step.kind,
        name=status.step.name,
        action=status.action,
        reasons=status.reasons,
        shape=Shape.of(model.spec),
        parameters=parameters,
        checkpoint_bytes=size,
        graph_bytes=graph,
        certain=model.certain,
        working_bytes=round(working),
    )


def _with_costs(
    setting: Setting,
    rows: list[ExpectedRow],
    plain: list[StageForecast],
    chained: int,
    folder: Path,
    display: Display,
) -> tuple[list[StageForecast], float]:
    """Measure this machine; return the rows with their costs, and the seconds of the timing at the end."""
    first, making, tokenizer = rows[0].expected.model, 0.0, setting.first.tokenizer
    if tokenizer is None:
        made, spec, making = make_first(setting, folder, Events())
        first = replace(first, spec=spec)
    else:
        made = tokenizer()
    probe = Probe(setting, made, first, folder, Events())
    parts = 1 + sum(row.trains and each.action != "reuse" for row, each in zip(rows, plain, strict=True))
    costs, portable = probe.costs, setting.recipe.export.portable
    display.advance(parts)
    first_bytes = weight_bytes(first)
    found = []
    for row, each in zip(rows, plain, strict=True):
        if each.action == "reuse":
            found.append(each)
            continue
        training, model = row.training(probe), row.expected.model
        if row.trains:
            display.advance(parts)
        read = max(each.checkpoint_bytes, first_bytes)  # The run's first model is compared with every other.
        work = row.work_seconds(probe, training)
        if row.before is None and row.config is not None:
            work += making
        found.append(
            replace(
                each,
                graph_bytes=each.graph_bytes + graph_overhead(model, portable=portable),
                work_seconds=work,
                check_seconds=row.check_seconds(probe, first),
                memory_bytes=round(max(_work_memory(row, costs, training), costs.peak.at(read))),
            )
        )
    repeats = setting.recipe.evaluation.repeats
    timing = costs.opening
    timing += sum(costs.timing(body(row.expected.model.spec), repeats=repeats) for row in rows[:chained])
    return found, timing


def _work_memory(row: ExpectedRow, costs: RowCosts, training: TrainingCosts | None) -> float:
    """Return the most bytes of memory while a stage does its own work."""
    if row.config is None:
        return 0.0
    before, model = row.before or row.expected.model, row.expected.model
    held = costs.peak.base + weight_bytes(before) + weight_bytes(model) + row.expected.held_bytes
    return held if training is None else max(held, training.peak.at(trained(before, model)))
