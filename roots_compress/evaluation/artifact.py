"""All figures of one artifact except its speed, and their protocol.

Speed is not measured for one artifact: `measure_speed` times all of a run's together, at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.data.windows import EvaluationWindows
from roots_compress.errors import StageError
from roots_compress.evaluation.intervals import interval, paired_interval, stored
from roots_compress.evaluation.memory import peak_rss_bytes
from roots_compress.evaluation.size import bytes_by_group, count_parameters, graph_bytes
from roots_compress.models.heads import RootsWithHead
from roots_compress.progress import Progress
from roots_compress.results import Metrics, Protocol, Sample
from roots_compress.runtime.onnx.graph_folder import graph_files
from roots_compress.tasks.base import Task
from roots_compress.tasks.figures.predictions import Measured


class First(NamedTuple):
    """The first model of a run, with which later ones are compared."""

    load: Callable[[], RootsWithHead]
    """Loads its checkpoint's model."""
    metrics: Metrics


def measure_quality(
    task: Task[Any],
    folder: Path,
    load: Callable[[], RootsWithHead],
    examples: EvaluationWindows,
    config: EvaluationConfig,
    *,
    threads: int,
    first: First | None = None,
    sample: Callable[[Any], tuple[Sample, ...]] = lambda _: (),
    progress: Progress | None = None,
) -> tuple[Metrics, tuple[Sample, ...]]:
    """Measure a graph and its checkpoint, without speeds.

    Agreement is measured against the checkpoint of the run's first model: the first graph is compared with
    its own checkpoint, which gives the noise of rounding. No more than two models are in memory at a time.

    Args:
        config: contexts and decoded tokens of the memory measurement; it takes the longest context that fits.
        first: the run's first model; None if that is the measured one.
        sample: has an engine of the graph write samples.
        progress: called with the examples measured, through graph and checkpoint, and twice their number.

    Returns:
        the figures, and the samples.

    Raises:
        InputError: the folder is not a whole graph, or the examples do not fit the model.
        StageError: the model gives outputs that are not finite, graph and checkpoint do not agree in quality,
            or a measuring process failed.
    """
    count = len(examples.input_ids)

    def report(before: int) -> Progress:
        return lambda done, _total: progress(before + done, 2 * count) if progress is not None else None

    engine = task.open_graph(graph_files(folder)[0], threads=threads, provider="cpu")
    model = load() if first is None else first.load()
    original = task.serve_model(model)
    # Stages keep the tokenizer, but a vocabulary may have other padding: then nothing can be compared.
    comparable = original if task.compares or original.vocab_size == engine.vocab_size else None
    through_graph = task.measure(engine, examples, original=comparable, progress=report(0))
    through_torch = through_graph.other
    longest = task.lengths(config.contexts, decode_tokens=config.decode_tokens, longest=engine.max_context)[
        -1
    ]
    written = task.written_quality(engine, examples)
    samples = sample(engine)
    # The weights held here are not needed while the checkpoint and the child hold theirs.
    del engine
    if first is not None:
        kept = original if task.compares else None
        del model, original, comparable
        model = load()
        measured = task.measure(task.serve_model(model), examples, original=kept, progress=report(count))
        through_torch = measured.figures
        del kept
    _require_agreement(task, through_graph.figures, through_torch, model, folder)
    metrics = Metrics(
        parameters=count_parameters(model),
        bytes=graph_bytes(folder),
        quality={**through_graph.figures, **written, task.checkpoint_figure: through_torch[task.metric.name]},
        timings={workload.figure: () for workload in task.workloads},
        peak_rss_bytes=peak_rss_bytes(
            folder, context=longest, decode_tokens=config.decode_tokens, threads=threads
        ),
        bytes_by_group=bytes_by_group(folder, model),
        scores=stored(through_graph.scores),
    )
    return replace(metrics, intervals=_intervals(task, through_graph, metrics, first)), samples


def _intervals(
    task: Task[Any], measured: Measured, metrics: Metrics, first: First | None
) -> dict[str, tuple[float, float]]:
    """Return 95% intervals by name: of the first metric, of its change by the stage, and of mean KL."""
    found = {task.metric.name: interval(measured.scores, task.of_mean, most=task.metric.most)}
    if first is not None:
        found[task.metric.compared_name] = paired_interval(task, first.metrics, metrics)
    if measured.divergence is not None:
        found["kl_mean"] = interval(measured.divergence)
    return {name: bounds for name, bounds in found.items() if bounds is not None}


def _require_agreement(
    task: Task[Any],
    through_graph: dict[str, float],
    through_torch: dict[str, float],
    model: RootsWithHead,
    folder: Path,
) -> None:
    """Refuse figures of different models.

    Raises:
        StageError: they differ by more than rounding.
    """
    metric = task.metric
    graph, checkpoint = through_graph[metric.name], through_torch[metric.name]
    plain = not model.config.quantization and model.dtype == torch.float32
    allowed = task.agreement[0 if plain else 1]
    difference = math.log(graph / checkpoint) if metric.relative else graph - checkpoint
    if not abs(difference) <= allowed:
        raise StageError(
            f"{metric.heading} is {metric.shown(graph)} through the graph and {metric.shown(checkpoint)} "
            "through the checkpoint: they are not one model",
            where=folder,
            remedy="Nothing was committed. This is a fault of the program; please report it.",
        )


def protocol_of(
    task: Task[Any],
    config: EvaluationConfig,
    examples: EvaluationWindows,
    *,
    max_context: int,
    threads: int,
    text: str,
) -> Protocol:
    """Return the protocol: what the figures depend on besides the models.

    Args:
        max_context: the shortest context of the models timed together.

    Raises:
        InputError: the models' context has no room for the decoded tokens.
    """
    count, block_size = examples.input_ids.shape
    return Protocol(
        block_size=block_size,
        windows=count,
        tokens=examples.scored_tokens,
        text_bytes=examples.text_bytes,
        bos=examples.bos,
        text_sha256=examples.text_sha256,
        tokenizer_sha256=examples.tokenizer_sha256,
        contexts=tuple(
            task.lengths(config.contexts, decode_tokens=config.decode_tokens, longest=max_context)
        ),
        decode_tokens=config.decode_tokens,
        repeats=config.repeats,
        threads=threads,
        text=text,
    )
