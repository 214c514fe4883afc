"""Settings of the `distill` stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from roots_compress.settings import PositiveFloat, Settings
from roots_compress.training.config import TrainingConfig


class DistillLossConfig(Settings):
    """The distillation objective: cross-entropy plus temperature-scaled KL to the teacher (Hinton et al. 2015)."""

    cross_entropy_weight: Annotated[float, Field(ge=0.0)] = 0.5
    """Weight of the cross-entropy with the text's next token."""
    kl_weight: Annotated[float, Field(ge=0.0)] = 0.5
    """Weight of the KL divergence to the teacher's distribution, multiplied by the temperature squared."""
    hidden_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the mean squared error between matched hidden states, normalised by the teacher's variance."""
    temperature: PositiveFloat = 2.0
    """Softens both distributions in the KL term."""
    direction: Literal["forward", "reverse"] = "forward"
    """`forward`: KL(teacher || student); `reverse`: KL(student || teacher)."""


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
