"""What is told of long work, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from roots_compress.progress import Display, Phases, track


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
    said = io.StringIO()
    for item in track(range(1, 11), Console(file=said), "measuring [layers]"):
        clock.now += 6 if item > 2 else 0.1
    assert said.getvalue().splitlines() == [
        "measuring [layers]: 5/10, 0:18 left",
        "measuring [layers]: 8/10, 0:09 left",
    ]


def test_silences_grow_with_the_work(clock: Clock) -> None:
    said = io.StringIO()
    with Display(Console(file=said), "work") as display:
        for done in range(1, 2001):
            clock.now += 1
            display.update(done, 2000)
    lines = [int(line.split()[1].partition("/")[0]) for line in said.getvalue().splitlines()]
    assert lines[:3] == [15, 30, 45]
    assert lines[-1] - lines[-2] > 80
    assert len(lines) < 80


def test_short_work_in_a_pipe_is_silent(clock: Clock) -> None:
    said = io.StringIO()
    assert list(track(range(9), Console(file=said), "work")) == list(range(9))
    assert said.getvalue() == ""


def test_a_terminal_shows_a_bar_that_goes() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    with Display(console, "some [work]") as display:
        display.update(3, 9, "[x] loss 0.5")
    assert all(part in shown.getvalue() for part in ("some [work]", "3/9", "[x] loss 0.5"))
    assert shown.getvalue().endswith("\x1b[2K"), "the line is erased at the end"


def test_phases_are_one_whole_with_one_estimate(clock: Clock) -> None:
    """The current phase goes by its own pace, those to come by their costs and the pace so far."""
    said = io.StringIO()
    with Phases(Console(file=said), "prune", {"writing": 10, "measuring": 20, "cutting": 30}) as phases:
        for _ in track(range(2), phases, "writing"):
            clock.now += 20
        for _ in track(range(4), phases, "measuring"):
            clock.now += 20
        for _ in track(range(2), phases, "cutting"):
            clock.now += 60
    assert said.getvalue().splitlines() == [
        "prune: writing 1/2, 3:40 left",  # 20 of its own, and 50 units at 4 seconds.
        "prune: writing 2/2, 3:20 left",
        "prune: measuring 1/4, 3:00 left",  # 60 of its own, and 30 units at 60 s / 15 units.
        "prune: measuring 2/4, 2:40 left",
        "prune: measuring 3/4, 2:20 left",
        "prune: measuring 4/4, 2:00 left",
        "prune: cutting 1/2, 1:00 left",
        "prune: cutting 2/2, 0:00 left",
    ]


def test_phases_show_one_bar_on_a_terminal() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    with Phases(console, "prune", {"writing [text]": 1, "cutting": 1}) as phases:
        for label in ("writing [text]", "cutting"):
            with Display(phases, label) as display:
                display.update(1, 2)
    assert "prune: cutting 1/2" in shown.getvalue()
    assert " left" in shown.getvalue()
    assert shown.getvalue().endswith("\x1b[2K"), "the line is erased at the end"
