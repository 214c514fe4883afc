"""Scales of keys and values that a graph caches in int8: fixed ones, from their ranges on calibration text.

A scale for each channel of the keys, whose outliers keep to channels (KIVI, Liu et al. 2024,
arXiv:2402.02750; KVQuant, Hooper et al. 2024, arXiv:2401.18079), and of the values too, which the graph's
operator wants.

Shape legend: R rows (tokens), G key/value heads, D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from roots_compress.models.layers import RootsAttention
from roots_compress.models.quantized import ACTIVATION_LEVELS
from roots_compress.models.rotary import rotary_frequencies

# Other text goes beyond what calibration saw: what is cut off costs more than a coarser step.
MARGIN = 1.25


def rotated_range(key_RGD: Tensor, factor: float) -> Tensor:
    """Return the largest magnitude that each channel can have at any position, `GD`.

    Rotary positions turn the pair of channels d and d + D / 2 about the origin: the pair's length bounds
    both, wherever in a context a token comes to stand. YaRN makes the pair longer too, by the factor on
    cosines and sines.
    """
    first, second = key_RGD.chunk(2, dim=-1)
    length = torch.hypot(first, second).amax(dim=0) * factor
    return torch.cat((length, length), dim=-1)


def scale_of(range_GD: Tensor) -> Tensor:
    """Return the step between levels, `GD`; 1 for a channel that is always zero."""
    step_GD = range_GD * (MARGIN / ACTIVATION_LEVELS)
    return torch.where(step_GD > 0, step_GD, 1.0)


class CacheRanges:
    """Largest magnitudes of the keys and values that passed, `GD` each; `seen` tells whether any did.

    Args:
        heads: key/value heads.
        width: head dimension.
        rotary_factor: on cosines and sines; None without rotary positions.
    """

    def __init__(self, heads: int, width: int, *, rotary_factor: float | None) -> None:
        self._shape, self._rotary_factor = (heads, width), rotary_factor
        self.seen = False
        self.key = torch.zeros(heads, width)
        self.value = torch.zeros(heads, width)

    def see_keys(self, keys: Tensor) -> None:
        """Take in keys as they are before rotary positions; the last axes hold their heads."""
        self.seen = True
        key_RGD = keys.detach().float().reshape(-1, *self._shape)
        if self._rotary_factor is None:
            largest = key_RGD.abs().amax(dim=0)
        else:
            largest = rotated_range(key_RGD, self._rotary_factor)
        self.key = torch.maximum(self.key.to(largest.device), largest)

    def see_values(self, values: Tensor) -> None:
        """Take in values."""
        largest = values.detach().float().reshape(-1, *self._shape).abs().amax(dim=0)
        self.value = torch.maximum(self.value.to(largest.device), largest)

    def buffers(self) -> dict[str, Tensor]:
        """Return the buffers of a `CacheRounding`, on the CPU."""
        return {"key_scale": scale_of(self.key).cpu(), "value_scale": scale_of(self.value).cpu()}


@contextmanager
def observed_cache(attention: RootsAttention) -> Iterator[CacheRanges]:
    """Within the block, take in the keys and values of every run of a layer's attention."""
    factor = None
    if attention.config.position == "rotary":
        _, factor = rotary_frequencies(attention.config, attention.head_dim)
    ranges = CacheRanges(attention.num_kv_heads, attention.head_dim, rotary_factor=factor)

    def hook(see: Callable[[Tensor], None]) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _module, _inputs, output: see(output)

    keys = attention.k_norm if attention.config.qk_norm else attention.k_proj
    handles = [
        keys.register_forward_hook(hook(ranges.see_keys)),
        attention.v_proj.register_forward_hook(hook(ranges.see_values)),
    ]
    try:
        yield ranges
    finally:
        for handle in handles:
            handle.remove()
