"""The inputs of a training besides model, text and settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from roots_compress.events import Events


@dataclass(frozen=True)
class TrainingContext:
    """Where a training computes, keeps its state, and reports its progress."""

    device: str
    """`cpu` or `cuda`, as `resolve_device` returns it."""
    seed: int
    """Seed of the windows, their order, and the random state."""
    work: Path
    """An existing folder for the resumable state of this training alone."""
    events: Events
    label: str = "training"
    """The training's name in events."""
