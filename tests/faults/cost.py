"""What keeping a run safe costs: syncs, hashes, manifests and saved states, as a share of a run's time.

    python -m tests.faults.cost --scale 0.1

runs the quickstart, or its shortened form (which overstates the share: less work, as many commits), and
prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from roots_compress.checkpoints import checkpoint
from roots_compress.configs.recipe.loading import load_recipe
from roots_compress.configs.recipe.yaml import read_yaml
from roots_compress.events import Events
from roots_compress.pipeline import runner, stage_runner
from roots_compress.pipeline.preflight import prepare
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stage_commit import Workspace
from roots_compress.training import loop
from tests.faults.quickstart import write_quickstart

PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "commit protocol": (
        (RunFolder, "open"),
        (RunFolder, "begin"),
        (RunFolder, "write_text"),
        (RunFolder, "finish"),
        (Workspace, "commit"),
        (stage_runner, "_unchanged_inputs"),
        (checkpoint, "require_written"),
    ),
    "saved training states": ((loop, "save_state"),),
}
"""The functions that do it; none of them calls another of the list."""


def main() -> None:
    """Run, and say what it cost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.cost")
    parser.add_argument("--scale", type=float, default=1.0, help="of the quickstart's work")
    options = parser.parse_args()
    spent: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, ExitStack() as patches:
        recipe = Path(folder) / "recipe.yaml"
        write_quickstart(recipe, scale=options.scale)
        setting = prepare(load_recipe(read_yaml(recipe)), Path(folder) / "run")
        for part, functions in PARTS.items():
            for owner, name in functions:
                timed = _timed(getattr(owner, name), part, spent)
                patches.enter_context(patch.object(owner, name, timed))
        started = time.perf_counter()
        runner.run_recipe(setting, Path(folder) / "run", events=Events())
        whole = time.perf_counter() - started
    shares = {part: round(seconds / whole, 5) for part, seconds in spent.items()}
    line = {"scale": options.scale, "seconds": round(whole, 2), "shares": shares}
    sys.stdout.write(json.dumps(line) + "\n")


def _timed(function: Callable[..., Any], part: str, spent: dict[str, float]) -> Callable[..., Any]:
    def call(*arguments: Any, **settings: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **settings)
        finally:
            spent[part] += time.perf_counter() - started

    return call


if __name__ == "__main__":
    main()
