"""Attention of a ROOTS model: dense, top-m and block-sparse, as pure functions of tensors.

Shape legend: B batch, H query heads, G key/value heads (G divides H), T queries, S keys (cached ones first,
so the T queries are the last T of the S slots), D head dimension, C blocks, P keys in a block.

`visible_B1TS` is True where a query may attend to a key; every query sees at least itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Gathered keys and values of block attention are bounded to about this many elements at a time.
GATHER_BUDGET = 1 << 24


def visibility(
    queries: int, key_valid_BS: Tensor, *, window: int | None = None, segments_BS: Tensor | None = None
) -> Tensor:
    """Return which keys each query sees: `visible_B1TS`, causal, unpadded, in its window and its segment.

    A padding query sees itself alone, so that no softmax is over nothing.

    Args:
        queries: T, the number of queries; they stand in the last T slots.
        key_valid_BS: False at padding keys.
        window: number of keys visible to a query, itself included; None for all.
        segments_BS: document number of each slot; queries see only their own document. None for one.
    """
    slots_S = torch.arange(key_valid_BS.shape[1], device=key_valid_BS.device)
    distance_TS = slots_S[-queries:, None] - slots_S[None, :]
    allowed_TS = distance_TS >= 0
    if window is not None:
        allowed_TS = allowed_TS & (distance_TS < window)
    visible_BTS = allowed_TS & key_valid_BS[:, None, :].bool()
    if segments_BS is not None:
        visible_BTS = visible_BTS & (segments_BS[:, -queries:, None] == segments_BS[:, None, :])
    return (visible_BTS | (distance_TS == 0))[:, None]


def dense_attention(
    query_BHTD: Tensor, key_BGSD: Tensor, value_BGSD: Tensor, visible_B1TS: Tensor | None, scale: float
) -> Tensor:
    """Softmax attention over every visible key; None for `visible_B1TS` means plainly causal over T = S or T = 1.

    Returns:
        `BHTD`, in the dtype of the query.
    """
    causal = visible_B1TS is None and query_BHTD.shape[2] > 1
    return F.scaled_dot_product_attention(
        query_BHTD,
        key_BGSD,
        value_BGSD,
        attn_mask=visible_B1TS,
        is_causal=causal,
        scale=scale,
        enable_gqa=query_BHTD.shape[1] != key_BGSD.shape[1],
    )


def top_m_attention(
    query_BHTD: Tensor, key_BGSD: Tensor, value_BGSD: Tensor, visible_B1TS: Tensor, scale: float, top_m: int
) -> Tensor:
    """Attend to the `top_m` highest-scoring visible keys of each query and head, exactly.

    Queries with at most `top_m` visible keys attend densely. Ties at the boundary are broken by `torch.topk`.
    """
    if key_BGSD.shape[2] <= top_m:
        return dense_attention(query_BHTD, key_BGSD, value_BGSD, visible_B1TS, scale)
    heads = query_BHTD.shape[1]
    scores_BHTS = query_BHTD @ _repeat_heads(key_BGSD, heads).mT * scale
    scores_BHTS = scores_BHTS.masked_fill(~visible_B1TS, -torch.inf)
    best = scores_BHTS.topk(top_m, dim=-1)
    weights = best.values.softmax(dim=-1, dtype=torch.float32).to(query_BHTD.dtype)
    weights_BHTS = torch.zeros_like(scores_BHTS).scatter(-1, best.indices, weights)
    return weights_BHTS @ _repeat_heads(value_BGSD, heads)


def block_attention(
    query_BHTD: Tensor,
    key_BGSD: Tensor,
    value_BGSD: Tensor,
    visible_B1TS: Tensor,
    positions_BS: Tensor,
    scale: float,
    block_size: int,
    num_blocks: int,
) -> Tensor:
    """Score whole blocks of keys first, then attend only to keys of the chosen blocks.

    A block is `block_size` consecutive positions of one document. A query always attends to its own block, and
    to the `num_blocks - 1` earlier ones whose mean key has the largest product with it. Earlier blocks are
    complete, so a token's choice is the same in prefill and in token-by-token decoding. With S keys and
    `block_size` near sqrt(S) the cost is O(T * sqrt(S)) for a fixed number of blocks.

    Args:
        positions_BS: position of each slot within its document, restarting at 0; anything at padding slots,
            which `visible_B1TS` hides.
    """
    batch, heads, queries, width = query_BHTD.shape
    valid_BS = visible_B1TS[:, 0].any(dim=1) if queries == key_BGSD.shape[2] else _valid(visible_B1TS)
    block_BS = ((positions_BS % block_size == 0) & valid_BS).cumsum(dim=1) - 1
    block_BS = block_BS.clamp(min=0)
    blocks = int(block_BS.max()) + 1
    if blocks <= num_blocks:
        return dense_attention(query_BHTD, key_BGSD, value_BGSD, visible_B1TS, scale)

    centroid_BGCD = _block_means(key_BGSD, block_BS, valid_BS, blocks)
    slots_BCP, filled_BCP = _block_slots(positions_BS % block_size, block_BS, valid_BS, blocks, block_size)
    scores_BHTC = query_BHTD @ _repeat_heads(centroid_BGCD, heads).mT
    own_BT = block_BS[:, -queries:]
    chosen_BHTK = _choose_blocks(scores_BHTC, own_BT, visible_B1TS, block_BS, num_blocks)

    key_BHSD, value_BHSD = _repeat_heads(key_BGSD, heads), _repeat_heads(value_BGSD, heads)
    keys_each = num_blocks * block_size
    step = max(1, GATHER_BUDGET // (batch * heads * keys_each * width))
    outputs = []
    for start in range(0, queries, step):
        chosen_BHtK = chosen_BHTK[:, :, start : start + step]
        rows = torch.arange(batch, device=chosen_BHtK.device)[:, None, None, None]
        slots_BHtN = slots_BCP[rows, chosen_BHtK].flatten(-2)
        seen_BtS = visible_B1TS[:, 0, start : start + step]
        seen_BHtN = seen_BtS[:, None].expand(-1, heads, -1, -1).gather(-1, slots_BHtN)
        seen_BHtN = seen_BHtN & filled_BCP[rows, chosen_BHtK].flatten(-2)
        # A block chosen to fill up the count where too few are visible must not count its keys twice.
        seen_BHtN = seen_BHtN & _first_of_its_kind(chosen_BHtK).repeat_interleave(block_size, dim=-1)
        gathered_key = _gather_slots(key_BHSD, slots_BHtN)
        gathered_value = _gather_slots(value_BHSD, slots_BHtN)
        query_BHtD = query_BHTD[:, :, start : start + step]
        scores_BHtN = (query_BHtD.unsqueeze(-2) @ gathered_key.mT).squeeze(-2) * scale
        scores_BHtN = scores_BHtN.masked_fill(~seen_BHtN, -torch.inf)
        weights_BHtN = scores_BHtN.softmax(dim=-1, dtype=torch.float32).to(query_BHTD.dtype)
        outputs.append((weights_BHtN.unsqueeze(-2) @ gathered_value).squeeze(-2))
    return torch.cat(outputs, dim=2)


def _valid(visible_B1TS: Tensor) -> Tensor:
    """Slots that are not padding: the last query sees every one of them that its document and window allow."""
    return visible_B1TS[:, 0].any(dim=1)


def _repeat_heads(tensor_BGSD: Tensor, heads: int) -> Tensor:
    return tensor_BGSD.repeat_interleave(heads // tensor_BGSD.shape[1], dim=1)


def _block_means(key_BGSD: Tensor, block_BS: Tensor, valid_BS: Tensor, blocks: int) -> Tensor:
    member_BSC = F.one_hot(block_BS, blocks).to(key_BGSD.dtype) * valid_BS[..., None].to(key_BGSD.dtype)
    count_BC = member_BSC.sum(dim=1).clamp(min=1)
    return (member_BSC.mT[:, None] @ key_BGSD) / count_BC[:, None, :, None]


def _block_slots(
    offset_BS: Tensor, block_BS: Tensor, valid_BS: Tensor, blocks: int, block_size: int
) -> tuple[Tensor, Tensor]:
    """Return the slot of each key of each block, and where a block has one."""
    batch, slots = block_BS.shape
    flat_BS = block_BS * block_size + offset_BS
    # Padding is written to a spare place at the end, which is cut off again.
    flat_BS = torch.where(valid_BS, flat_BS, blocks * block_size)
    slot_BS = torch.arange(slots, device=block_BS.device).expand(batch, -1)
    table = block_BS.new_full((batch, blocks * block_size + 1), -1).scatter(1, flat_BS, slot_BS)[:, :-1]
    table_BCP = table.view(batch, blocks, block_size)
    return table_BCP.clamp(min=0), table_BCP >= 0


def _choose_blocks(
    scores_BHTC: Tensor, own_BT: Tensor, visible_B1TS: Tensor, block_BS: Tensor, num_blocks: int
) -> Tensor:
    """Return `BHTK`: each query's own block and its best earlier ones that hold a visible key."""
    blocks = scores_BHTC.shape[-1]
    member_BSC = F.one_hot(block_BS, blocks).to(torch.float32)
    has_visible_BTC = (visible_B1TS[:, 0].to(torch.float32) @ member_BSC) > 0
    number_C = torch.arange(blocks, device=own_BT.device)
    own_BTC = number_C == own_BT[..., None]
    earlier_BTC = (number_C < own_BT[..., None]) & has_visible_BTC
    ranked = scores_BHTC.masked_fill(~earlier_BTC[:, None], -torch.inf).masked_fill(own_BTC[:, None], torch.inf)
    best = ranked.topk(num_blocks, dim=-1)
    return torch.where(best.values == -torch.inf, own_BT[:, None, :, None], best.indices)


def _first_of_its_kind(chosen_BHTK: Tensor) -> Tensor:
    """True where a block number does not stand earlier in the same row; only the first entry repeats."""
    first = torch.ones_like(chosen_BHTK, dtype=torch.bool)
    first[..., 1:] = chosen_BHTK[..., 1:] != chosen_BHTK[..., :1]
    return first


def _gather_slots(tensor_BHSD: Tensor, slots_BHTN: Tensor) -> Tensor:
    batch, heads, queries, keys = slots_BHTN.shape
    index = slots_BHTN.reshape(batch, heads, queries * keys, 1).expand(-1, -1, -1, tensor_BHSD.shape[-1])
    return tensor_BHSD.gather(2, index).view(batch, heads, queries, keys, -1)
