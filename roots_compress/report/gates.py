"""Whether a run kept the bounds of its recipe and of its stages."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from roots_compress.configs.recipe.schema import GatesConfig
from roots_compress.errors import GateMissedError
from roots_compress.report.rows import milliseconds, speedup
from roots_compress.results import GateResult, RunMetrics, StageResult
from roots_compress.tasks.base import Task
from roots_compress.tasks.registry import task_named


def judge(gates: GatesConfig, run: RunMetrics) -> tuple[GateResult, ...]:
    """Return one result for each gate that the recipe sets, and for each bound of a stage's own.

    The recipe's gates compare the final stage with the baseline.
    """
    measured = _measured(task_named(run.task), run.stages[0], run.stages[-1])
    results = []
    for gate, limit in gates.model_dump(exclude_none=True).items():
        value = measured[gate]
        # A figure that is not a number passes no gate.
        passed = value <= limit if gate.startswith("max_") else value >= limit
        results.append(GateResult(gate=gate, limit=float(limit), value=value, passed=passed))
    own = ((stage.name, gate) for stage in run.stages for gate in stage.gates)
    return (*results, *(replace(gate, gate=f"{name}.{gate.gate}") for name, gate in own))


def _measured(task: Task[Any], baseline: StageResult, final: StageResult) -> dict[str, float]:
    """Return what each gate that a recipe may set bounds, by the gate's name."""
    before, after = baseline.metrics, final.metrics
    measured = {"max_bytes": float(after.bytes), "min_size_ratio": before.bytes / after.bytes}
    for metric in task.metrics:
        # An optional figure that was not taken keeps no gate.
        measured[metric.bound] = after.quality.get(metric.name, math.nan)
        if metric.relative:
            measured[f"{metric.bound}_ratio"] = after.quality[metric.name] / before.quality[metric.name]
    for workload in task.workloads:
        measured[f"max_{workload.time_name}"] = milliseconds(final, workload)
        measured[f"min_{workload.phase}_speedup"] = speedup(baseline, final, workload)
    return measured


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
