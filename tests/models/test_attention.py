"""Sparse attention against independent brute force, and dense attention where it covers every key."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from roots_compress.models import attention
from roots_compress.models import block_attention as block_attention_module
from roots_compress.models.attention import (
    Blocks,
    Visibility,
    dense_attention,
    top_m_attention,
)
from roots_compress.models.block_attention import block_attention

SCALE = 0.37


def random_heads(
    batch: int, heads: int, groups: int, queries: int, slots: int, width: int = 8
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, heads, queries, width, generator=generator),
        torch.randn(batch, groups, slots, width, generator=generator),
        torch.randn(batch, groups, slots, width, generator=generator),
    )


def sees(query: int, key: int, valid: list[bool], window: int | None, segments: list[int]) -> bool:
    """Say in words what a query sees; slots counted from the left."""
    if query == key:
        return True
    near = window is None or query - key < window
    return key < query and near and valid[key] and segments[key] == segments[query]


def softmax_over(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    weights = [math.exp(float(query @ key) * SCALE) for key in keys]
    return sum(
        (weight / sum(weights) * value for weight, value in zip(weights, values, strict=True)),
        torch.zeros_like(query),
    )


def by_brute_force(
    heads: tuple[Tensor, Tensor, Tensor],
    valid: list[list[bool]],
    window: int | None,
    segments: list[list[int]],
    *,
    top_m: int | None = None,
    block_size: int = 0,
    num_blocks: int = 0,
) -> Tensor:
    """Attend one query at a time, choosing keys as the docs of `top_m` and `block` say."""
    query_BHTD, key_BGSD, value_BGSD = heads
    output = torch.zeros_like(query_BHTD)
    batch, count, queries, _ = query_BHTD.shape
    slots = key_BGSD.shape[2]
    for row, head, number in itertools.product(range(batch), range(count), range(queries)):
        own = slots - queries + number
        query, group = query_BHTD[row, head, number], head // (count // key_BGSD.shape[1])
        keys, values = key_BGSD[row, group], value_BGSD[row, group]
        seen = [s for s in range(slots) if sees(own, s, valid[row], window, segments[row])]
        if top_m is not None:
            seen = sorted(seen, key=lambda s: -float(query @ keys[s]))[:top_m]
        else:
            document = [s for s in range(slots) if valid[row][s] and segments[row][s] == segments[row][own]]
            cut = [document[i : i + block_size] for i in range(0, len(document), block_size)]
            mine = next((block for block in cut if own in block), [own])
            earlier = [block for block in cut if block[-1] < mine[0] and set(block) & set(seen)]
            earlier.sort(key=lambda block: -float(query @ keys[block].mean(dim=0)))
            chosen = set(itertools.chain(mine, *earlier[: num_blocks - 1]))
            seen = [s for s in seen if s in chosen]
        output[row, head, number] = softmax_over(query, keys[seen], values[seen])
    return output


LAYOUTS = {
    "plain": ([[True] * 19] * 2, None, [[0] * 19] * 2),
    "left padding": ([[False] * 6 + [True] * 13, [True] * 19], None, [[0] * 19] * 2),
    "right padding": ([[True] * 11 + [False] * 8, [True] * 19], None, [[0] * 19] * 2),
    "padding in between": ([[True] * 8 + [False] * 3 + [True] * 8, [True] * 19], None, [[0] * 19] * 2),
    "window": ([[True] * 19] * 2, 7, [[0] * 19] * 2),
    "documents": ([[True] * 19] * 2, None, [[0] * 9 + [1] * 10, [0] * 3 + [1] * 12 + [2] * 4]),
    "all at once": ([[False] * 2 + [True] * 17, [True] * 19], 6, [[0] * 9 + [1] * 10, [0] * 19]),
}


def positions_of(valid: list[list[bool]], segments: list[list[int]]) -> Tensor:
    positions = torch.zeros(len(valid), len(valid[0]), dtype=torch.long)
    for row, slot in itertools.product(range(len(valid)), range(len(valid[0]))):
        earlier = [s for s in range(slot) if valid[row][s] and segments[row][s] == segments[row][slot]]
        positions[row, slot] = len(earlier)
    return positions


@pytest.mark.parametrize("queries", [19, 5, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_top_m_equals_brute_force(layout: str, queries: int) -> None:
    valid, window, segments = LAYOUTS[layout]
    heads = random_heads(2, 4, 2, queries, 19)
    sight = Visibility(queries, torch.tensor(valid), window, torch.tensor(segments))
    ours = top_m_attention(*heads, sight.mask(), SCALE, 4)
    theirs = by_brute_force(heads, valid, window, segments, top_m=4)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
@pytest.mark.parametrize("queries", [19, 5, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_block_equals_brute_force(layout: str, queries: int, num_blocks: int) -> None:
    valid, window, segments = LAYOUTS[layout]
    heads = random_heads(2, 4, 2, queries, 19)
    sight = Visibility(queries, torch.tensor(valid), window, torch.tensor(segments))
    blocks = Blocks.of(sight, positions_of(valid, segments), 3)
    ours = block_attention(*heads, sight, blocks, SCALE, num_blocks)
    theirs = by_brute_force(heads, valid, window, segments, block_size=3, num_blocks=num_blocks)
    # What a padding query gives is never read; it need only be finite.
    real = torch.tensor(valid)[:, -queries:]
    assert torch.isfinite(ours).all()
    torch.testing.assert_close(ours.transpose(1, 2)[real], theirs.transpose(1, 2)[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_top_m_equals_dense_where_it_covers_all_keys(layout: str) -> None:
    valid, window, segments = LAYOUTS[layout]
    heads = random_heads(2, 6, 3, 19, 19)
    visible = Visibility(19, torch.tensor(valid), window, torch.tensor(segments)).mask()
    # One key short of all slots, so that the sparse path runs; only a query that sees 19 keys would lose one.
    covered = (visible.sum(dim=-1) <= 18)[:, 0]
    ours = top_m_attention(*heads, visible, SCALE, 18).transpose(1, 2)
    dense = dense_attention(*heads, visible, SCALE).transpose(1, 2)
    assert covered[:, 1:18].all()
    torch.testing.assert_close(ours[covered], dense[covered], atol=1e-5, rtol=0)


@pytest.mark.parametrize("short", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_block_equals_dense_where_it_covers_all_keys(layout: str, short: int) -> None:
    valid, window, segments = LAYOUTS[layout]
    heads = random_heads(2, 6, 3, 19, 19)
    sight = Visibility(19, torch.tensor(valid), window, torch.tensor(segments))
    blocks = Blocks.of(sight, positions_of(valid, segments), 4)
    num_blocks = blocks.slots_BCP.shape[1] - short
    covered = torch.tensor(valid) & (blocks.open_BTC.sum(dim=-1) < num_blocks)
    assert covered.sum() > 10
    ours = block_attention(*heads, sight, blocks, SCALE, num_blocks).transpose(1, 2)
    dense = dense_attention(*heads, sight.mask(), SCALE).transpose(1, 2)
    torch.testing.assert_close(ours[covered], dense[covered], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_fully_padded_row_stays_finite(dtype: torch.dtype) -> None:
    query, key, value = (tensor.to(dtype) for tensor in random_heads(2, 2, 1, 9, 9))
    valid = torch.tensor([[False] * 9, [True] * 9])
    sight = Visibility(9, valid)
    blocks = Blocks.of(sight, (valid.long().cumsum(dim=1) - 1).clamp(min=0), 2)
    for ours in (
        dense_attention(query, key, value, sight.mask(), SCALE),
        top_m_attention(query, key, value, sight.mask(), SCALE, 3),
        block_attention(query, key, value, sight, blocks, SCALE, 2),
    ):
        assert ours.dtype == dtype
        assert torch.isfinite(ours).all()


def test_large_products_do_not_overflow_in_float16() -> None:
    query, key, value = (tensor.half() * 150 for tensor in random_heads(1, 1, 1, 9, 9, width=32))
    assert torch.isinf(query @ key.mT).any()
    sight = Visibility(9, torch.ones(1, 9, dtype=torch.bool))
    blocks = Blocks.of(sight, torch.arange(9)[None], 2)
    scale = 1 / 32
    assert torch.isfinite(top_m_attention(query, key, value, sight.mask(), scale, 3)).all()
    assert torch.isfinite(block_attention(query, key, value, sight, blocks, scale, 2)).all()


def test_working_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = random_heads(2, 4, 2, 19, 19)
    sight = Visibility(19, torch.ones(2, 19, dtype=torch.bool))
    blocks = Blocks.of(sight, torch.arange(19).expand(2, -1), 3)
    whole = [
        top_m_attention(*heads, sight.mask(), SCALE, 4),
        block_attention(*heads, sight, blocks, SCALE, 2),
    ]
    monkeypatch.setattr(attention, "ELEMENT_BUDGET", 1)
    monkeypatch.setattr(block_attention_module, "ELEMENT_BUDGET", 1)
    chunked = [
        top_m_attention(*heads, sight.mask(), SCALE, 4),
        block_attention(*heads, sight, blocks, SCALE, 2),
    ]
    torch.testing.assert_close(chunked, whole, atol=1e-6, rtol=0)


def test_gradients_are_those_of_attention_under_a_mask_of_the_chosen_blocks() -> None:
    valid, _window, segments = LAYOUTS["left padding"]
    query, key, value = (each.requires_grad_() for each in random_heads(2, 4, 2, 19, 19))
    sight = Visibility(19, torch.tensor(valid))
    blocks = Blocks.of(sight, positions_of(valid, segments), 3)
    means = block_attention_module._mean_keys(key, blocks).repeat_interleave(2, dim=1)
    chosen_BHTK = block_attention_module._chosen(query, means, blocks, slice(0, 19), 3)
    member_BCS = torch.zeros(2, blocks.slots_BCP.shape[1], 19)
    member_BCS = member_BCS.scatter_add(2, blocks.slots_BCP, blocks.filled_BCP.float())
    picked_BHTS = member_BCS[torch.arange(2)[:, None, None, None], chosen_BHTK].amax(dim=3) > 0
    seen_BHTS = (picked_BHTS & sight.mask()) | torch.eye(19, dtype=torch.bool)
    outputs = (
        block_attention(query, key, value, sight, blocks, SCALE, 3),
        dense_attention(query, key, value, seen_BHTS, SCALE),
    )
    losses = (each.transpose(1, 2)[torch.tensor(valid)].square().sum() for each in outputs)
    ours, masked = (torch.autograd.grad(loss, (query, key, value)) for loss in losses)
    torch.testing.assert_close(ours, masked, atol=1e-4, rtol=1e-4)


def test_block_attention_never_holds_a_square_tensor() -> None:
    """Its largest tensor grows as tokens times square root: here far below tokens squared."""
    tokens, block_size = 1024, 32
    heads = random_heads(1, 1, 1, tokens, tokens, width=2)
    sight = Visibility(tokens, torch.ones(1, tokens, dtype=torch.bool))
    largest = 0

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    with Largest():
        blocks = Blocks.of(sight, torch.arange(tokens)[None], block_size)
        block_attention(*heads, sight, blocks, SCALE, 2)
    assert 0 < largest <= tokens * 2 * block_size * 2


@pytest.mark.parametrize("masked", [False, True])
def test_a_single_query_attends_like_the_last_of_many(masked: bool) -> None:
    query_BHTD, key_BGSD, value_BGSD = random_heads(3, 6, 2, 9, 9)
    valid_BS = torch.ones(3, 9, dtype=torch.bool)
    valid_BS[1, :4] = not masked
    many = dense_attention(query_BHTD, key_BGSD, value_BGSD, Visibility(9, valid_BS).mask(), SCALE)
    mask = Visibility(1, valid_BS).mask() if masked else None
    one = dense_attention(query_BHTD[:, :, -1:], key_BGSD, value_BGSD, mask, SCALE)
    assert one.shape == (3, 6, 1, 8)
    torch.testing.assert_close(one, many[:, :, -1:])
