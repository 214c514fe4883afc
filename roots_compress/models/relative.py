"""Positions for attention: slots with tokens, distances in buckets, and an encoder's output."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache, EncoderDecoderCache

from roots_compress.models.ops.positions import Disentangled, Relative


class Distances:
    """The distances of keys from queries, computed when first needed.

    Distances within a document are those of its slots, so packing does not change them.

    Args:
        queries: T; they are in the last slots.
        key_valid_BS: used for the number of keys.
    """

    def __init__(self, queries: int, key_valid_BS: Tensor, *, causal: bool) -> None:
        self._queries, self._key_valid_BS, self._causal = queries, key_valid_BS, causal
        self._buckets: dict[Relative | Disentangled, Tensor] = {}

    def buckets(self, relative: Relative | Disentangled) -> Tensor:
        """Return the bucket or row of each distance, `TS`."""
        if relative not in self._buckets:
            slots_S = torch.arange(self._key_valid_BS.shape[1], device=self._key_valid_BS.device)
            distance_TS = slots_S[None, :] - slots_S[-self._queries :, None]
            self._buckets[relative] = (
                row_of(distance_TS, relative)
                if isinstance(relative, Disentangled)
                else bucket_of(distance_TS, relative, causal=self._causal)
            )
        return self._buckets[relative]


def bucket_of(distance_TS: Tensor, relative: Relative, *, causal: bool) -> Tensor:
    """Return the buckets of distances of keys from queries, which are positive for later keys."""
    count, first_TS = relative.buckets, torch.zeros_like(distance_TS)
    away_TS = (-distance_TS).clamp(min=0)
    if not causal:
        count //= 2
        first_TS = (distance_TS > 0).long() * count
        away_TS = distance_TS.abs()
    exact = count // 2
    reach = math.log(relative.max_distance / exact)
    far_TS = torch.log(away_TS.clamp(min=1).float() / exact) / reach * (count - exact)
    far_TS = (exact + far_TS.long()).clamp(max=count - 1)
    return first_TS + torch.where(away_TS < exact, away_TS, far_TS)


def row_of(distance_TS: Tensor, disentangled: Disentangled) -> Tensor:
    """Return the rows of distances of keys from queries, which are positive for later keys."""
    side, behind_TS = disentangled.rows // 2, -distance_TS
    if disentangled.max_distance is not None:
        exact = side // 2
        away_TS = behind_TS.abs()
        reach = torch.log(torch.tensor((disentangled.max_distance - 1) / exact))
        # In float32 and in this order, as DeBERTa was trained: a rounded logarithm decides the row.
        far_TS = torch.log(away_TS.clamp(min=1) / exact) / reach * (exact - 1)
        far_TS = (far_TS.ceil() + exact) * behind_TS.sign()
        behind_TS = torch.where(away_TS <= exact, behind_TS, far_TS.long())
    return (behind_TS + side).clamp(0, 2 * side - 1)


@dataclass(frozen=True)
class Source:
    """The input of cross-attention: an encoder's output, and the positions that each query sees."""

    states_BSW: Tensor
    """The output after the encoder's final norm."""
    visible_B1TS: Tensor | None
    """True where a query may attend to a key; None if all see all."""
    cache: EncoderDecoderCache | None = None
    """Caches its keys and values."""

    def to(self, device: torch.device) -> Source:
        """Return a copy on a device."""
        visible = self.visible_B1TS
        return Source(self.states_BSW.to(device), None if visible is None else visible.to(device), self.cache)

    @classmethod
    def of(
        cls,
        states_BSW: Tensor,
        valid_BS: Tensor | None,
        segments_BS: Tensor | None,
        own_segments_BT: Tensor | None,
        cache: Cache | None = None,
    ) -> Source:
        """Return the source of queries.

        A query that would see nothing sees everything, so that no softmax is empty.

        Args:
            states_BSW: the encoder's output.
            valid_BS: False at padding; None without padding.
            segments_BS: the number of each slot's document, if several are packed.
            own_segments_BT: the number of each query's document; it sees only the document with the same
                number.
        """
        kept = cache if isinstance(cache, EncoderDecoderCache) else None
        if valid_BS is None and segments_BS is None:
            return cls(states_BSW, None, kept)
        visible_BTS = torch.ones_like(states_BSW[:, None, :, 0], dtype=torch.bool)
        if valid_BS is not None:
            visible_BTS = visible_BTS & valid_BS[:, None]
        if segments_BS is not None:
            assert own_segments_BT is not None, "a packed encoder's decoder is packed too"
            visible_BTS = visible_BTS & (own_segments_BT[:, :, None] == segments_BS[:, None])
        visible_BTS = visible_BTS | ~visible_BTS.any(dim=-1, keepdim=True)
        return cls(states_BSW, visible_BTS[:, None], kept)


def valid_slots(batch: int, slots: int, attention_mask: Tensor | None, device: torch.device) -> Tensor:
    """Return `valid_BS`, False at padding.

    Raises:
        ValueError: the mask does not cover the cached tokens and the new ones.
    """
    if attention_mask is None:
        return torch.ones((1, slots), dtype=torch.bool, device=device).expand(batch, -1)
    if attention_mask.shape != (batch, slots):
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; with the cached tokens it must be "
            f"{(batch, slots)}"
        )
    return attention_mask.bool()


def positions_of(valid_BS: Tensor, segment_ids: Tensor | None) -> Tensor:
    """Return the position of each slot within its document, padding not counted."""
    count_BS = valid_BS.long().cumsum(dim=1)
    if segment_ids is None:
        return (count_BS - 1).clamp(min=0)
    starts_BS = F.pad(segment_ids[:, 1:] != segment_ids[:, :-1], (1, 0), value=True)
    before_BS = torch.where(starts_BS, count_BS - valid_BS.long(), 0).cummax(dim=1).values
    return (count_BS - before_BS - 1).clamp(min=0)
