"""Time one matrix product in ONNX Runtime for each weight format: which are fast in decoding and prefill.

Run it as `python benchmarks/format_speed.py [--threads 2] [--repeats 30]`. It prints a Markdown table of
median microseconds, then one JSON line. All forms of a shape are timed interleaved, so that a busy machine
slows all alike; compare ratios within one run only. The 8-bit activation forms include quantizing the input
and scaling the output.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SHAPES = ((576, 576), (576, 1536), (1536, 576), (576, 49152))
"""Input and output widths: SmolLM2-135M's projections and its output head."""
TOKENS = (1, 512)
MICROSOFT = "com.microsoft"

Arrays = dict[str, NDArray[np.generic]]
Build = Callable[[NDArray[np.float32]], ModelProto]


def model(nodes: list[NodeProto], constants: Arrays, width: int, rows: int) -> ModelProto:
    """Return a graph from `x (tokens, width)` to `y (tokens, rows)`."""
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("tokens", width))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("tokens", rows))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def float_product(weight: NDArray[np.float32]) -> ModelProto:
    """Plain float32."""
    return model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, *weight.shape)


def per_token(weight: NDArray[np.float32], *, signed: bool, fused: bool) -> ModelProto:
    """W8A8: the input scaled by each token's largest magnitude; weights int8 with a scale per output."""
    scale = np.abs(weight).max(axis=0) / 127
    constants: Arrays = {
        "w": (weight / scale).round().astype(np.int8),
        "w_scale": scale.astype(np.float32),
        "levels": np.array(127, np.float32),
        "least": np.array(1e-30, np.float32),
        "one": np.array(1, np.float32),
        "zero": np.array(0 if signed else 128, np.int8 if signed else np.uint8),
        "axes": np.array([-1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Abs", ["x"], ["magnitude"]),
        node("ReduceMax", ["magnitude", "axes"], ["largest"], keepdims=1),
        node("Max", ["largest", "least"], ["positive"]),
        node("Div", ["positive", "levels"], ["x_scale"]),
        node("Div", ["x", "x_scale"], ["scaled"]),
        node("QuantizeLinear", ["scaled", "one", "zero"], ["integers"]),
    ]
    if fused:
        inputs = ["integers", "w", "one", "w_scale", "zero"]
        nodes += [
            node("MatMulIntegerToFloat", inputs, ["product"], domain=MICROSOFT),
            node("Mul", ["product", "x_scale"], ["y"]),
        ]
    else:
        nodes += [
            node("MatMulInteger", ["integers", "w", "zero"], ["sums"]),
            node("Cast", ["sums"], ["product"], to=TensorProto.FLOAT),
            node("Mul", ["product", "x_scale"], ["tokens_scaled"]),
            node("Mul", ["tokens_scaled", "w_scale"], ["y"]),
        ]
    return model(nodes, constants, *weight.shape)


def per_tensor(weight: NDArray[np.float32]) -> ModelProto:
    """What `quantize_dynamic` makes: one activation scale for the whole input, in one fused operator."""
    scale = np.abs(weight).max(axis=0) / 127
    constants: Arrays = {"w": (weight / scale).round().astype(np.int8), "w_scale": scale.astype(np.float32)}
    nodes = [helper.make_node("DynamicQuantizeMatMul", ["x", "w", "w_scale"], ["y"], domain=MICROSOFT)]
    return model(nodes, constants, *weight.shape)


def weight_only(weight: NDArray[np.float32], *, bits: int, block: int, accuracy: int) -> ModelProto:
    """MatMulNBits; accuracy level 4 lets the kernel quantize the input to int8 in blocks, 0 keeps float32."""
    width, rows = weight.shape
    blocks = -(-width // block)  # the last may be filled up
    generator = np.random.default_rng(0)
    constants: Arrays = {
        "w": generator.integers(0, 256, (rows, blocks, block * bits // 8), dtype=np.uint8),
        "w_scale": np.full(rows * blocks, 0.01, np.float32),
    }
    node = helper.make_node(
        "MatMulNBits",
        ["x", "w", "w_scale"],
        ["y"],
        domain=MICROSOFT,
        K=width,
        N=rows,
        bits=bits,
        block_size=block,
        accuracy_level=accuracy,
    )
    return model([node], constants, width, rows)


FORMS: dict[str, Build] = {
    "float32 MatMul": float_product,
    "per token, u8 x s8, MatMulInteger": lambda w: per_token(w, signed=False, fused=False),
    "per token, s8 x s8, MatMulInteger": lambda w: per_token(w, signed=True, fused=False),
    "per token, u8 x s8, MatMulIntegerToFloat": lambda w: per_token(w, signed=False, fused=True),
    "per token, s8 x s8, MatMulIntegerToFloat": lambda w: per_token(w, signed=True, fused=True),
    "per tensor, DynamicQuantizeMatMul": per_tensor,
    "8 bit, block 32, float input": lambda w: weight_only(w, bits=8, block=32, accuracy=0),
    "8 bit, block 32, accuracy level 4": lambda w: weight_only(w, bits=8, block=32, accuracy=4),
    "8 bit, block 64, accuracy level 4": lambda w: weight_only(w, bits=8, block=64, accuracy=4),
    "8 bit, block 128, accuracy level 4": lambda w: weight_only(w, bits=8, block=128, accuracy=4),
    "4 bit, block 32, float input": lambda w: weight_only(w, bits=4, block=32, accuracy=0),
    "4 bit, block 32, accuracy level 4": lambda w: weight_only(w, bits=4, block=32, accuracy=4),
    "4 bit, block 64, accuracy level 4": lambda w: weight_only(w, bits=4, block=64, accuracy=4),
    "4 bit, block 128, accuracy level 4": lambda w: weight_only(w, bits=4, block=128, accuracy=4),
}


def time_shape(
    forms: dict[str, Build], shape: tuple[int, int], tokens: int, threads: int, repeats: int
) -> dict[str, float]:
    """Return the median microseconds of each form; a small product is called twelve times in each."""
    width, rows = shape
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    weight = np.random.default_rng(0).normal(0, 0.02, (width, rows)).astype(np.float32)
    x = np.random.default_rng(1).normal(0, 1, (tokens, width)).astype(np.float32)
    sessions = {}
    for name, build in forms.items():
        graph = build(weight).SerializeToString()
        sessions[name] = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    calls = 12 if tokens * width * rows < 1e7 else 1
    times: dict[str, list[float]] = {name: [] for name in forms}
    for repeat in range(repeats + 2):
        for name, session in sessions.items():
            session.run(None, {"x": x})
            start = time.perf_counter()
            for _ in range(calls):
                session.run(None, {"x": x})
            if repeat >= 2:
                times[name].append((time.perf_counter() - start) / calls * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Time every shape and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--forms", default="", help="only those whose names hold this")
    arguments = parser.parse_args()
    cases = [(tokens, width, rows) for tokens in TOKENS for width, rows in SHAPES]
    forms = {name: build for name, build in FORMS.items() if arguments.forms in name}
    columns = {}
    for tokens, width, rows in cases:
        repeats = max(5, arguments.repeats // (6 if tokens * rows > 1e6 else 1))
        columns[f"{tokens} x {width} x {rows}"] = time_shape(
            forms, (width, rows), tokens, arguments.threads, repeats
        )
    print("| microseconds | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in forms:
        print(f"| {name} | " + " | ".join(f"{column[name]:,.0f}" for column in columns.values()) + " |")
    print(json.dumps({"onnxruntime": ort.__version__, "threads": arguments.threads, "microseconds": columns}))


if __name__ == "__main__":
    main()
