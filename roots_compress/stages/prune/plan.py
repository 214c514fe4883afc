"""What to keep: from ratios and scores to legal widths and indices. Pure functions, which import no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roots_compress.configs.prune import PruneConfig
from roots_compress.errors import InputError, Key

if TYPE_CHECKING:
    from torch import Tensor

UNITS = {
    "head_ratio": "key/value group",
    "query_ratio": "query head in each key/value group",
    "ratio": "MLP channel",
    "layer_ratio": "layer",
    "residual_ratio": "channel",
}
"""What each ratio cuts, by its key."""


@dataclass(frozen=True)
class LayerTarget:
    """What a layer is to keep."""

    kv_groups: int
    queries: int
    """Query heads of each key/value group."""
    mlp_channels: int


@dataclass(frozen=True)
class Plan:
    """Legal widths, known before anything is measured: those of each layer, and how many layers stay."""

    layers: int
    targets: tuple[LayerTarget, ...]
    """For every layer of the unpruned model, also those that will leave."""
    hidden_size: int
    """Width of the residual stream."""
    needed: int | None = None
    """Parameters to save at the least cost, with a target that says how many. With any target the widths
    above are what there is."""


def plan_ratios(config: PruneConfig, layers: Sequence[Mapping[str, int]], hidden_size: int) -> Plan:
    """Return the widths that the ratios ask for; needs nothing but the model's shape.

    Args:
        config: with a target its ratios are all 0.
        layers: the widths of each, as `RootsConfig` has them.
        hidden_size: width of the residual stream.

    Raises:
        InputError: a ratio leaves no legal width; the nearest ratio that does is named.
    """
    multiple = config.multiple_of
    targets = tuple(
        LayerTarget(
            kv_groups=kept_width(widths["num_key_value_heads"], config.head_ratio, 1, key="head_ratio"),
            queries=kept_width(
                widths["num_attention_heads"] // widths["num_key_value_heads"],
                config.query_ratio,
                1,
                key="query_ratio",
            ),
            mlp_channels=kept_width(widths["intermediate_size"], config.ratio, multiple, key="ratio"),
        )
        for widths in layers
    )
    return Plan(
        kept_width(len(targets), config.layer_ratio, 1, key="layer_ratio"),
        targets,
        kept_width(hidden_size, config.residual_ratio, multiple, key="residual_ratio"),
    )


def kept_width(width: int, ratio: float, multiple_of: int, *, key: str) -> int:
    """Return the multiple of `multiple_of` nearest to `width * (1 - ratio)`.

    Args:
        width: what there is.
        ratio: fraction to remove, between 0 and 1.
        multiple_of: the widths that runtimes like.
        key: the recipe key of the ratio, for the error.

    Raises:
        InputError: the nearest such width removes nothing or everything; the nearest other ratio is named.
    """
    if ratio == 0:
        return width
    least, most = multiple_of, (width - 1) // multiple_of * multiple_of
    if most < least:
        smaller = f"no multiple of {multiple_of} is below {width}"
        lower = "Lower multiple_of, or leave this width alone with a ratio of 0."
        if width == 1:
            smaller, lower = f"the model has one {UNITS[key]}, which must stay", f"Set {key} to 0."
        raise InputError(f"{key} {ratio} leaves no legal width: {smaller}", where=Key(key), remedy=lower)
    kept = multiple_of * int(width * (1 - ratio) / multiple_of + 0.5)
    if not least <= kept <= most:
        nearest = most if kept > most else least
        unit = f" in multiples of {multiple_of}" if multiple_of > 1 else ""
        raise InputError(
            f"{key} {ratio} leaves no legal width: of {width}, between {least} and {most} can stay{unit}",
            where=Key(key),
            remedy=f"The nearest legal {key} is {1 - nearest / width:.4f}, which keeps {nearest}.",
        )
    return kept


def best_units(scores_U: Tensor, count: int) -> list[int]:
    """Return the `count` units of highest score, in rising order. Of equal ones the first stays."""
    order = scores_U.cpu().argsort(descending=True, stable=True)
    return sorted(order[:count].tolist())


def best_of_each(scores_U: Tensor, groups: int, count: int) -> list[int]:
    """Return the `count` units of highest score in each of `groups` equal groups, in rising order."""
    size = len(scores_U) // groups
    return [
        group * size + unit
        for group, scores in enumerate(scores_U.view(groups, size))
        for unit in best_units(scores, count)
    ]
