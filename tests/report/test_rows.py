"""What a report says a stage gained and paid."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from roots_compress.report.rows import Row, rows_of
from roots_compress.report.spread import speedup_of
from roots_compress.results import StageKind, StageResult
from roots_compress.tasks.figures.figures import percent
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
    slow, fast = stage(decode=(100.0, 50.0)), stage(decode=(400.0, 100.0))
    assert speedup_of(slow, fast, DECODE).value == pytest.approx(2.0)


def test_speedup_without_a_common_context_is_no_number() -> None:
    assert math.isnan(speedup_of(stage(decode=()), stage(), DECODE).value)


def test_a_stage_that_only_costs_is_said_to_gain_nothing() -> None:
    row = after_baseline(stage(1, "quantize", perplexity=25.0))
    assert "GAINED NOTHING" in row.verdict
    assert not row.paid


def scored(index: int, kind: StageKind, perplexity: float, nats: tuple[float, ...]) -> StageResult:
    row = stage(index, kind, perplexity=perplexity)
    scores = tuple((511 * each, 511) for each in nats)
    return replace(row, metrics=replace(row.metrics, scores=scores))


def test_a_gain_of_quality_within_noise_does_not_pay() -> None:
    compressed = stage(1, "quantize", perplexity=19.99)
    metrics = replace(compressed.metrics, intervals={"perplexity_ratio": (0.95, 1.05)})
    assert after_baseline(compressed).paid
    row = after_baseline(replace(compressed, metrics=metrics))
    assert not row.paid
    assert "(within noise)" in row.verdict


@pytest.mark.parametrize(("change", "paid"), [((0.3, -0.4, 0.2, -0.3), False), ((-0.2, -0.21) * 2, True)])
def test_two_later_stages_are_told_apart_by_their_scores(change: tuple[float, ...], paid: bool) -> None:
    nats = (2.5, 3.5, 3.0, 2.8)
    before = scored(1, "distill", 20.0, nats)
    after = scored(2, "prune", 19.0, tuple(a + b for a, b in zip(nats, change, strict=True)))
    assert rows_of(run(stage(), before, after))[2].paid == paid


def test_a_slower_stage_says_so() -> None:
    text = after_baseline(stage(1, "quantize", size=4_000_000, decode=(50.0, 40.0))).verdict
    assert "SLOWER" in text
    assert "2.00x smaller" in text
    assert "GAINED NOTHING" not in text


def test_a_difference_within_timing_noise_is_not_mentioned() -> None:
    assert "decode" not in after_baseline(stage(1, "prune", size=4_000_000, decode=(102.0, 82.0))).verdict


def test_no_change_is_no_minus_zero() -> None:
    assert [percent(each) for each in (1.05, 0.99996, 0.99, math.inf)] == ["+5.0%", "+0.0%", "-1.0%", "+inf%"]
