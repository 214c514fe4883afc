"""The long form of the fault tests, of which the test suite runs a part.

    python -m tests.faults --seed 0 --kills 200

prints one JSON line for each part as it ends, and leaves with an AssertionError where something was lost.
What was run so far stands in docs/how/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.faults.commands import Commands
from tests.faults.crashes import check_double_kills, check_kills
from tests.faults.errors import check_errors, check_lost_writes
from tests.faults.kills import check_random_kills
from tests.faults.power import check_power_loss
from tests.faults.quickstart import write_quickstart
from tests.faults.rot import check_bit_flips
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.strace import check_kernel_kills, check_layer, why_not

STORE: dict[str, Callable[[Scenario, Path, random.Random, argparse.Namespace], int]] = {
    "kills": lambda scenario, path, *_: check_kills(scenario, path),
    "kills in half a write": lambda scenario, path, *_: check_kills(scenario, path, torn=True),
    "double kills": lambda scenario, path, rng, options: check_double_kills(
        scenario, path, pairs=options.pairs, rng=rng
    ),
    "power losses": lambda scenario, path, rng, options: check_power_loss(
        scenario, path, mixtures=options.mixtures, rng=rng
    ),
    "refused operations": lambda scenario, path, *_: check_errors(scenario, path),
    "lost writes": lambda scenario, path, *_: check_lost_writes(scenario, path),
    "system calls": lambda scenario, path, *_: check_layer(scenario, path),
    "kills by the kernel": lambda scenario, path, rng, _: check_kernel_kills(
        scenario, path, sample=None, rng=rng
    ),
}
"""The parts of the store's half, each with its own randomness."""
WATCHED = ("system calls", "kills by the kernel")
"""Those that need strace."""


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=200, help="random kills over the chain")
    parser.add_argument("--scale", type=float, default=1.0, help="of the quickstart's steps and windows")
    parser.add_argument("--pairs", type=int, default=50, help="double kills of each scenario of the store")
    parser.add_argument("--mixtures", type=int, default=3, help="disks for each moment of lost power")
    parser.add_argument("--flips", type=int, default=1000, help="flipped bits")
    parser.add_argument("--only", choices=("store", "chain", *STORE), help="one half of it, or one part")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "chain":
            # A dead process loses no write that the system has taken, and lost power is replayed in a model.
            with patch.object(os, "fsync", lambda descriptor: None):
                _store(Path(folder), options)
        if options.only in (None, "chain"):
            _chain(Path(folder), options)


def _store(folder: Path, options: argparse.Namespace) -> None:
    for part, check in STORE.items():
        if options.only not in (None, "store", part):
            continue
        if part in WATCHED and (reason := why_not()):
            sys.stderr.write(f"store: {part}: left out: {reason}\n")
            continue
        started = time.monotonic()
        rng = random.Random(f"{options.seed}/{part}")
        counts = {}
        for number, scenario in enumerate(SCENARIOS):
            place = folder / f"{part} {number}"
            place.mkdir()
            counts[scenario.name] = check(scenario, place, rng, options)
        _say(f"store: {part}", started, options, cases=sum(counts.values()), scenarios=counts)


def _chain(folder: Path, options: argparse.Namespace) -> None:
    recipe, undisturbed = folder / "recipe.yaml", folder / "undisturbed"
    write_quickstart(recipe, scale=options.scale)
    started = time.monotonic()
    with Commands(folder, folder / "log") as commands:
        whole = commands.run("run", recipe, "--run", undisturbed)
        assert whole.code == 0, commands.said()
        result = check_random_kills(
            commands, recipe, undisturbed, whole.seconds, kills=options.kills, seed=options.seed
        )
    _say(
        "chain: random kills",
        started,
        options,
        kills=result.fired,
        identical=result.identical,
        mixed=result.mixed,
        chains=result.chains,
        during=dict(result.during),
        undisturbed_seconds=round(whole.seconds, 1),
        scale=options.scale,
    )
    started = time.monotonic()
    flips = check_bit_flips(undisturbed, flips=options.flips, rng=random.Random(options.seed))
    _say("chain: flipped bits", started, options, found=flips)


def _say(part: str, started: float, options: argparse.Namespace, **figures: Any) -> None:
    seconds = round(time.monotonic() - started, 1)
    line = {"part": part, "seed": options.seed, **figures, "seconds": seconds}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
