"""What pruning costs in perplexity before any recovery, and what each of its parts is worth.

    python benchmarks/pruning.py CHECKPOINT [--data FILE... --eval-data FILE...] [--only NAME...]

Without data the built-in corpus is read. Perplexity is that of the torch model, fixed windows opened with BOS
as everywhere in this project. It prints a Markdown table, then one JSON line.
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
from roots_compress.prune.config import PruneConfig, RecoveryConfig, TargetConfig
from roots_compress.prune.stage import prune
from roots_compress.runtime.torch_engine import TorchEngine
from roots_compress.training.config import TrainingConfig

WHOLE = TargetConfig(parameters=0.8)
VARIANTS: dict[str, PruneConfig] = {
    "MLP 25%, magnitude": PruneConfig(ratio=0.25, score="magnitude", refit=False),
    "MLP 25%, activation": PruneConfig(ratio=0.25, refit=False, score="activation"),
    "MLP 25%, activation, refitted": PruneConfig(ratio=0.25, score="activation"),
    "MLP 25%, magnitude, refitted": PruneConfig(ratio=0.25, score="magnitude"),
    "MLP 25%, Taylor, refitted": PruneConfig(ratio=0.25, score="taylor"),
    "MLP 25%, surgeon": PruneConfig(ratio=0.25, score="obs", refit=False),
    "MLP 25%, surgeon, refitted": PruneConfig(ratio=0.25, score="obs"),
    "MLP 25%, surgeon, refitted, widths by layer": PruneConfig(ratio=0.25, score="obs", uniform=False),
    "MLP 50%, magnitude": PruneConfig(ratio=0.5, score="magnitude", refit=False),
    "MLP 50%, activation": PruneConfig(ratio=0.5, refit=False, score="activation"),
    "MLP 50%, activation, refitted": PruneConfig(ratio=0.5, score="activation"),
    "MLP 50%, surgeon, refitted": PruneConfig(ratio=0.5, score="obs"),
    "MLP 50%, surgeon, refitted, widths by layer": PruneConfig(ratio=0.5, score="obs", uniform=False),
    "a third of the key/value groups, surgeon": PruneConfig(
        ratio=0.0, head_ratio=0.33, score="obs", refit=False
    ),
    "a third of the key/value groups, surgeon, refitted": PruneConfig(
        ratio=0.0, head_ratio=0.33, score="obs"
    ),
    "a third of the query heads, surgeon, refitted": PruneConfig(ratio=0.0, query_ratio=0.33, score="obs"),
    "10% of the layers": PruneConfig(ratio=0.0, layer_ratio=0.1),
    "20% of the body, equal layers": PruneConfig(target=WHOLE, score="obs"),
    "20% of the body, by layer": PruneConfig(target=WHOLE, score="obs", uniform=False),
    "20% of the body, by layer, recovered": PruneConfig(
        target=WHOLE,
        score="obs",
        uniform=False,
        # 390 steps of one window of 512 tokens: 200,000 tokens.
        recovery=RecoveryConfig(
            training=TrainingConfig(steps=390, batch_size=1, block_size=512, learning_rate=1e-4)
        ),
    ),
}
UNPRUNED = "unpruned"


def main() -> None:
    """Prune the checkpoint in every way, score each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="text to calibrate on")
    parser.add_argument("--eval-data", type=Path, nargs="*", default=[], help="held-out text")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--windows", type=int, default=24, help="held-out windows of 512 tokens")
    parser.add_argument("--calibration-windows", type=int, default=64, help="of 512 tokens")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    console = Console(stderr=True)
    checkpoint = load_checkpoint(arguments.checkpoint)
    data = DataConfig(train=tuple(arguments.data), eval=tuple(arguments.eval_data))
    text = load_text(data, seed=arguments.seed)
    windows = evaluation_windows(text.held_out, checkpoint.tokenizer, block_size=512, limit=arguments.windows)
    calibration = CalibrationConfig(windows=arguments.calibration_windows, block_size=512)

    baseline = perplexity(TorchEngine(checkpoint.model), windows).perplexity
    parameters = checkpoint.model.num_parameters()
    rows: dict[str, dict[str, object]] = {UNPRUNED: {"perplexity": baseline, "ratio": 1.0}}
    print(
        f"{text.description}\n\n| pruned | parameters | perplexity | ratio | seconds |\n|---|---|---|---|---|"
    )
    print(f"| {UNPRUNED} | {parameters / 1e6:.1f}M | {baseline:.3f} | 1 | |", flush=True)
    for name in arguments.only:
        config = VARIANTS[name].model_copy(update={"calibration": calibration})
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as work:
            outcome = prune(
                config, checkpoint, text, device="cpu", seed=arguments.seed, work=Path(work), console=console
            )
        seconds = time.perf_counter() - start
        model = outcome.checkpoint.model
        score = perplexity(TorchEngine(model), windows).perplexity
        rows[name] = {"perplexity": score, "ratio": score / baseline, "seconds": seconds, **outcome.notes}
        size = f"{model.num_parameters() / 1e6:.1f}M"
        print(f"| {name} | {size} | {score:.3f} | {score / baseline:.3f} | {seconds:.0f} |", flush=True)
    print(json.dumps({"text": text.description, "tokens": windows.scored_tokens, "variants": rows}))


if __name__ == "__main__":
    main()
