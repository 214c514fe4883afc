"""What recovery after a cut takes and gives: all weights trained, or only updates of low rank.

    python benchmarks/recovery.py CHECKPOINT [--steps N --ranks R...] [--data FILE... --eval-data FILE...]

A quarter of every MLP is cut by magnitude, which is quick, and the model is distilled from the unpruned one.
Every recovery runs in a process of its own. Memory is the process's peak, the model it starts from, its cut
copy and the saving of the state included; the time is that of the training steps; the state is what is
written to the disk at a checkpoint; perplexity is the torch model's. It prints a Markdown table, then one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.cli.display.lines import Lines
from roots_compress.configs.data import CalibrationConfig, DataConfig
from roots_compress.configs.prune import PruneConfig, RecoveryConfig
from roots_compress.configs.training import TrainingConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.evaluation.memory import own_peak_rss_bytes
from roots_compress.events import Events
from roots_compress.runtime.torch_engine import TorchEngine
from roots_compress.stages.base import StageContext
from roots_compress.stages.prune.stage import prune
from roots_compress.tasks.figures.perplexity import perplexity

NO_RECOVERY = "no recovery"


def main() -> None:
    """Recover with all weights and with each rank, and print what that took and gave."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="training text")
    parser.add_argument("--eval-data", type=Path, nargs="*", default=[], help="held-out text")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=2, help="windows of 256 tokens in a step")
    parser.add_argument("--ranks", type=int, nargs="*", default=[16])
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="of all weights")
    parser.add_argument("--rank-learning-rate", type=float, default=2e-3, help="of updates of low rank")
    parser.add_argument("--windows", type=int, default=12, help="held-out windows of 256 tokens")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    def recovery(rank: int | None) -> RecoveryConfig:
        rate = arguments.learning_rate if rank is None else arguments.rank_learning_rate
        training = TrainingConfig(
            steps=arguments.steps, batch_size=arguments.batch_size, block_size=256, learning_rate=rate
        )
        return RecoveryConfig(training=training, rank=rank)

    variants = {NO_RECOVERY: None, "all weights": recovery(None)}
    variants.update({f"rank {rank}": recovery(rank) for rank in arguments.ranks})
    rows: dict[str, dict[str, Any]] = {}
    print("| trained | perplexity | peak memory, GB | tokens/s | state, MB |\n|---|---|---|---|---|")
    for name, config in variants.items():
        # A fresh interpreter: memory that an earlier one has freed would count towards the peak.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = rows[name] = pool.apply(measure, (arguments, config))
        speed, state = (f"{row[key]:.0f}" if key in row else "" for key in ("tokens_per_second", "state_mb"))
        print(f"| {name} | {row['perplexity']:.3f} | {row['peak_gb']:.2f} | {speed} | {state} |", flush=True)
    print(json.dumps({"steps": arguments.steps, "tokens": arguments.batch_size * 256, "rows": rows}))


def measure(arguments: argparse.Namespace, recovery: RecoveryConfig | None) -> dict[str, Any]:
    """Cut and recover in this process, and return its figures."""
    torch.set_num_threads(arguments.threads)
    checkpoint = load_checkpoint(arguments.checkpoint)
    text = load_text(DataConfig(train=tuple(arguments.data), eval=tuple(arguments.eval_data)), seed=0)
    # Magnitudes need no text, so the walk over it is kept short.
    calibration = CalibrationConfig(windows=1, block_size=64)
    config = PruneConfig(
        score="magnitude", refit=False, calibration=calibration, own_windows=0, recovery=recovery
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        context = StageContext(text, "cpu", 0, work, Events(Lines(Console(stderr=True))))
        outcome = prune(config, checkpoint, context)
        states = sorted(work.glob("step-*/state.safetensors"))
        figures: dict[str, Any] = {"peak_gb": own_peak_rss_bytes() / 1e9}
        if states:
            figures["state_mb"] = states[-1].stat().st_size / 1e6
            figures.update(outcome.notes["recovery"])  # type: ignore[call-overload]
    windows = evaluation_windows(text.held_out, checkpoint.tokenizer, block_size=256, limit=arguments.windows)
    figures["perplexity"] = perplexity(TorchEngine(outcome.checkpoint.model), windows).perplexity
    return figures


if __name__ == "__main__":
    main()
