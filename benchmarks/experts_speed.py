"""Time a mixture of experts in ONNX Runtime: as one operator, and with every expert on every token.

Run it as `python -m benchmarks.experts_speed [--experts 32] [--chosen 4] [--width 512] [--channels 256]`. It
prints a Markdown table of median milliseconds of a random model of four layers. Both graphs are timed
interleaved; compare ratios within one run only.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.rounded import rounded
from roots_compress.export.exporter import write_graph
from roots_compress.export.ops import moe as emitter
from roots_compress.models.config import RootsConfig
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.ops.attention import Attention, Rope
from roots_compress.models.ops.moe import Moe
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.quantized import Format
from roots_compress.models.spec import Embeddings, ModelSpec, Norm, Stack
from roots_compress.runtime.onnx.session import open_session

LAYERS, HEADS, HEAD_DIM, VOCABULARY = 4, 8, 64, 2048
FORMATS: tuple[tuple[Format | None, int], ...] = ((None, 0), ("w8", 128), ("w8", 64), ("w4", 64))
LENGTHS = ((1, 128, 40), (128, 0, 6), (512, 0, 3))
"""New tokens, cached ones, and repeats."""


def spec_of(arguments: argparse.Namespace) -> ModelSpec:
    """Return a decoder of alike layers."""
    norm = Norm()
    attention = Attention(heads=HEADS, kv_heads=HEADS // 2, head_dim=HEAD_DIM, rope=Rope())
    moe = Moe(experts=arguments.experts, chosen=arguments.chosen, channels=arguments.channels)
    layer = (Sublayer(op=attention, pre_norm=norm), Sublayer(op=moe, pre_norm=norm))
    return ModelSpec(
        stacks={"decoder": Stack(layers=(layer,) * LAYERS, final_norm=norm)},
        embeddings=Embeddings(vocabulary=VOCABULARY, width=arguments.width),
        max_positions=1024,
    )


def model_of(spec: ModelSpec, weight_format: Format | None, size: int) -> RootsWithHead:
    """Return a random model, the matrices of its experts in a format."""
    torch.manual_seed(0)
    plain = RootsForCausalLM(RootsConfig(spec=spec)).eval()
    if weight_format is None:
        return plain
    return rounded(plain, {name: weight_format for name in spec.matrices() if "experts" in name}, size)


def feeds_of(session: Any, tokens: int, past: int) -> dict[str, Any]:
    """Return inputs of a batch of one."""
    cache = np.zeros((1, HEADS // 2, past, HEAD_DIM), dtype=np.float32)
    pasts = [each.name for each in session.get_inputs() if each.name.startswith("past")]
    feeds: dict[str, Any] = dict.fromkeys(pasts, cache)
    feeds["input_ids"] = np.arange(tokens)[None] % VOCABULARY
    feeds["attention_mask"] = np.ones((1, past + tokens), dtype=np.int64)
    feeds["position_ids"] = np.arange(past, past + tokens)[None]
    return feeds


def main() -> None:
    """Time all formats and lengths."""
    parser = argparse.ArgumentParser()
    for name, default in (("experts", 32), ("chosen", 4), ("width", 512), ("channels", 256), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    print("| weights | new tokens | every expert, ms | one operator, ms | gain |\n|---|---|---|---|---|")
    for weight_format, size in FORMATS:
        model = model_of(spec_of(arguments), weight_format, size)
        with tempfile.TemporaryDirectory() as folder:
            sessions = []
            for fused in (False, True):
                target = Path(folder) / str(fused)
                target.mkdir()
                with mock.patch.object(emitter, "_is_fusible", lambda *_, fused=fused: fused):
                    graph, _ = write_graph(model, target)
                sessions.append(open_session(graph, threads=arguments.threads, provider="cpu"))
            for tokens, past, repeats in LENGTHS:
                times: list[list[float]] = [[], []]
                for repeat in range(repeats + 2):
                    for session, seconds in zip(sessions, times, strict=True):
                        feeds = feeds_of(session, tokens, past)
                        began = time.perf_counter()
                        session.run(["logits"], feeds)
                        if repeat > 1:
                            seconds.append(time.perf_counter() - began)
                plain, fused_ms = (1000 * statistics.median(each) for each in times)
                label = f"{weight_format}, groups of {size}" if weight_format else "float32"
                print(f"| {label} | {tokens} | {plain:.2f} | {fused_ms:.2f} | {plain / fused_ms:.1f}x |")


if __name__ == "__main__":
    main()
