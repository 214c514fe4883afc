"""Kills at random moments of a whole chain, which must end in the same bytes as one that was not disturbed.

One chain takes several kills: each attempt to go on is killed again after a random time, until one comes
through. So every kill is proven harmless by the artifacts at the end of its chain.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roots_compress.run.run_folder import COVERED
from roots_compress.run.run_manifest import run_manifest_faults
from roots_compress.run.stages import CommittedStage, read_stages, verify
from tests.faults.commands import Commands, Reach

ARTIFACTS = ("checkpoint/", "onnx/")


@dataclass
class Kills:
    """What was killed, and what came of it."""

    fired: int = 0
    chains: int = 0
    identical: int = 0
    """Kills whose chain ended in the same bytes."""
    mixed: int = 0
    """Kills after which a stage stood that was not whole, or not as in the undisturbed run."""
    during: Counter[str] = field(default_factory=Counter)
    """What was being made when a kill struck."""


def artifacts_of(run: Path) -> dict[str, str]:
    """Return the sha256 of every artifact of a finished run by its path, after checking all of its hashes."""
    stages, left_out = read_stages(run)
    assert left_out == {}
    assert run_manifest_faults(run, COVERED, [stage.path.name for stage in stages]) == []
    assert [fault for stage in stages for fault in verify(stage)] == []
    return _hashes(stages)


def check_random_kills(
    commands: Commands,
    recipe: Path,
    undisturbed: Path,
    seconds: float,
    *,
    kills: int,
    seed: int,
    share: float = 1 / 6,
) -> Kills:
    """Kill runs of a recipe so many times in all, and compare what each ends in with an undisturbed run.

    Args:
        commands: carries the runs out.
        recipe: what is run.
        undisturbed: the run of it that was not killed; the others go beside it.
        seconds: that it took.
        kills: how many must strike.
        seed: draws the moments, and whether a kill takes the measuring children along.
        share: of a run, in which the first kill strikes.

    Raises:
        AssertionError: a command failed, or a chain ended in other bytes.
    """
    rng = random.Random(seed)
    expected = artifacts_of(undisturbed)
    result = Kills()
    while result.fired < kills:
        run = undisturbed.with_name("killed")
        struck = 0
        while result.fired + struck < kills:
            reach: Reach = rng.choice(("group", "process"))
            # A part of a run at first, so that a chain takes several kills, and more with each of them, so
            # that each step is got past, on a machine that has become slower as well.
            longest = seconds * share * (1 + struck / 4)
            ending = commands.run(
                "run", recipe, "--run", run, kill_after=rng.uniform(0, longest), reach=reach
            )
            if ending.code == 0:
                break
            assert ending.code == -9, commands.said()
            struck += 1
            result.during[_under_way(run)] += 1
            result.mixed += _is_mixed(run, expected)
        else:
            ending = commands.run("run", recipe, "--run", run)
            assert ending.code == 0, commands.said()
        actual = artifacts_of(run)
        assert actual == expected, sorted(name for name in expected if actual.get(name) != expected[name])
        result.fired += struck
        result.identical += struck
        result.chains += 1
        shutil.rmtree(run)
    return result


def _hashes(stages: Sequence[CommittedStage]) -> dict[str, str]:
    return {
        f"{stage.path.name}/{name}": record.sha256
        for stage in stages
        for name, record in stage.manifest.files.items()
        if name.startswith(ARTIFACTS)
    }


def _is_mixed(run: Path, expected: dict[str, str]) -> bool:
    """Whether what a kill left has a stage that is damaged or of other bytes."""
    stages, left_out = read_stages(run)
    damaged = list(left_out.values()) or [fault for stage in stages for fault in verify(stage)]
    return bool(damaged) or not _hashes(stages).items() <= expected.items()


def _under_way(run: Path) -> str:
    """Return the stage that a killed process was making, or what it did instead."""
    partial = sorted(path.name for path in run.glob(".*.partial")) if run.is_dir() else []
    if partial:
        return partial[0].removeprefix(".").removesuffix(".partial")
    return "between or after stages" if run.is_dir() and any(run.glob("0*")) else "start"
