"""What each quantization scheme costs in perplexity, and what each of its parts is worth.

    python benchmarks/quantization.py CHECKPOINT [--data FILE... --eval-data FILE...] [--only NAME...]

Without data the built-in corpus is read. Perplexity is that of the torch modules, which simulate the graph;
fixed windows opened with BOS, as everywhere in this project. It prints a Markdown table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from rich.console import Console

from roots_compress.data.config import CalibrationConfig, DataConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.evaluate.perplexity import perplexity
from roots_compress.model.checkpoint import load_checkpoint
from roots_compress.quantize.config import QuantizeConfig
from roots_compress.quantize.stage import quantize, stored_bytes
from roots_compress.runtime.torch_engine import TorchEngine

VARIANTS: dict[str, QuantizeConfig] = {
    "int8": QuantizeConfig(),
    "int8, every input quantized": QuantizeConfig(activations="always"),
    "int8, every input quantized, not folded": QuantizeConfig(activations="always", fold=False),
    "int8, every input quantized, not folded or compensated": QuantizeConfig(
        activations="always", fold=False, compensate=False
    ),
    "int8, weights only": QuantizeConfig(activations="never"),
    "int4": QuantizeConfig(scheme="int4"),
    "int4, no 8-bit exceptions": QuantizeConfig(scheme="int4", eight_bit_fraction=0.0),
    "int4, not folded": QuantizeConfig(scheme="int4", fold=False),
    "int4, not compensated": QuantizeConfig(scheme="int4", compensate=False),
    "int4, not folded or compensated": QuantizeConfig(scheme="int4", fold=False, compensate=False),
}
FLOAT = "float32"


def main() -> None:
    """Quantize the checkpoint in every way, score each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="text to calibrate on")
    parser.add_argument("--eval-data", type=Path, nargs="*", default=[], help="held-out text")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--windows", type=int, default=24, help="held-out windows of 512 tokens")
    parser.add_argument("--calibration-windows", type=int, default=32, help="of 256 tokens")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    console = Console(stderr=True)
    checkpoint = load_checkpoint(arguments.checkpoint)
    data = DataConfig(train=tuple(arguments.data), eval=tuple(arguments.eval_data))
    text = load_text(data, seed=arguments.seed)
    windows = evaluation_windows(text.held_out, checkpoint.tokenizer, block_size=512, limit=arguments.windows)
    calibration = CalibrationConfig(windows=arguments.calibration_windows)

    baseline = perplexity(TorchEngine(checkpoint.model), windows).perplexity
    rows: dict[str, dict[str, object]] = {
        FLOAT: {"perplexity": baseline, "ratio": 1.0, "bytes": stored_bytes(checkpoint.model)}
    }
    print(f"{text.description}\n\n| scheme | MB | perplexity | ratio | formats | seconds |")
    print("|---|---|---|---|---|---|")
    print(f"| {FLOAT} | {stored_bytes(checkpoint.model) / 1e6:.1f} | {baseline:.3f} | 1 | | |", flush=True)
    for name in arguments.only:
        config = VARIANTS[name].model_copy(update={"calibration": calibration})
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as work:
            outcome = quantize(
                config, checkpoint, text, device="cpu", seed=arguments.seed, work=Path(work), console=console
            )
        seconds = time.perf_counter() - start
        score = perplexity(TorchEngine(outcome.checkpoint.model), windows).perplexity
        rows[name] = {"perplexity": score, "ratio": score / baseline, "seconds": seconds, **outcome.notes}
        formats = outcome.notes["formats"]
        assert isinstance(formats, dict)
        listed = ", ".join(f"{count} {kind}" for kind, count in formats.items())
        size = stored_bytes(outcome.checkpoint.model) / 1e6
        print(
            f"| {name} | {size:.1f} | {score:.3f} | {score / baseline:.4f} | {listed} | {seconds:.0f} |",
            flush=True,
        )
    print(json.dumps({"text": text.description, "tokens": windows.scored_tokens, "schemes": rows}))


if __name__ == "__main__":
    main()
