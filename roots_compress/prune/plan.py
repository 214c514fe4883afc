"""What to keep: from ratios and scores to legal widths and indices. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from roots_compress.errors import InputError


@dataclass(frozen=True)
class LayerTarget:
    """What a layer is to keep."""

    kv_groups: int
    queries: int
    """Query heads of each key/value group."""
    mlp_channels: int


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
        raise InputError(
            f"{key} {ratio} leaves no legal width: no multiple of {multiple_of} is below {width}",
            remedy="Lower multiple_of, or leave this width alone with a ratio of 0.",
        )
    kept = multiple_of * int(width * (1 - ratio) / multiple_of + 0.5)
    if not least <= kept <= most:
        nearest = most if kept > most else least
        unit = f" in multiples of {multiple_of}" if multiple_of > 1 else ""
        raise InputError(
            f"{key} {ratio} leaves no legal width: of {width}, between {least} and {most} can stay{unit}",
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
