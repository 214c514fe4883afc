"""How many weights of a row share a scale, matrix by matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roots_compress.configs.quantize import GroupSetting
from roots_compress.models.quantized import Format, matrix_bytes

USUAL = 64
LARGE = 128
"""In 8 bits, ONNX Runtime multiplies in groups of 128 a tenth faster than in groups of 64."""


def usual_group_size(setting: GroupSetting) -> int:
    """Return the group size of most matrices (see `group_size_of`)."""
    return USUAL if setting == "auto" else setting


def stored_sizes(setting: GroupSetting, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return a config's entries for the group sizes of these modules."""
    usual = usual_group_size(setting)
    others = {name: size for name, size in sorted(sizes.items()) if size != usual}
    return {"group_size": usual, **({"group_sizes": others} if others else {})}


def group_size_of(setting: GroupSetting, weight_format: Format, width: int) -> int:
    """Return a matrix's group size.

    `auto` gives 8-bit matrices groups of 128 if these take no more bytes than groups of 64. With padding in
    the last group they may: an input of 576 would be stored and multiplied as one of 640. Weights in 4 bits
    lose more in large groups, and keep 64.
    """
    if setting != "auto":
        return setting
    if weight_format != "w8":
        return USUAL
    large, usual = (matrix_bytes(1, width, weight_format, size) for size in (LARGE, USUAL))
    return LARGE if large <= usual else USUAL
