"""All figures of one artifact but its speed, and the protocol they were measured by.

Speed is no property of one artifact: `measure_speed` times all of a run's together, when they are all there.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.data.windows import EvaluationWindows
from roots_compress.errors import StageError
from roots_compress.evaluation.memory import peak_rss_bytes
from roots_compress.evaluation.size import count_parameters, graph_bytes
from roots_compress.models.heads import RootsWithHead
from roots_compress.progress import Progress
from roots_compress.results import Metrics, Protocol
from roots_compress.runtime.graph_folder import graph_files
from roots_compress.tasks.base import Task


def measure_quality(
    task: Task[Any],
    folder: Path,
    model: RootsWithHead,
    examples: EvaluationWindows,
    config: EvaluationConfig,
    *,
    threads: int,
    progress: Progress | None = None,
) -> Metrics:
    """Measure a graph and the checkpoint it came from; speeds are left for later.

    Args:
        task: what the run's models are for.
        folder: the graph.
        model: the checkpoint's model.
        examples: what quality is measured on.
        config: contexts and decoded tokens of the memory measurement; it takes the longest context that fits.
        threads: threads within an operator of the graph.
        progress: called with the examples measured, through graph and checkpoint, and twice their number.

    Raises:
        InputError: the folder is not a whole graph, or the examples do not fit the model.
        StageError: the model gives outputs that are not finite, graph and checkpoint do not agree in quality,
            or a measuring process failed.
    """
    count = len(examples.input_ids)

    def report(before: int) -> Progress:
        return lambda done, _total: progress(before + done, 2 * count) if progress is not None else None

    engine = task.open_graph(graph_files(folder)[0], threads=threads, provider="cpu")
    through_graph = task.quality(engine, examples, progress=report(0))
    longest = task.lengths(config.contexts, decode_tokens=config.decode_tokens, longest=engine.max_context)[
        -1
    ]
    written = task.written_quality(engine, examples)
    # The weights held here are not needed while the checkpoint and the child hold theirs.
    del engine
    through_torch = task.quality(task.serve_model(model), examples, progress=report(count))
    _require_agreement(task, through_graph, through_torch, model, folder)
    return Metrics(
        parameters=count_parameters(model),
        bytes=graph_bytes(folder),
        quality={**through_graph, **written, task.checkpoint_figure: through_torch[task.metric.name]},
        timings={workload.figure: () for workload in task.workloads},
        peak_rss_bytes=peak_rss_bytes(
            folder, context=longest, decode_tokens=config.decode_tokens, threads=threads
        ),
    )


def _require_agreement(
    task: Task[Any],
    through_graph: dict[str, float],
    through_torch: dict[str, float],
    model: RootsWithHead,
    folder: Path,
) -> None:
    """Refuse figures that are not of one model.

    Raises:
        StageError: they differ by more than rounding explains.
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
    """Return what the figures depend on beside the models.

    Args:
        task: of the models.
        config: how the figures are measured.
        examples: what quality is measured on.
        max_context: the shortest context of the models timed together.
        threads: threads of the timings, resolved.
        text: what the held-out text is, in words.

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
