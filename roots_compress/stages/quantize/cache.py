"""Fixed scales of keys and values for an int8 cache, from their ranges on calibration text.

Each channel of the keys has a scale, because their outliers are in fixed channels (KIVI, Liu et al. 2024,
arXiv:2402.02750; KVQuant, Hooper et al. 2024, arXiv:2401.18079). So has each channel of the values, as the
graph's operator requires.

Shape legend: R rows (tokens), G key/value heads, D head dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from roots_compress.models.blocks.attention import AttentionBlock
from roots_compress.models.ops.attention import Attention
from roots_compress.models.quantized import ACTIVATION_LEVELS
from roots_compress.models.rotary import rotary_frequencies

# Other text exceeds the calibration's range: clipping costs more than a coarser step.
MARGIN = 1.25


def rotated_range(key_RGD: Tensor, turned: int, factor: float) -> Tensor:
    """Return the largest possible magnitude of each channel at any position, `GD`.

    Rotary positions rotate the pair of channels d and d + turned / 2 about the origin: the pair's length
    bounds both, at every position. YaRN and LongRoPE also lengthen the pair. Channels that are not rotated
    keep their own range.

    Args:
        key_RGD: keys before rotary positions.
        turned: the number of a head's first channels that are rotated; 0 for none.
        factor: that on cosines and sines.
    """
    first, second = key_RGD[..., :turned].chunk(2, dim=-1)
    length = torch.hypot(first, second).amax(dim=0) * factor
    return torch.cat((length, length, key_RGD[..., turned:].abs().amax(dim=0)), dim=-1)


def scale_of(range_GD: Tensor) -> Tensor:
    """Return the step between levels, `GD`; 1 for a channel that is always zero."""
    step_GD = range_GD * (MARGIN / ACTIVATION_LEVELS)
    return torch.where(step_GD > 0, step_GD, 1.0)


class CacheRanges:
    """Largest magnitudes of the observed keys and values, `GD` each."""

    def __init__(self, spec: Attention, max_positions: int) -> None:
        self._turned, self._factor = 0, 1.0
        if spec.rope is not None and not (spec.qk_norm is not None and spec.qk_norm.after_rope):
            self._turned = spec.rope.rotary_dim or spec.head_dim
            self._factor = rotary_frequencies(spec.rope, spec.head_dim, max_positions).factor
        self.key = torch.zeros(spec.kv_heads, spec.head_dim)
        self.value = torch.zeros(spec.kv_heads, spec.head_dim)

    def see(self, key_BTGD: Tensor, value_BTGD: Tensor) -> None:
        """Add keys (before rotary positions, unless these come before norms) and values."""
        key_RGD, value_RGD = (each.detach().float().flatten(0, 1) for each in (key_BTGD, value_BTGD))
        key = rotated_range(key_RGD, self._turned, self._factor)
        self.key = torch.maximum(self.key.to(key.device), key)
        self.value = torch.maximum(self.value.to(key.device), value_RGD.abs().amax(dim=0))

    def state(self, name: str) -> dict[str, Tensor]:
        """Return the buffers of a `CacheRounding` of this name, on the CPU."""
        ranges = {"key_scale": self.key, "value_scale": self.value}
        return {f"{name}.{buffer}": scale_of(each).cpu() for buffer, each in ranges.items()}


@contextmanager
def observed_cache(block: AttentionBlock, max_positions: int) -> Iterator[CacheRanges]:
    """Within the block, observe the keys and values of every run of an attention."""
    ranges = CacheRanges(block.spec, max_positions)
    block.cache_observer = ranges.see
    try:
        yield ranges
    finally:
        block.cache_observer = None
