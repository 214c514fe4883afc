"""Gates: which bounds are judged, by what, and what a miss does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from roots_compress.configs.gates import GatesConfig
from roots_compress.configs.recipe.loading import parse_recipe
from roots_compress.errors import GateMissedError
from roots_compress.report.gates import judge, judge_recipe, require
from roots_compress.report.spread import median_interval
from roots_compress.report.text import gate_cells
from roots_compress.results import GateResult, RunMetrics, Speed
from roots_compress.rounding import bounded
from roots_compress.tasks.registry import TASKS
from tests.report.figures import PROTOCOL, run, stage

RUN = run(stage(), stage(1, "quantize", size=2_000_000, perplexity=22.0, decode=(200.0, 160.0)))
STORED = Path("kept/metrics.json")


def test_every_figure_of_every_task_has_its_gates() -> None:
    names = GatesConfig.model_fields.keys() - {"against"}
    assert not {gate for task in TASKS for gate in task.gates} - names


def test_only_the_gates_that_are_set_are_judged() -> None:
    assert judge(GatesConfig(), RUN) == ()
    assert [gate.gate for gate in judge(GatesConfig(max_bytes=1), RUN)] == ["max_bytes"]


@pytest.mark.parametrize(
    ("kept", "missed"),
    [
        (GatesConfig(max_perplexity_ratio=1.1), GatesConfig(max_perplexity_ratio=1.09)),
        (GatesConfig(max_perplexity=22.0), GatesConfig(max_perplexity=21.9)),
        (GatesConfig(max_bits_per_byte=1.5), GatesConfig(max_bits_per_byte=1.4)),
        (GatesConfig(max_bytes=2_000_000), GatesConfig(max_bytes=1_999_999)),
        (GatesConfig(max_peak_rss_bytes=100_000_000), GatesConfig(max_peak_rss_bytes=99_999_999)),
        (GatesConfig(min_size_ratio=4.0), GatesConfig(min_size_ratio=4.01)),
        # 160 tokens a second at the longest context are 6.25 ms each; at most 10% more were measured.
        (GatesConfig(max_decode_ms=5.69), GatesConfig(max_decode_ms=5.68)),
        # From 160 / 80 the extremes of both allow 144 / 88 to 176 / 72.
        (GatesConfig(min_decode_speedup=2.44), GatesConfig(min_decode_speedup=2.45)),
    ],
)
def test_a_gate_is_kept_at_its_limit_and_missed_beyond(kept: GatesConfig, missed: GatesConfig) -> None:
    assert [gate.passed for gate in judge(kept, RUN)] == [True]
    assert [gate.passed for gate in judge(missed, RUN)] == [False]


@pytest.mark.parametrize("before", [0.9, 0.93, 0.7, 0.35])
def test_a_share_that_falls_by_what_is_allowed_is_kept(before: float) -> None:
    """Doubles do not hold 0.9 - 0.89 as 0.01, and shares of a hundred texts differ by just that."""
    after = round(before - 0.01, 2)
    rows = [
        replace(row, metrics=replace(row.metrics, quality={"accuracy": value}))
        for row, value in zip((stage(), stage(1, "quantize")), (before, after), strict=True)
    ]
    (gate,) = judge(GatesConfig(min_accuracy_change=-0.01), run(*rows, task="classification"))
    assert (gate.passed, gate.value) == (True, -0.01)
    (gate,) = judge(GatesConfig(min_accuracy_change=-0.0099), run(*rows, task="classification"))
    assert not gate.passed


def timed(*repeats: float) -> tuple[Speed, ...]:
    low, median, high = min(repeats), sorted(repeats)[len(repeats) // 2], max(repeats)
    return (Speed(512, median, low, high, repeats),)


def with_repeats(metrics: RunMetrics, *of_rows: tuple[float, ...]) -> RunMetrics:
    rows = (
        replace(row, metrics=replace(row.metrics, timings={**row.metrics.timings, **timings}))
        for row, repeats in zip(metrics.stages, of_rows, strict=True)
        for timings in [{"decode_tokens_per_second": timed(*repeats)}]
    )
    return replace(metrics, stages=tuple(rows))


def test_a_gate_on_speed_is_missed_only_where_its_whole_interval_is_beyond() -> None:
    # The machine was twice as slow for a while: each repeat with its partner tells the gain all the same.
    slowed = with_repeats(RUN, (80.0, 40.0, 80.0, 40.0, 80.0), (160.0, 82.0, 164.0, 80.0, 160.0))
    for limit, passed, note in (
        (2.0, True, ""),
        (2.02, True, "not certain: the interval holds the limit"),
        (2.06, False, ""),
    ):
        (gate,) = judge(GatesConfig(min_decode_speedup=limit), slowed)
        assert gate.interval == (2.0, 2.05)
        assert (gate.passed, gate.note) == (passed, note)
    assert gate.line == "min_decode_speedup is 2 (2 to 2.05) against baseline, limit 2.06"


def test_a_single_repeat_is_as_uncertain_as_timings_are() -> None:
    (gate,) = judge(GatesConfig(min_decode_speedup=2.05), with_repeats(RUN, (80.0,), (160.0,)))
    assert gate.interval == pytest.approx((1.9, 2.1))
    assert gate.passed


def test_an_interval_of_many_repeats_leaves_outliers_out() -> None:
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    values = [float(value) for value in range(1, 101)]
    # Of 100 the 40th and the 61st hold the median with 96%: the binomial tail up to 39 is 1.8%.
    assert median_interval(values) == (40.0, 61.0)


def test_a_figure_that_is_no_number_passes_no_gate() -> None:
    broken = run(stage(), stage(1, "quantize", perplexity=float("nan")))
    assert not judge(GatesConfig(max_perplexity_ratio=100.0), broken)[0].passed
    quality = {"accuracy": float("inf"), "macro_f1": 0.9, "torch_accuracy": 0.9}
    row = replace(stage(), metrics=replace(stage().metrics, quality=quality))
    (gate,) = judge(GatesConfig(min_accuracy=0.1), run(row, task="classification"))
    assert (gate.passed, gate.value, gate.note) == (False, None, "is not a finite number")


def test_an_optional_figure_that_was_not_measured_misses_with_the_reason() -> None:
    quality = {"accuracy": 0.9, "macro_f1": 0.9, "torch_accuracy": 0.9}
    row = replace(stage(), metrics=replace(stage().metrics, quality=quality))
    (gate,) = judge(GatesConfig(min_mcc=0.1), run(row, task="classification"))
    assert (gate.passed, gate.value) == (False, None)
    assert gate.line.startswith("min_mcc was not measured: what measures it is not installed")


def test_missed_gates_end_with_exit_code_3_and_name_limit_and_value() -> None:
    results = judge(GatesConfig(max_bytes=1_000_000, min_size_ratio=2.0), RUN)
    with pytest.raises(
        GateMissedError, match="1 of 2 gates missed: max_bytes is 2,000,000, limit 1,000,000"
    ) as raised:
        require(results, "recipe.yaml")
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (1.25, "is 1.25 against baseline, limit 1.2"),
        (1.20004, "is 1.20004 against baseline, limit 1.2"),
        (1.2 + 1e-12, "is 1.200000000001 against baseline, limit 1.2"),
    ],
)
def test_a_value_beyond_its_limit_reads_as_such(found: float, said: str) -> None:
    """Four digits would show a value that is just beyond as the limit itself."""
    beyond = run(stage(perplexity=1.0), stage(1, "quantize", perplexity=found))
    (gate,) = judge(GatesConfig(max_perplexity_ratio=1.2), beyond)
    assert not gate.passed
    assert gate.line == f"max_perplexity_ratio {said}"
    _, limit, value, *_ = gate_cells(gate)
    assert f"is {value} against baseline, limit {limit}" == said


def test_figures_are_told_from_their_limit_in_few_digits() -> None:
    assert bounded(0.9, 0.8012345, (0.7, 0.90001)) == ("0.9", "0.80123 (0.7 to 0.90001)")
    assert bounded(12_345, 12_345.4) == ("12,345.0", "12,345.4")
    assert bounded(10_000, 9_999.9) == ("10,000.0", "9,999.9")
    assert bounded(2, 2.0) == ("2", "2")
    assert bounded(2, None) == ("2", "")


def test_kept_gates_raise_nothing() -> None:
    require(judge(GatesConfig(max_bytes=2_000_000), RUN), "recipe.yaml")


def test_a_row_is_compared_with_the_row_that_is_named() -> None:
    three = run(stage(), stage(1, "prune", perplexity=21.0), stage(2, "quantize", perplexity=22.0))
    (first,) = judge(GatesConfig(max_perplexity_ratio=2.0), three)
    (named,) = judge(GatesConfig(max_perplexity_ratio=2.0, against="prune"), three)
    (of_stage,) = judge(GatesConfig(max_perplexity_ratio=2.0), three, three.stages[1])
    assert (first.value, first.against, first.stage) == (22 / 20, "baseline", "quantize")
    assert (named.value, named.against) == (22 / 21, "prune")
    assert (of_stage.value, of_stage.stage) == (21 / 20, "prune")


def against(stored: RunMetrics, **limits: float) -> GateResult:
    gates = GatesConfig.model_validate({"against": str(STORED), **limits})
    (gate,) = judge(gates, RUN, stored={STORED: stored})
    return gate


def test_a_stored_run_is_compared_by_its_last_row() -> None:
    stored = run(stage(), stage(1, "quantize", size=4_000_000, perplexity=20.0), name="before")
    assert against(stored, max_perplexity_ratio=1.2).value == pytest.approx(1.1)
    assert against(stored, min_size_ratio=1.0).value == 2.0
    speed = against(stored, min_decode_speedup=1.9)
    assert speed.value == pytest.approx(2.0)
    assert "as gains over each run's own baseline" in speed.note
    assert speed.against == "before/quantize"
    elsewhere = against(replace(stored, machine={"cpu": "y"}), min_decode_speedup=0.1)
    assert not elsewhere.passed
    assert "the runs' cpu differ" in elsewhere.line


def test_likeness_to_another_first_model_is_compared_with_nothing() -> None:
    def with_kl(value: float, parameters: int) -> RunMetrics:
        rows = (stage(), stage(1, "quantize"))
        metrics = [replace(row.metrics, parameters=parameters) for row in rows]
        metrics[1] = replace(metrics[1], quality={**metrics[1].quality, "kl_mean": value})
        return run(*(replace(row, metrics=each) for row, each in zip(rows, metrics, strict=True)))

    now = with_kl(0.02, 2_000_000)
    gates = GatesConfig.model_validate({"against": str(STORED), "max_kl_change": 0.5})
    same, other = (
        judge(gates, now, stored={STORED: with_kl(0.01, parameters)})[0] for parameters in (2_000_000, 3)
    )
    assert same.value == pytest.approx(0.01)
    assert (other.passed, other.value) == (False, None)
    assert "the runs began with different models" in other.line


def test_a_run_with_another_tokenizer_is_compared_by_bits_per_byte_in_its_tokens() -> None:
    row = stage(1, "quantize", perplexity=16.0)
    row = replace(row, metrics=replace(row.metrics, quality={**row.metrics.quality, "bits_per_byte": 1.0}))
    stored = run(stage(), row, protocol=replace(PROTOCOL, tokenizer_sha256="c" * 64))
    gate = against(stored, max_perplexity_ratio=4.1)
    # Its tokens have 4 bytes, log2(16) / 1.0, and half a bit a byte more makes 2 bits a token.
    assert gate.value == pytest.approx(4.0)
    assert gate.passed
    assert "by bits_per_byte, 1.5 against 1, because the tokenizers differ" in gate.line


def test_a_run_on_another_text_is_compared_by_nothing() -> None:
    gate = against(run(stage(), protocol=replace(PROTOCOL, text_sha256="c" * 64)), max_perplexity_ratio=99.0)
    assert not gate.passed
    assert gate.line == "max_perplexity_ratio cannot be compared: the texts differ, limit 99"


@pytest.mark.parametrize("met", [True, False])
def test_a_stages_own_bound_is_a_gate_under_the_stages_name(met: bool) -> None:
    own = GateResult("target.decode_ms", limit=2.0, value=2.5, passed=met)
    cut = replace(stage(1, "prune"), gates=(own,))
    recipe = parse_recipe({"name": "a", "model": "m", "stages": [{"kind": "prune"}, {"kind": "quantize"}]})
    (gate,) = judge_recipe(recipe, run(stage(), cut, stage(2, "quantize")), {})
    assert gate == replace(own, gate="prune.target.decode_ms", stage="prune")
