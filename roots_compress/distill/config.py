"""Settings of the `distill` stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from roots_compress.settings import Settings
from roots_compress.training.config import DistillLossConfig, TrainingConfig


class DistillConfig(Settings):
    """Train a smaller student to match the model it is given."""

    kind: Literal["distill"] = "distill"
    """Names the stage."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "distill"
    """Label of the row in reports."""
    student: str = "small"
    """A preset derived from the teacher (`tiny`, `small`, `medium`), a ROOTS config file, or a checkpoint."""
    loss: DistillLossConfig = DistillLossConfig()
    """The objective."""
    training: TrainingConfig = TrainingConfig()
    """The training loop."""
