"""Kills at each durable operation of the store, once and twice, as the disk feels them: nothing more is done.

A kill is an exception that no code of ours catches, after which every further operation refuses as well, so
that clean-up code does not help. The random kills of a chain (`kills.py`) end real processes.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.disk import Hook, Operation, interposed
from tests.faults.scenarios import Scenario, state_of


class Killed(BaseException):
    """Stands for SIGKILL."""


class _Killer(Hook):
    """Lets `steps` operations happen and none after them; a write it ends at may be half done."""

    def __init__(self, steps: int, *, torn: bool) -> None:
        super().__init__()
        self._steps, self._torn = steps, torn
        self.fired = False

    def __call__(self, operation: Operation, perform: Callable[[], Any]) -> Any:
        if len(self.done) < self._steps:
            return super().__call__(operation, perform)
        if self._torn and not self.fired and operation.kind == "write":
            descriptor = os.open(operation.path, os.O_WRONLY | os.O_APPEND)
            os.write(descriptor, operation.data[: len(operation.data) // 2])
            os.close(descriptor)
        self.fired = True
        raise Killed


def recorded(act: Callable[[Path], None], run: Path) -> list[Operation]:
    """Do something undisturbed and return what it did to the disk."""
    hook = Hook()
    with interposed(hook):
        act(run)
    return hook.done


def killed_after(steps: int, act: Callable[[Path], None], run: Path, *, torn: bool = False) -> None:
    """Do something that is killed after so many operations.

    Raises:
        AssertionError: it ended before.
    """
    killer = _Killer(steps, torn=torn)
    try:
        with interposed(killer):
            act(run)
    except Killed:
        pass
    assert killer.fired, "the injection did not fire"


def go_on(scenario: Scenario, run: Path) -> None:
    """Do what the same command does when it is given again: look what stands, and do what is missing."""
    if not scenario.is_complete(state_of(run)):
        scenario.act(run)


def check_kills(scenario: Scenario, folder: Path, *, torn: bool = False, every: int = 1) -> int:
    """Kill a scenario before each of its operations; return how often.

    Args:
        scenario: what is done.
        folder: an empty folder to do it in.
        torn: whether a write that is killed is half done.
        every: try only one in so many operations.

    Raises:
        AssertionError: a kill left neither the old state nor the new one, or the same command again does not
            end where it should.
    """
    before = begun(scenario, folder)
    count = len(recorded(scenario.act, _copy(before, folder / "whole")))
    reached = 0
    for steps in range(0, count, every):
        run = _copy(before, folder / str(steps))
        killed_after(steps, scenario.act, run, torn=torn)
        where = f"{scenario.name}, killed after operation {steps} of {count}"
        state = state_of(run)
        assert scenario.allows(state), f"{where}: {state}"
        chain = scenario.chains.index(state[0])
        assert chain >= reached, f"{where}: what was new is old again"
        reached = chain
        _require_good_end(scenario, run, where)
    return len(range(0, count, every))


def check_double_kills(scenario: Scenario, folder: Path, *, pairs: int, rng: random.Random) -> int:
    """Kill a scenario and then the command that goes on, at random pairs of operations; return their number.

    Raises:
        AssertionError: as `check_kills` does.
    """
    before = begun(scenario, folder)
    count = len(recorded(scenario.act, _copy(before, folder / "whole")))
    for pair in range(pairs):
        first = rng.randrange(count)
        run = _copy(before, folder / str(pair))
        killed_after(first, scenario.act, run)
        # The marks of a first kill are gone once someone has looked, so the second is counted on a copy.
        rest = len(recorded(lambda path: go_on(scenario, path), _copy(run, folder / "rest")))
        second = rng.randrange(rest) if rest else 0
        if rest:
            killed_after(second, lambda path: go_on(scenario, path), run)
        where = f"{scenario.name}, killed after operation {first}, and going on after {second}"
        assert scenario.allows(state_of(run)), where
        _require_good_end(scenario, run, where)
    return pairs


def begun(scenario: Scenario, folder: Path) -> Path:
    """Return a run in a new folder that stands where the scenario begins."""
    before = folder / "before"
    scenario.begins(before)
    return before


def _copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def _require_good_end(scenario: Scenario, run: Path, where: str) -> None:
    go_on(scenario, run)
    assert scenario.is_complete(state_of(run)), f"{where}: going on does not reach the end"
    shutil.rmtree(run)
