"""The stage verbs: each appends a stage to a run, and goes on from the run's newest checkpoint.

A verb is made from the configuration of its stage: its options are the fields, with their documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from roots_compress.cli.completion import checkpoints
from roots_compress.cli.deferred import Deferred
from roots_compress.cli.display.console import stdout
from roots_compress.cli.display.output import events, give_run, track
from roots_compress.cli.naming import Names
from roots_compress.cli.options import (
    CHECKPOINT_HELP,
    DEFAULT_RUN,
    CheckpointArgument,
    FreshOption,
    RunOption,
    SetOption,
    Track,
    TrackOption,
    named,
    with_options,
)
from roots_compress.cli.outcome import conclude, tell_where
from roots_compress.configs.recipe.assignments import Assignment, read_assignment, settings_of
from roots_compress.configs.source import stage_summaries


def stage_verb(kind: str) -> Callable[..., None]:
    """Return the verb that appends a stage of a kind."""
    from roots_compress.configs.options import options_of
    from roots_compress.configs.recipe.schema import STAGES, Recipe

    config = STAGES[kind]
    stage_options, run_options = list(options_of(config)), list(options_of(Recipe))
    source = config.checkpoint_option or "CKPT"

    def verb(
        *,
        checkpoint: CheckpointArgument = None,
        of_stage: Sequence[Assignment],
        of_run: Sequence[Assignment],
        run: RunOption = DEFAULT_RUN,
        fresh: FreshOption = False,
        assignments: SetOption = None,
        tracker: TrackOption = None,
    ) -> None:
        given = [*of_stage, *map(read_assignment, assignments or [])]
        names = Names(kind, source, run_options, stage_options, given)
        stage = {"kind": kind, **settings_of(given)}
        _append(run, stage, settings_of(of_run), source=checkpoint, fresh=fresh, names=names, tracker=tracker)

    text = CHECKPOINT_HELP + (" In a new run without it, a new model is made." if config.makes_model else "")
    declared = (
        typer.Option(source, metavar="CKPT", help=text, callback=named, autocompletion=checkpoints)
        if config.checkpoint_option
        else None
    )
    parameter = declared or typer.Argument(
        metavar="CKPT", help=text, callback=named, autocompletion=checkpoints
    )
    verb.__annotations__["checkpoint"] = Annotated[Path | None, parameter]
    return with_options(of_stage=stage_options, of_run=run_options)(verb)


def _append(
    folder: Path,
    stage: dict[str, Any],
    settings: dict[str, Any],
    *,
    source: Path | None,
    fresh: bool,
    names: Names,
    tracker: Track | None,
) -> None:
    from roots_compress.configs.recipe.growth import grow
    from roots_compress.configs.recipe.loading import check_paths

    with names.shown():
        recipe = grow(folder, stage, source=source, fresh=fresh, settings=settings)
    with names.shown(last_stage=len(recipe.stages) - 1):
        check_paths(recipe)
        from roots_compress.pipeline.preflight import prepare

        setting = prepare(recipe, folder)
        from roots_compress.pipeline.runner import run_recipe
        from roots_compress.report.text import table

        track(tracker)
        metrics = run_recipe(setting, folder, fresh=fresh, events=events())
    give_run(metrics, folder)
    stdout().print(table(metrics))
    tell_where(metrics, folder)
    conclude(metrics, where=folder)


def _example(kind: str) -> str:
    from roots_compress.configs.recipe.schema import STAGES

    return STAGES[kind].example


VERBS = {
    kind: Deferred(summary, partial(stage_verb, kind), partial(_example, kind))
    for kind, summary in stage_summaries().items()
}
"""The verb of each kind of stage."""
