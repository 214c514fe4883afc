"""Graphs of block-sparse attention compute what the model computes, through every cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from roots_compress.configs.export import ExportConfig
from roots_compress.export.exporter import save_graph
from roots_compress.export.graph import build_graph
from roots_compress.export.ops import block_tiles
from roots_compress.export.parity import check_parity
from roots_compress.models.ops.base import changed
from roots_compress.runtime.onnx.engine import OnnxCache, OnnxEngine
from tests.export.serving import expected, left_padded_mask, open_graph, relative_difference, serve
from tests.tiny import tiny_config, tiny_layer, tiny_model, tiny_tokens

SHAPES = [(1, 1), (1, 7), (3, 40), (2, 60)]
WIDE = [tiny_layer(head_dim=16), tiny_layer(num_attention_heads=6, num_key_value_heads=1, head_dim=16)]
BLOCKS: dict[str, dict[str, Any]] = {
    "block": {"attention": {"kind": "block", "block_size": 4, "num_blocks": 3}, "layers": WIDE},
    "own block only": {"attention": {"kind": "block", "block_size": 4, "num_blocks": 1}, "layers": WIDE},
    "all blocks": {"attention": {"kind": "block", "block_size": 3, "num_blocks": 64}, "layers": WIDE},
    "block with window": {
        "attention": {"kind": "block", "block_size": 4, "num_blocks": 3},
        "layers": [{**layer, "sliding_window": 9} for layer in WIDE],
    },
    "query norms": {
        "attention": {"kind": "block", "block_size": 4, "num_blocks": 3},
        "qk_norm": True,
        "layers": WIDE,
    },
}
"""Block-sparse models whose caches may be one buffer."""


@pytest.mark.parametrize("switches", BLOCKS.values(), ids=BLOCKS.keys())
def test_block_attention_equals_the_models_in_prefill_and_decoding(switches: dict[str, Any]) -> None:
    model = tiny_model(**switches)
    session = open_graph(model)
    for batch, tokens in SHAPES:
        input_ids, mask = tiny_tokens(batch, tokens), left_padded_mask(batch, tokens)
        reference = expected(model, input_ids, mask)
        pieces = [[], [tokens // 3, tokens // 2], list(range(tokens // 2, tokens))] if tokens > 3 else [[]]
        for each in pieces:
            actual = serve(session, input_ids, mask, each)
            assert relative_difference(actual, reference, mask) < 1e-5, (batch, tokens, each)


@pytest.mark.parametrize("elements", [1, 300])
def test_tiles_of_a_prompt_are_read_in_several_batches(
    elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_tiles, "BATCH_ELEMENTS", elements)
    model = tiny_model(**BLOCKS["block"])
    input_ids, mask = tiny_tokens(2, 60), left_padded_mask(2, 60)
    actual = serve(open_graph(model), input_ids, mask, [20])
    assert relative_difference(actual, expected(model, input_ids, mask), mask) < 1e-5


def test_dense_layers_beside_block_sparse_ones_share_their_caches(tmp_path: Path) -> None:
    spec = tiny_config(**BLOCKS["block"]).spec
    (attention, mlp), *rest = spec.layers
    dense = changed(attention, op=changed(attention.op, sparse=None))
    model = tiny_model(spec=spec.with_layers(((dense, mlp), *rest)))
    model.config.save_pretrained(tmp_path)
    graph = save_graph(build_graph(model), tmp_path)
    engine = OnnxEngine.open(graph, threads=1, provider="cpu", prefill_chunk=7)
    assert all(case.passed for case in check_parity(model, graph, ExportConfig()))
    # One buffer, written in pieces, and means given back: the second prompt finds the first one's numbers
    # there.
    input_ids = tiny_tokens(2, 60).numpy()
    for row in input_ids:
        step = engine.prefill(row[None, :50])
        for token in row[50:]:
            step = engine.decode(token[None], step.cache)
        assert isinstance(step.cache, OnnxCache)
        assert [means.shape()[2] for means in step.cache.states] == [15]
        with torch.no_grad():
            reference = model(input_ids=torch.tensor(row)[None]).logits[0, -1].numpy()
        np.testing.assert_allclose(step.logits[0], reference, atol=1e-4)


def test_rows_of_a_cache_change_places_with_their_means(tmp_path: Path) -> None:
    model = tiny_model(**BLOCKS["block"])
    model.config.save_pretrained(tmp_path)
    engine = OnnxEngine.open(save_graph(build_graph(model), tmp_path), threads=1, provider="cpu")
    input_ids = tiny_tokens(2, 40).numpy()
    step = engine.prefill(input_ids[:, :39])
    swapped = engine.decode(input_ids[::-1, 39], engine.reordered(step.cache, np.array([1, 0])))
    with torch.no_grad():
        reference = model(input_ids=torch.tensor(input_ids)).logits[:, -1].numpy()
    np.testing.assert_allclose(swapped.logits, reference[::-1], atol=1e-4)
