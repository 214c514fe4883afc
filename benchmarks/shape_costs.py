"""What cuts cost by K-FAC and by the gradients token by token, and how surely the latter is known.

    python benchmarks/shape_costs.py CHECKPOINT [--windows N]

Pruning for a target scales each block's costs by one trial cut that it holds against the gradients of a
few windows (`stages/prune/sensitivity.py`). This judges such cuts on each window by itself, half of the
windows being of the model's own text, and prints for every block what the cut costs in nats a token by
K-FAC, the factor between that and what the gradients say, and the standard error of that factor, as a share
of it, with as many windows as pruning takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from roots_compress.calibration.own_text import with_own_text
from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.cli.display.lines import Lines
from roots_compress.configs.data import DataConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.packing import pack
from roots_compress.events import Events
from roots_compress.stages.prune.sensitivity import (
    TRIAL_WINDOWS,
    LayerCosts,
    held_against_gradients,
    layer_costs,
)
from roots_compress.stages.prune.surgeon import Trial
from roots_compress.system.threads import default_threads

QUIET = Events()


def main() -> None:
    """Judge the cuts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--windows", type=int, default=64, help="of 512 tokens, half of them the model's own; at least 4"
    )
    parser.add_argument("--threads", type=int, default=default_threads())
    arguments = parser.parse_args()
    if arguments.windows < 4:
        parser.error("a standard error takes at least 4 windows")
    torch.set_num_threads(arguments.threads)
    checkpoint = load_checkpoint(arguments.checkpoint)
    model, text, half = checkpoint.model.eval(), load_text(DataConfig(), seed=0), arguments.windows // 2
    given = pack(text.train, checkpoint.tokenizer, 512, seed=0, limit=half)
    windows = with_own_text(given, checkpoint, half, seed=0, events=Events(Lines(Console(stderr=True))))
    costs = list(layer_costs(model, windows, multiple_of=16, device="cpu"))
    factors_NLH = np.array(
        [
            factors(
                costs,
                held_against_gradients(
                    model, costs, windows[at : at + 1], seed=at, device="cpu", events=QUIET
                ),
            )
            for at in range(len(windows.input_ids))
        ]
    )
    mean_LH = factors_NLH.mean(axis=0)
    error_LH = factors_NLH.std(axis=0, ddof=1) / mean_LH / TRIAL_WINDOWS**0.5
    blocks = list(costs[0])
    columns = [f"{name}: {what}" for name in blocks for what in ("K-FAC", "factor", "error")]
    print(f"median errors: {', '.join(f'{each:.0%}' for each in np.median(error_LH, axis=0))}\n")
    print(f"| layer | {' | '.join(columns)} |\n" + "|---" * (1 + len(columns)) + "|")
    for index, each in enumerate(costs):
        cells = [
            f"{0.0 if trial is None else trial.cost:.5f} | {factor:.2f} | {error:.0%}"
            for trial, factor, error in zip(trials_of(each), mean_LH[index], error_LH[index], strict=True)
        ]
        print(f"| {index} | {' | '.join(cells)} |")
    for column, name in enumerate(blocks):
        trials = [trials_of(each)[column] for each in costs]
        estimated = np.array([0.0 if trial is None else trial.cost for trial in trials])
        judged = float((estimated * mean_LH[:, column]).sum())
        print(f"\n{name}, all layers: {estimated.sum():.4f} by K-FAC, {judged:.4f} by the gradients")


def trials_of(costs: LayerCosts) -> list[Trial | None]:
    """Return the cut of each block that is held against the gradients."""
    return [block.trial for block in costs.values()]


def factors(costs: Sequence[LayerCosts], held: Sequence[LayerCosts]) -> list[tuple[float, ...]]:
    """Return by how much the costs of each layer's blocks were scaled."""
    return [
        tuple(_ratio(before[name].costs, after[name].costs) for name in before)
        for before, after in zip(costs, held, strict=True)
    ]


def _ratio(before: Mapping[Any, float], after: Mapping[Any, float]) -> float:
    """Return the one factor between costs of the same shapes; 1 where nothing costs anything."""
    dearest = max(before, key=before.__getitem__)
    return after[dearest] / before[dearest] if before[dearest] else 1.0


if __name__ == "__main__":
    main()
