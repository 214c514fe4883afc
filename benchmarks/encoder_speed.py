"""Time an encoder's graphs against torch in float32, one text at once.

Run it as `python benchmarks/encoder_speed.py MODEL GRAPH... [--threads 2]`: MODEL is the folder that
transformers opens, each GRAPH a folder with `model.onnx`, such as `runs/minilm/01-quantize/onnx`. It prints a
Markdown table of median milliseconds and the gain over torch; all are timed in turns, so compare within one
run only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModel

from roots_compress.runtime.onnx.session import open_session


def torch_runner(folder: Path, threads: int) -> Callable[[dict[str, np.ndarray]], None]:
    """Return what runs the folder's model in torch, its attention fused as transformers chooses."""
    torch.set_num_threads(threads)
    model = AutoModel.from_pretrained(folder, torch_dtype=torch.float32).eval()

    def run(inputs: dict[str, np.ndarray]) -> None:
        with torch.inference_mode():
            model(**{name: torch.from_numpy(value) for name, value in inputs.items()})

    return run


def graph_runner(folder: Path, threads: int) -> Callable[[dict[str, np.ndarray]], None]:
    """Return what runs a graph in the session that this project serves it by."""
    session = open_session(folder / "model.onnx", threads=threads, provider="cpu")
    names = [value.name for value in session.get_inputs()]

    def run(inputs: dict[str, np.ndarray]) -> None:
        session.run(None, {name: inputs.get(name, np.zeros_like(inputs["input_ids"])) for name in names})

    return run


def main() -> None:
    """Time all of them at every length."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("graphs", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 256])
    parser.add_argument("--repeats", type=int, default=40)
    arguments = parser.parse_args()
    runners = {"torch, float32": torch_runner(arguments.model, arguments.threads)}
    runners |= {str(folder): graph_runner(folder, arguments.threads) for folder in arguments.graphs}
    generator = np.random.default_rng(0)
    rows = AutoConfig.from_pretrained(arguments.model).vocab_size
    print("| tokens | what | ms | gain |\n|---|---|---|---|")
    for tokens in arguments.lengths:
        ids = generator.integers(min(1000, rows // 2), min(20000, rows), (1, tokens))
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        times: dict[str, list[float]] = {name: [] for name in runners}
        for _ in range(arguments.repeats + 3):
            for name, run in runners.items():
                began = time.perf_counter()
                run(inputs)
                times[name].append(time.perf_counter() - began)
        medians = {name: 1000 * statistics.median(seconds[3:]) for name, seconds in times.items()}
        for name, milliseconds in medians.items():
            gain = medians["torch, float32"] / milliseconds
            print(f"| {tokens} | {name} | {milliseconds:.1f} | {gain:.2f}x |")


if __name__ == "__main__":
    main()
