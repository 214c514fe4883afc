"""Settings of the `prune` stage."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from roots_compress.data.config import CalibrationConfig
from roots_compress.settings import PositiveInt, Ratio, Settings
from roots_compress.training.config import DistillLossConfig, TrainingConfig


class RecoveryConfig(Settings):
    """Training after the cut: distillation from the unpruned model."""

    loss: DistillLossConfig = DistillLossConfig()
    """The objective."""
    training: TrainingConfig = TrainingConfig(learning_rate=2e-4)
    """The training loop."""


class PruneConfig(Settings):
    """Remove whole channels, heads and layers, then refit what follows them."""

    kind: Literal["prune"] = "prune"
    """Names the stage."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "prune"
    """Label of the row in reports."""
    ratio: Ratio = 0.25
    """Fraction of the MLP channels to remove."""
    head_ratio: Ratio = 0.0
    """Fraction of the key/value groups to remove, each with its query heads."""
    layer_ratio: Ratio = 0.0
    """Fraction of whole layers to remove."""
    score: Literal["activation", "magnitude"] = "activation"
    """`activation`: weight norm times input norm on calibration text; `magnitude`: weight norm alone."""
    refit: bool = True
    """Refit the projection after each cut by least squares on the calibration text."""
    uniform: bool = True
    """Keep equal widths in all layers; otherwise rank channels over the whole model."""
    multiple_of: PositiveInt = 16
    """Widths of pruned MLPs are multiples of this."""
    calibration: CalibrationConfig = CalibrationConfig(windows=64, block_size=512)
    """Text on which activations are measured."""
    recovery: RecoveryConfig | None = None
    """Optional training after the cut."""

    @model_validator(mode="after")
    def _must_remove_something(self) -> Self:
        if self.ratio == self.head_ratio == self.layer_ratio == 0.0:
            raise ValueError("at least one of ratio, head_ratio and layer_ratio must be above 0")
        return self
