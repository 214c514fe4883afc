"""Time an encoder-decoder's graphs against torch in float32, one source at once.

Run it as `python benchmarks/seq2seq_speed.py MODEL GRAPH... [--threads 2]`: MODEL is the folder that
transformers opens, a T5's or a checkpoint of this project; each GRAPH a folder with its two graphs. It prints
a Markdown table of the milliseconds that reading a source takes, and a token after it through both caches.
All are timed in turns, so compare within one run only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput

import roots_compress.models.seq2seq  # noqa: F401  (transformers learns the class by it)
from roots_compress.evaluation.size import graph_bytes
from roots_compress.runtime.onnx.graph_folder import graph_files
from roots_compress.runtime.onnx.seq2seq import OnnxSeq2Seq

Timed = Callable[[NDArray[np.int64], NDArray[np.int64]], tuple[float, float]]
"""Returns the seconds of reading a source `(1, S)`, and of reading a target `(1, T)` token by token."""


def torch_runner(folder: Path, threads: int) -> Timed:
    """Return what runs the folder's model in torch, its attention fused as transformers chooses."""
    torch.set_num_threads(threads)
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def run(source_1S: NDArray[np.int64], target_1T: NDArray[np.int64]) -> tuple[float, float]:
        began = time.perf_counter()
        source = torch.from_numpy(source_1S)
        mask = torch.ones_like(source)
        states = model.get_encoder()(input_ids=source, attention_mask=mask)[0]
        read, cache = time.perf_counter(), None
        for token in torch.from_numpy(target_1T).split(1, dim=1):
            output = model(
                encoder_outputs=BaseModelOutput(last_hidden_state=states),
                attention_mask=mask,
                decoder_input_ids=token,
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
        return read - began, time.perf_counter() - read

    return run


def graph_runner(folder: Path, threads: int) -> Timed:
    """Return what runs graphs by this project's engine."""
    engine = OnnxSeq2Seq.open(graph_files(folder)[0], threads=threads, provider="cpu")

    def run(source_1S: NDArray[np.int64], target_1T: NDArray[np.int64]) -> tuple[float, float]:
        began = time.perf_counter()
        targets = engine.read(source_1S)
        read = time.perf_counter()
        step = targets.prefill(target_1T[:, :1])
        for token in target_1T[0, 1:]:
            step = targets.decode(np.array([token]), step.cache)
        return read - began, time.perf_counter() - read

    return run


def main() -> None:
    """Time all of them at every length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("graphs", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--decoded", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    runners = {"torch, float32": torch_runner(arguments.model, arguments.threads)}
    runners |= {str(folder): graph_runner(folder, arguments.threads) for folder in arguments.graphs}
    for folder in arguments.graphs:
        print(f"{folder}: {graph_bytes(folder) / 1e6:.1f} MB")
    generator = np.random.default_rng(0)
    print("\n| source | what | encode, ms | gain | a token, ms | gain |\n|---|---|---|---|---|---|")
    for tokens in arguments.lengths:
        source, target = (generator.integers(5, 250, (1, size)) for size in (tokens, arguments.decoded))
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
        for _ in range(arguments.repeats + 2):
            for name, run in runners.items():
                times[name].append(run(source, target))
        medians = {
            name: [1000 * statistics.median(each) for each in zip(*seconds[2:], strict=True)]
            for name, seconds in times.items()
        }
        encode, decode = medians["torch, float32"]
        for name, (encoding, decoding) in medians.items():
            token_ms = decoding / arguments.decoded
            gains = f"{encode / encoding:.2f}x | {token_ms:.2f} | {decode / decoding:.2f}x"
            print(f"| {tokens} | {name} | {encoding:.1f} | {gains} |")


if __name__ == "__main__":
    main()
