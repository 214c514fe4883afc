"""Quantized weights without quantized arithmetic, for which graph and checkpoint must agree to float32
rounding.

A network that rounds its activations amplifies the last bit of a float: The logits of SmolLM2-135M in `w8a8`
change by 7% (root mean square) when the residual stream is disturbed by one part in a million. So comparing
such graphs with their checkpoint cannot find a wrong scale; without the rounding it can.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import GraphProto, NodeProto, TensorProto
from onnx.helper import make_attribute, make_node

from roots_compress.export.builder import MICROSOFT
from roots_compress.export.ops.fused_attention import LEVELS
from roots_compress.export.ops.moe import ROUTER_WEIGHTS
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.base import changed
from roots_compress.models.quantized import UINT8_ZERO_POINT, QuantizedEmbedding, QuantizedWeight
from roots_compress.models.spec import HEAD

SHAPING = ("Reshape", "Unsqueeze")
FIRST_CACHE_SCALE = 12
"""The index of `k_scale` among the inputs of `GroupQueryAttention`; only `v_scale` follows."""


@torch.no_grad()
def dequantized(model: RootsWithHead) -> RootsWithHead:
    """Return the model with its weights dequantized."""
    spec = model.config.spec
    embedding = model.model.embed_tokens
    lookup_scale_W = embedding.lookup_scale if isinstance(embedding, QuantizedEmbedding) else None
    if lookup_scale_W is not None:
        # Lookups and the head use one table with different channel scales: dequantized, they are two.
        spec = changed(spec, tied=False)
    config = RootsConfig(spec=spec)
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith((".weight_scale", ".weight_zero_point", ".lookup_scale", ".input_scale"))
        and "cache_rounding" not in name
    }
    for name, module in model.named_modules():
        if isinstance(module, QuantizedWeight):
            state[f"{name}.weight"] = module.dequantize()
    # Made without storage and given the existing tensors: no second copy, no initialisation.
    with torch.device("meta"):
        plain: RootsWithHead = make_model(config).eval()
    table_VW = state["model.embed_tokens.weight"]
    if lookup_scale_W is not None:
        state["model.embed_tokens.weight"] = table_VW * lookup_scale_W
    if config.tie_word_embeddings or lookup_scale_W is not None:
        state[f"{HEAD}.weight"] = table_VW
    state = {name: state[name] for name in plain.state_dict()}
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    return plain


def write_exact(graph: Path, target: Path) -> None:
    """Write a copy of a graph that multiplies floats by the same stored weights; external data is shared.

    `target` must lie in the graph's own folder, because its data is found relative to it.
    """
    proto = onnx.load(graph, load_external_data=False)
    _make_exact(proto.graph)
    onnx.save(proto, target)


def _make_exact(graph: GraphProto) -> None:
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.INT8:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    nodes: list[NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _make_exact(attribute.g)
        nodes.extend(_exact(node))
    del graph.node[:]
    graph.node.extend(nodes)


def _exact(node: NodeProto) -> list[NodeProto]:
    """Return the replacement of a node: the same mathematics, without rounding to integers."""
    if f"/{LEVELS}/" in node.name and node.op_type not in SHAPING:
        return [make_node("Identity", [node.input[0]], list(node.output))]
    match node.op_type:
        case "MatMulNBits":
            for attribute in node.attribute:
                if attribute.name == "accuracy_level":
                    attribute.i = 0
        case "QMoE":
            return _float_experts(node)
        case "GroupQueryAttention":
            integers = {"kv_cache_bit_width", "k_quant_type", "v_quant_type"}
            kept = [attribute for attribute in node.attribute if attribute.name not in integers]
            del node.attribute[:]
            node.attribute.extend(kept)
            del node.input[FIRST_CACHE_SCALE:]
        case "QuantizeLinear":
            return _divided(node)
        case "MatMulInteger":
            floats = f"{node.name}/floats"
            return [
                make_node("Cast", [node.input[1]], [floats], to=TensorProto.FLOAT),
                make_node("MatMul", [node.input[0], floats], list(node.output)),
            ]
        case "MatMulIntegerToFloat":
            parts = ("floats", "product", "scales", "scaled")
            floats, product, scales, scaled = (f"{node.name}/{part}" for part in parts)
            bias = node.input[6] if len(node.input) > 6 else ""
            nodes = [
                make_node("Cast", [node.input[1]], [floats], to=TensorProto.FLOAT),
                make_node("MatMul", [node.input[0], floats], [product]),
                make_node("Mul", [node.input[2], node.input[3]], [scales]),
                make_node("Mul", [product, scales], [scaled] if bias else list(node.output)),
            ]
            return [*nodes, make_node("Add", [scaled, bias], list(node.output))] if bias else nodes
    return [node]


def _float_experts(node: NodeProto) -> list[NodeProto]:
    """Return a mixture of the same experts in floats: the 8-bit operator always rounds its input."""
    values = {attribute.name: attribute.i for attribute in node.attribute}
    if values["expert_weight_bits"] == 4:
        next(each for each in node.attribute if each.name == "accuracy_level").i = 0
        return [node]
    nodes: list[NodeProto] = []

    def made(operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{node.name}/{len(nodes)}"
        nodes.append(make_node(operator, inputs, [name], **attributes))
        return name

    def constant(*numbers: int) -> str:
        return made("Constant", value_ints=numbers)

    zero = made("Constant", value_float=float(UINT8_ZERO_POINT))
    weights = []
    for levels, scales in ((2, 3), (5, 6)):
        centred = made("Sub", made("Cast", node.input[levels], to=TensorProto.FLOAT), zero)
        grouped = made("Reshape", centred, constant(0, 0, -1, values["block_size"]))
        scaled = made("Mul", grouped, made("Unsqueeze", node.input[scales], constant(-1)))
        weights.append(made("Reshape", scaled, constant(0, 0, -1)))
    shared = ("k", "activation_type", "swiglu_fusion", "activation_alpha", "activation_beta", "swiglu_limit")
    first_bias, second_bias = node.input[4], node.input[7]
    inputs = [*node.input[:2], weights[0], first_bias, weights[1], second_bias]
    experts = make_node("MoE", inputs, list(node.output), domain=MICROSOFT)
    experts.attribute.extend(each for each in node.attribute if each.name in shared)
    # The experts' weights are an input if they are not divided by their sum.
    divided = len(node.input) <= ROUTER_WEIGHTS
    experts.attribute.append(make_attribute("normalize_routing_weights", int(divided)))
    return [*nodes, experts]


def _divided(node: NodeProto) -> list[NodeProto]:
    """Return nodes that divide by the scale (of each row, or of all) without rounding to levels."""
    names = (f"{node.name}/{part}" for part in ("least", "positive", "axes", "column"))
    least, positive, axes, column = names
    nodes = [
        # A row of zeros has scale 0.
        make_node("Constant", [], [least], value_float=float(np.finfo(np.float32).tiny)),
        make_node("Max", [node.input[1], least], [positive]),
    ]
    if not any(attribute.name == "axis" and attribute.i == 0 for attribute in node.attribute):
        return [*nodes, make_node("Div", [node.input[0], positive], list(node.output))]
    return [
        *nodes,
        make_node("Constant", [], [axes], value_ints=[-1]),
        make_node("Unsqueeze", [positive, axes], [column]),
        make_node("Div", [node.input[0], column], list(node.output)),
    ]
