"""Time attention in ONNX Runtime: one layer's prompt, whole and in pieces, and one decoded token.

Run it as `python benchmarks/attention_speed.py [--heads 9] [--kv-heads 3] [--width 64] [--threads 2]`. It
prints a Markdown table of median milliseconds a layer, then one JSON line. `GroupQueryAttention` reads and
writes one buffer here; several layers run in turn, so that caches come from memory as they do in a model.
All forms are timed interleaved; compare ratios within one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

LAYERS = 6
CAPACITY = 2304
MICROSOFT = "com.microsoft"
DISABLE_FLASH = "ORT_GQA_DISABLE_FLASH_ATTENTION"
"""ONNX Runtime reads this when a session opens."""


@dataclass(frozen=True)
class Shape:
    """Query heads, key/value heads and head size of a layer."""

    heads: int
    kv_heads: int
    width: int


def fused_graph(shape: Shape, *, integer_cache: bool, scaled: bool) -> bytes:
    """Return layers of `GroupQueryAttention` with rotary positions, side by side.

    Without `scaled` their scale is 1, as where the queries carry the factor.
    """
    cache = TensorProto.INT8 if integer_cache else TensorProto.FLOAT
    info = helper.make_tensor_value_info
    inputs = [
        info("packed", TensorProto.FLOAT, ["B", "T", (shape.heads + 2 * shape.kv_heads) * shape.width]),
        info("last", TensorProto.INT32, ["B"]),
        info("slots", TensorProto.INT32, []),
    ]
    angles = np.outer(np.arange(CAPACITY), 1e4 ** -np.linspace(0, 1, shape.width // 2)).astype(np.float32)
    constants = {"cos": np.cos(angles), "sin": np.sin(angles), "scale": np.array([0.03], np.float32)}
    nodes, outputs = [], []
    attributes: dict[str, Any] = {
        "num_heads": shape.heads,
        "kv_num_heads": shape.kv_heads,
        "do_rotary": 1,
        "scale": shape.width**-0.5 if scaled else 1.0,
    }
    if integer_cache:
        attributes |= {"kv_cache_bit_width": 8, "k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR"}
    for index in range(LAYERS):
        names = [f"{part}{index}" for part in ("key", "value")]
        feeds = ["packed", "", "", *names, "last", "slots", "cos", "sin", "", "", ""]
        made = [f"out{index}", *(f"new_{name}" for name in names)]
        feeds += ["scale", "scale"] * integer_cache
        nodes.append(helper.make_node("GroupQueryAttention", feeds, made, domain=MICROSOFT, **attributes))
        size: list[str | int] = ["B", shape.kv_heads, "C", shape.width]
        inputs += [info(name, cache, size) for name in names]
        outputs += [info(made[0], TensorProto.FLOAT, None), *(info(name, cache, size) for name in made[1:])]
    graph = helper.make_graph(
        nodes,
        "attention",
        inputs,
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(MICROSOFT, 1)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=11).SerializeToString()
    return data


def open_fused(
    shape: Shape, threads: int, *, integer_cache: bool = False, flash: bool = True, scaled: bool = True
) -> Callable[[int, int], float]:
    """Return a function of past and new tokens that gives the milliseconds of one layer."""
    if not flash:
        os.environ[DISABLE_FLASH] = "1"
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    graph = fused_graph(shape, integer_cache=integer_cache, scaled=scaled)
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    os.environ.pop(DISABLE_FLASH, None)
    dtype = np.int8 if integer_cache else np.float32
    size = (1, shape.kv_heads, CAPACITY, shape.width)
    names = [f"{part}{index}" for index in range(LAYERS) for part in ("key", "value")]
    buffers = {name: ort.OrtValue.ortvalue_from_numpy(np.zeros(size, dtype)) for name in names}
    generator = np.random.default_rng(0)
    columns = (shape.heads + 2 * shape.kv_heads) * shape.width

    def run(past: int, new: int) -> float:
        binding = session.io_binding()
        packed = generator.standard_normal((1, new, columns), dtype=np.float32)
        binding.bind_cpu_input("packed", packed)
        binding.bind_cpu_input("last", np.array([past + new - 1], np.int32))
        binding.bind_cpu_input("slots", np.array(past + new, np.int32))
        for name, buffer in buffers.items():
            binding.bind_ortvalue_input(name, buffer)
            binding.bind_ortvalue_output(f"new_{name}", buffer)
        for index in range(LAYERS):
            binding.bind_output(f"out{index}")
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        return (time.perf_counter() - start) / LAYERS * 1e3

    return run


def cases() -> dict[str, Callable[[Callable[[int, int], float]], float]]:
    """Return what is timed, by the heading of its column."""

    def in_pieces(tokens: int, chunk: int) -> Callable[[Callable[[int, int], float]], float]:
        return lambda run: sum(run(past, chunk) for past in range(0, tokens, chunk))

    def decoding(past: int) -> Callable[[Callable[[int, int], float]], float]:
        return lambda run: statistics.median(run(past, 1) for _ in range(20))

    whole = {f"prompt {tokens}": in_pieces(tokens, tokens) for tokens in (128, 512, 2048)}
    pieces = {
        f"{tokens} by {chunk}": in_pieces(tokens, chunk) for tokens in (512, 2048) for chunk in (64, 128, 256)
    }
    return whole | pieces | {f"decode at {past}": decoding(past) for past in (128, 512, 2048)}


def main() -> None:
    """Time every form and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--kv-heads", type=int, default=3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    shape = Shape(options.heads, options.kv_heads, options.width)
    forms = {
        "flash, float32 cache": open_fused(shape, options.threads),
        "no flash, float32 cache": open_fused(shape, options.threads, flash=False),
        "no flash, float32 cache, scale 1": open_fused(shape, options.threads, flash=False, scaled=False),
        "flash, int8 cache": open_fused(shape, options.threads, integer_cache=True),
    }
    table: dict[str, dict[str, float]] = {name: {} for name in forms}
    for heading, measure in cases().items():
        times: dict[str, list[float]] = {name: [] for name in forms}
        for repeat in range(options.repeats + 1):
            for name, run in forms.items():
                milliseconds = measure(run)
                if repeat:
                    times[name].append(milliseconds)
        for name, values in times.items():
            table[name][heading] = statistics.median(values)
    print("| ms a layer | " + " | ".join(cases()) + " |")
    print("|---" * (len(cases()) + 1) + "|")
    for name, row in table.items():
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in row.values()) + " |")
    print(json.dumps({"onnxruntime": ort.__version__, "threads": options.threads, "milliseconds": table}))


if __name__ == "__main__":
    main()
