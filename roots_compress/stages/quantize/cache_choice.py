"""Whether keys and values are cached in 8 bits: where that serves a long workload sooner, and loses little.

Decoding reads the whole cache for each token. Once a text is long, a cache of floats therefore takes as much
time as the weights do, and one in 8 bits a quarter of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from roots_compress.calibration.activations import batches
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.data.windows import PackedWindows
from roots_compress.models.blocks.attention import AttentionBlock
from roots_compress.models.config import RootsConfig
from roots_compress.models.heads import RootsWithHead
from roots_compress.results import Json
from roots_compress.stages.base import StageContext
from roots_compress.stages.quantize.products.choice import FormTimes, integers_pay
from roots_compress.stages.quantize.products.times import cache_times, served_on
from roots_compress.system.machine import own_instruction_set, processor_class

LONG = 1024
"""Tokens of a workload, read and written, from which caches are timed. For shorter ones the gain depends on
the processor: after 512 tokens an int8 cache gained nothing with AVX-512 VNNI, and 1.1 to 1.2 with AMX."""
MOST_LOST = 0.005
"""Nats a token that an int8 cache may add to the loss; as `activation_loss` allows inputs of products."""
WINDOWS = 2
"""Of calibration text, on which that is measured."""


def may_gain(config: QuantizeConfig, model: RootsConfig, *, portable: bool) -> bool:
    """Return whether a cache in int8 is to be timed: of a graph that can have one, for a long workload."""
    work = config.workload
    return (
        config.cache == "auto"
        and config.scheme != "fp16"
        and served_on(config) == processor_class(own_instruction_set())
        and work.write > 0
        and min(work.read + work.write, model.max_position_embeddings) >= LONG
        and model.is_fusible
        and not portable
    )


def times_of_caches(config: QuantizeConfig, model: RootsConfig, context: StageContext) -> FormTimes | None:
    """Return what a model takes with either cache; None where no cache in int8 comes into question.

    Raises:
        StageError: a model cannot be exported, or the measuring process failed.
    """
    if not may_gain(config, model, portable=context.export.portable):
        return None
    return cache_times(config, model, context.work, context.chosen, events=context.events)


def with_cache(config: QuantizeConfig, times: FormTimes | None) -> QuantizeConfig:
    """Return the settings with the cache that is to be made: in int8 if that is faster, or asked for."""
    faster = times is not None and integers_pay(times, config.workload)
    if config.cache != "auto":
        return config
    return config.model_copy(update={"cache": "int8" if faster else "float"})


def choice_of(config: QuantizeConfig, times: FormTimes, added: float | None) -> dict[str, Json]:
    """Return what a stage's notes and its key say of the choice.

    Args:
        config: the stage's settings, with the cache that was chosen.
        added: nats a token that a cache in int8 adds to the loss; None where it is no faster.
    """
    return {
        "cache": config.cache,
        "workload": config.workload.model_dump(),
        "milliseconds": {
            "int8": times.integer.of(config.workload),
            "float": times.floating.of(config.workload),
        },
        "added_loss": added,
        "allowed_loss": MOST_LOST,
        "source": times.source,
        "times": times.to_json(),
    }


@torch.no_grad()
def cache_loss(model: RootsWithHead, windows: PackedWindows) -> float:
    """Return what a model's cache in int8 adds to its loss: nats a token, on the first windows of a text.

    It is the divergence of the predictions with that cache from those with one of floats, which is what a
    text that the model writes itself loses.
    """
    total, count = 0.0, 0
    for inputs in batches(windows[:WINDOWS], 1, "cpu"):
        rounded_TV = _predictions(model, inputs)
        with _floats_cached(model):
            exact_TV = _predictions(model, inputs)
        total += float(F.kl_div(rounded_TV, exact_TV, log_target=True, reduction="sum"))
        count += len(exact_TV)
    return total / count


def _predictions(model: RootsWithHead, inputs: dict[str, Tensor]) -> Tensor:
    return F.log_softmax(model(**inputs, use_cache=False).logits.flatten(0, -2).float(), dim=-1)


@contextmanager
def _floats_cached(model: RootsWithHead) -> Iterator[None]:
    """Within the block, keys and values are not rounded."""
    blocks = [each for each in model.modules() if isinstance(each, AttentionBlock)]
    roundings = [each.cache_rounding for each in blocks]
    for block in blocks:
        block.cache_rounding = None
    try:
        yield
    finally:
        for block, rounding in zip(blocks, roundings, strict=True):
            block.cache_rounding = rounding
