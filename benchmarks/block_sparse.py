"""Time prompts and tokens of block-sparse attention against dense attention, the same weights in both graphs.

    python -m benchmarks.block_sparse [CHECKPOINT] [--lengths 1024 16384] [--size 128] [--blocks 4] [--int8]

Without a checkpoint, layers of SmolLM2-135M's shape with random weights; with `--int8` both graphs have them
in int8 and multiply in integers, as `quantize --int8 --integer-products` would. Prompts of each length are
read by both graphs in turns, and tokens decoded after them; the caches of `--decode-only` hold random numbers
instead, so that a long context need not be read first. Prints a Markdown table of seconds and milliseconds,
the exponents that fit them (time as a power of the length), and one JSON line. Compare within one run only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from benchmarks.rounded import rounded
from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.evaluation.memory import peak_rss_bytes
from roots_compress.export.exporter import write_graph
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.attention import Attention, BlockSparse
from roots_compress.models.ops.base import changed
from roots_compress.models.resizing import block_at
from roots_compress.runtime.onnx.engine import OnnxCache, OnnxEngine
from roots_compress.stages.quantize.expected import formats_of

KINDS = "dense", "sparse"
DECODED = 9


def random_model(given: argparse.Namespace) -> RootsWithHead:
    """Return a model of alike layers, its weights from a seed."""
    layer = {
        "num_attention_heads": given.heads,
        "num_key_value_heads": given.kv_heads,
        "head_dim": given.head_dim,
        "intermediate_size": given.channels,
    }
    torch.manual_seed(0)
    config = RootsConfig(vocab_size=512, hidden_size=given.width, layers=[layer] * given.layers)
    return make_model(config).eval()


def set_sparse(model: RootsWithHead, sparse: BlockSparse | None, positions: int) -> None:
    """Let all layers attend to blocks, or densely."""
    spec = changed(model.config.spec, max_positions=max(positions, model.config.spec.max_positions))
    for place, op in spec.blocks():
        if isinstance(op, Attention):
            spec = spec.with_op(place, changed(op, sparse=sparse))
            block_at(model, place).spec = changed(op, sparse=sparse)
    model.config.spec = spec


def write_both(model: RootsWithHead, folder: Path, sparse: BlockSparse, positions: int) -> dict[str, Path]:
    """Write a graph of each kind."""
    graphs = {}
    for kind in KINDS:
        set_sparse(model, sparse if kind == "sparse" else None, positions)
        (folder / kind).mkdir(parents=True)
        graphs[kind], _obstacles = write_graph(model, folder / kind)
    return graphs


def random_cache(model: RootsWithHead, length: int, decoded: int) -> OnnxCache:
    """Return a cache of random keys and values, with room for the tokens to be decoded."""
    rng = np.random.default_rng(0)
    values = [
        ort.OrtValue.ortvalue_from_numpy(
            rng.standard_normal((1, op.kv_heads, length + decoded, op.head_dim), dtype=np.float32)
        )
        for op in model.config.spec.attentions()
        for _ in ("key", "value")
    ]
    return OnnxCache(tuple(values), np.ones((1, length), dtype=np.int64))


def decode_ms(engine: OnnxEngine, cache: object) -> tuple[float, object]:
    """Return the median milliseconds of a token."""
    times = []
    for _ in range(DECODED):
        began = time.perf_counter()
        cache = engine.decode(np.array([3]), cache).cache
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times), cache


def exponent(lengths: Sequence[int], figures: Sequence[float]) -> float:
    """Return the power of the length that fits figures best."""
    return float(np.polyfit(np.log(lengths), np.log(figures), 1)[0])


def measured(
    model: RootsWithHead, graphs: dict[str, Path], length: int, given: argparse.Namespace
) -> dict[str, float]:
    """Return seconds of a prompt, milliseconds of a token, and megabytes, of both kinds."""
    engines = {
        kind: OnnxEngine.open(graph, threads=given.threads, provider="cpu") for kind, graph in graphs.items()
    }
    prompt = np.random.default_rng(0).integers(0, engines["dense"].vocab_size, (1, length))
    row: dict[str, float] = {"length": length}
    times: dict[str, list[float]] = {f"{kind}_{what}": [] for kind in KINDS for what in ("s", "ms")}
    caches: dict[str, object] = {}
    for _ in range(given.repeats):
        for kind, engine in engines.items():
            if kind == "dense" and length > given.dense_to:
                continue
            if given.decode_only:
                if kind not in caches:
                    held = random_cache(model, length, 1 + (DECODED + 1) * given.repeats)
                    empty = engine._empty_cache(1).states
                    caches[kind] = OnnxCache(held.keys_values, held.attention_mask, empty)
                    caches[kind] = engine.decode(np.array([3]), caches[kind]).cache
            else:
                began = time.perf_counter()
                caches[kind] = engine.prefill(prompt).cache
                times[f"{kind}_s"].append(time.perf_counter() - began)
            milliseconds, caches[kind] = decode_ms(engine, caches[kind])
            times[f"{kind}_ms"].append(milliseconds)
    row |= {name: statistics.median(found) for name, found in times.items() if found}
    if given.memory:
        for kind, graph in graphs.items():
            if kind == "sparse" or length <= given.dense_to:
                peak = peak_rss_bytes(graph.parent, context=length, decode_tokens=2, threads=given.threads)
                row[f"{kind}_mb"] = peak / 1e6
    return row


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384, 32768])
    parser.add_argument(
        "--size", type=int, help="keys in a block; without it near the square root of a length"
    )
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--int8", action="store_true", help="round the weights of a float checkpoint")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--kv-heads", type=int, default=3)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--channels", type=int, default=1536)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dense-to", type=int, default=1 << 20, help="the longest prompt of dense attention")
    parser.add_argument("--decode-only", action="store_true")
    parser.add_argument("--keep", type=Path, help="a new folder for the graphs, such as for graph_profile.py")
    parser.add_argument("--memory", action="store_true", help="peak memory of fresh processes, too")
    given = parser.parse_args()
    model = load_checkpoint(given.checkpoint).model.eval() if given.checkpoint else random_model(given)
    if given.int8:
        config = QuantizeConfig(scheme="int8", products="integer")
        model = rounded(model, formats_of(config, model.config.spec, "w8a8"))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        for length in given.lengths:
            size = given.size or 1 << round(np.log2(length**0.5))
            positions = max(given.lengths) + 64
            at = folder / str(size)
            if not at.exists():
                write_both(model, at, BlockSparse(size=size, blocks=given.blocks), positions)
            graphs = {kind: at / kind / "model.onnx" for kind in KINDS}
            rows.append({"size": size, **measured(model, graphs, length, given)})
            print(json.dumps(rows[-1]), flush=True)
    names = [name for name in rows[0] if name not in ("length", "size")]
    print("| length | size | " + " | ".join(names) + " | prompt gain | token gain |")
    print("|" + "---|" * (len(names) + 4))
    for row in rows:
        gains = [row.get(f"dense_{what}", 0) / row.get(f"sparse_{what}", 1) for what in ("s", "ms")]
        cells = [f"{row[name]:.3g}" if name in row else "" for name in names] + [f"{x:.2f}" for x in gains]
        print(f"| {row['length']} | {row['size']} | {' | '.join(cells)} |")
    exponents = {}
    for name in names:
        there = [row for row in rows if name in row]
        if len(there) > 1:
            exponents[name] = round(
                exponent([row["length"] for row in there], [row[name] for row in there]), 3
            )
    print("exponents:", exponents)
    print(json.dumps({"blocks": given.blocks, "rows": rows, "exponents": exponents}))


if __name__ == "__main__":
    main()
