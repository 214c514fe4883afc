"""The stage verbs: each appends a stage to a run, and goes on from the run's newest checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from roots_compress.cli.console import stderr, stdout
from roots_compress.cli.options import (
    CheckpointArgument,
    OptionGroup,
    RunOptions,
    TrainingOptions,
    spread_options,
)
from roots_compress.cli.stage_options import CutOptions, DistillOptions, ModelOptions, RoundingOptions


@spread_options
def train(
    *,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="CKPT",
            help="A ROOTS or Hugging Face directory, or a GGUF file. Default: the run's newest checkpoint; "
            "in a new run a new model.",
        ),
    ] = None,
    model: ModelOptions,
    training: TrainingOptions,
    run: RunOptions,
) -> None:
    """Pre-train a ROOTS model: a new one as a run's baseline, or go on training a checkpoint."""
    _append("train", [model, training], run, source=checkpoint)


@spread_options
def distill(
    *,
    teacher: Annotated[
        Path | None,
        typer.Option(
            "--teacher",
            metavar="CKPT",
            help="A ROOTS or Hugging Face directory, or a GGUF file. Default: the run's newest checkpoint.",
        ),
    ] = None,
    loss: DistillOptions,
    training: TrainingOptions,
    run: RunOptions,
) -> None:
    """Train a smaller student to match its teacher."""
    _append("distill", [loss, training], run, source=teacher)


@spread_options
def prune(*, checkpoint: CheckpointArgument = None, cut: CutOptions, run: RunOptions) -> None:
    """Remove whole channels, heads or layers, and refit what follows them."""
    _append("prune", [cut], run, source=checkpoint)


@spread_options
def quantize(*, checkpoint: CheckpointArgument = None, rounding: RoundingOptions, run: RunOptions) -> None:
    """Store weights, and where it holds up compute, in fewer bits."""
    _append("quantize", [rounding], run, source=checkpoint)


def _append(verb: str, options: Sequence[OptionGroup], run: RunOptions, *, source: Path | None) -> None:
    from roots_compress.cli.naming import Names
    from roots_compress.configs.recipe.assignments import with_assignments
    from roots_compress.configs.recipe.growth import grow
    from roots_compress.configs.recipe.loading import check_paths

    assignments = run.assignments or []
    names = Names(verb, run, options, assignments)
    stage: dict[str, Any] = {"kind": verb}
    for group in options:
        stage |= group.settings()
    stage = with_assignments(stage, assignments, names.options)
    with names.told():
        recipe = grow(
            run.run, stage, source=source, fresh=run.fresh, settings=run.settings(), place=names.place
        )
    with names.told(last_stage=len(recipe.stages) - 1):
        check_paths(recipe)
        from roots_compress.pipeline.preflight import prepare

        setting = prepare(recipe, run.run)
        from roots_compress.pipeline.runner import run_recipe
        from roots_compress.report.gates import require
        from roots_compress.report.text import table

        metrics = run_recipe(setting, run.run, fresh=run.fresh, console=stderr())
    stdout().print(table(metrics))
    require(metrics.gates, where=str(run.run))
