"""Speeds of graphs, timed side by side.

All graphs are opened in one child process and timed in turns, so that other load affects all of them equally.
Timings are compared inside one such run, never across runs. The task defines the workloads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from roots_compress.errors import InputError
from roots_compress.evaluation.child import measure, serve
from roots_compress.runtime.onnx.graph_config import read_config
from roots_compress.tasks.base import Task
from roots_compress.tasks.registry import task_of_graph

if TYPE_CHECKING:
    from roots_compress.progress import Progress
    from roots_compress.results import Speed

# A timing lasts at least this long: a small model runs several times for it.
MIN_SECONDS = 0.1


Timing = tuple[tuple[int, float], ...]
"""Amount and seconds of each of a task's workloads, as a mean of equally many runs."""
Speeds: TypeAlias = "dict[str, tuple[Speed, ...]]"
"""Speeds of one graph, by the phase of each workload: one for each context, the shortest first."""


def measure_speed(
    folders: Mapping[str, Path],
    *,
    contexts: Sequence[int],
    decode_tokens: int,
    repeats: int,
    threads: int,
    progress: Progress | None = None,
) -> dict[str, Speeds]:
    """Time graphs against each other on the CPU: their task's workloads, at each context.

    Every graph stays open throughout, so all must fit in memory.

    Args:
        contexts: context lengths; `Task.lengths` replaces those that the models cannot hold.
        decode_tokens: tokens decoded in each timing, if the task decodes.
        repeats: timings of each figure, after one that is not counted.
        progress: called after every timing.

    Raises:
        InputError: a folder is not a whole graph, a model's context has no room for the decoded tokens, or
            the graphs are not of one task.
        StageError: the measuring process failed.
    """
    # Imported here: the child has no use for `onnx`.
    from roots_compress.runtime.onnx.graph_folder import graph_files

    graphs = {label: graph_files(folder)[0] for label, folder in folders.items()}
    room = min(read_config(graph)[1] for graph in graphs.values())
    task = _common_task(graphs)
    fitted = task.lengths(contexts, decode_tokens=decode_tokens, longest=room)
    request = {
        "graphs": {label: str(graph.absolute()) for label, graph in graphs.items()},
        "contexts": fitted,
        "decode_tokens": decode_tokens,
        "repeats": repeats,
        "threads": threads,
    }
    timings = measure(__name__, request, progress=progress)
    return {label: summarise(task, timings[label], fitted) for label in graphs}


def _common_task(graphs: Mapping[str, Path]) -> Task[Any]:
    """Return the task of all graphs.

    Raises:
        InputError: their tasks differ.
    """
    tasks = {label: task_of_graph(graph) for label, graph in graphs.items()}
    first, task = next(iter(tasks.items()))
    for label, other in tasks.items():
        if other is not task:
            raise InputError(
                f"is a graph for {other.name}, and {first} is one for {task.name}",
                where=label,
                remedy="Time graphs of one task together.",
            )
    return task


def time_models(
    task: Task[Any],
    engines: Mapping[str, Any],
    contexts: Sequence[int],
    *,
    decode_tokens: int,
    repeats: int,
    progress: Progress | None = None,
) -> dict[str, list[list[Timing]]]:
    """Time models in turns; return for each the timings of each context.

    The order of the models rotates by one in each repeat, so that none always follows the same one.
    """
    shape = 1, max(contexts) + decode_tokens
    tokens = {
        label: np.random.default_rng(0).integers(engine.vocab_size, size=shape)
        for label, engine in engines.items()
    }

    def timed(label: str, context: int, runs: int) -> Timing:
        taken = [
            task.run_workloads(engines[label], tokens[label], context, decode_tokens) for _ in range(runs)
        ]
        return tuple((each[0][0], fmean(seconds for _, seconds in each)) for each in zip(*taken, strict=True))

    runs: dict[tuple[str, int], int] = {}
    for context in contexts:
        for label in engines:
            timed(label, context, 1)  # Allocates, packs, wakes threads.
            once = sum(seconds for _, seconds in timed(label, context, 1))
            runs[label, context] = max(1, math.ceil(MIN_SECONDS / once))
    timings: dict[str, list[list[Timing]]] = {label: [[] for _ in contexts] for label in engines}
    labels, total = list(engines), repeats * len(contexts) * len(engines)
    for repeat in range(repeats):
        turn = repeat % len(labels)
        for index, context in enumerate(contexts):
            for label in labels[turn:] + labels[:turn]:
                timings[label][index].append(timed(label, context, runs[label, context]))
                if progress is not None:
                    progress(sum(len(at) for row in timings.values() for at in row), total)
    return timings


def summarise(task: Task[Any], timings: Sequence[Sequence[Timing]], contexts: Sequence[int]) -> Speeds:
    """Return work a second by phase, at each context: the median of the repeats, and their extremes."""
    from roots_compress.results import Speed

    speeds: dict[str, list[Speed]] = {workload.phase: [] for workload in task.workloads}
    for context, repeats in zip(contexts, timings, strict=True):
        for found, timed in zip(speeds.values(), zip(*repeats, strict=True), strict=True):
            rates = [amount / seconds for amount, seconds in timed]
            found.append(Speed(context, median(rates), min(rates), max(rates), tuple(rates)))
    return {phase: tuple(each) for phase, each in speeds.items()}


def _handle(request: dict[str, Any], progress: Progress) -> Any:
    graphs = {label: Path(graph) for label, graph in request["graphs"].items()}
    task = _common_task(graphs)
    engines = {
        label: task.open_graph(graph, threads=request["threads"], provider="cpu")
        for label, graph in graphs.items()
    }
    return time_models(
        task,
        engines,
        request["contexts"],
        decode_tokens=request["decode_tokens"],
        repeats=request["repeats"],
        progress=progress,
    )


if __name__ == "__main__":
    serve(_handle)
