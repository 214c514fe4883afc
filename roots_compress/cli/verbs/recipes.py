"""The recipe verbs: run a recipe, say what it would do, check it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from roots_compress.cli import completion
from roots_compress.cli.display.console import say, show_error, stdout, write
from roots_compress.cli.display.output import current, events, give, give_run, tell, track
from roots_compress.cli.options import FreshOption, TrackOption, named
from roots_compress.cli.outcome import JUnitOption, check_output, conclude, tell_where, telling_failure
from roots_compress.errors import InputError, RootsError

if TYPE_CHECKING:
    from roots_compress.configs.recipe.yaml import Document
    from roots_compress.pipeline.preflight import Setting

RecipeArgument = Annotated[
    Path,
    typer.Argument(metavar="RECIPE", help="A recipe: a YAML file.", autocompletion=completion.recipes),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="CKPT",
        help="The model to compress, in place of the recipe's `model`.",
        callback=named,
        autocompletion=completion.checkpoints,
    ),
]
RunFolderOption = Annotated[
    Path | None,
    typer.Option(
        "--run", metavar="DIR", help="The run's folder. Default: runs/NAME, with the recipe's name."
    ),
]
REHEARSE_HELP = "Only try every stage on two layers of random weights, in a temporary folder."
PROBE_HELP = "Measure this machine for some seconds, to tell times and memory."


def run(
    recipe: RecipeArgument,
    model: ModelOption = None,
    folder: RunFolderOption = None,
    fresh: FreshOption = False,
    junit: JUnitOption = None,
    rehearse: Annotated[bool, typer.Option("--rehearse", help=REHEARSE_HELP)] = False,
    tracker: TrackOption = None,
) -> None:
    """Carry out a recipe and its search, if it has one; finished stages of an earlier try are reused."""
    for option, given in (("--junit", junit), ("--fresh", fresh), ("--track", tracker)):
        if rehearse and given:
            raise InputError("has no effect on a rehearsal", where=option, remedy="Leave one of the two out.")
    check_output(junit)
    document = _read(recipe)
    setting, where = _prepared(document, model, folder)
    if rehearse:
        _rehearse(document, setting)
        return
    from roots_compress.configs.recipe.loading import naming_lines
    from roots_compress.pipeline.runner import run_recipe
    from roots_compress.report.text import tables
    from roots_compress.search.run import run_search

    carry_out = run_recipe if setting.recipe.search is None else run_search
    track(tracker)
    with telling_failure(junit, where), naming_lines(document):
        metrics = carry_out(setting, where, fresh=fresh, events=events(), recipe_text=document.text)
    give_run(metrics, where)
    stdout().print(*tables(metrics))
    if metrics.search is not None:
        tell(f"Best recipe: {where / 'best.yaml'}")
    tell_where(metrics, where)
    conclude(metrics, where=recipe, junit=junit)


def _rehearse(document: Document, setting: Setting) -> None:
    """Tell how each stage goes in small; leave with the exit code of the first that fails."""
    from roots_compress.configs.recipe.loading import naming_lines
    from roots_compress.pipeline.rehearsal import rehearse

    failures: list[RootsError] = []
    tried: list[dict[str, Any]] = []
    for each in rehearse(setting):
        message = None if each.error is None else each.error.message
        tried.append({"stage": each.label, "seconds": each.seconds, "error": message})
        if each.error is None:
            say(f"{each.label}: works ({each.seconds:.1f} s)")
            continue
        say(f"{each.label}: fails")
        try:
            with naming_lines(document):
                raise each.error
        except RootsError as error:
            show_error(error)
            current().report_error(error)
            tried[-1] |= {"where": _text(error.where), "remedy": _text(error.remedy)}
            failures.append(error)
    give(tried)
    if failures:
        raise typer.Exit(failures[0].exit_code)


def _text(said: object) -> str | None:
    return None if said is None else str(said)


def plan(
    recipe: RecipeArgument,
    model: ModelOption = None,
    folder: RunFolderOption = None,
    measured: Annotated[bool, typer.Option("--probe/--no-probe", help=PROBE_HELP)] = True,
) -> None:
    """Say what `run` would make, reuse and take: shapes, bytes, time, memory and disk of each stage."""
    document = _read(recipe)
    setting, where = _prepared(document, model, folder)
    from roots_compress.configs.recipe.loading import naming_lines
    from roots_compress.pipeline.forecast.forecast import forecast
    from roots_compress.pipeline.forecast.table import shape_lines, summary_lines, table
    from roots_compress.pipeline.runner import plan_recipe
    from roots_compress.search.plan import plan_search

    with naming_lines(document):
        for line in plan_recipe(setting, where):
            say(line)
        if setting.recipe.search is not None:
            for line in plan_search(setting, where):
                say(line)
        expected = forecast(setting, where, events(), measured=measured)
    give({**asdict(expected), "seconds": expected.seconds})
    for line in shape_lines(expected):
        say(line)
    stdout().print(table(expected))
    for line in summary_lines(expected):
        say(line)


def _read(recipe: Path) -> Document:
    """Return the recipe's file, read once: the run keeps the very text that it carries out."""
    from roots_compress.configs.recipe.yaml import read_yaml

    return read_yaml(recipe)


def _prepared(document: Document, model: Path | None, folder: Path | None) -> tuple[Setting, Path]:
    """Return a recipe, checked as far as it can be before it runs, and its run's folder."""
    from roots_compress.configs.recipe.loading import check_paths, load_recipe, naming_lines

    loaded = load_recipe(document, model=model)
    where = folder or Path("runs") / loaded.name
    with naming_lines(document):
        check_paths(loaded, in_file=True, model=model)
        from roots_compress.pipeline.preflight import prepare

        return prepare(loaded, where), where


def validate(recipe: RecipeArgument, model: ModelOption = None) -> None:
    """Check a recipe without running it."""
    from roots_compress.configs.recipe.loading import check_paths, load_recipe, naming_lines

    document = _read(recipe)
    loaded = load_recipe(document, model=model)
    with naming_lines(document):
        check_paths(loaded, in_file=True, model=model)
    kinds: list[str] = [stage.kind for stage in loaded.stages]
    if loaded.search is not None:
        kinds.append(f"search of {', '.join(choice.name for choice in loaded.search.choices)}")
    give({"recipe": str(recipe), "name": loaded.name, "stages": kinds})
    say(f"{recipe} is valid: {' -> '.join(kinds) or 'evaluation only'}")


def schema() -> None:
    """Print the JSON schema of recipes, for editors that complete and check them."""
    from roots_compress.configs.recipe.json_schema import schema_text

    text = schema_text()
    give(json.loads(text))
    write(text)
