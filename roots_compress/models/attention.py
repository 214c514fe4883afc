"""Attention of a ROOTS model: masks, dense and top-m attention, as pure functions of tensors.

Shape legend: B batch, H query heads, G key/value heads (G divides H), T queries, S keys (cached ones first,
so the T queries are the last T of the S slots), D head dimension, C blocks, P keys in a block, M keys
chosen, t queries processed at a time. `block_attention.py` has the block-sparse form.

Every query sees at least itself, padding included, so that no softmax is empty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from roots_compress.models.relative import Distances

# Sparse attention processes so many queries at a time that its largest tensor has about this many elements.
ELEMENT_BUDGET = 1 << 24


@dataclass(frozen=True)
class Visibility:
    """Which keys a query sees: by causality, padding, a sliding window and document boundaries."""

    queries: int
    """T; the queries are in the last T slots."""
    key_valid_BS: Tensor
    """False at padding."""
    window: int | None = None
    """Keys visible to a query, itself included; None for all."""
    segments_BS: Tensor | None = None
    """Document number of each slot, if several are packed; queries see only their own document."""
    causal: bool = True
    """Whether queries do not see later keys."""

    def mask(self) -> Tensor:
        """Return `visible_B1TS`, True where a query may attend to a key."""
        slots_S = torch.arange(self.key_valid_BS.shape[1], device=self.key_valid_BS.device)
        distance_TS = slots_S[-self.queries :, None] - slots_S[None, :]
        allowed_TS = distance_TS >= 0 if self.causal else torch.ones_like(distance_TS, dtype=torch.bool)
        if self.window is not None:
            allowed_TS = allowed_TS & (distance_TS.abs() < self.window)
        visible_BTS = allowed_TS & self.key_valid_BS[:, None, :]
        if self.segments_BS is not None:
            own_BT1 = self.segments_BS[:, -self.queries :, None]
            visible_BTS = visible_BTS & (own_BT1 == self.segments_BS[:, None, :])
        return (visible_BTS | (distance_TS == 0))[:, None]


@dataclass(frozen=True)
class Blocks:
    """The keys of every row cut into blocks of consecutive tokens of one document, for all layers alike."""

    slots_BCP: Tensor
    """Slot of each key in each block; 0 where `filled_BCP` is False."""
    filled_BCP: Tensor
    """Whether a block has a key there: a document's last block may be incomplete, and rows may have fewer
    blocks."""
    own_BT: Tensor
    """Number of each query's own block."""
    open_BTC: Tensor
    """Blocks that a query may choose: complete ones of its document, before its own, inside its window."""
    in_order: bool
    """Whether each key is in the slot of its position, in every row."""

    @property
    def count(self) -> int:
        """C."""
        return self.slots_BCP.shape[1]

    @classmethod
    def of(cls, visibility: Visibility, positions_BS: Tensor, block_size: int) -> Blocks:
        """Cut at every multiple of `block_size`.

        `positions_BS` holds each slot's position within its document, from 0 on; any value at padding.
        """
        valid_BS, (batch, slots) = visibility.key_valid_BS, positions_BS.shape
        opens_BS = (positions_BS % block_size == 0) & valid_BS
        block_BS = (opens_BS.cumsum(dim=1) - 1).clamp(min=0)
        blocks = int(block_BS.max()) + 1

        # Padding is written to an extra block at the end, which is cut off again.
        place_BS = torch.where(
            valid_BS, block_BS * block_size + positions_BS % block_size, blocks * block_size
        )
        slot_BS = torch.arange(slots, device=positions_BS.device).expand(batch, -1)
        table = slot_BS.new_full((batch, blocks * block_size + 1), -1).scatter(1, place_BS, slot_BS)
        table_BCP = table[:, :-1].view(batch, blocks, block_size)

        own_BT = block_BS[:, -visibility.queries :]
        open_BTC = torch.arange(blocks, device=own_BT.device) < own_BT[..., None]
        last_BC = table_BCP[..., -1]
        if visibility.window is not None:
            query_slot_T1 = slot_BS[0, -visibility.queries :, None]
            open_BTC = open_BTC & (query_slot_T1 - last_BC[:, None, :] < visibility.window)
        if visibility.segments_BS is not None:
            segment_BC = visibility.segments_BS.gather(1, table_BCP[..., 0].clamp(min=0))
            own_BT1 = visibility.segments_BS[:, -visibility.queries :, None]
            open_BTC = open_BTC & (segment_BC[:, None, :] == own_BT1)
        in_order = bool((valid_BS & (positions_BS == slot_BS)).all())
        return cls(table_BCP.clamp(min=0), table_BCP >= 0, own_BT, open_BTC, in_order)


class View:
    """Data that all attentions with one window share in a forward pass, computed when first needed.

    Args:
        positions_BS: each slot's position within its document.
        masked: whether there is padding or packing.
    """

    def __init__(self, visibility: Visibility, positions_BS: Tensor, *, masked: bool) -> None:
        self.visibility, self._positions_BS = visibility, positions_BS
        slots = visibility.key_valid_BS.shape[1]
        window = visibility.window
        self.is_plain = (
            not masked
            and (window is None or window >= slots)
            and (not visibility.causal or visibility.queries in (1, slots))
        )
        """Whether queries see all keys, or all up to their own."""
        self._masked, self._elsewhere = masked, dict[torch.device, View]()
        self._mask_B1TS: Tensor | None = None
        self._blocks: dict[int, Blocks] = {}
        self.distances = Distances(visibility.queries, visibility.key_valid_BS, causal=visibility.causal)

    @property
    def device(self) -> torch.device:
        """The device of its tensors."""
        return self.visibility.key_valid_BS.device

    def to(self, device: torch.device) -> View:
        """Return a copy on a device, made once for all layers on it."""
        if device not in self._elsewhere:
            seen, segments_BS = self.visibility, self.visibility.segments_BS
            moved = replace(
                seen,
                key_valid_BS=seen.key_valid_BS.to(device),
                segments_BS=None if segments_BS is None else segments_BS.to(device),
            )
            self._elsewhere[device] = View(moved, self._positions_BS.to(device), masked=self._masked)
        return self._elsewhere[device]

    def mask(self) -> Tensor:
        """Return `visible_B1TS`, True where a query may attend to a key."""
        if self._mask_B1TS is None:
            self._mask_B1TS = self.visibility.mask()
        return self._mask_B1TS

    def needed_mask(self) -> Tensor | None:
        """Return the mask; None if attention needs none."""
        return None if self.is_plain else self.mask()

    def blocks(self, size: int) -> Blocks:
        """Return the keys cut into blocks of this size."""
        if size not in self._blocks:
            self._blocks[size] = Blocks.of(self.visibility, self._positions_BS, size)
        return self._blocks[size]


def dense_attention(
    query_BHTD: Tensor,
    key_BGSD: Tensor,
    value_BGSD: Tensor,
    visible_B1TS: Tensor | None,
    scale: float,
    *,
    causal: bool = True,
) -> Tensor:
    """Softmax attention over every visible key; without a mask over all, or, if causal, over T = S or T = 1.

    In place of a mask there may be a bias on the scores, `BHTS`: minus infinity at invisible keys.

    Returns:
        `BHTD`, in the dtype of the query.
    """
    heads, groups = query_BHTD.shape[1], key_BGSD.shape[1]
    if query_BHTD.shape[2] == 1 and heads != groups:
        # All heads of a group see the same keys: stacked as queries of one head, they read them once.
        if visible_B1TS is not None and visible_B1TS.shape[1] == heads:
            visible_B1TS = visible_B1TS.reshape(len(visible_B1TS), groups, heads // groups, -1)
        grouped_BGHD = query_BHTD.reshape(len(query_BHTD), groups, heads // groups, -1)
        grouped_BGHD = F.scaled_dot_product_attention(
            grouped_BGHD, key_BGSD, value_BGSD, attn_mask=visible_B1TS, scale=scale
        )
        return grouped_BGHD.reshape(query_BHTD.shape)
    causal = causal and visible_B1TS is None and query_BHTD.shape[2] > 1
    return F.scaled_dot_product_attention(
        query_BHTD,
        key_BGSD,
        value_BGSD,
        attn_mask=visible_B1TS,
        is_causal=causal,
        scale=scale,
        enable_gqa=heads != groups,
    )


def explicit_attention(
    query_BHTD: Tensor,
    key_BGSD: Tensor,
    value_BGSD: Tensor,
    visible_B1TS: Tensor,
    scale: float,
    *,
    softcap: float | None = None,
    sinks_H: Tensor | None = None,
) -> Tensor:
    """Softmax attention over every visible key, with softcapped scores or attention sinks.

    Args:
        softcap: c of `c * tanh(score / c)` (Gemma 2, Riviere et al. 2024, arXiv:2408.00118).
        sinks_H: a score in each head's softmax that has no value (gpt-oss, OpenAI 2025,
            arXiv:2508.10925).
    """
    batch, heads, queries, _ = query_BHTD.shape
    key_BHSD, value_BHSD = repeat_heads(key_BGSD, heads), repeat_heads(value_BGSD, heads)
    step = max(1, ELEMENT_BUDGET // (batch * heads * key_BGSD.shape[2]))
    outputs = []
    for start in range(0, queries, step):
        chunk = slice(start, start + step)
        scores_BHtS = (query_BHTD[:, :, chunk] * scale) @ key_BHSD.mT
        if softcap is not None:
            scores_BHtS = softcap * torch.tanh(scores_BHtS / softcap)
        scores_BHtS = scores_BHtS.masked_fill(~visible_B1TS[:, :, chunk], -torch.inf)
        if sinks_H is not None:
            sinks_BHt1 = sinks_H[:, None, None].to(scores_BHtS).expand(*scores_BHtS.shape[:3], 1)
            scores_BHtS = torch.cat((scores_BHtS, sinks_BHt1), dim=-1)
        weights_BHtS = scores_BHtS.softmax(dim=-1, dtype=torch.float32).to(query_BHTD.dtype)
        outputs.append(weights_BHtS[..., : key_BHSD.shape[2]] @ value_BHSD)
    return torch.cat(outputs, dim=2)


def top_m_attention(
    query_BHTD: Tensor, key_BGSD: Tensor, value_BGSD: Tensor, visible_B1TS: Tensor, scale: float, top_m: int
) -> Tensor:
    """Attend to the `top_m` highest-scoring visible keys of each query and head, exactly.

    Queries with at most `top_m` visible keys attend densely. Ties at the boundary are broken by `torch.topk`.
    All scores are computed, O(T * S), but softmax and values cover only `top_m` keys (Gupta et al.,
    Memory-efficient Transformers via Top-k Attention, 2021).
    """
    slots = key_BGSD.shape[2]
    if slots <= top_m:
        return dense_attention(query_BHTD, key_BGSD, value_BGSD, visible_B1TS, scale)
    batch, heads, queries, _ = query_BHTD.shape
    key_BHSD, value_BHSD = repeat_heads(key_BGSD, heads), repeat_heads(value_BGSD, heads)
    step = max(1, ELEMENT_BUDGET // (batch * heads * slots))
    outputs = []
    for start in range(0, queries, step):
        chunk = slice(start, start + step)
        # Scaled before the product, which could otherwise overflow in float16.
        scores_BHtS = (query_BHTD[:, :, chunk] * scale) @ key_BHSD.mT
        best = scores_BHtS.masked_fill(~visible_B1TS[:, :, chunk], -torch.inf).topk(top_m, dim=-1)
        weights_BHtM = best.values.softmax(dim=-1, dtype=torch.float32).to(query_BHTD.dtype)
        weights_BHtS = torch.zeros_like(scores_BHtS).scatter(-1, best.indices, weights_BHtM)
        outputs.append(weights_BHtS @ value_BHSD)
    return torch.cat(outputs, dim=2)


def repeat_heads(tensor_BGSD: Tensor, heads: int) -> Tensor:
    """Return each key/value head once for every query head of its group, `BHSD`."""
    return tensor_BGSD.repeat_interleave(heads // tensor_BGSD.shape[1], dim=1)
