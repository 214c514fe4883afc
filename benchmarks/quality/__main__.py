"""Compress a checkpoint in every way of a table, and score what comes out on held-out text of two kinds.

    python -m benchmarks.quality prune CHECKPOINT --other-text FILE... [--only NAME...]
    python -m benchmarks.quality quantize CHECKPOINT --other-text FILE...
    python -m benchmarks.quality distill CHECKPOINT --other-text FILE... [--student S --steps N]
    python -m benchmarks.quality chain CHECKPOINT --other-text FILE...

Without `--data` the built-in corpus is calibrated and trained on, and its held-out part scored;
`--other-text` is text of a kind that no stage has seen. Every row is exported, and scored through its
graph in ONNX Runtime: fixed windows opened with BOS, as everywhere in this project. A Markdown table is
printed row by row; `--out` writes all figures, with what each stage noted, as JSON. A row that begins with
the stages of the one before goes on from what they made, and its seconds are those of the rest.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.quality.scoring import Judge, read_texts
from benchmarks.quality.variants import (
    CHAIN,
    PRUNE,
    QUANTIZE,
    UNCHANGED,
    Stage,
    Table,
    distill_table,
    only,
    with_calibration,
)
from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint
from roots_compress.cli.display.lines import Lines
from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.prune import PruneConfig
from roots_compress.configs.training import TrainingConfig
from roots_compress.data.documents import TextSplit
from roots_compress.evaluation.speed import measure_speed
from roots_compress.events import Events
from roots_compress.results import Json
from roots_compress.stages.base import StageContext
from roots_compress.stages.distill.stage import distill
from roots_compress.stages.prune.stage import prune
from roots_compress.stages.quantize.stage import quantize
from roots_compress.system.threads import default_threads

CONTEXTS = (128, 512)
SPLIT_SEED = 0
"""Always: what a model trained by an earlier run has read must not be held out here."""


def parse() -> tuple[argparse.Namespace, Table]:
    """Return the command line's options, and the rows that they ask for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("prune", "quantize", "distill", "chain"))
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="text to calibrate and train on")
    parser.add_argument("--eval-data", type=Path, nargs="*", default=[], help="held-out text of its kind")
    parser.add_argument("--other-text", type=Path, nargs="*", default=[], help="held-out, of another kind")
    parser.add_argument(
        "--documents",
        type=int,
        help="read this many of the documents to calibrate and train on; default: all",
    )
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="these rows of the table")
    parser.add_argument("--windows", type=int, default=24, help="held-out windows of each text")
    parser.add_argument("--block-size", type=int, default=512, help="tokens of a held-out window")
    parser.add_argument("--calibration-windows", type=int, help="default: as each row has it")
    parser.add_argument(
        "--own-windows", type=int, help="of the model's own text; default: as each row has it"
    )
    parser.add_argument("--student", default="small", help="distill: a preset, or a checkpoint")
    parser.add_argument("--steps", type=int, default=200, help="distill: of 4 windows of 256 tokens")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="distill")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--seed", type=int, default=0, help="of the stages, not of the split of the text")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    arguments = parser.parse_args()
    try:
        return arguments, table_of(arguments)
    except ValueError as error:
        parser.error(str(error))


def table_of(arguments: argparse.Namespace) -> Table:
    """Return the rows that the command line asks for.

    Raises:
        ValueError: it names a row that the table does not have.
    """
    training = TrainingConfig(
        steps=arguments.steps,
        batch_size=4,
        block_size=256,
        learning_rate=arguments.learning_rate,
        checkpoint_every=arguments.steps,
    )
    tables = {
        "prune": PRUNE,
        "quantize": QUANTIZE,
        "chain": CHAIN,
        "distill": distill_table(arguments.student, training),
    }
    return only(tables[arguments.table], arguments.only)


def main() -> None:
    """Compress, score and print row after row."""
    arguments, table = parse()
    torch.set_num_threads(arguments.threads)
    tokenizer = load_checkpoint(arguments.checkpoint).tokenizer
    split, texts = read_texts(arguments.data, arguments.eval_data, arguments.other_text, SPLIT_SEED)
    split = replace(split, train=split.train[: arguments.documents])
    judge = Judge(texts, tokenizer, arguments.block_size, arguments.windows)
    rows: dict[str, dict[str, Any]] = {}
    document = {"text": split.description, "texts": judge.described(), "rows": rows}
    folders: dict[str, Path] = {}
    made: Made | None = None
    print(f"{split.description}\n\n{judge.header()}", flush=True)
    with tempfile.TemporaryDirectory() as graphs:
        for name, stages in {UNCHANGED: (), **table.rows}.items():
            start = time.perf_counter()
            calibrated = [
                with_calibration(stage, arguments.calibration_windows, arguments.own_windows)
                for stage in stages
            ]
            if made is None or calibrated[: len(made.stages)] != made.stages:
                # Read anew: distillation lets its teacher go.
                made = Made([], load_checkpoint(arguments.checkpoint), [])
            made = carry_on(made, calibrated, split, arguments.seed)
            seconds = time.perf_counter() - start
            folders[name] = Path(graphs) / str(len(rows))
            rows[name] = judge.score(made.checkpoint, folders[name], keep=table.timed)
            rows[name] |= {"seconds": seconds, "notes": made.notes}
            reference = rows.get(table.reference, rows[UNCHANGED])
            print(judge.row(name, rows[name], reference), flush=True)
            write(arguments.out, document)
        if table.timed:
            time_rows(rows, folders, arguments.threads)
            write(arguments.out, document)


def write(path: Path | None, document: Mapping[str, Any]) -> None:
    """Write what has been measured so far, where it is asked for."""
    if path is not None:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Made:
    """What a row came to. A next row that begins with the same stages goes on from it."""

    stages: list[Stage]
    checkpoint: Checkpoint
    notes: list[dict[str, Json]]
    """Of each stage."""


def carry_on(made: Made, stages: list[Stage], text: TextSplit, seed: int) -> Made:
    """Take a checkpoint through those of the stages that it has not been through."""
    checkpoint, notes = made.checkpoint, list(made.notes)
    for config in stages[len(made.stages) :]:
        with tempfile.TemporaryDirectory() as work:
            context = StageContext(text, "cpu", seed, Path(work), Events(Lines(Console(stderr=True))))
            if isinstance(config, DistillConfig):
                outcome = distill(config, checkpoint, context)
            elif isinstance(config, PruneConfig):
                outcome = prune(config, checkpoint, context)
            else:
                outcome = quantize(config, checkpoint, context)
        checkpoint = outcome.checkpoint
        notes.append(outcome.notes)
    return Made(stages, checkpoint, notes)


def time_rows(rows: dict[str, dict[str, Any]], folders: Mapping[str, Path], threads: int) -> None:
    """Time the rows' graphs in turns, and print how much faster each decodes than the model as it is."""
    speeds = measure_speed(
        folders,
        contexts=CONTEXTS,
        decode_tokens=16,
        repeats=5,
        threads=threads,
    )
    whole = speeds[UNCHANGED]["decode"]
    print("\n| | tokens/s at 128 | gain | tokens/s at 512 | gain |\n|---|---|---|---|---|")
    for name, speed in speeds.items():
        rows[name]["decode_tokens_per_second"] = [each.median for each in speed["decode"]]
        cells = [
            f"{each.median:.1f} | {each.median / base.median:.2f}"
            for each, base in zip(speed["decode"], whole, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
