"""What a report says of each stage: its figures, beside the baseline's and those of the stage before."""

from __future__ import annotations

from dataclasses import dataclass

from roots_compress.results import RunMetrics, Speed, StageResult

# Timings on a shared machine differ by this much from one run to the next; less is no difference.
SPEED_NOISE = 0.05


@dataclass(frozen=True)
class Row:
    """One stage beside the run's baseline. Above 1 is better, except for perplexity, where below 1 is."""

    stage: StageResult
    times_smaller: float
    perplexity_ratio: float
    decode_speedup: float
    prefill_speedup: float
    verdict: str


def rows_of(run: RunMetrics) -> tuple[Row, ...]:
    """Return the report's rows, in the order of the stages."""
    if not run.stages:
        return ()
    baseline = run.stages[0]
    previous = (None, *run.stages[:-1])
    return tuple(
        Row(
            stage=stage,
            times_smaller=baseline.metrics.bytes / stage.metrics.bytes,
            perplexity_ratio=stage.metrics.perplexity / baseline.metrics.perplexity,
            decode_speedup=speedup(baseline, stage, "decode"),
            prefill_speedup=speedup(baseline, stage, "prefill"),
            verdict=verdict(before, stage),
        )
        for before, stage in zip(previous, run.stages, strict=True)
    )


def speeds(stage: StageResult, phase: str) -> tuple[Speed, ...]:
    """Return the stage's prefill or decode speeds, by rising context."""
    metrics = stage.metrics
    chosen = metrics.prefill_tokens_per_second if phase == "prefill" else metrics.decode_tokens_per_second
    return tuple(sorted(chosen, key=lambda speed: speed.context))


def decode_ms(stage: StageResult) -> float:
    """Return the milliseconds a token takes to decode at the longest context; NaN where none was timed."""
    timed = speeds(stage, "decode")
    return 1000 / timed[-1].median if timed else float("nan")


def speedup(before: StageResult, after: StageResult, phase: str) -> float:
    """Return how many times faster `after` is at the longest context both were timed at."""
    old = {speed.context: speed.median for speed in speeds(before, phase)}
    common = [speed for speed in speeds(after, phase) if speed.context in old]
    return common[-1].median / old[common[-1].context] if common else float("nan")


def verdict(before: StageResult | None, stage: StageResult) -> str:
    """Say in a few words what a stage gained and paid, and whether it paid at all."""
    if before is None:
        return "the model that compression starts from" if stage.kind == "baseline" else ""
    perplexity = stage.metrics.perplexity / before.metrics.perplexity - 1
    gains = []
    if stage.metrics.bytes < before.metrics.bytes:
        gains.append(f"{before.metrics.bytes / stage.metrics.bytes:.2f}x smaller")
    for phase in ("prefill", "decode"):
        factor = speedup(before, stage, phase)
        if factor > 1 + SPEED_NOISE:
            gains.append(f"{phase} {factor:.2f}x faster")
        elif factor < 1 - SPEED_NOISE:
            gains.append(f"{phase} {factor:.2f}x: SLOWER")
    said = [*gains, f"perplexity {perplexity:+.1%}"]
    if not any("smaller" in gain or "faster" in gain for gain in gains) and perplexity >= 0:
        said.append("DID NOT PAY: do not ship this stage")
    return f"against {before.name}: {', '.join(said)}"
