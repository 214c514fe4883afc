"""What each quantization scheme costs in perplexity, through its graph, and what each of its parts is worth.

    python benchmarks/quantization.py CHECKPOINT [--data FILE... --eval-data FILE...] \
        [--other-text FILE...] [--only NAME...]

Without data the built-in corpus is calibrated on, and its held-out part scored. `--other-text` is scored as
well: text of a kind that no calibration has seen. Fixed windows opened with BOS, as everywhere in this
project. It prints a Markdown table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from roots_compress.data.config import CalibrationConfig, DataConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.data.readers import read_documents
from roots_compress.data.windows import EvaluationWindows
from roots_compress.evaluate.perplexity import perplexity
from roots_compress.export.config import ExportConfig
from roots_compress.export.exporter import export_checkpoint
from roots_compress.model.checkpoint import Checkpoint, load_checkpoint
from roots_compress.quantize.config import QuantizeConfig
from roots_compress.quantize.stage import quantize
from roots_compress.runtime.onnx_engine import OnnxEngine

FLOAT = "float32"
VARIANTS: dict[str, QuantizeConfig] = {
    "int8": QuantizeConfig(),
    "int8, without own text": QuantizeConfig(own_windows=0),
    "int8, not folded": QuantizeConfig(activations="always", fold=False),
    "int8, not compensated": QuantizeConfig(compensate=False),
    "int8, weights only": QuantizeConfig(activations="never"),
    "int4": QuantizeConfig(scheme="int4"),
    "int4, without own text": QuantizeConfig(scheme="int4", own_windows=0),
    "int4, not folded": QuantizeConfig(scheme="int4", fold=False),
    "int4, not compensated": QuantizeConfig(scheme="int4", compensate=False),
    "int4, groups of 32 and fewer 8-bit layers": QuantizeConfig(
        scheme="int4", group_size=32, eight_bit_fraction=0.08
    ),
    "int4, every layer in 4 bits": QuantizeConfig(scheme="int4", eight_bit_fraction=0.0),
}


def main() -> None:
    """Quantize the checkpoint in every way, score each graph, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="text to calibrate on")
    parser.add_argument("--eval-data", type=Path, nargs="*", default=[], help="held-out text of its kind")
    parser.add_argument("--other-text", type=Path, nargs="*", default=[], help="held-out, of another")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--windows", type=int, default=24, help="held-out windows of 512 tokens")
    parser.add_argument("--calibration-windows", type=int, default=32, help="of 256 tokens")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.checkpoint)
    data = DataConfig(train=tuple(arguments.data), eval=tuple(arguments.eval_data))
    text = load_text(data, seed=arguments.seed)
    texts = {"held-out text": text.held_out}
    if arguments.other_text:
        texts["other text"] = tuple(
            document for path in arguments.other_text for document in read_documents(path, data.text_column)
        )
    windows = {
        name: evaluation_windows(documents, checkpoint.tokenizer, block_size=512, limit=arguments.windows)
        for name, documents in texts.items()
    }
    size, baseline = score(checkpoint, windows)
    rows: dict[str, object] = {FLOAT: {"bytes": size, "perplexity": baseline}}
    print(f"{text.description}\n\n| scheme | MB | {' | '.join(windows)} | formats | seconds |")
    print("|" + "---|" * (4 + len(windows)))
    figures = " | ".join(f"{value:.3f}" for value in baseline.values())
    print(f"| {FLOAT} | {size / 1e6:.1f} | {figures} | | |", flush=True)
    for name in arguments.only:
        config = VARIANTS[name].model_copy(
            update={"calibration": CalibrationConfig(windows=arguments.calibration_windows)}
        )
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as work:
            outcome = quantize(
                config,
                checkpoint,
                text,
                device="cpu",
                seed=arguments.seed,
                work=Path(work),
                console=Console(stderr=True),
            )
        seconds = time.perf_counter() - start
        size, scores = score(outcome.checkpoint, windows)
        ratios = {kind: value / baseline[kind] for kind, value in scores.items()}
        rows[name] = {"bytes": size, "perplexity": scores, "ratio": ratios, **outcome.notes}
        formats = outcome.notes["formats"]
        assert isinstance(formats, dict)
        listed = ", ".join(f"{count} {kind}" for kind, count in formats.items())
        figures = " | ".join(f"{value:.4f}" for value in ratios.values())
        print(f"| {name} | {size / 1e6:.1f} | {figures} | {listed} | {seconds:.0f} |", flush=True)
    print(json.dumps({"text": text.description, "schemes": rows}))


def score(checkpoint: Checkpoint, windows: Mapping[str, EvaluationWindows]) -> tuple[int, dict[str, float]]:
    """Return the bytes of a checkpoint's graph, and its perplexity through it on each text."""
    with tempfile.TemporaryDirectory() as folder:
        report = export_checkpoint(checkpoint, Path(folder) / "onnx", ExportConfig())
        engine = OnnxEngine.open(report.directory / "model.onnx", provider="cpu")
        scores = {name: perplexity(engine, each).perplexity for name, each in windows.items()}
        return report.graph_bytes, scores


if __name__ == "__main__":
    main()
