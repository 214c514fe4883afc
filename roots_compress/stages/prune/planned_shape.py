"""The shape that a prune stage is expected to leave, before anything is measured. Pure, without torch."""

from __future__ import annotations

from roots_compress.configs.prune import PruneConfig
from roots_compress.errors import InputError
from roots_compress.models.spec import ModelSpec
from roots_compress.stages.prune.plan import narrowed, plan_ratios
from roots_compress.stages.prune.targets.shapes import parameters_to_save

TRIALS = 24
"""Ratios that are tried for a target, each halving what is left to search."""


def planned_spec(config: PruneConfig, spec: ModelSpec) -> ModelSpec:
    """Return the shape that ratios ask for; of a target, equally narrower feed-forward blocks that meet it.

    Which layers leave is measured: here the last of each stack do.

    Raises:
        InputError: the ratios leave no legal width.
    """
    if config.target is None:
        return _cut(config, spec)
    if config.target.decode_ms is not None:
        return spec  # Timing alone tells how much must go.
    needed = parameters_to_save(config.target, spec, multiple_of=config.multiple_of)
    wanted = spec.parameters - needed
    low, high, best = 0.0, 1.0, spec
    for _ in range(TRIALS):
        ratio = (low + high) / 2
        trial = config.model_copy(update={"target": None, "ratio": ratio})
        try:
            cut = _cut(trial, spec)
        except InputError:
            # The nearest legal width lies on the other side.
            low, high = (ratio, high) if ratio < 1 / 2 else (low, ratio)
            continue
        if cut.parameters <= wanted:
            best, high = cut, ratio
        else:
            low = ratio
    return best if best.parameters < spec.parameters else _fewer_layers(spec, wanted)


def _cut(config: PruneConfig, spec: ModelSpec) -> ModelSpec:
    plan = plan_ratios(config, spec)
    layers = tuple(narrowed(layer, target) for layer, target in zip(spec.layers, plan.targets, strict=True))
    chosen: list[int] = []
    for first, count in zip((0, spec.begins), plan.layers, strict=False):
        chosen += range(first, first + count)
    return spec.with_layers(layers).with_chosen(chosen).with_embeddings(width=plan.hidden_size)


def _fewer_layers(spec: ModelSpec, wanted: int) -> ModelSpec:
    """Return the model without as many of its last layers as leave too many parameters."""
    count = len(spec.layers) - spec.begins
    while count > 1:
        count -= 1
        cut = spec.with_chosen([*range(spec.begins + count)])
        if cut.parameters <= wanted:
            return cut
    return spec
