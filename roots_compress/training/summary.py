"""What a training has come to: its running totals, and the summary that a stage reports."""

from __future__ import annotations

from dataclasses import dataclass, field

from roots_compress.results import Json

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

    def add(self, losses: dict[str, float], *, step: int, tokens: int, seconds: float) -> None:
        """Count one step in; the first steps are averaged evenly, so that no start value lingers."""
        weight = max(1 / SMOOTHING_STEPS, 1 / step)
        for name, value in losses.items():
            before = self.losses.get(name, value)
            self.losses[name] = before + weight * (value - before)
        self.tokens += tokens
        self.seconds += seconds
