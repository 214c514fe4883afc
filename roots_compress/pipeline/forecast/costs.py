"""Costs of a run's work as functions of weights, measured by a probe. Pure functions."""

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
    """A cost as a linear function of weights."""

    base: float
    slope: float

    @classmethod
    def through(
        cls, first: tuple[float, float], second: tuple[float, float], *, steepest: float = math.inf
    ) -> Line:
        """Return the line through two points; a constant for one point, or if more weights took less.

        A slope above `steepest` is capped: the points then differ in more than weights. The line always goes
        through the second point.
        """
        (x, y), (more, higher) = first, second
        slope = min(steepest, max(0.0, (higher - y) / (more - x))) if more > x else 0.0
        return cls(higher - slope * more, slope)

    def plus(self, cost: float) -> Line:
        """Return the line raised by a cost."""
        return Line(self.base + cost, self.slope)

    def raised(self, weights: float) -> Line:
        """Return the line for this many weights besides the counted ones."""
        return self.plus(self.slope * weights)

    def at(self, weights: float) -> float:
        """Return the cost for this many weights."""
        return max(0.0, self.base + self.slope * weights)


@dataclass(frozen=True)
class RowCosts:
    """The cost of every row besides its stage's work: saving, export, checks, evaluation and timing."""

    fixed: Line
    """Seconds by the weights of the layers."""
    example: Line
    """Seconds of one held-out window, by the weights used for a token."""
    workloads: dict[int, Line]
    """Seconds of the workloads at each context, by the weights of the layers."""
    opening: float
    """Seconds until the first graph is open to be timed."""
    peak: Line
    """Bytes of this process's memory by the bytes of a model's weights."""

    def checks(self, spec: ModelSpec, first: ModelSpec | None, examples: int) -> float:
        """Return the seconds of a row. Graph, checkpoint and the run's first model read the examples.

        Args:
            first: those of the run's first model; None if it is the row's.
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
    """The cost of a training stage."""

    start: Line
    """Seconds before and after the steps, by the weights of both models."""
    step: Line
    """Seconds of an optimizer step."""
    peak: Line
    """Bytes of this process's memory."""


class Measures(Protocol):
    """The cost of a run's work on this machine."""

    @property
    def costs(self) -> RowCosts:
        """The cost of every row."""

    @property
    def passes(self) -> Line:
        """Seconds of one token in a forward pass through the layers, by their weights."""

    @property
    def fast_passes(self) -> Line:
        """The same in the precision that the device multiplies fastest."""

    @property
    def examples(self) -> int:
        """The number of examples for the run's quality."""

    def writing(self, windows: int, length: int) -> Line:
        """Return the seconds to write windows of calibration text, by the same weights."""

    def training(self, config: StageConfig, before: ExpectedModel) -> TrainingCosts:
        """Return the cost of a training stage, by the weights that `trained` counts."""


def body(spec: ModelSpec) -> float:
    """Return the weights of a model's layers."""
    return float(spec.body_parameters)


def multiplied(spec: ModelSpec) -> float:
    """Return the weights used for a token of a text."""
    head = spec.table_weights if spec.head.predicts_tokens else 0
    return float(spec.body_parameters + head)


def trained(before: ExpectedModel, made: ExpectedModel) -> float:
    """Return the weights used in a step: those of a teacher, and three times those of the trained model."""
    return body(before.spec) + 3 * body(made.spec)
