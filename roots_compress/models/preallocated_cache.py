"""A cache of keys and values for torch that holds its whole length from the first token on.

transformers' `DynamicCache` copies everything at each token, so that writing a window takes time quadratic in
its length; its `StaticCache` returns all slots, which must then be masked.

Shape legend: B batch, G key/value heads, T new tokens, S tokens so far, D head dimension.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """One layer's keys and values: views of the filled part of two buffers."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write `BGTD` keys and values after those before, and return all, `BGSD`.

        Raises:
            RuntimeError: they do not fit the capacity.
        """
        first = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            batch, heads, _, width = key_states.shape
            self._keys = key_states.new_empty(batch, heads, self.capacity, width)
            self._values = value_states.new_empty(batch, heads, self.capacity, value_states.shape[-1])
        last = first + key_states.shape[-2]
        self._keys[:, :, first:last] = key_states
        self._values[:, :, first:last] = value_states
        self.keys, self.values = self._keys[:, :, :last], self._values[:, :, :last]
        return self.keys, self.values


def preallocated_cache(layers: int, capacity: int) -> Cache:
    """Return an empty cache for a model of so many layers and at most so many tokens."""
    return Cache(layers=[PreallocatedLayer(capacity) for _ in range(layers)])
