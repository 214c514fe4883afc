"""Settings of the `sparsify` stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from roots_compress.configs.base import PositiveInt, Settings, StageName
from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.options import Option
from roots_compress.configs.stage import StageSettings
from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.errors import Location

ADAPT = "Train this many optimizer steps afterwards, to match the dense model."


class AdaptationConfig(Settings):
    """Training after the choice: distillation from the dense model."""

    loss: DistillLossConfig = DistillLossConfig(cross_entropy_weight=0.1, divergence_weight=0.9)
    """The objective."""
    training: TrainingConfig = TrainingConfig(steps=100, batch_size=1, block_size=2048, learning_rate=1e-4)
    """The training loop. Its windows must be longer than the blocks that a query attends to, otherwise
    nothing changes."""


class SparsifyConfig(StageSettings):
    """Let each query attend only to its best blocks of keys, so that long texts are read and decoded faster.

    The stage chooses the fewest blocks for each layer that keep a bound on perplexity over long text;
    `blocks` sets the number for all layers instead. Layers that need every block stay dense, and so do layers
    with a sliding window.
    """

    recipe_only: ClassVar[str] = "fewest calibration"
    example: ClassVar[str] = "roots-compress sparsify ckpt --blocks 16"
    kind: Literal["sparsify"] = "sparsify"
    """Names the stage."""
    name: StageName = "sparsify"
    """Label of the row in reports."""
    size: PositiveInt | None = None
    """Keys in a block. Without it, the power of two next to the square root of the context."""
    blocks: PositiveInt | None = None
    """Blocks that each query attends to in every layer, its own included. Without it, the number is chosen
    for each layer."""
    fewest: PositiveInt = 2
    """The fewest blocks that the choice may give a layer."""
    max_perplexity_ratio: Annotated[float, Field(gt=1.0)] = 1.02
    """The most perplexity on the calibration text, as a multiple of the dense model's."""
    max_positions: PositiveInt | None = None
    """A longer context for the new model. Rotary positions allow it, but the model was not trained at these
    positions."""
    calibration: CalibrationConfig = CalibrationConfig(windows=4, block_size=2048)
    """Long windows of training text on which perplexity is measured; at most as long as the context."""
    adaptation: Annotated[
        AdaptationConfig | None, Option("--adapt", sets=("training", "steps"), help=ADAPT)
    ] = None
    """Optional training after the choice."""

    def faults_in_recipe(self, *, makes_model: bool, portable: bool) -> Iterator[tuple[Location, str]]:
        """Refuse a bound if there is nothing to choose."""
        # Whether it was given does not matter: a run's own recipe holds every default, and must stay valid.
        bound = type(self).model_fields["max_perplexity_ratio"].default
        if self.blocks is not None and self.max_perplexity_ratio != bound:
            yield ("blocks",), "leaves nothing for max_perplexity_ratio to choose: set only one of them"
