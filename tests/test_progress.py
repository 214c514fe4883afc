"""What is told of long work, and by which lines."""

from __future__ import annotations

import pytest

from roots_compress.progress import Display, Phases, track
from tests.heard import Heard


class Clock:
    """Time that passes as it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("roots_compress.progress.time.monotonic", clock)
    return clock


def test_work_in_a_pipe_is_told_of_after_silence_alone(clock: Clock) -> None:
    said = Heard()
    for item in track(range(1, 11), said, "measuring [layers]"):
        clock.now += 6 if item > 2 else 0.1
    assert said.text.splitlines() == [
        "measuring [layers]: 5/10, 0:18 left",
        "measuring [layers]: 8/10, 0:09 left",
    ]


def test_silences_grow_with_the_work(clock: Clock) -> None:
    said = Heard()
    with Display(said, "work") as display:
        for done in range(1, 2001):
            clock.now += 1
            display.update(done, 2000)
    lines = [int(line.split()[1].partition("/")[0]) for line in said.text.splitlines()]
    assert lines[:3] == [15, 30, 45]
    assert lines[-1] - lines[-2] > 80
    assert len(lines) < 80


def test_short_work_in_a_pipe_is_silent(clock: Clock) -> None:
    said = Heard()
    assert list(track(range(9), said, "work")) == list(range(9))
    assert said.text == ""


def test_phases_are_one_whole_with_one_estimate(clock: Clock) -> None:
    """The current phase goes by its own pace, those to come by their costs and the pace so far."""
    said = Heard()
    with Phases(said, "prune", {"writing": 10, "measuring": 20, "cutting": 30}) as phases:
        for _ in track(range(2), phases, "writing"):
            clock.now += 20
        for _ in track(range(4), phases, "measuring"):
            clock.now += 20
        for _ in track(range(2), phases, "cutting"):
            clock.now += 60
    assert said.text.splitlines() == [
        "prune: writing 1/2, 3:40 left",  # 20 of its own, and 50 units at 4 seconds.
        "prune: writing 2/2, 3:20 left",
        "prune: measuring 1/4, 3:00 left",  # 60 of its own, and 30 units at 60 s / 15 units.
        "prune: measuring 2/4, 2:40 left",
        "prune: measuring 3/4, 2:20 left",
        "prune: measuring 4/4, 2:00 left",
        "prune: cutting 1/2, 1:00 left",
        "prune: cutting 2/2, 0:00 left",
    ]
