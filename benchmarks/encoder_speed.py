"""Compare an encoder's graphs with torch in float32: the time of one text, and how true the embeddings are.

Run it as `python benchmarks/encoder_speed.py MODEL GRAPH... [--text FILE] [--threads 2]`: MODEL is the folder
that transformers opens, each GRAPH a folder with `model.onnx` (or optimum's `model_quantized.onnx`), such as
`runs/minilm/01-quantize/onnx`. It prints Markdown tables: of median milliseconds and the gain over torch;
for the paragraphs of a text, of the cosine of the mean-pooled states to torch's.

All take turns, so compare within one run only. A turn is several runs, of which the first are not timed:
torch's threads wait for work in a loop for a while, and would take the cores from whatever comes next.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModel, AutoTokenizer

from roots_compress.runtime.onnx.session import open_session

UNTIMED, TIMED = 3, 5
"""Runs of a turn."""
SHORTEST, PARAGRAPHS, LONGEST = 150, 100, 128
"""Characters that a paragraph has at the least, how many are compared, and the tokens read of each."""
FILES = ("model.onnx", "model_quantized.onnx")

Runner = Callable[[dict[str, NDArray[np.int64]]], NDArray[np.float32]]
"""Gives the last states of one text, `(1, tokens, width)`."""


def torch_runner(folder: Path, threads: int) -> Runner:
    """Return what runs the folder's model in torch, its attention fused as transformers chooses."""
    torch.set_num_threads(threads)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def run(inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            given = model(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        states: NDArray[np.float32] = given.last_hidden_state.numpy()
        return states

    return run


def graph_runner(folder: Path, threads: int) -> Runner:
    """Return what runs a graph in the session that this project serves it by."""
    path = next(folder / name for name in FILES if (folder / name).is_file())
    session = open_session(path, threads=threads, provider="cpu")
    names = [value.name for value in session.get_inputs()]

    def run(inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        zeros = np.zeros_like(inputs["input_ids"])
        states: NDArray[np.float32] = session.run(None, {name: inputs.get(name, zeros) for name in names})[0]
        return states

    return run


def main() -> None:
    """Time all of them at every length, and compare what they give."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("graphs", type=Path, nargs="+")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 256])
    parser.add_argument("--turns", type=int, default=15)
    arguments = parser.parse_args()
    runners = {"torch, float32": torch_runner(arguments.model, arguments.threads)}
    runners |= {str(folder): graph_runner(folder, arguments.threads) for folder in arguments.graphs}
    generator = np.random.default_rng(0)
    rows = AutoConfig.from_pretrained(arguments.model).vocab_size
    print("| tokens | what | ms | gain |\n|---|---|---|---|")
    for tokens in arguments.lengths:
        inputs = given(generator.integers(min(1000, rows // 2), min(20000, rows), tokens).tolist())
        times = timed(runners, inputs, arguments.turns)
        for name, milliseconds in times.items():
            gain = next(iter(times.values())) / milliseconds
            print(f"| {tokens} | {name} | {milliseconds:.1f} | {gain:.2f}x |")
    if arguments.text is not None:
        print("\n| what | cosine, mean | least |\n|---|---|---|")
        for name, cosines in compared(runners, arguments.model, arguments.text).items():
            print(f"| {name} | {np.mean(cosines):.4f} | {min(cosines):.4f} |")


def given(ids: list[int]) -> dict[str, NDArray[np.int64]]:
    """Return what an encoder reads of one text."""
    ids_1T = np.array([ids], dtype=np.int64)
    return {"input_ids": ids_1T, "attention_mask": np.ones_like(ids_1T)}


def timed(runners: dict[str, Runner], inputs: dict[str, NDArray[np.int64]], turns: int) -> dict[str, float]:
    """Return the median milliseconds of each."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(turns):
        for name, run in runners.items():
            for _ in range(UNTIMED):
                run(inputs)
            for _ in range(TIMED):
                began = time.perf_counter()
                run(inputs)
                times[name].append(time.perf_counter() - began)
    return {name: 1000 * statistics.median(seconds) for name, seconds in times.items()}


def compared(runners: dict[str, Runner], model: Path, text: Path) -> dict[str, list[float]]:
    """Return of each paragraph the cosine of its mean state to that of the first runner."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    paragraphs = [each for each in text.read_text("utf-8").split("\n\n") if len(each) >= SHORTEST]
    cosines: dict[str, list[float]] = {name: [] for name in runners}
    for paragraph in paragraphs[:PARAGRAPHS]:
        inputs = given(tokenizer(paragraph, truncation=True, max_length=LONGEST)["input_ids"])
        pooled = [run(inputs)[0].mean(axis=0) for run in runners.values()]
        for name, each in zip(runners, pooled, strict=True):
            length = float(np.linalg.norm(each) * np.linalg.norm(pooled[0]))
            cosines[name].append(float(each @ pooled[0]) / length)
    return cosines


if __name__ == "__main__":
    main()
