"""The `train` stage as the pipeline sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from roots_compress.configs.data import DataConfig
from roots_compress.configs.train import TrainConfig
from roots_compress.data.corpora import load_text
from roots_compress.errors import InputError, Key
from roots_compress.models.spec import ModelSpec
from roots_compress.results import Json
from roots_compress.stages.base import ModelInfo, Stage, StageContext, StageOutcome
from roots_compress.stages.expected import Estimate, Expected, ExpectedModel, Small, least
from roots_compress.stages.train.architecture import architecture_spec
from roots_compress.training.summary import harm_in

if TYPE_CHECKING:
    from roots_compress.checkpoints.checkpoint import Checkpoint


class TrainStage(Stage[TrainConfig]):
    """Trains a new model, or trains one further without changing its shape."""

    def check(self, config: TrainConfig, info: ModelInfo) -> ModelInfo:
        """Return the same shape with other weights.

        Raises:
            InputError: text alone gives no targets for the model.
        """
        if not info.task.predicts:
            raise InputError(
                f"text has no labels for {info.task.name}",
                remedy="Use distill, or prune with recovery: they learn from a teacher.",
            )
        if config.objective is not None and not info.task.pretrains:
            raise InputError(
                f"an objective is for masked language models, and the model is one of {info.task.name}",
                where=Key("objective"),
                remedy="Leave it out: the model is then trained by its own task.",
            )
        return replace(info, source=None)

    def begun(self, config: TrainConfig) -> ExpectedModel:
        return ExpectedModel(_planned_spec(config))

    def estimate(self, config: TrainConfig, parameters: float, *, device: str) -> Estimate:
        return least(parameters, parameters, trained_on=device)

    def expect(self, config: TrainConfig, before: ExpectedModel) -> Expected:
        from roots_compress.training.further import judging_passes

        return Expected(before, passes=judging_passes(config.training))

    def in_small(self, config: TrainConfig, small: Small) -> TrainConfig:
        """Give a new model few layers."""
        shape = config.architecture
        fewer = {"num_layers": min(shape.num_layers, small.layers)}
        if shape.encoder_layers is not None:
            fewer["encoder_layers"] = min(shape.encoder_layers, small.layers)
        return small.lessened(config).model_copy(update={"architecture": shape.model_copy(update=fewer)})

    def caption(self, notes: Mapping[str, Json]) -> str | None:
        return harm_in(dict(notes), "Training")

    def make(self, config: TrainConfig, context: StageContext) -> Checkpoint:
        """Initialise the weights, and train the tokenizer on the text."""
        from roots_compress.stages.train.stage import new_model

        return new_model(config, _read(config, context).text, seed=context.seed)

    def run(self, config: TrainConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
        from roots_compress.stages.train.stage import train

        return train(config, checkpoint, _read(config, context))


def _read(config: TrainConfig, context: StageContext) -> StageContext:
    """Return the context with the stage's training text."""
    if config.text == "run":
        return context
    text = load_text(DataConfig(), seed=context.seed)
    return replace(context, text=replace(context.text, train=(*text.train, *text.held_out)))


def _planned_spec(config: TrainConfig) -> ModelSpec:
    """Return the model from scratch, if its tokenizer finds all its entries."""
    return architecture_spec(
        config.architecture, config.tokenizer.vocab_size, encoder=config.objective is not None
    )
