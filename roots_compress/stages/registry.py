"""The implementation of each kind of stage in the union of `configs/recipe/schema.py`."""

from __future__ import annotations

from typing import Any

from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.prune import PruneConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.configs.sparsify import SparsifyConfig
from roots_compress.configs.stage import StageSettings
from roots_compress.configs.train import TrainConfig
from roots_compress.configs.tune import TuneConfig
from roots_compress.stages.base import Stage
from roots_compress.stages.distill.protocol import DistillStage
from roots_compress.stages.prune.protocol import PruneStage
from roots_compress.stages.quantize.protocol import QuantizeStage
from roots_compress.stages.sparsify.protocol import SparsifyStage
from roots_compress.stages.train.protocol import TrainStage
from roots_compress.stages.tune.protocol import TuneStage

IMPLEMENTATIONS: dict[type[StageSettings], Stage[Any]] = {
    TrainConfig: TrainStage(),
    TuneConfig: TuneStage(),
    DistillConfig: DistillStage(),
    PruneConfig: PruneStage(),
    SparsifyConfig: SparsifyStage(),
    QuantizeConfig: QuantizeStage(),
}
"""Each member of the recipe's union of stages has an entry."""


def stage_of(config: StageSettings) -> Stage[Any]:
    """Return the stage that implements these settings."""
    return IMPLEMENTATIONS[type(config)]


def stage_of_kind(kind: str) -> Stage[Any] | None:
    """Return the stage that makes rows of a kind; None for a baseline or a kind of a newer version."""
    found = (
        stage for config, stage in IMPLEMENTATIONS.items() if config.model_fields["kind"].default == kind
    )
    return next(found, None)
