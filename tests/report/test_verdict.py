"""The sentence that says whether to ship a run's last stage, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from roots_compress.report.verdict import verdict
from roots_compress.results import GateResult, RunMetrics, StageResult
from tests.report.figures import run, stage

INT8 = {"formats": {"q_proj w8a8": 12}}
CPU = {"device": "cpu", "instruction_set": "x86_64+avx2"}


def gate(name: str, *, passed: bool = True) -> GateResult:
    return GateResult(name, 1.1, 1.05 if passed else 1.15, passed)


def quantized(**changes: Any) -> StageResult:
    return stage(
        1, "quantize", **{"size": 2_000_000, "perplexity": 20.2, "decode": (200.0, 160.0), **changes}
    )


SLOW = quantized(decode=(80.0, 60.0), notes=INT8)


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        (
            run(stage(), quantized(), gates=(gate("max_perplexity_ratio"), gate("min_size_ratio"))),
            "Ship 01-quantize: 4.0x smaller, decode 2.0x faster, perplexity +1.0%; all gates are kept.",
        ),
        (
            run(stage(), SLOW, machine=CPU),
            "Do not ship 01-quantize: decode 1.3x slower here because this CPU lacks 8-bit dot products; "
            "4.0x smaller, perplexity +1.0%.",
        ),
        (
            run(stage(), SLOW, machine={**CPU, "instruction_set": "x86_64+avx512_vnni"}),
            "Do not ship 01-quantize: decode 1.3x slower here; 4.0x smaller, perplexity +1.0%.",
        ),
        (
            run(stage(), SLOW, machine=CPU, gates=(gate("min_size_ratio"),)),
            "Undecided: 01-quantize is 4.0x smaller, perplexity +1.0%, but decode 1.3x slower here because "
            "this CPU lacks 8-bit dot products; its gate is kept, but none bounds speed.",
        ),
        (
            run(stage(), SLOW, machine=CPU, gates=(gate("quantize.min_decode_speedup"),)),
            "Ship 01-quantize: 4.0x smaller, perplexity +1.0%, but decode 1.3x slower here because this CPU "
            "lacks 8-bit dot products; its gate is kept.",
        ),
        (
            run(stage(), SLOW, gates=(gate("max_decode_ms"),)),
            "Ship 01-quantize: 4.0x smaller, perplexity +1.0%, but decode 1.3x slower here; "
            "its gate is kept.",
        ),
        (
            run(stage(), quantized(), gates=(gate("max_perplexity_ratio", passed=False), gate("max_bytes"))),
            "Do not ship 01-quantize: max_perplexity_ratio is 1.15, limit 1.1; 4.0x smaller, "
            "decode 2.0x faster, perplexity +1.0%.",
        ),
        (
            run(stage(), quantized(perplexity=30.0), gates=(gate("max_bytes"),)),
            "Undecided: 01-quantize is 4.0x smaller, decode 2.0x faster, perplexity +50.0%; "
            "no gate bounds such a loss.",
        ),
        (
            run(stage(), quantized(size=8_000_000, decode=(100.0, 80.0))),
            "Do not ship 01-quantize: neither smaller, nor faster, nor better than 00-baseline; "
            "of the same size, decode as fast, perplexity +1.0%.",
        ),
        (
            run(stage(), quantized(size=8_200_000, decode=(100.0, 80.0), prefill=(1700.0, 1530.0))),
            "Ship 01-quantize: 1.03x larger, decode as fast, prefill 1.7x faster, perplexity +1.0%; "
            "no gates were set.",
        ),
        (
            run(stage()),
            "Undecided: the run has only 00-baseline, and nothing to compare it with.",
        ),
    ],
)
def test_a_verdict_gives_the_reason(figures: RunMetrics, sentence: str) -> None:
    assert verdict(figures).sentence == sentence


def test_an_undecided_verdict_names_the_gate_that_would_decide() -> None:
    worse = quantized(perplexity=30.0)
    assert "max_perplexity_ratio" in verdict(run(stage(), worse, gates=(gate("max_bytes"),))).advice
    slower = quantized(decode=(80.0, 60.0))
    assert "min_decode_speedup" in verdict(run(stage(), slower, gates=(gate("max_bytes"),))).advice


def test_an_earlier_stage_that_gains_without_the_cost_is_named() -> None:
    pruned = stage(1, "prune", size=4_000_000, perplexity=20.2, decode=(150.0, 120.0))
    figures = run(stage(), pruned, stage(2, "quantize", size=2_000_000, decode=(80.0, 60.0)))
    assert verdict(figures).decision == "do not ship"
    assert verdict(figures).advice == "Consider 01-prune: 2.0x smaller, decode 1.5x faster, perplexity +1.0%."


def test_an_earlier_stage_that_is_slower_is_not_named() -> None:
    pruned = stage(1, "prune", size=4_000_000, perplexity=20.2, decode=(80.0, 60.0))
    figures = run(stage(), pruned, stage(2, "quantize", size=2_000_000, perplexity=30.0))
    assert verdict(figures).decision == "undecided"
    assert "Consider" not in verdict(figures).advice


def test_a_change_of_quality_within_its_interval_is_called_noise() -> None:
    metrics = replace(quantized().metrics, intervals={"perplexity_ratio": (0.99, 1.03)})
    figures = run(stage(), quantized(metrics=metrics))
    assert "perplexity +1.0% (within noise)" in verdict(figures).sentence


def test_a_gain_of_quality_within_its_interval_is_none() -> None:
    same = stage(1, "quantize", perplexity=19.999)
    noisy = replace(same, metrics=replace(same.metrics, intervals={"perplexity_ratio": (0.95, 1.05)}))
    assert verdict(run(stage(), noisy)).sentence == (
        "Do not ship 01-quantize: neither smaller, nor faster, nor better than 00-baseline; "
        "of the same size, decode as fast, perplexity +0.0% (within noise)."
    )
    assert verdict(run(stage(), same)).decision == "ship"


def test_a_run_without_timings_is_judged_by_the_rest() -> None:
    figures = run(stage(decode=(), prefill=()), quantized(decode=(), prefill=()))
    assert verdict(figures).sentence == "Ship 01-quantize: 4.0x smaller, perplexity +1.0%; no gates were set."
