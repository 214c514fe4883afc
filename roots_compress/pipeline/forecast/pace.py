"""Measures the machine's speed, by timings that are long enough to be repeatable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import lru_cache

import torch

from roots_compress.models.device import Precision, autocast
from roots_compress.models.spec import ModelSpec
from roots_compress.pipeline.forecast.stand_ins import random_model, with_few_layers

STEADY_SECONDS = 0.25
"""Least seconds for which a timing is repeated."""
SHORT_SECONDS = 0.2
"""The same if a user is waiting."""
FEWEST = 3
"""Least number of repeats; the first may be slower, because code is loaded."""
LONG_SECONDS = 1.0
"""Work of so many seconds is repeated once only: code that is loaded is a small part of it."""
ALIKE = 0.05
"""Largest difference of two times that count as equal."""
LEAST_TOKENS, MOST_TOKENS = 64, 256
OPERATIONS = 4e9
"""Approximate multiplications of the timed pass."""


def least_seconds(work: Callable[[], object], *, lasting: float | None = None) -> float:
    """Return the least seconds of some work over at least three repeats, or two if it is long.

    Other programs only add to a time, so the least is nearer to the machine's own speed than the median. The
    work is repeated for `lasting` seconds (None: `STEADY_SECONDS`), or for fewer once two times in a row
    agree.
    """
    lasting = STEADY_SECONDS if lasting is None else lasting
    found: list[float] = []
    fewest = FEWEST
    while len(found) < fewest or sum(found[1:]) < lasting:
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
        if found[0] >= LONG_SECONDS:
            fewest = 2
        if len(found) >= FEWEST and sum(found[1:]) >= SHORT_SECONDS:
            *_, before, last = found
            if abs(last - before) <= ALIKE * before:
                break
    return min(found)


def pass_seconds(
    spec: ModelSpec, rows: int, length: int, *, precision: Precision = "no", lasting: float | None = None
) -> float:
    """Return the seconds of a forward pass through a model's layers, of a model of random weights."""
    model = random_model(spec).model
    ids = torch.arange(rows * length).remainder(spec.embeddings.vocabulary).view(rows, length)
    inputs = {"input_ids": ids} | ({} if spec.source is None else {"decoder_input_ids": ids})
    with torch.no_grad(), autocast("cpu", precision):
        return least_seconds(lambda: model(**inputs, use_cache=False), lasting=lasting)


def pace(spec: ModelSpec, *, threads: int, precision: Precision = "no") -> float:
    """Return the approximate seconds of a token per weight of a model's layers.

    One layer is timed, for less than a second, once for each model and number of threads.
    """
    torch.set_num_threads(threads)
    form = with_few_layers(spec, 1).with_embeddings(vocabulary=min(256, spec.embeddings.vocabulary))
    return _pace(json.dumps(form.to_json()), threads, precision)


@lru_cache
def _pace(form: str, threads: int, precision: Precision) -> float:
    spec = ModelSpec.of_json(json.loads(form))
    weights = spec.body_parameters
    length = min(spec.max_positions, max(LEAST_TOKENS, min(MOST_TOKENS, int(OPERATIONS / weights))))
    seconds = pass_seconds(spec, 1, length, precision=precision, lasting=SHORT_SECONDS)
    return seconds / (length * weights)
