"""Whether a run kept the bounds of its recipe and of its stages."""

from __future__ import annotations

from dataclasses import replace

from roots_compress.configs.recipe.schema import GatesConfig
from roots_compress.errors import GateMissedError
from roots_compress.report.rows import decode_ms, speedup
from roots_compress.results import GateResult, RunMetrics


def judge(gates: GatesConfig, run: RunMetrics) -> tuple[GateResult, ...]:
    """Return one result for each gate that the recipe sets, and for each bound of a stage's own.

    The recipe's gates compare the final stage with the baseline.
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
    own = ((stage.name, gate) for stage in run.stages for gate in stage.gates)
    return (*results, *(replace(gate, gate=f"{name}.{gate.gate}") for name, gate in own))


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
