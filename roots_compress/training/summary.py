"""What a training has come to: its running totals, and the summary that a stage reports."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from roots_compress.results import Json, Point

POINTS = 200
"""The most points of a curve, besides its last."""
SMOOTHING_STEPS = 20
"""Reported losses are averages that forget with this time constant."""


@dataclass(frozen=True)
class FitSummary:
    """What a training run came to."""

    steps: int
    tokens: int
    """Tokens read, scored or not."""
    seconds: float
    """Time in training steps, over all sessions of a resumed run."""
    loss: float
    """The objective at the end, averaged over about the last 20 steps."""
    parts: dict[str, float]
    """The objective's unweighted terms, averaged alike."""
    loss_scale: dict[str, Json] | None = None
    """In half precision: the loss scale at the end, and the steps left out because gradients overflowed."""
    curves: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    """The averaged losses on the way: `loss`, and the terms by their names."""
    processes: dict[str, Json] | None = None
    """Of several processes: how many, by which strategy, and the bytes that each held."""

    @property
    def tokens_per_second(self) -> float:
        """Tokens read per second of training."""
        return self.tokens / self.seconds

    def to_json(self) -> dict[str, Json]:
        """Return the summary for a stage's notes."""
        return {
            "steps": self.steps,
            "tokens": self.tokens,
            "training_seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "loss": self.loss,
            "losses": dict(self.parts),
            **({} if self.loss_scale is None else self.loss_scale),
            **({} if self.processes is None else {"processes": self.processes}),
        }


@dataclass
class Tally:
    """Running totals of a training run; part of its saved state."""

    tokens: int = 0
    seconds: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    skipped_steps: int = 0
    """Steps left out because gradients overflowed at the loss scale."""
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    """The averages on the way, each with its step."""

    def add(self, losses: dict[str, float], *, step: int, tokens: int, seconds: float) -> None:
        """Count one step in; the first steps are averaged evenly, so that no start value lingers.

        A loss that overflowed, in a step that was left out, enters no average.
        """
        weight = max(1 / SMOOTHING_STEPS, 1 / step)
        for name, value in losses.items():
            before = self.losses.get(name, value)
            if not math.isfinite(before):
                self.losses[name] = value
            elif math.isfinite(value):
                self.losses[name] = before + weight * (value - before)
        self.tokens += tokens
        self.seconds += seconds

    def record(self, *, step: int, steps: int) -> None:
        """Keep the averages after a step for the curves, at `POINTS` steps of a training at most."""
        if step % -(-steps // POINTS) == 0 or step == steps:
            for name, value in self.losses.items():
                if not math.isfinite(value):
                    continue
                self.curves.setdefault(name, []).append([step, value])

    def points(self) -> dict[str, tuple[Point, ...]]:
        """Return the curves, that of the objective as `loss`."""
        return {
            "loss" if name == "total" else name: tuple(Point(int(step), value) for step, value in curve)
            for name, curve in self.curves.items()
        }
