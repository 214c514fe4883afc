"""What a training works with besides model, text and settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from roots_compress.events import Events


@dataclass(frozen=True)
class TrainingContext:
    """Where a training computes and keeps its state, and where it tells of itself."""

    device: str
    """`cpu` or `cuda`, as `resolve_device` returns it."""
    seed: int
    """Of the windows, of their order, and of the random state."""
    work: Path
    """An existing folder for the resumable state of this training alone."""
    events: Events
    label: str = "training"
    """Names the training there."""
