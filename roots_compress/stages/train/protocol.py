"""The `train` stage as the pipeline sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from roots_compress.checkpoints.outline import WIDTHS, Outline
from roots_compress.configs.train import TrainConfig
from roots_compress.models.limits import Limits, is_fusible
from roots_compress.stages.base import MakerStage, ModelInfo, StageContext, StageOutcome
from roots_compress.stages.estimates import Estimate, least

if TYPE_CHECKING:
    from roots_compress.checkpoints.checkpoint import Checkpoint


class TrainStage(MakerStage[TrainConfig]):
    """Trains a model from nothing, or trains one further; the shape stays."""

    def planned(self, config: TrainConfig) -> ModelInfo:
        """Return the shape that the settings name."""
        shape = config.architecture
        layer = {key: getattr(shape, key) for key in WIDTHS}
        fusible = is_fusible(shape.position, shape.attention.kind, [shape.head_dim])
        return ModelInfo(
            Limits(shape.max_position_embeddings, fusible),
            Outline([layer] * shape.num_layers, shape.hidden_size),
            config.tokenizer.vocab_size,
        )

    def check(self, config: TrainConfig, info: ModelInfo) -> ModelInfo:
        """Return the same shape with other weights."""
        return replace(info, source=None)

    def estimate(self, config: TrainConfig, parameters: float | None, *, device: str) -> Estimate:
        """Count the training of all weights."""
        if parameters is None:
            from roots_compress.stages.train.stage import planned_parameters

            parameters = planned_parameters(config)
        return least(parameters, parameters, trained_on=device)

    def make(self, config: TrainConfig, context: StageContext) -> Checkpoint:
        """Draw the weights, and train the tokenizer on the text."""
        from roots_compress.stages.train.stage import new_model

        return new_model(config, context.text, seed=context.seed)

    def run(self, config: TrainConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
        """Train by cross-entropy with the text."""
        from roots_compress.stages.train.stage import train

        return train(config, checkpoint, context)
