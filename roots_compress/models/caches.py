"""A decoder's caches in torch: a layer's keys and values, or its block's state.

transformers' `DynamicCache` copies all keys and values at each token, so that writing a window takes time
quadratic in its length; its `StaticCache` returns all slots, which must then be masked. With a capacity, this
cache allocates its whole length at the first token; without, it grows as `DynamicCache` does.

Shape legend: B batch, G key/value heads, T new tokens, S tokens so far, D head dimension.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
)

from roots_compress.models.ops.attention import Attention
from roots_compress.models.spec import ModelSpec

FULL, BOTH = Attention.keeps, "hybrid"
"""transformers' names of layers that cache keys and values, and of those with another state too."""


class _Preallocated:
    """Keys and values as views of the filled part of two buffers, for a layer of transformers' caches."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def update(
        self: Any, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append `BGTD` keys and values, and return all, `BGSD`.

        Raises:
            RuntimeError: they do not fit the capacity.
        """
        first = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            batch, heads, _, width = key_states.shape
            self.written_keys = key_states.new_empty(batch, heads, self.capacity, width)
            self.written_values = value_states.new_empty(batch, heads, self.capacity, value_states.shape[-1])
        last = first + key_states.shape[-2]
        self.written_keys[:, :, first:last] = key_states
        self.written_values[:, :, first:last] = value_states
        self.keys, self.values = self.written_keys[:, :, :last], self.written_values[:, :, :last]
        return self.keys, self.values


class PreallocatedLayer(_Preallocated, DynamicLayer):
    """One layer's keys and values."""


class PreallocatedBoth(_Preallocated, LinearAttentionAndFullAttentionLayer):  # type: ignore[misc,override]
    """One layer's keys and values, and the state of another block in it."""


class StateLayer(LinearAttentionLayer):
    """The state of a layer without keys and values, and how many tokens it has read."""

    tokens = 0

    def update_conv_state(self, conv_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Append `BCT` inputs to the kept ones, and return both."""
        self.tokens += conv_states.shape[-1]
        return super().update_conv_state(conv_states, *args, **kwargs)

    def get_seq_length(self) -> int:
        """Return how many tokens it has read: 0 if its block keeps nothing."""
        return self.tokens

    def reset(self) -> None:
        """Forget all tokens."""
        super().reset()
        self.tokens = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens; their number is negative, as in transformers' caches."""
        if any(self.is_conv_states_initialized.values()):
            super().crop(tokens_to_remove)
            self.tokens += tokens_to_remove


class LayerwiseCache(Cache):
    """A cache whose layers may have different states, or none."""

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens the layers have read."""
        layers: Any = self.layers
        return max(int(layer.get_seq_length()) for layer in layers)


def empty_cache(spec: ModelSpec, capacity: int | None = None) -> Cache:
    """Return an empty cache for a model's last stack.

    Args:
        capacity: the most tokens that it can hold; None to let it grow.
    """
    return LayerwiseCache([_empty_layer(kind, capacity) for kind in layer_types(spec)])


def move_to(cache: Cache, tokens: int) -> None:
    """Advance a cache with a capacity, which has read a token, to this many tokens, for timings.

    The entries of further tokens are zero.
    """
    layers: Any = cache.layers
    for layer in layers:
        read = layer.get_seq_length()
        if isinstance(layer, StateLayer):
            layer.tokens = tokens
        elif layer.is_initialized:
            layer.written_keys[:, :, read:tokens] = 0
            layer.written_values[:, :, read:tokens] = 0
            layer.keys = layer.written_keys[:, :, :tokens]
            layer.values = layer.written_values[:, :, :tokens]


def _empty_layer(kind: str, capacity: int | None) -> CacheLayerMixin | LinearAttentionLayer:
    """Return the empty cache of a layer."""
    if kind == FULL:
        return DynamicLayer() if capacity is None else PreallocatedLayer(capacity)
    if kind == BOTH:
        return LinearAttentionAndFullAttentionLayer() if capacity is None else PreallocatedBoth(capacity)
    return StateLayer()


def layer_types(spec: ModelSpec) -> list[str]:
    """Return transformers' name for the cache of each layer of that stack."""
    kept = [{each.op.keeps for each in layer if each.op.keeps is not None} for layer in spec.stack.layers]
    # A layer without such a block keeps nothing in either case.
    return [BOTH if len(names) > 1 else next(iter(names), FULL) for names in kept]
