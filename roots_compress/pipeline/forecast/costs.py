"""Costs of a run's work by weights, as a probe measures them. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from roots_compress.configs.recipe.schema import StageConfig
from roots_compress.evaluation.speed import MIN_SECONDS
from roots_compress.models.spec import ModelSpec
from roots_compress.stages.expected import ExpectedModel


@dataclass(frozen=True)
class Line:
    """A cost by weights: what it is without any, and for each."""

    base: float
    slope: float

    @classmethod
    def through(
        cls, first: tuple[float, float], second: tuple[float, float], *, steepest: float = math.inf
    ) -> Line:
        """Return the line through two points; through one, or where more weights took less, a constant.

        One that would be steeper than can be goes through the second point: what is not of the weights
        differed.
        """
        (x, y), (more, higher) = first, second
        slope = min(steepest, max(0.0, (higher - y) / (more - x))) if more > x else 0.0
        return cls(higher - slope * more, slope)

    def plus(self, cost: float) -> Line:
        """Return the line that is higher by a cost."""
        return Line(self.base + cost, self.slope)

    def raised(self, weights: float) -> Line:
        """Return the line of what has so many weights besides those that it counts."""
        return self.plus(self.slope * weights)

    def at(self, weights: float) -> float:
        """Return the cost of so many weights."""
        return max(0.0, self.base + self.slope * weights)


@dataclass(frozen=True)
class RowCosts:
    """What every row takes besides its stage's work: to be saved, exported, checked, evaluated and timed."""

    fixed: Line
    """Seconds by the weights of the layers."""
    example: Line
    """Seconds of one held-out window, by the weights that a token is multiplied by."""
    workloads: dict[int, Line]
    """Seconds of the workloads at each context, by the weights of the layers."""
    opening: float
    """Seconds until the first graph is open to be timed."""
    peak: Line
    """Bytes of this process's memory by the bytes of a model's weights."""

    def checks(self, spec: ModelSpec, first: ModelSpec | None, examples: int) -> float:
        """Return the seconds of a row. Graph, checkpoint and the run's first model read the examples.

        Args:
            first: of the run's first model; None where that is the row's.
        """
        each = self.example.at(multiplied(spec))
        if first is not None:
            each += self.example.at(multiplied(first)) / 2
        return self.fixed.at(body(spec)) + examples * each

    def timing(self, weights: float, *, repeats: int) -> float:
        """Return the seconds in which a row's workloads are timed."""
        found = 0.0
        for line in self.workloads.values():
            once = max(line.at(weights), 1e-4)
            found += 2 * once + repeats * once * max(1, -(-MIN_SECONDS // once))
        return found


@dataclass(frozen=True)
class TrainingCosts:
    """What a stage that trains takes."""

    start: Line
    """Seconds before and after the steps, by the weights of both models."""
    step: Line
    """Seconds of an optimizer step."""
    peak: Line
    """Bytes of this process's memory."""


class Measures(Protocol):
    """What a run's work takes on this machine."""

    @property
    def costs(self) -> RowCosts:
        """What every row takes."""

    @property
    def passes(self) -> Line:
        """Seconds of one token in a forward pass through the layers, by their weights."""

    @property
    def fast_passes(self) -> Line:
        """The same in the precision that the device multiplies fastest."""

    @property
    def examples(self) -> int:
        """How many examples the run's quality is measured on."""

    def writing(self, windows: int, length: int) -> Line:
        """Return the seconds in which a model writes windows of calibration text, by the same weights."""

    def training(self, config: StageConfig, before: ExpectedModel) -> TrainingCosts:
        """Return what a stage that trains takes, by the weights that `trained` counts."""


def body(spec: ModelSpec) -> float:
    """Return the weights of a model's layers."""
    return float(spec.body_parameters)


def multiplied(spec: ModelSpec) -> float:
    """Return the weights that a token of a text is multiplied by."""
    head = spec.table_weights if spec.predicts_tokens else 0
    return float(spec.body_parameters + head)


def trained(before: ExpectedModel, made: ExpectedModel) -> float:
    """Return the weights that a step passes: those of a teacher, and thrice those of the model trained."""
    return body(before.spec) + 3 * body(made.spec)
