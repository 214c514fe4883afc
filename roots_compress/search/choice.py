"""Which candidate is the best: the Pareto front, and the choice under budgets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from roots_compress.configs.gates import GatesConfig
from roots_compress.tasks.base import Task

Key = TypeVar("Key")


class Point(NamedTuple):
    """What a candidate costs; less of each is better."""

    bytes: float
    milliseconds: float
    """A unit of the task's last workload."""
    cost: float
    """How many times worse the task's first metric is than the baseline's."""


class Budgets(NamedTuple):
    """The most that a candidate may cost, in the units of `Point`; infinite where it is free to."""

    bytes: float = math.inf
    milliseconds: float = math.inf
    cost: float = math.inf


def budgets_of(task: Task[Any], gates: GatesConfig, baseline: Point, quality: float) -> Budgets:
    """Return the budgets that a recipe's gates are, where the untouched model costs `baseline`."""
    metric, workload, limits = task.metric, task.workload, gates.limits
    smaller, faster = limits.get("min_size_ratio"), limits.get(workload.speedup_bound)
    compared, bound = limits.get(metric.compared_bound), limits.get(metric.bound)
    return Budgets(
        _least(limits.get("max_bytes"), baseline.bytes / smaller if smaller else None),
        _least(limits.get(f"max_{workload.time_name}"), baseline.milliseconds / faster if faster else None),
        _least(
            None if compared is None else metric.cost(compared),
            None if bound is None else metric.cost(metric.compared(quality, bound)),
        ),
    )


def front(points: Mapping[Key, Point]) -> set[Key]:
    """Return the Pareto front: those that no other equals or betters in every figure, and betters in one."""

    def dominates(one: Point, other: Point) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    return {
        key for key, point in points.items() if not any(dominates(other, point) for other in points.values())
    }


def rank(point: Point, budgets: Budgets) -> tuple[float, float, float]:
    """Return what candidates are ordered by, the best first.

    First by how far budgets are overrun, in nats: log(cost / budget), summed. Among those that keep them all,
    the best quality; but where quality has a budget and another figure has none, the least of those others
    (of their product, where both are free). Ties go to the least product of all three.
    """
    free = [math.log(cost) for cost, most in zip(point[:2], budgets[:2], strict=True) if math.isinf(most)]
    quality = math.log(point.cost)
    cost = quality if math.isinf(budgets.cost) or not free else sum(free)
    return overrun(point, budgets), cost, sum(map(math.log, point))


def overrun(point: Point, budgets: Budgets) -> float:
    """Return how far budgets are overrun, in nats: log(cost / budget), summed; 0 where all are kept."""
    return sum(math.log(max(1.0, cost / most)) for cost, most in zip(point, budgets, strict=True))


def best(points: Mapping[Key, Point], budgets: Budgets) -> Key:
    """Return the first by `rank`: the best within the budgets, or what comes nearest to them."""
    return min(points, key=lambda key: rank(points[key], budgets))


def _least(*limits: float | None) -> float:
    return min((limit for limit in limits if limit is not None), default=math.inf)
