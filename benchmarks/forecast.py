"""Compares a recipe's forecast with the run: bytes, seconds and memory of every row, and of the whole.

    python -m benchmarks.forecast RECIPE [--model CKPT]

The forecast is made first, as `roots-compress plan` makes it. Then the stages are carried out one by one in a
folder that is removed at the end. Memory is the most that this process held during a row.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console

from roots_compress.cli.lines import Lines
from roots_compress.configs.recipe.loading import load_recipe
from roots_compress.configs.recipe.yaml import read_yaml
from roots_compress.evaluation.memory import own_peak_rss_bytes
from roots_compress.events import Events
from roots_compress.pipeline.forecast import forecast
from roots_compress.pipeline.preflight import prepare
from roots_compress.pipeline.runner import describe, finish
from roots_compress.pipeline.stage_runner import make_stage
from roots_compress.pipeline.steps import keys_of
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stages import CommittedStage
from roots_compress.system.memory import forget_peak
from roots_compress.training.memory import hand_back_free_memory


def main() -> None:
    """Print a row for each stage: what was foreseen, what came, and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--model", type=Path)
    given = parser.parse_args()
    events = Events(Lines(Console(stderr=True)))
    with TemporaryDirectory() as name:
        folder = Path(name) / "run"
        recipe = load_recipe(read_yaml(given.recipe), model=given.model)
        setting = prepare(recipe, folder)
        expected = forecast(setting, folder, events)
        print(f"probe: {expected.probe_seconds:.1f} s")
        torch.set_num_threads(setting.threads)
        rows: list[CommittedStage] = []
        spent = 0.0
        with RunFolder.open(folder) as run:
            for index, (step, key) in enumerate(keys_of(setting)):
                hand_back_free_memory(least=0)
                forget_peak()
                began = time.perf_counter()
                before = rows[-1] if rows else None
                rows.append(make_stage(run, index, step, key, before, setting, events))
                seconds, peak = time.perf_counter() - began, own_peak_rss_bytes()
                spent += seconds
                row, found = expected.stages[index], rows[-1].result
                _line(f"{row.name} graph MB", row.graph_bytes / 1e6, found.metrics.bytes / 1e6)
                _line(f"{row.name} work s", row.work_seconds, found.seconds)
                _line(f"{row.name} checks s", row.check_seconds, seconds - found.seconds)
                _line(f"{row.name} memory MB", row.memory_bytes / 1e6, peak / 1e6)
            describe(run, recipe, None)
            began = time.perf_counter()
            finish(run, rows, setting, events)
            timing = time.perf_counter() - began
        _line("timing s", expected.timing_seconds, timing)
        _line("run s", expected.seconds or 0.0, spent + timing)


def _line(label: str, foreseen: float, found: float) -> None:
    print(f"{label:<28}{foreseen:12.2f}{found:12.2f}{foreseen / found:10.3f}", flush=True)


if __name__ == "__main__":
    main()
