"""Signals at any moment of a command: its message, its exit code, and what it leaves."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.crossings.materials import Command
from tests.crossings.process import Running

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_TO_END = 5.0
SECONDS_AFTER_SECOND = 2.0
GATE_MISSED = 3


@dataclass
class Signals:
    """How the commands ended that got a signal, and what was wrong."""

    endings: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def check_signals(command: Command, folder: Path, *, moments: int, rng: random.Random) -> Signals:
    """Send each signal at random moments of a command's work, and once two of them.

    Args:
        command: to be interrupted.
        folder: an existing, empty one.
        moments: for each signal; spread evenly, and drawn within their parts.
        rng: draws them.
    """
    found = Signals()
    started = time.monotonic()
    whole = _Try(command, folder / "whole")
    assert whole.running.wait() in (0, GATE_MISSED), whole.running.said
    seconds, expected = time.monotonic() - started, whole.files()
    for number in SIGNALS:
        for part in range(moments):
            moment = seconds * (part + rng.random()) / moments
            label = f"{number.name} after {moment:.2f} of {seconds:.2f} s"
            attempt = _Try(command, folder / f"{number.name}-{part}")
            found.endings[attempt.interrupt(moment, number)] += 1
            found.faults += [f"{label}: {fault}" for fault in attempt.faults(number, expected)]
            shutil.rmtree(attempt.folder)
    for number in SIGNALS:
        attempt = _Try(command, folder / f"{number.name}-twice")
        attempt.interrupt(seconds * rng.random(), number, twice=True)
        if attempt.seconds > SECONDS_AFTER_SECOND:
            found.faults.append(f"{number.name} twice: goes on for {attempt.seconds:.1f} s")
        said = [each for each in attempt.running.faults() if not each.startswith("temporary file")]
        found.faults += [f"{number.name} twice: {fault}" for fault in said]
    return found


class _Try:
    """One run of a command, with an output of its own."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.command, self.folder, self.out = command, folder, folder / "made" / "out"
        self.out.parent.mkdir(parents=True)
        (folder / "streams").mkdir()
        self.running = self._run()
        self.code, self.seconds = 0, 0.0

    def _run(self) -> Running:
        return Running(self.folder / "streams", self.command.to(str(self.out)))

    def interrupt(self, moment: float, number: signal.Signals, *, twice: bool = False) -> int:
        """Send a signal so many seconds after the start; return the exit code."""
        time.sleep(max(0.0, self.running.started + moment - time.monotonic()))
        sent = time.monotonic()
        self.running.send(number)
        if twice:
            time.sleep(0.05)
            self.running.send(number)
        self.code = self.running.wait()
        self.seconds = time.monotonic() - sent
        return self.code

    def faults(self, number: signal.Signals, expected: list[str]) -> list[str]:
        """Return what is wrong with how it ended, and with the same command after it."""
        faults, said = self.running.faults(), self.running.said
        own = 128 + number
        # A signal before the program handles any, or after its work, ends it as one without a handler does.
        if self.code not in (own, -number, 0, GATE_MISSED):
            faults.append(f"exit code {self.code}: {said[-500:]}")
        if self.code == own and "interrupted: " not in said and self.files():
            faults.append(f"says nothing of an interruption: {said[-500:]}")
        if self.seconds > SECONDS_TO_END:
            faults.append(f"goes on for {self.seconds:.1f} s")
        if self.code in (0, GATE_MISSED):
            return faults
        if not self.command.goes_on:
            if self.files() not in ([], expected):
                faults.append(f"leaves {self.files()}")
            return faults
        again = self._run()
        code = again.wait()
        if code not in (0, GATE_MISSED):
            faults.append(f"the same command ends with {code}: {again.said[-500:]}")
        elif self.files() != expected:
            faults.append(f"the same command leaves {sorted({*self.files()} ^ {*expected})}")
        return faults + again.faults()

    def files(self) -> list[str]:
        """Return the files that there are, by their names."""
        found = self.out.parent.rglob("*")
        return sorted(str(each.relative_to(self.out.parent)) for each in found if each.is_file())
