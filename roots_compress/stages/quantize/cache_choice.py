"""The choice of an 8-bit key/value cache: if it speeds up a long workload, and loses little.

Decoding reads the whole cache for each token. So after a long text, a cache of floats takes as much time as
the weights, and one in 8 bits a quarter of that.
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
"""Tokens of a workload, read and written, above which caches are timed. For shorter ones the gain depends on
the processor: after 512 tokens an int8 cache gained nothing with AVX-512 VNNI, and 1.1 to 1.2 with AMX."""
MOST_LOST = 0.005
"""Nats a token that an int8 cache may add to the loss; the same as `activation_loss` for inputs."""
WINDOWS = 2
"""Windows of calibration text for this measurement."""


def may_gain(config: QuantizeConfig, model: RootsConfig, *, portable: bool) -> bool:
    """Return whether to time an int8 cache: if the graph can have one and the workload is long."""
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
    """Return a model's times with either cache; None if an int8 cache is out of the question.

    Raises:
        StageError: a model cannot be exported, or the measuring process failed.
    """
    if not may_gain(config, model, portable=context.export.portable):
        return None
    return cache_times(config, model, context.work, context.chosen, events=context.events)


def with_cache(config: QuantizeConfig, times: FormTimes | None) -> QuantizeConfig:
    """Return the settings with the chosen cache: int8 if that is faster or set."""
    faster = times is not None and integers_pay(times, config.workload)
    if config.cache != "auto":
        return config
    return config.model_copy(update={"cache": "int8" if faster else "float"})


def choice_of(config: QuantizeConfig, times: FormTimes, added: float | None) -> dict[str, Json]:
    """Return the choice for a stage's notes and key.

    Args:
        config: the stage's settings, with the cache that was chosen.
        added: nats a token that an int8 cache adds to the loss; None if it is no faster.
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
    """Return the loss that an int8 cache adds, in nats a token, on the first windows of a text.

    It is the divergence of the predictions with that cache from those with a float cache: the expected loss
        on text that the model writes itself.
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
