"""The results of a training: its running totals, and the summary that a stage reports."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from roots_compress.results import Json, Point

POINTS = 200
"""Most points of a curve, besides its last."""
SMOOTHING_STEPS = 20
"""Time constant of the running averages of reported losses."""


@dataclass(frozen=True)
class Judged:
    """The effect of a training on the loss of validation text."""

    before: float
    after: float
    """NaN or infinite, like the other, if the model has no finite loss; notes then hold null."""
    windows: int
    """Windows of that text."""

    @property
    def worse(self) -> bool:
        """Whether it did not help, so that the weights from before are kept."""
        return not (self.after < self.before or math.isfinite(self.after) > math.isfinite(self.before))

    def in_words(self, who: str) -> str:
        """Say that a training did not help, without a final full stop."""
        return (
            f"{who} made the model no better (loss {self.after:.4g} against {self.before:.4g} on "
            f"{self.windows} windows of training text that it did not read): the weights from before are kept"
        )

    def to_json(self) -> dict[str, Json]:
        """Return it for a stage's notes."""
        return {
            "windows": self.windows,
            "loss_before": self.before if math.isfinite(self.before) else None,
            "loss_after": self.after if math.isfinite(self.after) else None,
            "kept": "before" if self.worse else "after",
        }

    @classmethod
    def in_notes(cls, notes: Json) -> Judged | None:
        """Return the result in a training's notes; None if there is none.

        Args:
            notes: those of a file of figures, unchecked.
        """
        found = notes.get("judged") if isinstance(notes, dict) else None
        if not isinstance(found, dict):
            return None
        losses = (found.get(key) for key in ("loss_before", "loss_after"))
        before, after = (math.nan if each is None else each for each in losses)
        windows = found.get("windows")
        if isinstance(before, float) and isinstance(after, float) and isinstance(windows, int):
            return cls(before, after, windows)
        return None


def harm_in(notes: Json, who: str) -> str | None:
    """Return a report's sentence on a training that did harm; None for any other.

    Args:
        notes: those of a file of figures, unchecked.
        who: the training, as the subject of the sentence.
    """
    judged = Judged.in_notes(notes)
    return judged.in_words(who) if judged is not None and judged.worse else None


@dataclass(frozen=True)
class FitSummary:
    """The result of a training."""

    steps: int
    tokens: int
    """Tokens read, scored or not."""
    seconds: float
    """Time in training steps, over all sessions of a resumed run."""
    loss: float
    """The objective at the end, averaged over about the last 20 steps."""
    parts: dict[str, float]
    """The objective's unweighted terms, averaged in the same way."""
    loss_scale: dict[str, Json] | None = None
    """In half precision: the final loss scale, and the number of steps skipped because gradients
    overflowed."""
    curves: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    """The averaged losses over the steps: `loss`, and the terms by name."""
    processes: dict[str, Json] | None = None
    """With several processes: their number, the strategy, and the bytes that each held."""
    judged: Judged | None = None
    """For further training of a trained model: whether it helped."""

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
            **({} if self.judged is None else {"judged": self.judged.to_json()}),
        }


@dataclass
class Tally:
    """Running totals of a training run; part of its saved state."""

    tokens: int = 0
    seconds: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    skipped_steps: int = 0
    """Steps skipped because gradients overflowed at the loss scale."""
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    """The averages over the steps, each with its step."""

    def add(self, losses: dict[str, float], *, step: int, tokens: int, seconds: float) -> None:
        """Add one step; the first steps are averaged evenly, so that no start value remains.

        A loss that overflowed, in a skipped step, enters no average.
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
        """Keep the averages after a step for the curves, at no more than `POINTS` steps of a training."""
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
