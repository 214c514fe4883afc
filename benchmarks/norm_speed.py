"""Time the residual stream's sum and its norm in ONNX Runtime: as one operator, and as two.

Run it as `python benchmarks/norm_speed.py [--threads 1]`. It prints a Markdown table of median
microseconds, both forms interleaved; compare ratios within one run only.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SHAPES = ((1, 576), (128, 384), (512, 576))
"""Tokens and width."""
NORMS = {"layer_norm": "LayerNormalization", "rms_norm": "RMSNormalization"}
FUSED = {"layer_norm": "SkipLayerNormalization", "rms_norm": "SkipSimplifiedLayerNormalization"}


def session(kind: str, width: int, threads: int, *, fused: bool) -> ort.InferenceSession:
    """Return a graph from two addends to their sum and its norm."""
    parameters = ["gain", "bias"] if kind == "layer_norm" else ["gain"]
    if fused:
        inputs, outputs = ["x", "y", *parameters], ["norm", "", "", "sum"]
        nodes = [helper.make_node(FUSED[kind], inputs, outputs, domain="com.microsoft", epsilon=1e-5)]
    else:
        nodes = [
            helper.make_node("Add", ["x", "y"], ["sum"]),
            helper.make_node(NORMS[kind], ["sum", *parameters], ["norm"], axis=-1, epsilon=1e-5),
        ]
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ("tokens", width))
        for name in ("x", "y", "sum", "norm")
    }
    constants = [numpy_helper.from_array(np.ones(width, np.float32), name) for name in parameters]
    graph = helper.make_graph(
        nodes, "norm", [values["x"], values["y"]], [values["sum"], values["norm"]], constants
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Time all kinds and shapes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    print("| norm | tokens x width | one operator, us | two, us | ratio |\n|---|---|---|---|---|")
    generator = np.random.default_rng(0)
    for kind in NORMS:
        for tokens, width in SHAPES:
            sessions = [session(kind, width, arguments.threads, fused=fused) for fused in (True, False)]
            feeds = {name: generator.normal(size=(tokens, width)).astype(np.float32) for name in "xy"}
            times: list[list[float]] = [[], []]
            for _ in range(arguments.repeats):
                for each, seconds in zip(sessions, times, strict=True):
                    began = time.perf_counter()
                    each.run(None, feeds)
                    seconds.append(time.perf_counter() - began)
            one, two = (1e6 * statistics.median(each) for each in times)
            print(f"| {kind} | {tokens} x {width} | {one:.0f} | {two:.0f} | {two / one:.2f} |")


if __name__ == "__main__":
    main()
