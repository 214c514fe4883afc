"""Measures the cost of a training stage on this machine, on few layers and few of its steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from roots_compress.configs.recipe.schema import StageConfig
from roots_compress.configs.recipe.walk import training_of
from roots_compress.evaluation.memory import own_peak_rss_bytes
from roots_compress.events import Event, Events, Figure
from roots_compress.models.spec import ModelSpec
from roots_compress.pipeline.forecast.costs import Line, TrainingCosts, trained
from roots_compress.pipeline.forecast.pace import STEADY_SECONDS
from roots_compress.pipeline.forecast.stand_ins import stand_in, with_few_layers
from roots_compress.pipeline.preflight import Setting
from roots_compress.stages.base import StageContext
from roots_compress.stages.expected import ExpectedModel, Small
from roots_compress.stages.registry import stage_of
from roots_compress.system.memory import forget_peak
from roots_compress.training.memory import hand_back_free_memory

LEAST_STEPS, FEW_STEPS, MOST_STEPS = 2, 6, 16
"""Steps of a training; the first takes longer than the others, and is not counted."""
FEW_TOKENS = 8192
"""Approximate tokens of all steps: if steps read many tokens, fewer are run."""
MOST_COPIES = 32
"""Most bytes of memory per byte of weights: optimizer, gradients, activations, and a margin."""


def training_costs(
    setting: Setting,
    tokenizer: PreTrainedTokenizerFast,
    config: StageConfig,
    before: ExpectedModel,
    depths: Sequence[int],
    folder: Path,
    events: Events,
) -> TrainingCosts:
    """Measure a stage that trains, with little calibration text and the run's own vocabulary.

    Args:
        depths: the measured numbers of layers in a stack, the smallest first.
    """
    points: list[tuple[float, ...]] = []
    steps = least = _few_steps(config)
    for depth in dict.fromkeys(min(depth, len(before.spec.layers)) for depth in depths):
        cut = ExpectedModel(with_few_layers(before.spec, depth))
        small = stage_of(config).in_small(config, Small(before.spec, cut.spec, steps, depth))
        heard = _Steps()
        context = StageContext(
            text=setting.text,
            device=setting.device,
            seed=setting.recipe.seed,
            work=folder / str(depth),
            events=Events(*events.sinks, heard),
            export=setting.recipe.export,
            new=True,  # Otherwise a further `train` is validated here, which `expect` already counts.
        )
        context.work.mkdir(parents=True)
        checkpoint = stand_in(cut.spec, tokenizer)
        with peak_bytes() as peak:
            began = time.perf_counter()
            stage_of(small).run(small, checkpoint, context)
            seconds = time.perf_counter() - began
        made = stage_of(small).expect(small, cut).model
        start = max(0.0, seconds - heard.count * heard.usual)
        points.append((trained(cut, made), start, heard.usual, peak[0]))
        steps = max(least, min(MOST_STEPS, round(2 * STEADY_SECONDS / max(heard.usual, 1e-3))))
    (few, *low), (many, *up) = points[0], points[-1]
    limits = (math.inf, math.inf, MOST_COPIES)
    return TrainingCosts(
        *(
            Line.through((few, less), (many, more), steepest=limit)
            for less, more, limit in zip(low, up, limits, strict=True)
        )
    )


def _few_steps(config: StageConfig) -> int:
    (_, each), *_ = training_of(config)
    tokens = each.batch_size * each.accumulation * each.block_size
    return max(LEAST_STEPS, min(FEW_STEPS, FEW_TOKENS // tokens))


def make_first(
    setting: Setting, folder: Path, events: Events
) -> tuple[PreTrainedTokenizerFast, ModelSpec, float]:
    """Return tokenizer and shape of the model that a first stage makes, and the seconds for it."""
    config = setting.recipe.stages[0]
    context = StageContext(setting.text, setting.device, setting.recipe.seed, folder, events)
    began = time.perf_counter()
    made = stage_of(config).make(config, context)
    return made.tokenizer, made.model.config.spec, time.perf_counter() - began


@contextmanager
def peak_bytes() -> Iterator[list[float]]:
    """Record this process's peak memory within the block; 0 if the system does not report it."""
    found = [0.0]
    hand_back_free_memory(least=0)
    counted = forget_peak()
    try:
        yield found
    finally:
        if counted:
            found[0] = float(own_peak_rss_bytes())


class _Steps:
    """Records when the steps of a training ended, as a sink of events."""

    def __init__(self) -> None:
        self._ended: dict[int, float] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Figure) and event.step is not None:
            self._ended.setdefault(event.step, time.perf_counter())

    @property
    def count(self) -> int:
        """The number of steps."""
        return len(self._ended)

    @property
    def usual(self) -> float:
        """Least seconds of a step, without the first; 0 if there was no other. See `least_seconds`."""
        ended = [*self._ended.values()]
        return min(after - before for before, after in pairwise(ended)) if ended[1:] else 0.0
