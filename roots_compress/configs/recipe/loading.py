"""From a file to a `Recipe`, or to one message with file, line, key and cause of every fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from roots_compress.configs.distill import STUDENT_PRESETS, DistillConfig, student_path
from roots_compress.configs.prune import PruneConfig
from roots_compress.configs.recipe.faults import faults_of
from roots_compress.configs.recipe.location import Location, dotted, within_stage
from roots_compress.configs.recipe.schema import Recipe, StageConfig, placed_stages
from roots_compress.configs.recipe.yaml import Document
from roots_compress.configs.training import DistillLossConfig
from roots_compress.errors import InputError, Key, RootsError, Text, with_keys

MODEL_OPTION = "--model"
_LOCAL_ONLY = "Models and texts are read from disk; nothing is fetched over the network."
_MOST_FAULTS = 10


def load_recipe(document: Document, *, model: Path | None = None) -> Recipe:
    """Return the recipe that a file holds. Whether the files it names exist is for `check_paths` to say.

    Args:
        document: the file, read. Relative paths inside it start from its folder.
        model: the model to compress, in place of the recipe's own; relative to the current folder.

    Raises:
        InputError: it is no recipe. All faults are listed, each with its line.
    """
    if document.value is None:
        raise InputError(
            "the recipe is empty", where=document.source, remedy="Write a first one with: roots-compress init"
        )
    if not isinstance(document.value, dict):
        raise InputError(
            "a recipe is a group of keys ('name: ...'), not a list or a single value",
            where=document.place(()),
            remedy="Write a first one with: roots-compress init",
        )
    values = dict(document.value)
    if model is not None:
        values["model"] = str(model.absolute())
    return from_folder(parse_recipe(values, document), document.source.absolute().parent)


def parse_recipe(values: Mapping[str, Any], document: Document | None = None) -> Recipe:
    """Return the recipe that plain values describe, such as a verb's options or a run's `resolved.json`.

    Args:
        values: keys and values as YAML or JSON holds them.
        document: where they were read from, to be named in messages; without it they hold keys.

    Raises:
        InputError: the values are no recipe.
    """
    try:
        return Recipe.model_validate(dict(values))
    except ValidationError as error:
        faults = list(faults_of(error, values))
    if document is not None:
        faults.sort(key=lambda fault: document.line(fault[0]))
        faults = [(at, with_keys(text, partial(within_stage, at))) for at, text in faults]
    places = [document.place(at) if document else dotted(at) for at, _ in faults]
    remedy = "docs/recipes.md describes every key."
    if len(faults) == 1:
        raise InputError(faults[0][1], where=places[0], remedy=remedy)
    lines = [Text("\n  ", where, ": ", text) for where, (_, text) in zip(places, faults, strict=True)]
    more = f"\n  and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
    raise InputError(Text(f"{len(faults)} things are wrong:", *lines[:_MOST_FAULTS], more), remedy=remedy)


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as JSON with every default filled in; `parse_recipe` reads it back."""
    return recipe.model_dump(mode="json")


def check_paths(recipe: Recipe, document: Document | None = None) -> None:
    """Check that what the recipe names on disk is there. Nothing is opened.

    Args:
        recipe: as loaded.
        document: the file it was read from, so that messages can name the line.

    Raises:
        InputError: a model, a text or a student is missing.
    """
    for location, path in _named_paths(recipe):
        where = _place_of(location, path, document)
        advice = "Relative paths in a recipe start from its own folder. "
        refuse_missing(path, where, advice if document is not None and where != MODEL_OPTION else "")
    for place, stage in placed_stages(recipe):
        if isinstance(stage, DistillConfig):
            location = (*place, "student")
            try:
                student_path(stage.student)
            except InputError as error:
                error.where = _place_of(location, Path(stage.student), document)
                raise


def refuse_missing(path: Path, where: str, advice: str = "") -> None:
    """Refuse a path that is not there.

    Args:
        path: of a model or a text.
        where: it was named.
        advice: a sentence to precede what always holds.

    Raises:
        InputError: it does not exist, or cannot be looked for.
    """
    try:
        if path.exists():
            return
        problem = "does not exist"
    except OSError as error:  # a folder on the way may not be entered, or a name is too long
        problem = f"cannot be read: {error.strerror}"
    raise InputError(f"'{path}' {problem}", where=where, remedy=f"{advice}{_LOCAL_ONLY}")


@contextmanager
def naming_lines(document: Document) -> Iterator[None]:
    """Let an error inside the block whose place is a key of the recipe name file and line as well."""
    try:
        yield
    except RootsError as error:
        if isinstance(error.where, Key):
            place = error.where.path
            error.change_keys(partial(within_stage, place))
            error.where = document.place(place)
        raise


def _named_paths(recipe: Recipe) -> list[tuple[Location, Path]]:
    found: list[tuple[Location, Path]] = []
    if recipe.model is not None:
        found.append((("model",), recipe.model))
    found += [(("data", "train", index), path) for index, path in enumerate(recipe.data.train)]
    found += [(("data", "eval", index), path) for index, path in enumerate(recipe.data.eval)]
    return found


def _place_of(location: Location, path: Path, document: Document | None) -> str:
    """Return file, line and key of a path; a model the file does not name came from the command line."""
    if document is None:
        return dotted(location)
    value = document.value
    if location == ("model",) and isinstance(value, dict):
        own = value.get("model")
        if not isinstance(own, str) or document.source.absolute().parent / own != path:
            return MODEL_OPTION
    return document.place(location)


def from_folder(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with its relative paths starting from a folder."""
    data, search = recipe.data, recipe.search
    if search is not None:
        choices = tuple(_stage_from_folder(choice, folder) for choice in search.choices)
        search = search.model_copy(update={"choices": choices})
    return recipe.model_copy(
        update={
            "model": folder / recipe.model if recipe.model is not None else None,
            "data": data.model_copy(
                update={
                    "train": tuple(folder / path for path in data.train),
                    "eval": tuple(folder / path for path in data.eval),
                }
            ),
            "stages": tuple(_stage_from_folder(stage, folder) for stage in recipe.stages),
            "search": search,
        }
    )


def _stage_from_folder(stage: StageConfig, folder: Path) -> StageConfig:
    if isinstance(stage, DistillConfig):
        student = stage.student if stage.student in STUDENT_PRESETS else str(folder / stage.student)
        return stage.model_copy(update={"student": student, "loss": _loss_from_folder(stage.loss, folder)})
    if isinstance(stage, PruneConfig) and stage.recovery is not None:
        loss = _loss_from_folder(stage.recovery.loss, folder)
        return stage.model_copy(update={"recovery": stage.recovery.model_copy(update={"loss": loss})})
    return stage


def _loss_from_folder(loss: DistillLossConfig, folder: Path) -> DistillLossConfig:
    return loss if loss.cache is None else loss.model_copy(update={"cache": folder / loss.cache})
