"""Walks a recipe's stages and their groups of settings, each with its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from roots_compress.configs.base import groups_of
from roots_compress.configs.gates import GatesConfig
from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.errors import Location

if TYPE_CHECKING:
    from roots_compress.configs.recipe.schema import Recipe, StageConfig


def placed_stages(recipe: Recipe) -> Iterator[tuple[Location, StageConfig]]:
    """Yield the stages that a recipe names, its search's choices last, each with its place."""
    for index, stage in enumerate(recipe.stages):
        yield ("stages", index), stage
    for index, choice in enumerate(recipe.search.choices if recipe.search else ()):
        yield ("search", "choices", index), choice


def placed_gates(recipe: Recipe) -> Iterator[tuple[Location, GatesConfig, str | None]]:
    """Yield the groups of gates, each with its place and the stage's name; None for the run's last row."""
    yield ("gates",), recipe.gates, None
    for index, stage in enumerate(recipe.stages):
        if stage.gates is not None:
            yield ("stages", index, "gates"), stage.gates, stage.name


def training_of(stage: StageConfig) -> Iterator[tuple[Location, TrainingConfig]]:
    """Yield a stage's training settings, if any, and their place in the stage."""
    return groups_of(stage, TrainingConfig)


def losses_of(stage: StageConfig) -> Iterator[tuple[Location, DistillLossConfig]]:
    """Yield a stage's distillation losses, if any, and their place in the stage."""
    return groups_of(stage, DistillLossConfig)
