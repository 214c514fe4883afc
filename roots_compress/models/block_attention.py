"""Block-sparse attention that computes the chosen blocks only.

Each query chooses its own blocks, so an uneven number of queries reads each block. Gathering the keys for
every query would copy `K * P` keys a query. Instead, the pairs of a query and a chosen block are sorted by
block and cut into tiles of M pairs with one block: a tile multiplies M queries with P keys, and copies its
block once. The partial results of a query are joined as in FlashAttention (Dao et al. 2022,
arXiv:2205.14135), by their maxima and sums. The graph does the same (`export/ops/block_tiles.py`).

Shape legend: B batch, H query heads, G key/value heads (G divides H), T queries, S keys (cached ones
first), D head dimension, C blocks, P keys in a block, K blocks chosen, t queries processed at a time, N
pairs of a query and a chosen block, J tiles, M pairs in a tile.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from roots_compress.models.attention import Blocks, Visibility, dense_attention, repeat_heads

LARGEST_TILE = 128
# So many queries are processed at a time that the largest tensor has about this many elements: in the
# caches.
ELEMENT_BUDGET = 1 << 22


def block_attention(
    query_BHTD: Tensor,
    key_BGSD: Tensor,
    value_BGSD: Tensor,
    visibility: Visibility,
    blocks: Blocks,
    scale: float,
    num_blocks: int,
) -> Tensor:
    """Score whole blocks of keys first, then attend only to the visible keys of the chosen blocks.

    A query always attends to its own block, and to the `num_blocks - 1` earlier ones with the largest product
    of query and mean key. Earlier blocks are complete, so a token's choice is the same in prefill and in
    token-by-token decoding. Scores take `T * C + T * K * P` of time; memory is bounded by `ELEMENT_BUDGET`,
    unless gradients are computed. No tensor here is T by S.
    """
    batch, heads, queries, _ = query_BHTD.shape
    _, count, block_size = blocks.slots_BCP.shape
    if count <= num_blocks:
        return dense_attention(query_BHTD, key_BGSD, value_BGSD, visibility.mask(), scale)
    mean_BHCD = repeat_heads(_mean_keys(key_BGSD, blocks), heads)
    step = max(1, ELEMENT_BUDGET // (batch * heads * max(num_blocks * block_size, count)))
    outputs = []
    for start in range(0, queries, step):
        chunk = slice(start, start + step)
        query_BHtD = query_BHTD[:, :, chunk]
        chosen_BHtK = _chosen(query_BHtD, mean_BHCD, blocks, chunk, num_blocks)
        first = key_BGSD.shape[2] - queries + start
        scaled_BHtD = query_BHtD * scale
        outputs.append(
            _attend(scaled_BHtD, key_BGSD, value_BGSD, chosen_BHtK, blocks, first, visibility.window)
        )
    return torch.cat(outputs, dim=2)


def _mean_keys(key_BGSD: Tensor, blocks: Blocks) -> Tensor:
    """Return the mean key of each block, `BGCD`; that of an incomplete block is finite and unused."""
    batch, groups, slots, width = key_BGSD.shape
    _, count, size = blocks.slots_BCP.shape
    if blocks.in_order:
        complete = slots // size
        whole_BGCPD = key_BGSD[:, :, : complete * size].reshape(batch, groups, complete, size, width)
        return F.pad(whole_BGCPD.mean(dim=3), (0, 0, 0, count - complete))
    index_BGND = blocks.slots_BCP.view(batch, 1, -1, 1).expand(-1, groups, -1, width)
    keys_BGCPD = key_BGSD.gather(2, index_BGND).view(batch, groups, count, size, width)
    return (keys_BGCPD * blocks.filled_BCP[:, None, ..., None]).mean(dim=3)


def _chosen(query_BHtD: Tensor, mean_BHCD: Tensor, blocks: Blocks, chunk: slice, num_blocks: int) -> Tensor:
    """Return `BHtK`: each query's own block first, then its best allowed ones, or its own again."""
    scores_BHtC = (query_BHtD @ mean_BHCD.mT).masked_fill(~blocks.open_BTC[:, None, chunk], -torch.inf)
    best = scores_BHtC.topk(num_blocks - 1, dim=-1)
    own_BHt1 = blocks.own_BT[:, None, chunk, None].expand(-1, query_BHtD.shape[1], -1, -1)
    return torch.cat((own_BHt1, torch.where(best.values == -torch.inf, own_BHt1, best.indices)), dim=-1)


class _Tiles(NamedTuple):
    """Pairs of a query and a block, numbered `(query, choice)`, cut into tiles of one block each."""

    block_J: Tensor
    """The block of each tile."""
    pair_JM: Tensor
    """The pairs of each tile; a tile that is not full repeats some pair."""
    place_N: Tensor
    """Index of each pair in the flattened tiles."""


def _tiles(block_N: Tensor, count: int) -> _Tiles:
    """Cut pairs into tiles, given the block of each pair and how many blocks there are."""
    size = max(1, min(LARGEST_TILE, len(block_N) // (2 * count)))
    order_N = block_N.argsort()
    pairs_C = block_N.bincount(minlength=count)
    tiles_C = (pairs_C + size - 1) // size
    block_J = torch.repeat_interleave(tiles_C)
    first_pair_C, first_tile_C = pairs_C.cumsum(0) - pairs_C, tiles_C.cumsum(0) - tiles_C
    number_J = torch.arange(len(block_J), device=block_N.device) - first_tile_C[block_J]
    inside_JM = number_J[:, None] * size + torch.arange(size, device=block_N.device)
    rank_JM = (first_pair_C[block_J, None] + inside_JM).clamp(max=len(block_N) - 1)
    # A pair has the same offset in its block's tiles as in its block's pairs.
    sorted_N = block_N[order_N]
    ranks_N = torch.arange(len(block_N), device=block_N.device)
    place_N = torch.empty_like(order_N)
    place_N[order_N] = first_tile_C[sorted_N] * size + ranks_N - first_pair_C[sorted_N]
    return _Tiles(block_J, order_N[rank_JM], place_N)


def _attend(
    query_BHtD: Tensor,
    key_BGSD: Tensor,
    value_BGSD: Tensor,
    chosen_BHtK: Tensor,
    blocks: Blocks,
    first: int,
    window: int | None,
) -> Tensor:
    """Return the attention of scaled queries to their chosen blocks, `BHtD`; the first is in slot `first`."""
    (batch, heads, queries, width), choices = query_BHtD.shape, chosen_BHtK.shape[-1]
    groups, count, device = key_BGSD.shape[1], blocks.slots_BCP.shape[1], query_BHtD.device
    rows_B111 = torch.arange(batch, device=device).view(-1, 1, 1, 1)
    group_H11 = torch.arange(heads, device=device).view(-1, 1, 1) // (heads // groups)
    block_N = ((rows_B111 * groups + group_H11) * count + chosen_BHtK).flatten()
    block_J, pair_JM, place_N = _tiles(block_N, batch * groups * count)

    row_J1, group_J1 = (block_J // (groups * count))[:, None], (block_J // count % groups)[:, None]
    slots_JP, filled_JP = (
        each_BCP[row_J1[:, 0], block_J % count] for each_BCP in (blocks.slots_BCP, blocks.filled_BCP)
    )
    query_JM = pair_JM // choices
    slot_JM1 = (query_JM % queries + first)[..., None]
    seen_JMP = filled_JP[:, None] & (slots_JP[:, None] <= slot_JM1)
    if window is not None:
        seen_JMP &= slot_JM1 - slots_JP[:, None] < window
    scores_JMP = query_BHtD.flatten(0, 2)[query_JM] @ key_BGSD[row_J1, group_J1, slots_JP].mT
    # Not minus infinity: a padding query may see no key of its block, and must not become NaN.
    scores_JMP = scores_JMP.float().masked_fill(~seen_JMP, torch.finfo(query_BHtD.dtype).min)
    # The result does not depend on the maxima, which only keep exponentials in range.
    best_JM1 = scores_JMP.detach().amax(dim=-1, keepdim=True)
    weights_JMP = (scores_JMP - best_JM1).exp()
    read_JMD = weights_JMP.to(value_BGSD.dtype) @ value_BGSD[row_J1, group_J1, slots_JP]

    shape = batch, heads, queries, choices
    best_BHtK = best_JM1.flatten()[place_N].view(shape)
    # The own block comes first, and again if too few blocks are allowed: it counts once.
    again_BHtK = chosen_BHtK == chosen_BHtK[..., :1]
    again_BHtK[..., 0] = False
    factor_BHtK = (best_BHtK - best_BHtK.amax(dim=-1, keepdim=True)).exp().masked_fill(again_BHtK, 0.0)
    total_BHtK = weights_JMP.sum(dim=-1).flatten()[place_N].view(shape) * factor_BHtK
    read_BHtKD = read_JMD.flatten(0, 1)[place_N].view(*shape, width)
    share_BHtK = factor_BHtK / total_BHtK.sum(dim=-1, keepdim=True)
    return (read_BHtKD * share_BHtK[..., None].to(read_BHtKD.dtype)).sum(dim=-2)
