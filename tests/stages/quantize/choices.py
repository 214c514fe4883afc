"""Timings that never took place, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

import pytest

from roots_compress.stages.quantize.products import times
from roots_compress.stages.quantize.products.choice import FormTimes, TokenTimes

INTEGERS_WIN = FormTimes("avx2", "said by a test", TokenTimes(1.0, 10.0), TokenTimes(2.0, 10.0))
WEIGHTS_ONLY_WINS = FormTimes("avx2", "said by a test", TokenTimes(2.0, 10.0), TokenTimes(1.9, 9.0))


def timings_give(monkeypatch: pytest.MonkeyPatch, found: FormTimes) -> list[Any]:
    """Have a timing find this; return a list that holds the config of each model timed."""
    timed: list[Any] = []

    def time_here(config: Any, *_: Any, **__: Any) -> FormTimes:
        timed.append(config)
        return found

    monkeypatch.setattr(times, "time_here", time_here)
    return timed


def integers_win(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    return timings_give(monkeypatch, INTEGERS_WIN)
