"""Quantized formats: the graph computes what the checkpoint's modules compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from roots_compress.export.exact import dequantized
from roots_compress.export.graph import build_graph
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.quantized import Format
from tests.export.quantized import quantized, tiny_quantized
from tests.export.serving import (
    expected,
    left_padded_mask,
    open_bytes,
    open_graph,
    relative_difference,
    serve,
)
from tests.specs import shared_expert
from tests.tiny import tiny_layer, tiny_model, tiny_tokens

MODELS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied with biases": {
        "tie_word_embeddings": False,
        "attention_bias": True,
        "attention_output_bias": True,
        "mlp_bias": True,
    },
    "odd widths": {
        "hidden_size": 40,
        "layers": [tiny_layer(intermediate_size=23), tiny_layer(num_attention_heads=6, intermediate_size=70)],
    },
    "fused attention": {"layers": [tiny_layer(head_dim=16), tiny_layer(head_dim=32, num_key_value_heads=1)]},
    "learned positions": {"position": "learned", "norm": "layer_norm", "embedding_scale": 2.0},
}


PRODUCTS = [(False, "MatMulIntegerToFloat"), (True, "MatMulInteger")]
"""The operator that multiplies int8, in either form of the graph."""


def exact_session(model: RootsForCausalLM, *, portable: bool = False) -> Any:
    """Return the graph with float input in `MatMulNBits`, so that only float rounding is left."""
    graph = build_graph(model, portable=portable)
    for node in graph.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 0)
    return open_bytes(ir.to_proto(graph).SerializeToString())


# Groups of 32 are one a row, but in matrices of odd widths.
SIZES = [*((name, 16) for name in MODELS), ("odd widths", 32)]


@pytest.mark.parametrize(("name", "group_size"), SIZES)
@pytest.mark.parametrize("portable", [False, True], ids=["fused", "portable"])
@pytest.mark.parametrize("weight_format", ["w8a8", "w8", "w4"])
def test_every_format_equals_the_checkpoint(
    weight_format: Format, portable: bool, name: str, group_size: int
) -> None:
    model = tiny_quantized(weight_format, group_size, **MODELS[name])
    session = exact_session(model, portable=portable)
    reference = model if weight_format == "w8a8" else dequantized(model)
    for batch, tokens in ((1, 1), (1, 7), (3, 40)):
        input_ids, mask = tiny_tokens(batch, tokens), left_padded_mask(batch, tokens)
        actual = serve(session, input_ids, mask, [tokens - 1] if tokens > 1 else [])
        assert relative_difference(actual, expected(reference, input_ids, mask), mask) < 1e-5


@pytest.mark.parametrize("other", ["mlp.down_proj", "self_attn.q_proj", "mlp.up_proj", "embed_tokens"])
@pytest.mark.parametrize(("weight_format", "portable"), [("w8", False), ("w4", True)])
def test_matrices_may_have_groups_of_different_sizes(
    weight_format: Format, portable: bool, other: str
) -> None:
    plain = tiny_model(layers=[tiny_layer(head_dim=16, intermediate_size=70)] * 2)
    modules = [each for each, module in plain.named_modules() if isinstance(module, nn.Linear | nn.Embedding)]
    formats = dict.fromkeys([each for each in modules if each != "lm_head"], weight_format)
    name = "model.embed_tokens" if other == "embed_tokens" else f"model.layers.1.{other}"
    model = quantized(plain, formats, group_size=16, group_sizes={name: 32})
    session = exact_session(model, portable=portable)
    input_ids, mask = tiny_tokens(3, 12), left_padded_mask(3, 12)
    actual = serve(session, input_ids, mask, [11])
    assert relative_difference(actual, expected(dequantized(model), input_ids, mask), mask) < 1e-5


@pytest.mark.parametrize("group_size", [16, 32, 64])
@pytest.mark.parametrize("weight_format", ["w8", "w4"])
def test_the_fast_kernels_round_inputs_as_the_modules_do(weight_format: Format, group_size: int) -> None:
    """All but the few logits behind an input that lay close to a tie."""
    model = tiny_quantized(weight_format, group_size, layers=[tiny_layer(intermediate_size=70)])
    input_ids, mask = tiny_tokens(1, 40), left_padded_mask(1, 40)
    actual = serve(open_graph(model), input_ids, mask, [20])
    rounded = np.abs(actual - expected(model, input_ids, mask))
    not_rounded = np.abs(actual - expected(dequantized(model), input_ids, mask))
    assert np.median(rounded) < 1e-5
    assert np.median(not_rounded) > 1e-3


def test_formats_may_be_mixed() -> None:
    model = tiny_model()
    formats: dict[str, Format] = {
        "model.embed_tokens": "w8",
        "model.layers.0.self_attn.q_proj": "w8a8",
        "model.layers.0.mlp.down_proj": "w4",
    }
    mixed = quantized(model, formats)
    input_ids, mask = tiny_tokens(2, 12), left_padded_mask(2, 12)
    actual = serve(open_graph(mixed), input_ids, mask, [])
    assert relative_difference(actual, expected(mixed, input_ids, mask), mask) < 1e-5


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("portable", "product"), PRODUCTS)
def test_an_input_may_have_one_scale_for_all_tokens(portable: bool, product: str, bias: bool) -> None:
    """Too small a one here, so that values beyond the levels are cut off alike too."""
    plain = tiny_model(attention_bias=bias)
    queries = [f"model.layers.0.self_attn.{name}_proj" for name in "qkv"]
    formats: dict[str, Format] = dict.fromkeys([*queries, "model.layers.1.mlp.down_proj"], "w8a8")
    model = quantized(plain, formats, input_scales=dict.fromkeys(queries, 0.01))
    input_ids, mask = tiny_tokens(3, 12), left_padded_mask(3, 12)
    wanted = expected(model, input_ids, mask)
    actual = serve(open_graph(model, portable=portable), input_ids, mask, [])
    assert relative_difference(actual, wanted, mask) < 1e-5
    assert relative_difference(expected(quantized(plain, formats), input_ids, mask), wanted, mask) > 1e-3
    operators = [node.op_type for node in build_graph(model, portable=portable).graph]
    assert operators.count("ReduceMax") == 1  # the other matrix finds the largest value of each token
    assert operators.count(product) == len(formats)


@pytest.mark.parametrize("portable", [False, True])
def test_a_shared_expert_may_have_one_scale_and_routed_ones_of_the_same_input_none(portable: bool) -> None:
    plain = tiny_model(spec=shared_expert())
    experts = [name for name in plain.config.spec.matrices() if ".experts." in name]
    fixed = [f"model.layers.{index}.shared_mlp.{name}_proj" for index in range(2) for name in ("gate", "up")]
    formats: dict[str, Format] = dict.fromkeys([*experts, *fixed], "w8a8")
    model = quantized(plain, formats, input_scales=dict.fromkeys(fixed, 0.01))
    input_ids, mask = tiny_tokens(3, 12), left_padded_mask(3, 12)
    actual = serve(open_graph(model, portable=portable), input_ids, mask, [])
    assert relative_difference(actual, expected(model, input_ids, mask), mask) < 1e-5


def test_a_token_of_zeros_stays_zero() -> None:
    model = tiny_quantized("w8a8")
    with torch.no_grad():
        model.model.layers[0].self_attn_pre_norm.weight.zero_()
    input_ids = tiny_tokens(1, 6)
    mask = torch.ones_like(input_ids)
    actual = serve(open_graph(model), input_ids, mask, [])
    assert np.isfinite(actual).all()
    assert relative_difference(actual, expected(model, input_ids, mask), mask) < 1e-5


@pytest.mark.parametrize(("portable", "product"), PRODUCTS)
def test_projections_that_read_one_tensor_share_its_quantization(portable: bool, product: str) -> None:
    layers = 2
    graph = build_graph(tiny_quantized("w8a8"), portable=portable).graph
    nodes = [node.op_type for node in graph]
    # Gate and up are one product, and there is the head.
    assert nodes.count(product) == layers * 6 + 1
    # Before q, k and v; o; gate and up; down; and the head.
    assert nodes.count("QuantizeLinear") == layers * 4 + 1


def test_fused_attention_reads_one_product_of_queries_keys_and_values() -> None:
    model = tiny_quantized("w8a8", layers=[tiny_layer(head_dim=16)])
    nodes = [node.op_type for node in build_graph(model).graph]
    assert nodes.count("MatMulIntegerToFloat") == 4 + 1


@pytest.mark.parametrize("weight_format", ["w8a8", "w8", "w4"])
def test_layers_without_plain_matrices_keep_the_axes_of_fused_attention(weight_format: Format) -> None:
    model = tiny_quantized(weight_format, layers=[tiny_layer(head_dim=16)] * 2)
    assert not any(node.op_type == "Reshape" for node in layer_nodes(model))


def test_layers_with_a_plain_matrix_work_on_flat_rows() -> None:
    model = tiny_model(layers=[tiny_layer(head_dim=16)])
    names = [name for name in model.config.spec.matrices() if name.startswith("model.layers")]
    spared = quantized(model, dict.fromkeys(names[1:], "w8"))
    # Queries, keys and values get the axes of fused attention, and what it gives loses them.
    assert [node.op_type for node in layer_nodes(spared)].count("Reshape") == 4
    input_ids, mask = tiny_tokens(2, 12), left_padded_mask(2, 12)
    actual = serve(exact_session(spared), input_ids, mask, [11])
    assert relative_difference(actual, expected(dequantized(spared), input_ids, mask), mask) < 1e-5


def layer_nodes(model: RootsWithHead) -> list[ir.Node]:
    return [node for node in build_graph(model).graph if (node.name or "").startswith("layers.")]


@pytest.mark.parametrize("apart", ["q_proj", "up_proj"])
def test_projections_in_different_formats_stay_apart(apart: str) -> None:
    model = tiny_model(layers=[tiny_layer(head_dim=16)])
    parts = {
        "self_attn": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "mlp": ["gate_proj", "up_proj", "down_proj"],
    }
    formats: dict[str, Format] = {
        f"model.layers.0.{block}.{part}": "w8" if part == apart else "w4"
        for block, names in parts.items()
        for part in names
    }
    mixed = quantized(model, formats)
    input_ids, mask = tiny_tokens(2, 12), left_padded_mask(2, 12)
    actual = serve(exact_session(mixed), input_ids, mask, [11])
    assert relative_difference(actual, expected(dequantized(mixed), input_ids, mask), mask) < 1e-5


@pytest.mark.parametrize(("portable", "product"), PRODUCTS)
def test_integer_products_take_unsigned_activations(portable: bool, product: str) -> None:
    graph = build_graph(tiny_quantized("w8a8"), portable=portable).graph
    made_by = {node.outputs[0]: node for node in graph}
    inputs = [node.inputs[0] for node in graph if node.op_type == product]
    quantizers = [made_by[value] for value in inputs if value is not None]
    assert {node.op_type for node in quantizers} == {"QuantizeLinear"}
    zeros = [made_by[node.inputs[2]] for node in quantizers if node.inputs[2] is not None]
    assert {node.attributes["value"].as_tensor().dtype for node in zeros} == {ir.DataType.UINT8}


@pytest.mark.parametrize("weight_format", ["w8a8", "w8", "w4"])
def test_a_tied_quantized_table_is_stored_once(weight_format: Format) -> None:
    model = tiny_quantized(weight_format)
    stored = sum(
        value.const_value.nbytes
        for value in build_graph(model).graph.initializers.values()
        if value.const_value is not None and value.name is not None and "." in value.name
    )
    state = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert stored <= state + 64


@pytest.mark.parametrize(("portable", "axis"), [(False, -1), (True, 0)], ids=["fused", "portable"])
def test_rows_are_quantized_as_blocks_but_in_portable_graphs(portable: bool, axis: int) -> None:
    """ONNX Runtime quantizes blocks on all threads; other runtimes know the older form."""
    layers = [tiny_layer(intermediate_size=70)]
    graph = build_graph(tiny_quantized("w8a8", layers=layers), portable=portable).graph
    nodes = [node.attributes for node in graph if node.op_type == "QuantizeLinear"]
    assert {attributes["axis"].as_int() for attributes in nodes} == {axis}
    widths = [] if portable else [32, 32, 32, 70, 32]
    assert [attributes["block_size"].as_int() for attributes in nodes if "block_size" in attributes] == widths


@pytest.mark.parametrize("portable", [False, True], ids=["fused", "portable"])
def test_a_row_of_zeros_gives_zeros(portable: bool) -> None:
    """Its scale is 0, and nothing of that division is to be seen."""
    model = tiny_model(layers=[tiny_layer()])
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.zero_()
    session = open_graph(quantized(model, {"model.layers.0.mlp.down_proj": "w8a8"}), portable=portable)
    input_ids, mask = tiny_tokens(2, 6), left_padded_mask(2, 6)
    actual = serve(session, input_ids, mask, [])
    assert relative_difference(actual, expected(model, input_ids, mask), mask) < 1e-5
