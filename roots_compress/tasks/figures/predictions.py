"""Predictions at the scored positions of examples: the loss of each, and the divergence of two models.

Logits are widened to float64 before a softmax; natural logarithms are summed in float64. Two models run in
lockstep, some examples at a time, so that the logits of the whole text are never in memory.

Shape legend: N scored positions, n those of a part, V choices (tokens, or labels), E examples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roots_compress.runtime.prompts import check_finite
from roots_compress.runtime.protocol import Logits, Tokens

if TYPE_CHECKING:
    from roots_compress.progress import Progress

WIDENED_BYTES = 1 << 25
"""Logits that are widened to float64 at a time."""
Doubles = NDArray[np.float64]


class Predictions(NamedTuple):
    """The logits at some scored positions, in the order of their examples."""

    logits: Logits
    """`(n, V)`."""
    targets: Tokens
    """`(n,)`: the right choices."""
    examples: Tokens
    """`(n,)`: the numbers of the positions' examples, ascending."""


class Softmax(NamedTuple):
    """A softmax before its division, in float64."""

    shifted: Doubles
    """`(n, V)`: logits less the row's largest."""
    weights: Doubles
    """`(n, V)`: their exponentials."""
    sums: Doubles
    """`(n,)`: the sums of these."""

    @classmethod
    def of(cls, logits_nV: Logits) -> Softmax:
        """Return the softmax of each row."""
        shifted_nV: Doubles = logits_nV.astype(np.float64)
        shifted_nV -= shifted_nV.max(axis=1, keepdims=True)
        weights_nV = np.exp(shifted_nV)
        return cls(shifted_nV, weights_nV, weights_nV.sum(axis=1))

    def nats(self, targets_n: Tokens) -> Doubles:
        """Return the negative log-probability of each row's target."""
        nats_n: Doubles = (
            np.log(self.sums) - np.take_along_axis(self.shifted, targets_n[:, None], axis=1)[:, 0]
        )
        return nats_n

    def divergence(self, other: Softmax) -> Doubles:
        """Return the Kullback-Leibler divergence of each row, KL(self || other), in nats.

        The memory of `shifted` is overwritten.
        """
        np.subtract(self.shifted, other.shifted, out=self.shifted)
        expected_n = np.einsum("nv,nv->n", self.weights, self.shifted) / self.sums
        # Rounding may make that of two equal distributions negative.
        found_n: Doubles = np.maximum(expected_n - np.log(self.sums) + np.log(other.sums), 0.0)
        return found_n


class Scores(NamedTuple):
    """A figure by example, `(E,)` each: its sum over the example's positions, and their number."""

    sums: Doubles
    counts: Tokens

    @classmethod
    def by_example(cls, values_N: NDArray[np.float64] | NDArray[np.bool_], examples_N: Tokens) -> Scores:
        """Return the values of positions grouped by example; examples without a position are left out."""
        _, numbers_N = np.unique(examples_N, return_inverse=True)
        sums_E = np.bincount(numbers_N, weights=values_N.astype(np.float64))
        return cls(sums_E.astype(np.float64), np.bincount(numbers_N).astype(np.int64))


@dataclass
class Scored:
    """A model's predictions at the scored positions of all parts so far."""

    total: float = 0.0
    """The summed negative log-probability of the targets, in nats."""
    parts: list[Doubles] = field(default_factory=list)
    """Of each part, the nats of each position."""
    _given: list[Tokens] = field(default_factory=list)
    _targets: list[Tokens] = field(default_factory=list)
    _examples: list[Tokens] = field(default_factory=list)

    def add(self, part: Predictions, nats: list[Doubles]) -> None:
        """Add a part, whose nats come in pieces."""
        self.total += math.fsum(float(piece.sum()) for piece in nats)
        self.parts.append(np.concatenate(nats))
        self._given.append(part.logits.argmax(axis=1))
        self._targets.append(part.targets)
        self._examples.append(part.examples)

    @property
    def nats(self) -> Doubles:
        """`(N,)`: the negative log-probability of each target."""
        return np.concatenate(self.parts)

    @property
    def given(self) -> Tokens:
        """`(N,)`: the likeliest choices."""
        return np.concatenate(self._given)

    @property
    def targets(self) -> Tokens:
        """`(N,)`: the right ones."""
        return np.concatenate(self._targets)

    @property
    def examples(self) -> Tokens:
        """`(N,)`: the number of each position's example."""
        return np.concatenate(self._examples)


@dataclass(frozen=True)
class Measured:
    """The quality of a model."""

    figures: dict[str, float]
    """Values by the names of metrics, in their order."""
    scores: Scores
    """The first metric by example; see `Task.of_mean`."""
    divergence: Scores | None = None
    """The Kullback-Leibler divergence from another model by example, if it was compared with one."""
    other: dict[str, float] = field(default_factory=dict)
    """The figures of that other model."""


@dataclass(frozen=True)
class Agreement:
    """The agreement of a model with another at each scored position, `(N,)`."""

    divergence: Doubles
    """KL(other || model), in nats."""
    same: NDArray[np.bool_]
    """Whether both have the same likeliest choice."""

    def figures(self) -> dict[str, float]:
        """Return the figures of agreement, by the names of `tasks/figures/figures.py`."""
        median, high = np.percentile(self.divergence, (50, 99))
        return {
            "kl_mean": float(self.divergence.mean()),
            "kl_median": float(median),
            "kl_p99": float(high),
            "same_top": float(self.same.mean()),
        }


def score(parts: Iterable[Predictions], *, count: int, progress: Progress | None = None) -> Scored:
    """Score a model's predictions.

    Args:
        progress: called after every part with the examples done and their number.

    Raises:
        StageError: a logit is not finite.
    """
    scored = Scored()
    for part in parts:
        check_finite(part.logits)
        scored.add(part, [softmax.nats(part.targets[rows]) for rows, (softmax,) in _softmaxes(part.logits)])
        if progress is not None:
            progress(int(part.examples[-1]) + 1, count)
    return scored


def score_both(
    parts: Iterable[Predictions],
    others: Iterable[Predictions],
    *,
    count: int,
    progress: Progress | None = None,
) -> tuple[Scored, Scored, Agreement]:
    """Score two models' predictions at the same positions, and compare them; see `score`."""
    scored, other_scored = Scored(), Scored()
    divergences: list[Doubles] = []
    for part, other in zip(parts, others, strict=True):
        check_finite(part.logits)
        check_finite(other.logits)
        nats: list[Doubles] = []
        other_nats: list[Doubles] = []
        for rows, (softmax, other_softmax) in _softmaxes(part.logits, other.logits):
            nats.append(softmax.nats(part.targets[rows]))
            other_nats.append(other_softmax.nats(other.targets[rows]))
            divergences.append(other_softmax.divergence(softmax))
        scored.add(part, nats)
        other_scored.add(other, other_nats)
        if progress is not None:
            progress(int(part.examples[-1]) + 1, count)
    same_N = scored.given == other_scored.given
    return scored, other_scored, Agreement(np.concatenate(divergences), same_N)


def negative_log_likelihood(logits_NV: Logits, targets_N: Tokens) -> float:
    """Return the summed negative log-probability, in nats, of each row's target under the row's softmax.

    Raises:
        StageError: a logit is not finite.
    """
    check_finite(logits_NV)
    pieces = (softmax.nats(targets_N[rows]) for rows, (softmax,) in _softmaxes(logits_NV))
    return math.fsum(float(piece.sum()) for piece in pieces)


def _softmaxes(*logits: Logits) -> Iterator[tuple[slice, tuple[Softmax, ...]]]:
    """Yield the softmax of arrays `(n, V)` of equal shapes, some rows at a time."""
    count, width = logits[0].shape
    step = max(1, WIDENED_BYTES // (8 * width))
    for start in range(0, count, step):
        rows = slice(start, start + step)
        yield rows, tuple(Softmax.of(each[rows]) for each in logits)
