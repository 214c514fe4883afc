"""What the plan of a run says in words: how long, how much, and what the machine lacks."""

from __future__ import annotations

import pytest

from roots_compress.pipeline.forecast.forecast import Forecast
from roots_compress.pipeline.forecast.table import duration, summary_lines


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.25, "0.2 s"), (45.4, "45 s"), (200.0, "3:20 min"), (7500.0, "2:05 h"), (3599.6, "1:00 h")],
)
def test_a_time_is_told_as_people_read_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_run_that_makes_nothing_says_so() -> None:
    nothing = Forecast("a", (), (), timing_seconds=3.0, probe_seconds=1.0, free_disk_bytes=0,
                       available_memory_bytes=None)  # fmt: skip
    assert list(summary_lines(nothing)) == ["Nothing is to be made: a run only times all graphs again."]
