"""Evaluates one artifact: the quality of a checkpoint or a graph, on any text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.generation_settings import folder_stop_ids
from roots_compress.checkpoints.spread import OPTION, Spread, limits_of
from roots_compress.checkpoints.tokenizer import check_vocabulary
from roots_compress.configs.data import RecordKind
from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.data.documents import TextSplit
from roots_compress.data.special_tokens import stop_ids
from roots_compress.errors import InputError
from roots_compress.evaluation.artifact import protocol_of
from roots_compress.evaluation.intervals import Interval, interval
from roots_compress.progress import Progress
from roots_compress.results import Protocol
from roots_compress.runtime.onnx.graph_config import home_of
from roots_compress.runtime.onnx.graph_folder import graph_files, holds_graph
from roots_compress.runtime.text import load_tokenizer
from roots_compress.system.threads import default_threads
from roots_compress.tasks.base import Task
from roots_compress.tasks.registry import task_of_graph, task_of_model


class Evaluation(NamedTuple):
    """The figures of an artifact, and their protocol."""

    task: Task[Any]
    quality: dict[str, float]
    protocol: Protocol
    interval: Interval | None
    """95% interval of the first metric; None for a single example."""


def evaluate_artifact(
    path: Path,
    text: TextSplit,
    evaluation: EvaluationConfig,
    records: RecordKind | None = None,
    *,
    devices: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the quality of a checkpoint or a graph on held-out text.

    Args:
        path: a folder with an ONNX graph, a stage of a run (its graph is taken), or a checkpoint.
        text: quality is measured on its held-out part.
        records: the kind of the text's records, if not that of the model's own task.
        devices: those over which a checkpoint is spread, in the form of `limits_of`; None: all in memory.
        progress: called with the examples measured and their number.

    Raises:
        InputError: the path is neither, or the text is too short.
    """
    threads = evaluation.threads or default_threads()
    task, engine, tokenizer, _ = open_artifact(path, threads, devices)
    task = task if records is None else task.for_records(records)
    longest = engine.max_context
    evaluation = evaluation.fitted(longest)
    if task.tokens_read(evaluation.block_size) > longest:
        raise InputError(
            f"windows of {evaluation.block_size} tokens do not fit its context of {longest}",
            where=path,
            remedy="Lower --block-size.",
        )
    examples = task.examples(text.held_out, tokenizer, evaluation)
    task.check_examples(examples)
    protocol = protocol_of(
        task, evaluation, examples, max_context=longest, threads=threads, text=text.description
    )
    found = task.measure(engine, examples, progress=progress)
    quality = {**found.figures, **task.written_quality(engine, examples)}
    return Evaluation(task, quality, protocol, interval(found.scores, task.of_mean, most=task.metric.most))


class Artifact(NamedTuple):
    """A checkpoint or a graph, opened."""

    task: Task[Any]
    engine: Any
    tokenizer: PreTrainedTokenizerFast
    stop_tokens: tuple[int, ...]
    """Ids that end its texts."""


def open_artifact(path: Path, threads: int, devices: str | None = None) -> Artifact:
    """Open a folder with an ONNX graph, a stage of a run (its graph is taken), or a checkpoint.

    Raises:
        InputError: the path is neither, or a graph is to be spread over devices.
    """
    if holds_graph(path):
        if devices is not None:
            raise InputError(
                "spreads checkpoints, and the path holds a graph",
                where=OPTION,
                remedy="Name the checkpoint that the graph was made from, or leave it out.",
            )
        graph, tokenizer = graph_files(path)[0], load_tokenizer(path)
        task = task_of_graph(graph)
        engine = task.open_graph(graph, threads=threads)
        check_vocabulary(tokenizer, engine.vocab_size, path)
        return Artifact(
            task, engine, tokenizer, folder_stop_ids(home_of(graph), tokenizer, engine.vocab_size)
        )
    torch.set_num_threads(threads)
    spread = None if devices is None else Spread(limits_of(devices))
    checkpoint = load_checkpoint(path, spread=spread)
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    task = task_of_model(model)
    settings = model.generation_config if model.can_generate() else None
    named = None if settings is None else settings.eos_token_id
    stops = stop_ids(named, model.config.eos_token_id, tokenizer.eos_token_id)
    return Artifact(task, task.serve_model(model), tokenizer, stops)
