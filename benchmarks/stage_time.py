"""What a prune or quantize stage takes, part by part.

    python benchmarks/stage_time.py CHECKPOINT --stage prune
    python benchmarks/stage_time.py CHECKPOINT --stage int8

It runs the parts of the stage, with its default settings but for those given, on the built-in corpus. Seconds
are those that passed and those of all processors; memory is the process's peak so far. It prints a Markdown
table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from roots_compress.calibration.own_text import with_own_text
from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint
from roots_compress.configs.data import DataConfig
from roots_compress.configs.prune import PruneConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.documents import TextSplit
from roots_compress.data.windows import PackedWindows
from roots_compress.events import Events
from roots_compress.models.spec import HEAD
from roots_compress.models.working_copy import part_with, sharing_copy
from roots_compress.stages.prune import stage as prune_stage
from roots_compress.stages.prune.layerwise import LayerwiseCutter
from roots_compress.stages.quantize import stage as quantize_stage
from roots_compress.stages.quantize.head import head_scale, round_head
from roots_compress.stages.quantize.plan import usual_format
from roots_compress.stages.quantize.sensitivity import rounding_costs
from roots_compress.stages.quantize.smoothing import outlier_scales
from roots_compress.stages.quantize.walk import Rounded, round_layers
from roots_compress.system.threads import default_threads

QUIET = Events()
Made = TypeVar("Made")


class Parts:
    """Times parts of a stage and prints each when it is done."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}
        print("| part | seconds | of processors | peak MB |\n|---|---|---|---|")

    def time(self, name: str, work: Callable[[], Made]) -> Made:
        """Do a part."""
        began, busy = time.perf_counter(), time.process_time()
        made = work()
        self._tell(name, time.perf_counter() - began, time.process_time() - busy)
        return made

    def total(self) -> None:
        """Print the sum, and all figures as JSON."""
        wall, busy = (sum(part[key] for part in self.seconds.values()) for key in ("wall", "busy"))
        self._tell("all", wall, busy)
        print(json.dumps(self.seconds))

    def _tell(self, name: str, wall: float, busy: float) -> None:
        (peak,) = (
            line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
        )
        megabytes = int(peak.split()[1]) * 1024 / 1e6
        self.seconds[name] = {"wall": wall, "busy": busy, "peak_mb": megabytes}
        print(f"| {name} | {wall:.1f} | {busy:.1f} | {megabytes:.0f} |", flush=True)


def main() -> None:
    """Time one stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--stage", choices=["prune", "int8", "int4"], default="prune")
    parser.add_argument("--windows", type=int, help="of the corpus; the stage's default where absent")
    parser.add_argument("--own-windows", type=int, help="of the model's own; likewise")
    parser.add_argument("--threads", type=int, default=default_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    checkpoint = load_checkpoint(options.checkpoint)
    checkpoint.model.eval()
    text = load_text(DataConfig(), seed=0)
    usual = PruneConfig() if options.stage == "prune" else QuantizeConfig(scheme=options.stage)
    given = usual.model_dump()
    if options.windows is not None:
        given["calibration"]["windows"] = options.windows
    if options.own_windows is not None:
        given["own_windows"] = options.own_windows
    parts = Parts()
    if options.stage == "prune":
        time_prune(PruneConfig.model_validate(given), checkpoint, text, parts)
    else:
        time_quantize(QuantizeConfig.model_validate(given), checkpoint, text, parts)
    parts.total()


def time_prune(config: PruneConfig, checkpoint: Checkpoint, text: TextSplit, parts: Parts) -> None:
    """Do what the stage does for ratios."""
    plan, windows = parts.time("reading text", lambda: prune_stage.planned(config, checkpoint, text, seed=0))
    windows = parts.time("writing text", lambda: _with_own(windows, checkpoint, config.own_windows))
    model = sharing_copy(checkpoint.model)

    def cut() -> None:
        cutter = LayerwiseCutter(model, windows, score=config.score, refitted=config.refit, device="cpu")
        list(cutter.cut(plan.targets))
        part_with(model, checkpoint.model)

    parts.time("pruning layers", cut)


def time_quantize(config: QuantizeConfig, checkpoint: Checkpoint, text: TextSplit, parts: Parts) -> Rounded:
    """Do what the stage does, for integer products where it is to make int8; return what it made."""
    model, usual, size = checkpoint.model, usual_format(config.scheme, "integer"), config.group_size
    windows = parts.time("reading text", lambda: quantize_stage.planned(config, checkpoint, text, seed=0))
    windows = parts.time("writing text", lambda: _with_own(windows, checkpoint, config.own_windows))
    scales, stream = parts.time(
        "looking for outliers",
        lambda: outlier_scales(model, windows, usual, size, device="cpu", events=QUIET),
    )
    scale_W = parts.time(
        "looking for the head's outliers",
        lambda: head_scale(model, windows, stream, size, events=QUIET),
    )
    if scale_W is not None:
        scales[HEAD] = scale_W
    costs = parts.time(
        "taking gradients",
        lambda: rounding_costs(model, windows, usual, size, scales, seed=0, device="cpu", events=QUIET),
    )
    plan = quantize_stage.plan_by_costs(config, model, usual, scales, costs)
    rounded, stream = parts.time(
        "quantizing layers",
        lambda: round_layers(model, windows, config, plan, device="cpu", events=QUIET),
    )
    parts.time("quantizing the head", lambda: round_head(model, stream, scale_W, size, rounded))
    return rounded


def _with_own(windows: PackedWindows, checkpoint: Checkpoint, count: int) -> PackedWindows:
    with torch.no_grad():
        return with_own_text(windows, checkpoint, count, seed=0, events=QUIET)


if __name__ == "__main__":
    main()
