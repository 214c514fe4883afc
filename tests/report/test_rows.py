"""What a report says a stage gained and paid."""

from __future__ import annotations

import math

import pytest

from roots_compress.report.rows import Row, rows_of, speedup
from roots_compress.results import StageResult
from roots_compress.tasks.registry import CAUSAL_LM
from tests.report.figures import run, stage

DECODE = CAUSAL_LM.workload


def after_baseline(compressed: StageResult) -> Row:
    return rows_of(run(stage(), compressed))[1]


def test_ratios_are_against_the_baseline() -> None:
    rows = rows_of(run(stage(), stage(1, "quantize", size=2_000_000, perplexity=21.0, decode=(300.0, 240.0))))
    assert rows[1].times_smaller == pytest.approx(4.0)
    assert rows[1].compared == "1.050x"
    assert rows[1].speedup == pytest.approx(3.0)


def test_speedup_is_taken_at_the_longest_common_context() -> None:
    assert speedup(stage(decode=(100.0, 50.0)), stage(decode=(400.0, 100.0)), DECODE) == pytest.approx(2.0)


def test_speedup_without_a_common_context_is_no_number() -> None:
    assert math.isnan(speedup(stage(decode=()), stage(), DECODE))


def test_a_stage_that_only_costs_is_said_not_to_pay() -> None:
    row = after_baseline(stage(1, "quantize", perplexity=25.0))
    assert "do not ship" in row.verdict
    assert not row.paid


def test_a_slower_stage_says_so() -> None:
    text = after_baseline(stage(1, "quantize", size=4_000_000, decode=(50.0, 40.0))).verdict
    assert "SLOWER" in text
    assert "2.00x smaller" in text
    assert "do not ship" not in text


def test_a_difference_within_timing_noise_is_not_mentioned() -> None:
    assert "decode" not in after_baseline(stage(1, "prune", size=4_000_000, decode=(102.0, 82.0))).verdict
