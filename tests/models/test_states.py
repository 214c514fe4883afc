"""A block with a state sees its own document, through a cache and beside padding, in torch and in a graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from roots_compress.configs.export import ExportConfig
from roots_compress.export.exporter import write_graph
from roots_compress.export.parity import check_parity
from roots_compress.models.caches import empty_cache
from roots_compress.models.linear_attention import CHUNK, Heads, linear_attention
from roots_compress.models.quantized import Format
from roots_compress.models.spec import ModelSpec
from tests.export.quantized import tiny_quantized
from tests.export.serving import expected, left_padded_mask, open_graph, relative_difference, serve
from tests.specs import convolving, remembering
from tests.tiny import tiny_model, tiny_tokens

Make = Callable[..., ModelSpec]
BLOCKS: dict[str, tuple[Make, dict[str, Any]]] = {
    "convolution": (partial(convolving, bias=True), {"past_conv.0": ["batch_size", 24, 3]}),
    "Gated DeltaNet": (
        remembering,
        {
            "past_key_values.0.conv_state": ["batch_size", 2 * 12 + 32, 3],
            "past_key_values.0.recurrent_state": ["batch_size", 4, 6, 8],
        },
    ),
}
BLOCKS["Mamba-2"] = (partial(remembering, kind="mamba2", bias=True), BLOCKS["Gated DeltaNet"][1])
"""A specification of each, and the inputs of its graph that hold a state."""
every_block = pytest.mark.parametrize("make", [make for make, _ in BLOCKS.values()], ids=BLOCKS)


def assert_alike(actual: Tensor, expected: Tensor) -> None:
    """Compare logits whose sums may be of another order."""
    torch.testing.assert_close(actual, expected, atol=5e-5, rtol=1e-5)


@every_block
@torch.no_grad()
def test_a_document_of_a_packed_window_gives_what_it_gives_alone(make: Make) -> None:
    model = tiny_model(spec=make(kernel=4))
    tokens, segments = tiny_tokens(1, 20), torch.tensor([[0] * 7 + [1] * 2 + [2] * 11])
    packed = model(tokens, segment_ids=segments).logits
    alone = [model(part).logits for part in tokens.split([7, 2, 11], dim=1)]
    assert_alike(packed, torch.cat(alone, dim=1))


@pytest.mark.parametrize("capacity", [None, 24])
@every_block
@torch.no_grad()
def test_tokens_through_a_cache_give_what_they_give_at_once(make: Make, capacity: int | None) -> None:
    model = tiny_model(spec=make(kernel=4))
    tokens, mask = tiny_tokens(3, 24), left_padded_mask(3, 24)
    whole = model(tokens, attention_mask=mask).logits
    cache = empty_cache(model.config.spec, capacity)
    parts, start = [], 0
    for end in (2, 3, 20, 21, 22, 24):
        part = tokens[:, start:end]
        parts.append(model(part, attention_mask=mask[:, :end], past_key_values=cache, use_cache=True).logits)
        start = end
    real = mask.bool()
    assert_alike(torch.cat(parts, dim=1)[real], whole[real])
    alone = model(tokens[1:2, mask[1] == 1]).logits
    assert_alike(whole[1, mask[1] == 1], alone[0])


@pytest.mark.parametrize("head_dim", [8, 16], ids=["standard", "fused"])
@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_graph_carries_the_states_from_piece_to_piece(kind: str, head_dim: int, portable: bool) -> None:
    make, of_block = BLOCKS[kind]
    model = tiny_model(spec=make(kernel=4, head_dim=head_dim))
    session = open_graph(model, portable=portable)
    tokens, mask = tiny_tokens(3, 24), left_padded_mask(3, 24)
    found = serve(session, tokens, mask, [20, 21, 22, 23])
    assert relative_difference(found, expected(model, tokens, mask), mask) < 1e-5
    states = {each.name: each.shape for each in session.get_inputs() if each.name.startswith("past")}
    assert states == {
        **of_block,
        "past_key_values.1.key": ["batch_size", 2, "past_sequence_length", head_dim],
        "past_key_values.1.value": ["batch_size", 2, "past_sequence_length", head_dim],
    }


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("kind", ["Gated DeltaNet", "Mamba-2"])
def test_a_float16_graph_keeps_matrices_in_float32(kind: str, portable: bool) -> None:
    model = tiny_model(spec=BLOCKS[kind][0](kernel=4, head_dim=16)).half()
    session = open_graph(model, portable=portable)
    types = {each.name.split(".")[-1]: each.type for each in (*session.get_inputs(), *session.get_outputs())}
    assert (types["conv_state"], types["recurrent_state"]) == ("tensor(float16)", "tensor(float)")
    tokens, mask = tiny_tokens(3, 24), left_padded_mask(3, 24)
    found = serve(session, tokens, mask, list(range(1, 24)))
    assert relative_difference(found, expected(model, tokens, mask), mask) < 1e-2


@pytest.mark.parametrize("portable", [None, False, True], ids=["torch", "fused", "portable"])
@every_block
def test_padding_after_a_prompt_is_no_token_where_its_row_goes_on(make: Make, portable: bool | None) -> None:
    model = tiny_model(spec=make(kernel=4, head_dim=16))
    tokens, mask = tiny_tokens(3, 12), torch.ones(3, 12, dtype=torch.long)
    mask[1, 5:9] = mask[2, 1:9] = 0
    splits = [9, 10, 11]
    if portable is None:
        cache, pieces = empty_cache(model.config.spec), list[Tensor]()
        with torch.no_grad():
            for start, end in pairwise((0, *splits, 12)):
                part, seen = tokens[:, start:end], mask[:, :end]
                pieces.append(model(part, attention_mask=seen, past_key_values=cache).logits)
        found = torch.cat(pieces, dim=1)
        assert_alike(found[mask.bool()], torch.from_numpy(expected(model, tokens, mask))[mask.bool()])
    else:
        found = torch.from_numpy(serve(open_graph(model, portable=portable), tokens, mask, splits))
    for row, own, real in zip(found, tokens, mask.bool(), strict=True):
        alone = expected(model, own[None, real], mask[:1, : int(real.sum())])
        assert_alike(row[real], torch.from_numpy(alone)[0])


@pytest.mark.parametrize(
    ("kind", "weight_format"),
    [("convolution", "w8a8"), ("convolution", "w4"), ("Gated DeltaNet", "w8a8"), ("Mamba-2", "w4")],
)
def test_a_quantized_graph_passes(tmp_path: Path, kind: str, weight_format: Format) -> None:
    model = tiny_quantized(weight_format, spec=BLOCKS[kind][0](head_dim=16))
    graph, _ = write_graph(model, tmp_path)
    assert all(case.passed for case in check_parity(model, graph, ExportConfig()))


def by_token(heads: Heads, starts_BT: Tensor) -> Tensor:
    """Return what heads read by the rule itself, a token at a time."""
    read, state = [], torch.zeros(())
    for token in range(starts_BT.shape[1]):
        query, key, value, decay = (each[:, :, token] for each in heads[:4])
        state = state * (~starts_BT[:, token])[:, None, None, None] * decay.exp()[..., None, None]
        if heads.rate_BHT is not None:
            held = (state * key[..., None]).sum(dim=-2)
            value = heads.rate_BHT[:, :, token, None] * (value - held)
        state = state + key[..., None] * value[..., None, :]
        read.append((state * query[..., None]).sum(dim=-2))
    return torch.stack(read, dim=2)


@pytest.mark.parametrize("corrects", [True, False])
def test_chunks_give_what_the_rule_gives_and_its_gradients(corrects: bool) -> None:
    generator, tokens = torch.Generator().manual_seed(0), 2 * CHUNK + 9
    drawn = [torch.randn(2, 3, tokens, size, generator=generator) for size in (5, 5, 7, 1, 1)]
    query, key, value, decay, rate = drawn
    parts = query, key / key.norm(dim=-1, keepdim=True), value, -decay[..., 0].exp(), rate[..., 0].sigmoid()
    starts = torch.zeros(2, tokens, dtype=torch.bool)
    starts[0, [0, 3, CHUNK, CHUNK + 5]] = True
    found: list[list[Tensor]] = []
    for rule in (
        lambda heads: linear_attention(heads, starts, None)[0],
        lambda heads: by_token(heads, starts),
    ):
        query, key, value, decay, rate = (part.clone().requires_grad_() for part in parts)
        heads = Heads(query, key, value, decay, rate if corrects else None)
        read = rule(heads)
        read.square().sum().backward()
        found.append([read, *(each.grad for each in heads if each is not None and each.grad is not None)])
    for chunked, stepped in zip(*found, strict=True):
        torch.testing.assert_close(chunked, stepped, atol=1e-4, rtol=1e-4)


def test_autocast_leaves_the_rule_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value, decay, rate = (
        torch.randn(1, 2, 9, size, generator=generator) for size in [4] * 3 + [1] * 2
    )
    heads = Heads(
        query, key / key.norm(dim=-1, keepdim=True), value, -decay[..., 0].exp(), rate[..., 0].sigmoid()
    )
    alone = linear_attention(heads, None, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, linear_attention(heads, None, None), alone))
