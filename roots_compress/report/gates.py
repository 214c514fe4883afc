"""The bounds of a recipe held against what its run came to."""

from __future__ import annotations

from collections.abc import Iterator

from roots_compress.configs.recipe.schema import GatesConfig
from roots_compress.errors import GateMissedError
from roots_compress.report.rows import decode_ms, speedup
from roots_compress.results import GateResult, RunMetrics


def judge(gates: GatesConfig, run: RunMetrics) -> tuple[GateResult, ...]:
    """Return one result for each gate that the recipe sets, and for each target that could be missed.

    Gates hold the final stage against the baseline.
    """
    baseline, final = run.stages[0], run.stages[-1]
    measured = {
        "max_perplexity_ratio": final.metrics.perplexity / baseline.metrics.perplexity,
        "max_bytes": float(final.metrics.bytes),
        "max_decode_ms": decode_ms(final),
        "min_size_ratio": baseline.metrics.bytes / final.metrics.bytes,
        "min_decode_speedup": speedup(baseline, final, "decode"),
    }
    results = []
    for gate, value in measured.items():
        limit = getattr(gates, gate)
        if limit is not None:
            # A figure that is not a number passes no gate.
            passed = value <= limit if gate.startswith("max_") else value >= limit
            results.append(GateResult(gate=gate, limit=float(limit), value=value, passed=passed))
    return (*results, *_targets(run))


def _targets(run: RunMetrics) -> Iterator[GateResult]:
    """Yield what `prune` made of targets in milliseconds: it times what it chose, and keeps the best."""
    for stage in run.stages:
        timed = stage.notes.get("decode_ms")
        if isinstance(timed, dict) and isinstance(timed.get("met"), bool):
            limit, value = float(str(timed["target"])), float(str(timed["after"]))
            yield GateResult(f"{stage.name}.target.decode_ms", limit, value, passed=timed["met"] is True)


def require(results: tuple[GateResult, ...], where: str) -> None:
    """Raise for the gates that were missed.

    Raises:
        GateMissedError: names each missed gate, its limit and its value.
    """
    missed = [gate for gate in results if not gate.passed]
    if missed:
        listed = "; ".join(f"{gate.gate} is {gate.value:.4g}, limit {gate.limit:.4g}" for gate in missed)
        raise GateMissedError(
            f"{len(missed)} of {len(results)} gates missed: {listed}",
            where=where,
            remedy="The run is complete and its report written; change the recipe's stages or its gates.",
        )
