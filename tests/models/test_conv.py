"""A short convolution sees its own document, through a cache and beside padding, in torch and in a graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from roots_compress.configs.export import ExportConfig
from roots_compress.export.exporter import write_graph
from roots_compress.export.parity import check_parity
from roots_compress.models.caches import empty_cache
from roots_compress.models.quantized import Format
from tests.export.quantized import tiny_quantized
from tests.export.serving import expected, left_padded_mask, open_graph, relative_difference, serve
from tests.specs import convolving
from tests.tiny import tiny_model, tiny_tokens


@torch.no_grad()
def test_a_document_of_a_packed_window_gives_what_it_gives_alone() -> None:
    model = tiny_model(spec=convolving(kernel=4))
    tokens, segments = tiny_tokens(1, 20), torch.tensor([[0] * 7 + [1] * 2 + [2] * 11])
    packed = model(tokens, segment_ids=segments).logits
    alone = [model(part).logits for part in tokens.split([7, 2, 11], dim=1)]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1))


@pytest.mark.parametrize("capacity", [None, 24])
@torch.no_grad()
def test_tokens_through_a_cache_give_what_they_give_at_once(capacity: int | None) -> None:
    model = tiny_model(spec=convolving(kernel=4, bias=True))
    tokens, mask = tiny_tokens(3, 24), left_padded_mask(3, 24)
    whole = model(tokens, attention_mask=mask).logits
    cache = empty_cache(model.config.spec, capacity)
    parts, start = [], 0
    for end in (2, 3, 20, 21, 22, 24):
        part = tokens[:, start:end]
        parts.append(model(part, attention_mask=mask[:, :end], past_key_values=cache, use_cache=True).logits)
        start = end
    real = mask.bool()
    torch.testing.assert_close(torch.cat(parts, dim=1)[real], whole[real])
    alone = model(tokens[1:2, mask[1] == 1]).logits
    torch.testing.assert_close(whole[1, mask[1] == 1], alone[0])


@pytest.mark.parametrize("head_dim", [8, 16], ids=["standard", "fused"])
@pytest.mark.parametrize("portable", [False, True])
def test_a_graph_carries_the_states_from_piece_to_piece(head_dim: int, portable: bool) -> None:
    model = tiny_model(spec=convolving(kernel=4, bias=True, head_dim=head_dim))
    session = open_graph(model, portable=portable)
    tokens, mask = tiny_tokens(3, 24), left_padded_mask(3, 24)
    found = serve(session, tokens, mask, [20, 21, 22, 23])
    assert relative_difference(found, expected(model, tokens, mask), mask) < 1e-5
    states = {each.name: each.shape for each in session.get_inputs() if each.name.startswith("past")}
    assert states == {
        "past_conv.0": ["batch_size", 24, 3],
        "past_key_values.1.key": ["batch_size", 2, "past_sequence_length", head_dim],
        "past_key_values.1.value": ["batch_size", 2, "past_sequence_length", head_dim],
    }


@pytest.mark.parametrize("weight_format", ["w8a8", "w4"])
def test_a_quantized_graph_passes(tmp_path: Path, weight_format: Format) -> None:
    model = tiny_quantized(weight_format, spec=convolving(head_dim=16))
    graph, _ = write_graph(model, tmp_path)
    assert all(case.passed for case in check_parity(model, graph, ExportConfig()))
