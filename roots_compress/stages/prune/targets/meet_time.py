"""What the shapes of layers cost in milliseconds: a linear model, fitted to a few timings. Pure functions.

Decoding one token reads every weight once and starts every operator once. So its time is taken as the sum of
a part for the model (embedding, head, the call itself), one for each layer, and one for each unit of every
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
"""Of the layers of a model, in order; None: the layer is not there."""
Chosen = TypeVar("Chosen")

NOISE = 0.03
"""Medians of the same graph differ by about this much from one timing to the next; less is no difference."""
ROUNDS = 3
"""Shapes that are timed before the best of them is taken."""
UNIT_MS = 1e-6
"""Savings are counted in whole nanoseconds."""


@dataclass(frozen=True)
class TimeModel:
    """Milliseconds that a token takes, by what decoding it consists of; none is below 0."""

    base: float
    layer: float
    units: Mapping[str, float]
    """Of each axis."""

    def total(self, shapes: Shapes) -> float:
        """Return the milliseconds a token takes through a model of these layers."""
        return self.base + sum(map(self.of_layer, shapes))

    def of_layer(self, layer: Layer | None) -> float:
        """Return a layer's part of them."""
        if layer is None:
            return 0.0
        return self.layer + sum(self.units[axis] * count for axis, count in units_of(layer).items())

    def saves(self, full: Layer, shape: Layer | None) -> int:
        """Return what a layer saves by getting a shape, or by being dropped (None), in nanoseconds."""
        return round((self.of_layer(full) - self.of_layer(shape)) / UNIT_MS)

    def units_above(self, shapes: Shapes, milliseconds: float) -> int:
        """Return the nanoseconds by which a token takes longer than it may."""
        return ceil((self.total(shapes) - milliseconds) / UNIT_MS)


def units_of(layer: Layer) -> dict[str, int]:
    """Return how many units of each axis a layer has."""
    found: dict[str, int] = {}
    for axis in (axis for sublayer in layer for axis in sublayer.op.axes()):
        found[axis.name] = found.get(axis.name, 0) + axis.units
    return found


def _axes_of(models: Sequence[Shapes]) -> list[str]:
    """Return the axes that any layer of these models has."""
    present = {axis for shapes in models for layer in shapes if layer is not None for axis in units_of(layer)}
    return [axis for axis in AXES if axis in present]


def probes(full: Sequence[Layer], multiple_of: int) -> list[Shapes]:
    """Return the models to time: the whole one, then one with half of each thing that times are split by."""

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
    for every subset of them and keeping the best whose parts are all non-negative.
    """
    times_M = np.asarray(milliseconds, dtype=np.float64)
    axes = _axes_of(models)
    rows_MF = np.stack([_features(shapes, axes) for shapes in models]) / times_M[:, None]
    best, least = np.zeros(rows_MF.shape[1]), np.inf
    for count in range(1, len(best) + 1):
        for subset in combinations(range(len(best)), count):
            found, *_ = np.linalg.lstsq(rows_MF[:, subset], np.ones(len(times_M)), rcond=None)
            error = float(np.square(rows_MF[:, subset] @ found - 1).sum())
            # A larger subset has to earn its place: rounding alone must not bring in what explains nothing.
            if (found >= 0).all() and error < least - 1e-12:
                best, least = np.zeros_like(best), error
                best[list(subset)] = found
    base, layer, *units = best.tolist()
    return TimeModel(base, layer, dict(zip(axes, units, strict=True)))


@dataclass(frozen=True)
class Timed(Generic[Chosen]):
    """A choice, and the milliseconds a token was measured to take with it."""

    choice: Chosen
    milliseconds: float


def meet_time(
    target_ms: float,
    choose: Callable[[float], Chosen],
    measure: Callable[[Chosen], float],
    cost: Callable[[Chosen], float],
) -> Timed[Chosen]:
    """Return the cheapest choice found whose measured time meets a target; the fastest where none does.

    What is chosen by the time model is timed itself; where the two differ by more than timings repeat, the
    model is asked again for as much less (or more) as it was wrong by.

    Args:
        choose: returns what the time model holds to take at most so many milliseconds.
        cost: what a choice costs otherwise.

    Raises:
        ValueError: the first choice is none: nothing is held to be that fast.
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
