"""From a file to a `Recipe`, or to one message with file, line, key and cause of every fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from roots_compress.configs.base import Group
from roots_compress.configs.gates import AGAINST
from roots_compress.configs.recipe.faults import faults_of
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.recipe.walk import placed_gates, placed_stages
from roots_compress.configs.recipe.yaml import Document
from roots_compress.errors import InputError, Key, Location, RootsError, Text, located, recipe_key, with_keys
from roots_compress.io.hub_cache import FETCH

MODEL_OPTION = "--model"
_LOCAL_ONLY = f"Models and texts are read from disk; nothing is fetched over the network. {FETCH}"
_MOST_FAULTS = 10


def load_recipe(document: Document, *, model: Path | None = None) -> Recipe:
    """Return the recipe that a file holds. `check_paths` checks whether the files it names exist.

    Relative paths in it start from its folder; `model` replaces the recipe's own and starts from the current
    folder.

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
    return parse_recipe(values, document).from_folder(document.source.absolute().parent)


def parse_recipe(values: Mapping[str, Any], document: Document | None = None) -> Recipe:
    """Return the recipe that plain values describe, such as a verb's options or a run's `resolved.json`.

    Args:
        values: keys and values as YAML or JSON holds them.
        document: the file that they were read from, for messages; without it messages name keys only.

    Raises:
        InputError: the values are no recipe.
    """
    return parse_settings(Recipe, values, document, remedy="docs/reference/recipes.md describes every key.")


def parse_settings(
    kind: type[Group], values: Mapping[str, Any], document: Document | None, *, remedy: str
) -> Group:
    """Return the settings that plain values describe; arguments and errors are those of `parse_recipe`."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        faults = list(faults_of(error, values, kind))
    if document is not None:
        faults.sort(key=lambda fault: document.line(fault[0]))
        faults = [(at, with_keys(text, partial(_within_stage, at))) for at, text in faults]
    places = [document.place(at) if document else recipe_key(*at) for at, _ in faults]
    if len(faults) == 1:
        raise InputError(faults[0][1], where=places[0], remedy=remedy)
    lines = [Text("\n  ", where, ": ", text) for where, (_, text) in zip(places, faults, strict=True)]
    more = f"\n  and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
    raise InputError(Text(f"{len(faults)} things are wrong:", *lines[:_MOST_FAULTS], more), remedy=remedy)


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as JSON with every default filled in; `parse_recipe` reads it back."""
    return recipe.model_dump(mode="json")


def check_paths(recipe: Recipe, *, in_file: bool = False, model: Path | None = None) -> None:
    """Check that the files and folders of the recipe exist. Nothing is opened.

    Args:
        in_file: whether it was read from a file, so that its paths start from that file's folder.
        model: the model that was named on the command line in place of the recipe's own.

    Raises:
        InputError: a model, a text, a student or a run that gates compare with is missing.
    """
    advice = "Relative paths in a recipe start from its own folder. " if in_file else ""
    if recipe.model is not None:
        refuse_missing(recipe.model, *((MODEL_OPTION,) if model else (recipe_key("model"), advice)))
    for part in ("train", "eval"):
        for index, path in enumerate(getattr(recipe.data, part)):
            refuse_missing(path, recipe_key("data", part, index), advice)
    for place, gates, _ in placed_gates(recipe):
        if gates.stored is not None:
            refuse_missing(gates.stored, recipe_key(*place, AGAINST), advice)
    for place, stage in placed_stages(recipe):
        with located(place, of_recipe=True):
            stage.check_paths()


def refuse_missing(path: Path, where: str, advice: str = "") -> None:
    """Refuse a path that does not exist.

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
    """Add file and line to an error inside the block whose place is a key of the recipe."""
    try:
        yield
    except RootsError as error:
        if isinstance(error.where, Key):
            place = error.where.path
            error.change_keys(partial(_within_stage, place))
            error.where = document.place(place)
        raise


def _within_stage(place: Location, key: Key) -> Key:
    """Return a key as messages name it: relative to the stage if it is in the same one."""
    stage = place[: next((depth for depth, part in enumerate(place, 1) if isinstance(part, int)), 0)]
    return Key(*key.path[len(stage) :], value=key.value) if key.path[: len(stage)] == stage else key
