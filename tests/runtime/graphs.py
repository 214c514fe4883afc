"""Decoder graphs written by hand, small enough that numpy can say what each must answer.

`history_model`: the logits of a token are its row of a table, plus its position times one vector, plus the
sum of the ids read so far times another. So a wrong cache, mask or position shows. Its two layers cache
tensors of different shapes, the second in float16.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

VOCAB_SIZE = 7
MAX_CONTEXT = 16

CONSTANTS: dict[str, NDArray[np.generic]] = {
    "logits_to_keep": np.asarray(0),
    "list": np.asarray([1]),
    "far": np.asarray([np.iinfo(np.int64).max]),
    "axis1": np.asarray([1]),
    "axis2": np.asarray(2),
    "axis2_list": np.asarray([2]),
    "axes13": np.asarray([1, 3]),
    "last": np.asarray([2]),
    "half": np.asarray(0.5, dtype=np.float32),
    "two_heads_of_three": np.asarray([1, 2, 1, 3]),
}

Table = NDArray[np.float32]


def random_weights(seed: int = 0) -> dict[str, Table]:
    """Return the table `(V, V)`, and the vectors `(1, V)` for position and history."""
    generator = np.random.default_rng(seed)
    return {
        "table": generator.normal(size=(VOCAB_SIZE, VOCAB_SIZE)).astype(np.float32),
        "per_position": generator.normal(size=(1, VOCAB_SIZE)).astype(np.float32),
        "per_history": generator.normal(size=(1, VOCAB_SIZE)).astype(np.float32),
    }


def expected_logits(weights: dict[str, Table], prompt: list[int]) -> Table:
    """Return what the graph must answer for one unpadded row, `(T, V)`."""
    ids = np.asarray(prompt)
    position = np.arange(len(ids), dtype=np.float32)[:, None]
    history = ids.cumsum().astype(np.float32)[:, None]
    logits: Table = (
        weights["table"][ids] + position * weights["per_position"] + history * weights["per_history"]
    )
    return logits


def history_model(weights: dict[str, Table], *, optional_logits: bool = False) -> onnx.ModelProto:
    """Return the decoder graph described above, with an input that says how many logits to keep if asked."""
    inputs, outputs = _inputs_and_outputs(optional_logits)
    constants = [numpy_helper.from_array(value, name) for name, value in {**CONSTANTS, **weights}.items()]
    graph = helper.make_graph(_history_nodes(optional_logits), "history", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _history_nodes(optional_logits: bool) -> list[onnx.NodeProto]:
    nodes = [
        # This step's part of the mask, and its ids where the mask is 1: (B, 1, T, 1).
        helper.make_node("Shape", ["input_ids"], ["tokens"], start=1, end=2),
        helper.make_node("Neg", ["tokens"], ["from"]),
        helper.make_node("Slice", ["attention_mask", "from", "far", "axis1"], ["mask"]),
        helper.make_node("Mul", ["input_ids", "mask"], ["real_ids"]),
        helper.make_node("Unsqueeze", ["real_ids", "axes13"], ["ids_4d"]),
        helper.make_node("Cast", ["ids_4d"], ["ids_float"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["ids_4d"], ["ids_half"], to=TensorProto.FLOAT16),
        helper.make_node("Expand", ["ids_half", "two_heads_of_three"], ["ids_wide"]),
        *(
            helper.make_node("Concat", [f"past_key_values.{name}", new], [f"present.{name}"], axis=2)
            for name, new in (
                ("0.key", "ids_float"),
                ("0.value", "ids_float"),
                ("1.key", "ids_wide"),
                ("1.value", "ids_wide"),
            )
        ),
        # The history is summed in both layers, half from each, so that both caches count.
        helper.make_node("CumSum", ["present.0.key", "axis2"], ["sum_0"]),
        helper.make_node("Cast", ["present.1.value"], ["value_1"], to=TensorProto.FLOAT),
        helper.make_node("CumSum", ["value_1", "axis2"], ["sums_1"]),
        helper.make_node("ReduceMean", ["sums_1", "axes13"], ["sum_1"], keepdims=1),
        helper.make_node("Add", ["sum_0", "sum_1"], ["twice"]),
        helper.make_node("Slice", ["twice", "from", "far", "axis2_list"], ["twice_new"]),
        helper.make_node("Squeeze", ["twice_new", "axis1"], ["twice_3d"]),
        helper.make_node("Mul", ["twice_3d", "half"], ["history"]),
        helper.make_node("MatMul", ["history", "per_history"], ["from_history"]),
        helper.make_node("Cast", ["position_ids"], ["position_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["position_float", "last"], ["position"]),
        helper.make_node("MatMul", ["position", "per_position"], ["from_position"]),
        helper.make_node("Gather", ["table", "input_ids"], ["from_token"], axis=0),
        helper.make_node("Sum", ["from_token", "from_position", "from_history"], ["logits"]),
    ]
    if optional_logits:
        nodes[-1].output[0] = "all_logits"
        nodes += [
            helper.make_node("Neg", ["logits_to_keep"], ["minus_kept"]),
            helper.make_node("Reshape", ["minus_kept", "list"], ["first"]),
            helper.make_node("Slice", ["all_logits", "first", "far", "axis1"], ["logits"]),
        ]
    return nodes


def _inputs_and_outputs(optional_logits: bool) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    shapes = {"0": (TensorProto.FLOAT, 1, 1), "1": (TensorProto.FLOAT16, 2, 3)}
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "slots"]),
        helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["batch", "tokens"]),
    ]
    if optional_logits:
        inputs.append(helper.make_tensor_value_info("logits_to_keep", TensorProto.INT64, []))
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "kept", VOCAB_SIZE])]
    for layer, (dtype, heads, width) in shapes.items():
        for part in ("key", "value"):
            for values, prefix, length in (
                (inputs, "past_key_values", "past"),
                (outputs, "present", "slots"),
            ):
                values.append(
                    helper.make_tensor_value_info(
                        f"{prefix}.{layer}.{part}", dtype, ["batch", heads, length, width]
                    )
                )
    return inputs, outputs


def counts_positions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a decoder graph that counts positions by its mask, and is given none."""
    graph = model.graph
    graph.input.remove(next(value for value in graph.input if value.name == "position_ids"))
    nodes = [
        helper.make_node("CumSum", ["attention_mask", "axis"], ["counted"]),
        helper.make_node("Sub", ["counted", "axis"], ["all_positions"]),
        helper.make_node("Slice", ["all_positions", "from", "far", "axis1"], ["position_ids"]),
    ]
    graph.initializer.append(numpy_helper.from_array(np.asarray(1), "axis"))
    after = [*graph.node[:2], *nodes, *graph.node[2:]]
    del graph.node[:]
    graph.node.extend(after)
    return model


def reads_int32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a decoder graph whose tokens, masks and positions are integers of 32 bits."""
    names = ("input_ids", "attention_mask", "position_ids")
    for node in model.graph.node:
        node.input[:] = [f"{name}_wide" if name in names else name for name in node.input]
    casts = [helper.make_node("Cast", [name], [f"{name}_wide"], to=TensorProto.INT64) for name in names]
    after = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(after)
    for value in model.graph.input:
        if value.name in names:
            value.type.tensor_type.elem_type = TensorProto.INT32
    return model


def write_graph(
    folder: Path, model: onnx.ModelProto, *, external: bool = False, max_context: int = MAX_CONTEXT
) -> Path:
    """Write an export folder around the model, its tensors in `model.onnx.data` if asked, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(
        model,
        folder / "model.onnx",
        save_as_external_data=external,
        location="model.onnx.data",
        size_threshold=100,
    )
    config = {"vocab_size": VOCAB_SIZE, "max_position_embeddings": max_context}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
