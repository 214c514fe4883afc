"""The recipe verbs: run a recipe, say what it would do, check it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roots_compress.cli.console import say, stderr, stdout, tell
from roots_compress.cli.options import FRESH_HELP
from roots_compress.cli.outcome import JUnitOption, check_output, conclude

if TYPE_CHECKING:
    from roots_compress.configs.recipe.yaml import Document
    from roots_compress.pipeline.preflight import Setting

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe: a YAML file.")]
ModelOption = Annotated[
    Path | None,
    typer.Option("--model", metavar="CKPT", help="The model to compress, in place of the recipe's `model`."),
]
RunFolderOption = Annotated[
    Path | None,
    typer.Option(
        "--run", metavar="DIR", help="The run's folder. Default: runs/NAME, with the recipe's name."
    ),
]


def run(
    recipe: RecipeArgument,
    model: ModelOption = None,
    folder: RunFolderOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help=FRESH_HELP)] = False,
    junit: JUnitOption = None,
) -> None:
    """Carry out a recipe, or search for one; finished stages of an earlier try are reused."""
    check_output(junit)
    document = _read(recipe)
    setting, where = _prepared(document, model, folder)
    from roots_compress.configs.recipe.loading import naming_lines
    from roots_compress.pipeline.runner import run_recipe
    from roots_compress.report.text import tables
    from roots_compress.search.run import run_search

    carry_out = run_recipe if setting.recipe.search is None else run_search
    with naming_lines(document):
        metrics = carry_out(setting, where, fresh=fresh, console=stderr(), recipe_text=document.text)
    stdout().print(*tables(metrics))
    if metrics.search is not None:
        tell(f"Best recipe: {where / 'best.yaml'}")
    tell(f"Report: {where / 'report.html'}")
    conclude(metrics, where=recipe, junit=junit)


def plan(recipe: RecipeArgument, model: ModelOption = None, folder: RunFolderOption = None) -> None:
    """Say what `run` would do: which stages, and which of them an earlier try has finished."""
    document = _read(recipe)
    setting, where = _prepared(document, model, folder)
    from roots_compress.configs.recipe.loading import naming_lines
    from roots_compress.pipeline.runner import plan_recipe
    from roots_compress.search.plan import plan_search

    with naming_lines(document):
        for line in plan_recipe(setting, where):
            say(line)
    if setting.recipe.search is not None:
        for line in plan_search(setting, where):
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
    say(f"{recipe}: valid: {loaded.name}: {' -> '.join(kinds) or 'evaluation only'}")
