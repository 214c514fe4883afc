"""How fast this machine computes, by timings that last long enough to be repeated."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import lru_cache
from statistics import median

import torch

from roots_compress.models.spec import ModelSpec
from roots_compress.pipeline.forecast.stand_ins import random_model, with_few_layers
from roots_compress.stages.expected import ExpectedModel

STEADY_SECONDS = 0.5
"""How long a timing is repeated, at the least."""
SHORT_SECONDS = 0.2
"""The same where somebody waits for it."""
ALIKE = 0.05
"""By how much two times may differ that took as long."""
LEAST_TOKENS, MOST_TOKENS = 64, 256
OPERATIONS = 4e9
"""Multiplications of a pass that tells the pace, about."""


def usual_seconds(work: Callable[[], object], *, least: float | None = None) -> float:
    """Return the median seconds of some work, after a first time that is not counted.

    It is repeated for `least` seconds (None: `STEADY_SECONDS`), or for fewer once one time took as long as
    that before it.
    """
    least = STEADY_SECONDS if least is None else least

    def timed() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    first, *found = timed(), timed()
    while sum(found) < least:
        before = found[-1] if found[1:] else first
        if sum(found) >= SHORT_SECONDS and abs(found[-1] - before) <= ALIKE * before:
            break
        found.append(timed())
    return median(found)


def pass_seconds(spec: ModelSpec, rows: int, length: int, *, least: float | None = None) -> float:
    """Return the seconds of a forward pass through a model's layers, of a model of random weights."""
    model = random_model(ExpectedModel(spec)).model
    ids = torch.arange(rows * length).remainder(spec.embeddings.vocabulary).view(rows, length)
    inputs = {"input_ids": ids} | ({} if spec.source is None else {"decoder_input_ids": ids})
    with torch.no_grad():
        return usual_seconds(lambda: model(**inputs, use_cache=False), least=least)


def pace(spec: ModelSpec, *, threads: int) -> float:
    """Return about how many seconds a token takes by a weight of a model's layers.

    One layer is timed, for less than a second, once for each model and number of threads.
    """
    torch.set_num_threads(threads)
    form = with_few_layers(spec, 1).with_embeddings(vocabulary=min(256, spec.embeddings.vocabulary))
    return _pace(json.dumps(form.to_json()), threads)


@lru_cache
def _pace(form: str, threads: int) -> float:
    spec = ModelSpec.of_json(json.loads(form))
    weights = spec.body_parameters
    length = min(spec.max_positions, max(LEAST_TOKENS, min(MOST_TOKENS, int(OPERATIONS / weights))))
    return pass_seconds(spec, 1, length, least=SHORT_SECONDS) / (length * weights)
