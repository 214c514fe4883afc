"""The time of layers' shapes in milliseconds: a linear model, fitted to a few timings. Pure functions.

Decoding one token reads every weight once and starts every operator once. So its time is modelled as the sum
of a part for the model (embedding, head, the call itself), one for each layer, and one for each unit of every
axis: each query head, each key/value group, each MLP channel, each expert and each channel of all experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from roots_compress.models.spec import Layer
from roots_compress.stages.prune.plan import AXES, fewest, narrowed, step

Shapes = Sequence[Layer | None]
"""Shapes of a model's layers, in order; None: the layer is removed."""
Chosen = TypeVar("Chosen")

NOISE = 0.03
"""Medians of the same graph differ by about this much between timings; smaller differences do not count."""
ROUNDS = 3
"""Shapes that are timed before the best of them is taken."""
UNIT_MS = 1e-6
"""Savings are counted in whole nanoseconds."""


@dataclass(frozen=True)
class TimeModel:
    """Milliseconds that a token takes, by part of the model; none is below 0."""

    base: float
    layer: float
    units: Mapping[str, float]
    """Milliseconds of a unit of each axis."""

    def total(self, shapes: Shapes) -> float:
        """Return the milliseconds that a token takes in a model of these layers."""
        return self.base + sum(map(self.of_layer, shapes))

    def of_layer(self, layer: Layer | None) -> float:
        """Return a layer's milliseconds."""
        if layer is None:
            return 0.0
        return self.layer + sum(self.units[axis] * count for axis, count in units_of(layer).items())

    def saves(self, full: Layer, shape: Layer | None) -> int:
        """Return the nanoseconds that a layer saves with a shape, or if it is removed (None)."""
        return round((self.of_layer(full) - self.of_layer(shape)) / UNIT_MS)

    def units_above(self, shapes: Shapes, milliseconds: float) -> int:
        """Return the nanoseconds by which a token exceeds its limit."""
        return ceil((self.total(shapes) - milliseconds) / UNIT_MS)


def units_of(layer: Layer) -> dict[str, int]:
    """Return a layer's number of units of each axis."""
    found: dict[str, int] = {}
    for axis in (axis for sublayer in layer for axis in sublayer.op.axes()):
        found[axis.name] = found.get(axis.name, 0) + axis.units
    return found


def _axes_of(models: Sequence[Shapes]) -> list[str]:
    """Return the axes that any layer of these models has."""
    present = {axis for shapes in models for layer in shapes if layer is not None for axis in units_of(layer)}
    return [axis for axis in AXES if axis in present]


def probes(full: Sequence[Layer], multiple_of: int) -> list[Shapes]:
    """Return the models to time: the unpruned one, then one with half of each kind of part."""

    def halved(layer: Layer, name: str) -> Layer:
        target = {
            each.name: {
                axis.name: max(axis.each // 2 // of * of, fewest(axis, multiple_of))
                for axis in each.op.axes()
                if axis.name == name
                for of in [step(axis, multiple_of)]
            }
            for each in layer
        }
        return narrowed(layer, target)

    variants: list[Shapes] = [
        list(full),
        [each if index % 2 == 0 else None for index, each in enumerate(full)],
        *([halved(layer, axis) for layer in full] for axis in _axes_of([full])),
    ]
    return [variant for index, variant in enumerate(variants) if variant not in variants[:index]]


def fit_times(models: Sequence[Shapes], milliseconds: Sequence[float]) -> TimeModel:
    """Fit the time model to timings: least squares of the relative errors, no part below 0.

    With so few unknowns the non-negative least squares solution (Lawson and Hanson 1974) is found by solving
    for every subset and keeping the best with no negative part.
    """
    times_M = np.asarray(milliseconds, dtype=np.float64)
    axes = _axes_of(models)
    rows_MF = np.stack([_features(shapes, axes) for shapes in models]) / times_M[:, None]
    best, least = np.zeros(rows_MF.shape[1]), np.inf
    for count in range(1, len(best) + 1):
        for subset in combinations(range(len(best)), count):
            found, *_ = np.linalg.lstsq(rows_MF[:, subset], np.ones(len(times_M)), rcond=None)
            error = float(np.square(rows_MF[:, subset] @ found - 1).sum())
            # A larger subset must fit clearly better, so that rounding alone adds no part that explains
            # nothing.
            if (found >= 0).all() and error < least - 1e-12:
                best, least = np.zeros_like(best), error
                best[list(subset)] = found
    base, layer, *units = best.tolist()
    return TimeModel(base, layer, dict(zip(axes, units, strict=True)))


@dataclass(frozen=True)
class Timed(Generic[Chosen]):
    """A choice, and its measured milliseconds a token."""

    choice: Chosen
    milliseconds: float


def meet_time(
    target_ms: float,
    choose: Callable[[float], Chosen],
    measure: Callable[[Chosen], float],
    cost: Callable[[Chosen], float],
) -> Timed[Chosen]:
    """Return the cheapest choice found whose measured time meets a target; the fastest if none does.

    The time model's choice is timed. If prediction and timing differ by more than the noise of timings, the
    choice is repeated with the target moved by the difference.

    Args:
        choose: returns a choice predicted to take at most this many milliseconds.
        cost: returns the cost of a choice in quality.

    Raises:
        ValueError: there is no first choice: nothing is predicted to be that fast.
    """
    asked, tried = target_ms, list[Timed[Chosen]]()
    for _ in range(ROUNDS):
        try:
            choice = choose(asked)
        except ValueError:
            if not tried:
                raise
            break
        tried.append(Timed(choice, measure(choice)))
        if abs(tried[-1].milliseconds / target_ms - 1) <= NOISE:
            break
        asked *= target_ms / tried[-1].milliseconds
    met = [each for each in tried if each.milliseconds <= target_ms * (1 + NOISE)]
    if met:
        return min(met, key=lambda each: cost(each.choice))
    return min(tried, key=lambda each: each.milliseconds)


def _features(shapes: Shapes, axes: Sequence[str]) -> NDArray[np.float64]:
    """Return how often each part of a `TimeModel` occurs in a model."""
    layers = [units_of(each) for each in shapes if each is not None]
    units = [sum(layer.get(axis, 0) for layer in layers) for axis in axes]
    return np.array([1, len(layers), *units], dtype=np.float64)
