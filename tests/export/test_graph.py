"""The graph of every kind of model computes what the model computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from roots_compress.errors import StageError
from roots_compress.export.graph import build_graph
from roots_compress.runtime.onnx.session import LOGITS_TO_KEEP
from tests.export.quantized import with_int8_cache
from tests.export.serving import expected, left_padded_mask, open_graph, relative_difference, serve
from tests.specs import (
    IN_GROUPS,
    beside_attention,
    experts_beside,
    latent,
    parallel,
    shared_expert,
    sharing,
    with_experts,
)
from tests.tiny import tiny_layer, tiny_model, tiny_tokens

SWITCHES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {
        "norm": "layer_norm",
        "position": "learned",
        "activation": "gelu_tanh",
        "gated_mlp": False,
        "attention_bias": True,
        "attention_output_bias": True,
        "mlp_bias": True,
    },
    "qwen2": {"attention_bias": True, "tie_word_embeddings": False},
    "qwen3": {"qk_norm": True},
    "gemma": {"activation": "gelu_tanh", "embedding_scale": 32**0.5},
    "scales": {"attention_scale": 0.3, "embedding_scale": 2.5, "logit_scale": 0.7},
    "gelu": {"activation": "gelu"},
    "relu": {"activation": "relu", "gated_mlp": False},
    "per-layer widths": {
        "layers": [
            tiny_layer(sliding_window=5),
            tiny_layer(num_attention_heads=6, num_key_value_heads=1, head_dim=4, intermediate_size=20),
            tiny_layer(num_attention_heads=3, num_key_value_heads=3, head_dim=10),
        ]
    },
    "parallel": {"spec": parallel()},
    "shared keys": {"spec": sharing(6)},
    "experts beside": {"spec": experts_beside()},
    "shared expert": {"spec": shared_expert()},
    "shared expert as it is": {"spec": shared_expert(weighed=False)},
    "latent": {"spec": latent()},
    "latent, fused": {"spec": latent(head_dim=32)},
    "latent, queries not": {"spec": latent(query_rank=None, value_dim=16)},
    "experts in groups": {"spec": with_experts(**IN_GROUPS)},
    "attention beside Mamba-2": {"spec": beside_attention()},
    "linear rope": {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    "llama3 rope": {
        "rope_parameters": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "yarn rope": {
        "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    },
    "top_m": {"attention": {"kind": "top_m", "top_m": 5}},
    "top_m with window": {
        "attention": {"kind": "top_m", "top_m": 5},
        "layers": [tiny_layer(sliding_window=9), tiny_layer(num_key_value_heads=4)],
    },
    "block": {"attention": {"kind": "block", "block_size": 4, "num_blocks": 3}},
    "own block only": {"attention": {"kind": "block", "num_blocks": 1}},
    "block with window": {
        "attention": {"kind": "block", "num_blocks": 2},
        "layers": [tiny_layer(sliding_window=30), tiny_layer(num_attention_heads=2)],
    },
}
SHAPES = [(1, 1), (1, 7), (2, 7), (3, 40), (2, 128)]


FUSED: dict[str, dict[str, Any]] = {
    "llama": {"layers": [tiny_layer(head_dim=16), tiny_layer(head_dim=16)]},
    "per-layer widths": {
        "layers": [
            tiny_layer(head_dim=32, sliding_window=5),
            tiny_layer(num_attention_heads=6, num_key_value_heads=1, head_dim=16),
            tiny_layer(num_attention_heads=3, num_key_value_heads=3, head_dim=16, sliding_window=1),
        ]
    },
    "gpt2": {
        **SWITCHES["gpt2"],
        "layers": [tiny_layer(), tiny_layer(num_attention_heads=3, num_key_value_heads=1, head_dim=24)],
    },
    "parallel": {"spec": parallel(layers=[tiny_layer(head_dim=16), tiny_layer(head_dim=32)])},
    "shared keys": {"spec": sharing(16)},
    **{
        name: {**SWITCHES[name], "layers": [tiny_layer(head_dim=16), tiny_layer(head_dim=32)]}
        for name in ("qwen2", "qwen3", "scales", "linear rope", "llama3 rope", "yarn rope")
    },
}
"""Models whose attention is one fused operator."""


@pytest.mark.parametrize("form", ["fused", "portable", "int8 cache", "top_m", "block"])
def test_nothing_stands_in_a_graph_that_is_not_read(form: str) -> None:
    layers = [tiny_layer(head_dim=16), tiny_layer(head_dim=16, sliding_window=9)]
    model = tiny_model(**{**SWITCHES.get(form, {}), "layers": layers})
    model = with_int8_cache(model) if form == "int8 cache" else model
    graph = build_graph(model, portable=form == "portable").graph
    made = [[value] for value in graph.initializers.values()] + [list(node.outputs) for node in graph]
    results = set(graph.outputs)
    assert [each for each in made if not any(value.uses() or value in results for value in each)] == []


@pytest.mark.parametrize("switches", FUSED.values(), ids=FUSED.keys())
def test_fused_attention_equals_the_models_in_prefill_and_decoding(switches: dict[str, Any]) -> None:
    model = tiny_model(**switches)
    assert "GroupQueryAttention" in {node.op_type for node in build_graph(model).graph}
    session = open_graph(model)
    for batch, tokens in SHAPES:
        input_ids, mask = tiny_tokens(batch, tokens), left_padded_mask(batch, tokens)
        reference = expected(model, input_ids, mask)
        splits = [[], list(range(tokens // 2, tokens))] if tokens > 1 else [[]]
        # Only one row may read several tokens after a past.
        splits += [[tokens // 3, tokens // 2]] if batch == 1 and tokens > 1 else []
        for pieces in splits:
            actual = serve(session, input_ids, mask, pieces)
            assert relative_difference(actual, reference, mask) < 1e-5, (batch, tokens, pieces)


def test_fused_attention_reads_one_padded_row_in_pieces() -> None:
    model = tiny_model(**FUSED["llama"])
    input_ids, mask = tiny_tokens(1, 20), (torch.arange(20) >= 8).long()[None]
    actual = serve(open_graph(model), input_ids, mask, [3, 11, 12])
    assert relative_difference(actual, expected(model, input_ids, mask), mask) < 1e-5


def test_fused_attention_takes_padding_on_the_right_as_well() -> None:
    model = tiny_model(**FUSED["llama"])
    session, input_ids = open_graph(model), tiny_tokens(2, 9)
    # Row 1 has six tokens, two columns of padding, and then the same new one as row 0.
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 2 + [1]])
    actual = serve(session, input_ids, mask, [8])
    for row in range(2):
        real = mask[row].bool()
        alone = expected(model, input_ids[row : row + 1, real], mask[row : row + 1, real])
        np.testing.assert_allclose(actual[row, real], alone[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "per-layer widths", "top_m", "block"])
def test_what_the_fused_operator_cannot_express_stays_standard(kind: str) -> None:
    layers = {"gpt2": [tiny_layer(head_dim=6)]}.get(kind, SWITCHES[kind].get("layers", [tiny_layer()]))
    model = tiny_model(**{**SWITCHES[kind], "layers": layers})
    assert "GroupQueryAttention" not in {node.op_type for node in build_graph(model).graph}
    input_ids, mask = tiny_tokens(2, 24), left_padded_mask(2, 24)
    actual = serve(open_graph(model), input_ids, mask, [11])
    assert relative_difference(actual, expected(model, input_ids, mask), mask) < 1e-5


@pytest.mark.parametrize("kind", ["llama", "top_m"])
def test_a_portable_graph_has_standard_operators_only(kind: str) -> None:
    switches = {**SWITCHES[kind], "layers": [tiny_layer(head_dim=16)]}
    graph = build_graph(tiny_model(**switches), portable=True).graph
    assert {node.domain for node in graph} == {""}


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES.keys())
def test_logits_equal_the_models_in_prefill_and_at_every_split(switches: dict[str, Any]) -> None:
    model = tiny_model(**switches)
    session = open_graph(model, portable=True)
    for batch, tokens in SHAPES:
        input_ids, mask = tiny_tokens(batch, tokens), left_padded_mask(batch, tokens)
        reference = expected(model, input_ids, mask)
        for splits in ([], [tokens // 2], [tokens - 1]):
            pieces = [split for split in splits if split]
            actual = serve(session, input_ids, mask, pieces)
            assert relative_difference(actual, reference, mask) < 1e-5, (batch, tokens, splits)


@pytest.mark.parametrize("kind", ["llama", "top_m", "block", "per-layer widths"])
def test_token_by_token_equals_prefill(kind: str) -> None:
    model = tiny_model(**SWITCHES[kind])
    input_ids, mask = tiny_tokens(2, 24), left_padded_mask(2, 24)
    actual = serve(open_graph(model), input_ids, mask, list(range(1, 24)))
    assert relative_difference(actual, expected(model, input_ids, mask), mask) < 1e-5


def test_padding_changes_nothing_in_a_row() -> None:
    session = open_graph(tiny_model())
    input_ids = tiny_tokens(1, 9)
    alone = serve(session, input_ids, torch.ones_like(input_ids), [])
    padded_ids = torch.cat((torch.full((1, 5), 2), input_ids), dim=1)
    mask = (torch.arange(14) >= 5).long()[None]
    padded = serve(session, padded_ids, mask, [])
    assert abs(padded[:, 5:] - alone).max() < 1e-5


def test_float16_differs_by_its_rounding_only() -> None:
    model = tiny_model().half()
    session = open_graph(model)
    input_ids, mask = tiny_tokens(3, 20), left_padded_mask(3, 20)
    actual = serve(session, input_ids, mask, [13])
    assert actual.dtype.name == "float32"
    assert relative_difference(actual, expected(model, input_ids, mask), mask) < 5e-3


@pytest.mark.parametrize("kind", ["top_m", "block"])
def test_sparse_float16_rows_of_nothing_but_padding_stay_finite(kind: str) -> None:
    session = open_graph(tiny_model(**SWITCHES[kind]).half())
    mask = left_padded_mask(3, 20)
    assert (abs(serve(session, tiny_tokens(3, 20), mask, [13])) < 1e4).all()


def test_the_graph_passes_the_full_checker() -> None:
    for switches in SWITCHES.values():
        onnx.checker.check_model(ir.to_proto(build_graph(tiny_model(**switches))), full_check=True)


def test_names_and_axes_are_optimums() -> None:
    layers = [tiny_layer(), tiny_layer(num_key_value_heads=1, head_dim=6)]
    session = open_graph(tiny_model(layers=layers))
    assert [(value.name, value.shape) for value in session.get_inputs()] == [
        ("input_ids", ["batch_size", "sequence_length"]),
        ("attention_mask", ["batch_size", "total_sequence_length"]),
        ("position_ids", ["batch_size", "sequence_length"]),
        *(
            (f"past_key_values.{index}.{part}", ["batch_size", heads, "past_sequence_length", width])
            for index, heads, width in ((0, 2, 8), (1, 1, 6))
            for part in ("key", "value")
        ),
    ]
    assert [value.name for value in session.get_outputs()] == [
        "logits",
        *(f"present.{index}.{part}" for index in (0, 1) for part in ("key", "value")),
    ]


@pytest.mark.parametrize("kept", [1, 3, 7, 9])
def test_a_caller_may_ask_for_the_newest_logits_only(kept: int) -> None:
    session = open_graph(tiny_model())
    assert [value.name for value in session.get_overridable_initializers()] == [LOGITS_TO_KEEP]
    feed = {"input_ids": tiny_tokens(2, 7).numpy(), "attention_mask": np.ones((2, 7), dtype=np.int64)}
    feed["position_ids"] = feed["attention_mask"].cumsum(axis=1) - 1
    for value in session.get_inputs()[3:]:
        feed[value.name] = np.zeros((2, value.shape[1], 0, value.shape[3]), dtype=np.float32)
    every = session.run(["logits"], feed)[0]
    newest = session.run(["logits"], {**feed, LOGITS_TO_KEEP: np.array(kept)})[0]
    assert every.shape[1] == 7
    assert newest.shape[1] == min(kept, 7)
    np.testing.assert_allclose(newest, every[:, -kept:], rtol=1e-5, atol=1e-5)


def test_weights_are_shared_with_the_model_not_copied() -> None:
    model = tiny_model()
    table = build_graph(model).graph.initializers["model.embed_tokens.weight"].const_value
    assert table is not None
    with torch.no_grad():
        model.state_dict()["model.embed_tokens.weight"][0, 0] = 123.0
    assert table.numpy()[0, 0] == 123.0


def test_bfloat16_is_refused() -> None:
    with pytest.raises(StageError, match="bfloat16"):
        build_graph(tiny_model().bfloat16())
