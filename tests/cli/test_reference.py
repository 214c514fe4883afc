"""The command reference says what the commands say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from roots_compress.cli.app import app
from roots_compress.cli.reference import reference
from roots_compress.configs.data import DataConfig, TokenizerConfig
from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.configs.prune import PruneConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.train import ArchitectureConfig
from roots_compress.configs.training import DistillLossConfig, TrainingConfig

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def test_the_page_is_what_the_commands_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: make docs"


def test_every_option_of_a_verb_is_listed() -> None:
    page = reference()
    for option in ("--teacher", "--ratio", "--int8", "--eval-data", "--max-new-tokens", "--fresh"):
        assert f"`{option}" in page


EVERYWHERE = {
    "--text-column": DataConfig().text_column,
    "--windows": EvaluationConfig().windows,
    "--block-size": EvaluationConfig().block_size,
    "--seed": Recipe.model_fields["seed"].default,
    "--device": Recipe.model_fields["device"].default,
}
TRAINING = {
    "--steps": TrainingConfig().steps,
    "--batch-size": TrainingConfig().batch_size,
    "--lr": TrainingConfig().learning_rate,
    "--train-block-size": TrainingConfig().block_size,
}
LOSS, PRUNE = DistillLossConfig(), PruneConfig()


@pytest.mark.parametrize(
    ("verb", "defaults"),
    [
        (
            "train",
            {
                **TRAINING,
                "--vocab-size": TokenizerConfig().vocab_size,
                "--min-frequency": TokenizerConfig().min_frequency,
                "--hidden-size": ArchitectureConfig().hidden_size,
                "--layers": ArchitectureConfig().num_layers,
            },
        ),
        (
            "distill",
            {
                **TRAINING,
                "--student": DistillConfig().student,
                "--ce-weight": LOSS.cross_entropy_weight,
                "--divergence-weight": LOSS.divergence_weight,
                "--divergence": LOSS.divergence,
                "--temperature": LOSS.temperature,
                "--hidden-weight": LOSS.hidden_weight,
                "--relation-weight": LOSS.relation_weight,
                "--on-policy-ratio": LOSS.on_policy_ratio,
                "--teacher-text-ratio": LOSS.teacher_text_ratio,
            },
        ),
        (
            "prune",
            {
                "--ratio": PRUNE.ratio,
                "--head-ratio": PRUNE.head_ratio,
                "--query-ratio": PRUNE.query_ratio,
                "--layer-ratio": PRUNE.layer_ratio,
                "--residual-ratio": PRUNE.residual_ratio,
                "--score": PRUNE.score,
            },
        ),
        ("quantize", {"--group-size": QuantizeConfig().group_size}),
    ],
)
def test_the_defaults_that_help_names_are_those_of_a_recipe(verb: str, defaults: dict[str, Any]) -> None:
    shown = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "300"}).stdout
    lines = {line.split()[1]: line for line in shown.splitlines() if line.startswith("│ --")}
    for option, value in {**EVERYWHERE, **defaults}.items():
        said = re.search(r"[Dd]efault: (.+?)\.?[\]\s]", lines[option])
        assert said is not None, option
        assert said[1] == (f"{value:g}" if isinstance(value, float) else str(value)), option
