"""The verb `bench`: the speeds of graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from roots_compress.cli.display.console import say, stdout
from roots_compress.cli.display.output import events, give
from roots_compress.cli.options import ThreadsOption
from roots_compress.errors import InputError

if TYPE_CHECKING:
    from roots_compress.evaluation.speed import Speeds
    from roots_compress.report.table import Table
    from roots_compress.tasks.base import Task


def bench(
    graphs: Annotated[
        list[Path], typer.Argument(metavar="GRAPH", help="Folders with ONNX graphs, or stages of runs.")
    ],
    context: Annotated[
        list[int] | None,
        typer.Option(
            "--context",
            min=1,
            metavar="TOKENS",
            help="Length of a context; repeatable. Default: 128, 512.",
        ),
    ] = None,
    decode_tokens: Annotated[
        int, typer.Option("--decode-tokens", min=1, help="Tokens decoded in a timing, where models decode.")
    ] = 16,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Timings, interleaved between the graphs.")
    ] = 5,
    threads: ThreadsOption = None,
) -> None:
    """Time graphs of one task in turns: prefill and decoding, or an encoder's reading."""
    from roots_compress.evaluation.speed import measure_speed
    from roots_compress.progress import bar
    from roots_compress.runtime.onnx.graph_folder import find_graph
    from roots_compress.system.threads import default_threads
    from roots_compress.tasks.registry import task_of_graph

    if len({*graphs}) < len(graphs):
        twice = next(graph for index, graph in enumerate(graphs) if graph in graphs[:index])
        raise InputError("the graph is named twice", where=twice, remedy="Name each once.")
    with bar(events(), "timing") as progress:
        results = measure_speed(
            {str(graph): graph for graph in graphs},
            contexts=context or (128, 512),
            decode_tokens=decode_tokens,
            repeats=repeats,
            threads=threads or default_threads(),
            progress=progress,
        )
    task = task_of_graph(find_graph(graphs[0]))
    speeds = {
        name: {phase: [asdict(speed) for speed in each] for phase, each in figures.items()}
        for name, figures in results.items()
    }
    give({"task": task.name, "units_per_second": speeds})
    stdout().print(_speed_table(results, task))
    measured = sorted(
        {speed.context for figures in results.values() for each in figures.values() for speed in each}
    )
    if beyond := sorted({*(context or ())} - {*measured}):
        listed = ", ".join(f"{each:,}" for each in beyond)
        say(f"{listed} tokens do not fit every model's context: {measured[-1]:,} were measured instead.")


def _speed_table(results: Mapping[str, Speeds], task: Task[Any]) -> Table:
    """Return a table of graphs' speeds and their ratios to the first graph's: a row a phase and context."""
    from roots_compress.report.table import table_of

    def rate(units_per_second: float) -> str:
        return f"{units_per_second:,.0f}" if units_per_second >= 100 else f"{units_per_second:.1f}"

    units = f"{task.workload.unit}s"
    words = {workload.phase: workload.words for workload in task.workloads}
    first = next(iter(results.values()))
    rows = [
        (
            name,
            words[phase],
            str(speed.context),
            f"{rate(speed.median)} ({rate(speed.low)} to {rate(speed.high)})",
            f"{speed.median / base.median:.2f}x",
        )
        for name, figures in results.items()
        for phase, own in figures.items()
        for speed, base in zip(own, first[phase], strict=True)
    ]
    headings = ("graph", "phase", task.reads, f"{units}/s", "ratio to the first")
    return table_of(f"{units} a second: median (low to high)", headings, rows, names=2)
