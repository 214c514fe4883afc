"""Prefill and decode speed of graphs, timed side by side.

All graphs are opened in one child process and timed in turns, so that whatever else the machine does meets
all of them alike. Timings are compared inside one such run, never across runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from roots_compress.errors import InputError
from roots_compress.evaluate.child import measure, serve
from roots_compress.results import Speed
from roots_compress.runtime.onnx_engine import OnnxEngine
from roots_compress.runtime.protocol import LanguageModel, Tokens
from roots_compress.runtime.session import read_config

if TYPE_CHECKING:
    from roots_compress.progress import Progress

# A timing lasts at least this long: a small model is run several times over for it.
MIN_SECONDS = 0.1


class Speeds(NamedTuple):
    """Tokens per second of one graph, one entry for each context length."""

    prefill: tuple[Speed, ...]
    decode: tuple[Speed, ...]


class Timing(NamedTuple):
    """Seconds that one prompt and the tokens decoded after it took, each a mean of equally many runs."""

    prefill_seconds: float
    decode_seconds: float


def measure_speed(
    folders: Mapping[str, Path],
    *,
    contexts: Sequence[int],
    decode_tokens: int,
    repeats: int,
    threads: int,
    progress: Progress | None = None,
) -> dict[str, Speeds]:
    """Time graphs against each other on the CPU, batch 1.

    Prefill at a context of C is the time to read C tokens into an empty cache. Decode at C is the time for
    `decode_tokens` single tokens after them. Every graph stays open throughout, so all must fit in memory.

    Args:
        folders: the graphs, by the labels of the result.
        contexts: context lengths; those the models cannot hold are replaced as `fit_contexts` says.
        decode_tokens: tokens decoded in each timing.
        repeats: timings of each figure, after one that is not counted.
        threads: threads within an operator.
        progress: called after every timing.

    Raises:
        InputError: a folder is not a whole graph, or a model's context has no room for the decoded tokens.
        StageError: the measuring process failed.
    """
    # Imported here: the child has no use for `onnx`.
    from roots_compress.runtime.graph_folder import graph_files

    graphs = {label: graph_files(folder)[0] for label, folder in folders.items()}
    room = min(read_config(graph.parent / "config.json")[1] for graph in graphs.values())
    fitted = fit_contexts(contexts, decode_tokens=decode_tokens, max_context=room)
    request = {
        "graphs": {label: str(graph.resolve()) for label, graph in graphs.items()},
        "contexts": fitted,
        "decode_tokens": decode_tokens,
        "repeats": repeats,
        "threads": threads,
    }
    timings = measure(__name__, request, progress=progress)
    return {
        label: summarise([[Timing(*timing) for timing in at] for at in timings[label]], fitted, decode_tokens)
        for label in graphs
    }


def fit_contexts(contexts: Sequence[int], *, decode_tokens: int, max_context: int) -> list[int]:
    """Return the context lengths to measure: ascending, each leaving room for the tokens decoded after it.

    A length the model cannot hold becomes the longest it can; lengths that then coincide are measured once.

    Raises:
        InputError: there is no room for one token of prompt.
    """
    longest = max_context - decode_tokens
    if longest < 1:
        raise InputError(
            f"{decode_tokens} decoded tokens leave no room in a context of {max_context}",
            remedy="Decode fewer tokens.",
        )
    return sorted({min(context, longest) for context in contexts})


def time_models(
    models: Mapping[str, LanguageModel],
    contexts: Sequence[int],
    *,
    decode_tokens: int,
    repeats: int,
    progress: Progress | None = None,
) -> dict[str, list[list[Timing]]]:
    """Time models in turns; return for each the timings of each context.

    The order of the models moves on by one in each repeat, so that none always follows the same one.
    """
    prompts = {label: _random_tokens(model, max(contexts) + decode_tokens) for label, model in models.items()}
    runs: dict[tuple[str, int], int] = {}
    for context in contexts:
        for label, model in models.items():
            _time(model, prompts[label], context, decode_tokens, 1)  # Allocates, packs, wakes threads.
            once = sum(_time(model, prompts[label], context, decode_tokens, 1))
            runs[label, context] = max(1, math.ceil(MIN_SECONDS / once))
    timings: dict[str, list[list[Timing]]] = {label: [[] for _ in contexts] for label in models}
    labels, total = list(models), repeats * len(contexts) * len(models)
    for repeat in range(repeats):
        turn = repeat % len(labels)
        for index, context in enumerate(contexts):
            for label in labels[turn:] + labels[:turn]:
                timing = _time(models[label], prompts[label], context, decode_tokens, runs[label, context])
                timings[label][index].append(timing)
                if progress is not None:
                    progress(sum(len(at) for row in timings.values() for at in row), total)
    return timings


def summarise(timings: list[list[Timing]], contexts: Sequence[int], decode_tokens: int) -> Speeds:
    """Return tokens per second at each context: the median of the repeats, and their extremes."""
    prefill, decode = [], []
    for context, repeats in zip(contexts, timings, strict=True):
        prefill.append(_speed(context, context, [timing.prefill_seconds for timing in repeats]))
        decode.append(_speed(context, decode_tokens, [timing.decode_seconds for timing in repeats]))
    return Speeds(tuple(prefill), tuple(decode))


def _speed(context: int, tokens: int, seconds: list[float]) -> Speed:
    rates = [tokens / each for each in seconds]
    return Speed(context=context, median=median(rates), low=min(rates), high=max(rates))


def _random_tokens(model: LanguageModel, count: int) -> Tokens:
    return np.random.default_rng(0).integers(model.vocab_size, size=(1, count))


def _time(model: LanguageModel, tokens_1T: Tokens, context: int, decode_tokens: int, runs: int) -> Timing:
    prefill_seconds = decode_seconds = 0.0
    for _ in range(runs):
        began = time.perf_counter()
        step = model.prefill(tokens_1T[:, :context])
        filled = time.perf_counter()
        for position in range(context, context + decode_tokens):
            step = model.decode(tokens_1T[:, position], step.cache)
        ended = time.perf_counter()
        prefill_seconds += filled - began
        decode_seconds += ended - filled
    return Timing(prefill_seconds / runs, decode_seconds / runs)


def _handle(request: dict[str, Any], progress: Progress) -> Any:
    engines = {
        label: OnnxEngine.open(Path(graph), threads=request["threads"], provider="cpu")
        for label, graph in request["graphs"].items()
    }
    return time_models(
        engines,
        request["contexts"],
        decode_tokens=request["decode_tokens"],
        repeats=request["repeats"],
        progress=progress,
    )


if __name__ == "__main__":
    serve(_handle)
