"""What every stage returns to the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.results import Json


@dataclass(frozen=True)
class StageOutcome:
    """The checkpoint a stage made, on the CPU and in eval mode, and what the stage decided on the way."""

    checkpoint: Checkpoint
    notes: dict[str, Json] = field(default_factory=dict)
    """Widths kept, formats chosen, losses reached: JSON for the run's report."""
    chosen: dict[str, Json] | None = None
    """What was chosen by timing: it enters the stage's key, as another timing might choose otherwise."""
