"""Fused attention runs with scale 1: the queries carry the factor, from where it costs no node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray

from roots_compress.export.graph import build_graph
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.quantized import Format
from tests.export.quantized import quantized, tiny_quantized, with_int8_cache
from tests.export.serving import expected, left_padded_mask, open_bytes, relative_difference, serve
from tests.export.test_graph import FUSED
from tests.tiny import tiny_layer, tiny_model, tiny_tokens

FORMATS: tuple[Format, ...] = ("w8a8", "w8", "w4")


def attention_nodes(graph: ir.Graph) -> list[ir.Node]:
    bodies = [graph] + [
        attribute.as_graph()
        for node in graph
        for attribute in node.attributes.values()
        if attribute.type == ir.AttributeType.GRAPH
    ]
    return [node for body in bodies for node in body if node.op_type == "GroupQueryAttention"]


def stored(graph: ir.Graph, name: str) -> NDArray[Any]:
    value = graph.initializers[name].const_value
    assert value is not None
    return np.asarray(value.numpy())


def query(graph: ir.Graph, index: int, part: str) -> NDArray[Any]:
    """Return a layer's tensor of the query projection, joined with others or not; rows of queries first."""
    stem = f"model.layers.{index}.self_attn.q_proj"
    (name,) = (each for each in graph.initializers if each.startswith(stem) and f".{part}_scaled" in each)
    array = stored(graph, name)
    return array.T if name.endswith("_transposed") else array


@pytest.mark.parametrize("switches", FUSED.values(), ids=FUSED.keys())
def test_every_layer_attends_with_scale_1_and_no_further_node(switches: dict[str, Any]) -> None:
    model = tiny_model(**switches)
    graph, unscaled = build_graph(model).graph, model.config.spec
    nodes = attention_nodes(graph)
    assert [node.attributes["scale"].as_float() for node in nodes] == [1.0] * len(unscaled.layers)
    for place, op in unscaled.blocks():
        if isinstance(op, Attention):
            unscaled = unscaled.with_op(place, changed(op, scale=1.0))
    plain = build_graph(tiny_model(spec=unscaled)).graph
    assert [node.op_type for node in graph] == [node.op_type for node in plain]


@pytest.mark.parametrize("weight_format", FORMATS)
def test_both_bodies_of_an_int8_cache_attend_with_scale_1(weight_format: Format) -> None:
    model = with_int8_cache(tiny_quantized(weight_format, layers=[tiny_layer(head_dim=16)] * 2))
    nodes = attention_nodes(build_graph(model).graph)
    assert [node.attributes["scale"].as_float() for node in nodes] == [1.0] * 4


@pytest.mark.parametrize(("head_dim", "scale"), [(16, None), (32, None), (16, 0.3), (16, 4.0)])
@pytest.mark.parametrize("biased", [False, True])
def test_plain_queries_carry_the_scale_rounded_once(head_dim: int, scale: float | None, biased: bool) -> None:
    layers = [tiny_layer(head_dim=head_dim), tiny_layer(head_dim=16, num_attention_heads=2)]
    model = tiny_model(layers=layers, attention_scale=scale, attention_bias=biased)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = build_graph(model).graph
    for index, layer in enumerate(layers):
        factor = scale or layer["head_dim"] ** -0.5
        for part in ("weight", "bias") if biased else ("weight",):
            tensor = model.state_dict()[f"model.layers.{index}.self_attn.q_proj.{part}"].numpy()
            found = query(graph, index, part)[: len(tensor)]
            wanted = (tensor.astype(np.float64) * factor).astype(np.float32)
            assert np.array_equal(found, wanted)
            if np.log2(factor) % 1 == 0:
                assert np.array_equal(found / np.float32(factor), tensor)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("weight_format", FORMATS)
def test_quantized_queries_carry_it_in_the_scales_of_their_rows(weight_format: Format) -> None:
    model = tiny_quantized(weight_format, layers=[tiny_layer(head_dim=16)], attention_bias=True)
    graph, prefix = build_graph(model).graph, "model.layers.0.self_attn."
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for part in ("weight_scale", "bias"):
        each = [state[f"{prefix}{name}_proj.{part}"] for name in "qkv"]
        wanted = np.concatenate([each[0] * np.float32(0.25), *each[1:]])
        assert np.array_equal(query(graph, 0, part), wanted)
    (name,) = (name for name in graph.initializers if name.startswith(prefix + "q_proj_k_proj_v_proj.weight")
               and "scale" not in name and "zero" not in name)  # fmt: skip
    integers = stored(graph, name)
    levels = np.concatenate([state[f"{prefix}{name}_proj.weight"] for name in "qkv"])
    assert np.array_equal(integers.T if name.endswith("_transposed") else integers, levels)


@pytest.mark.parametrize("weight_format", [None, *FORMATS])
def test_norms_of_queries_carry_it_in_their_gain(weight_format: Format | None) -> None:
    layers = [tiny_layer(head_dim=16), tiny_layer(head_dim=32)]
    overrides: dict[str, Any] = {"layers": layers, "qk_norm": True, "attention_bias": True}
    model = tiny_quantized(weight_format, **overrides) if weight_format else tiny_model(**overrides)
    graph = build_graph(model).graph
    for index, layer in enumerate(layers):
        name = f"model.layers.{index}.self_attn.q_norm.weight"
        wanted = model.state_dict()[name].numpy().astype(np.float64) * layer["head_dim"] ** -0.5
        assert np.array_equal(stored(graph, name + "_scaled"), wanted.astype(np.float32))
    assert len([name for name in graph.initializers if "_scaled" in name]) == len(layers)


@pytest.mark.parametrize("formats", [("w8", "w8", "w8"), ("w8", "w4", "w8a8"), (None, "w8", "w4")])
def test_mixed_formats_of_a_layer_give_what_the_checkpoint_gives(formats: tuple[Format | None, ...]) -> None:
    """Projections that are stored differently are products of their own; only the queries' is scaled."""
    model = tiny_model(layers=[tiny_layer(head_dim=32)] * 2, attention_bias=True)
    chosen = {
        f"model.layers.1.self_attn.{name}_proj": each
        for name, each in zip("qkv", formats, strict=True)
        if each is not None
    }
    check_against_the_checkpoint(quantized(model, chosen))


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("scale", [None, 0.3])
def test_quantized_graphs_give_what_the_checkpoint_gives(weight_format: Format, scale: float | None) -> None:
    layers = [tiny_layer(head_dim=16), tiny_layer(head_dim=32, num_key_value_heads=1)]
    check_against_the_checkpoint(tiny_quantized(weight_format, layers=layers, attention_scale=scale))


def check_against_the_checkpoint(model: RootsForCausalLM) -> None:
    graph = build_graph(model)
    session = open_bytes(ir.to_proto(graph).SerializeToString())
    for batch, tokens, pieces in ((1, 12, [6, 7, 8, 9, 10, 11]), (3, 12, [])):
        input_ids, mask = tiny_tokens(batch, tokens), left_padded_mask(batch, tokens)
        actual = serve(session, input_ids, mask, pieces)
        assert relative_difference(actual, expected(model, input_ids, mask), mask) < 0.02


@pytest.mark.parametrize("form", ["portable", "float16", "top_m"])
def test_other_forms_keep_the_checkpoints_weights_and_scale(form: str) -> None:
    """Small weights in float16 would lose bits, and other runtimes have no such kernel."""
    attention = {"kind": "top_m", "top_m": 4} if form == "top_m" else {"kind": "dense"}
    model = tiny_model(layers=[tiny_layer(head_dim=16)] * 2, attention=attention)
    graph = build_graph(model.half() if form == "float16" else model, portable=form == "portable").graph
    assert [name for name in graph.initializers if "_scaled" in name] == []
    scales = [node.attributes["scale"].as_float() for node in graph if node.op_type == "Attention"]
    assert scales == ([] if form == "top_m" else [0.25] * 2)
