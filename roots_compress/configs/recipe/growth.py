"""How the stage verbs make a recipe: each verb adds a stage to the recipe in its run's folder.

So a chain of verbs is a growing recipe, which runs, resumes and is reported like any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from roots_compress.configs.recipe.loading import parse_recipe, refuse_missing, resolved
from roots_compress.configs.recipe.schema import BASELINE_NAME, STAGES, Recipe, StageConfig
from roots_compress.configs.stage import RESULT_FREE
from roots_compress.errors import InputError, recipe_key
from roots_compress.io.atomic import read_regular, real_path
from roots_compress.run.marker import refuse_foreign
from roots_compress.run.stages import read_metrics, read_stages

RESOLVED_NAME = "resolved.json"
_MAX_BYTES = 1 << 20


def grow(
    folder: Path,
    stage: Mapping[str, Any],
    *,
    source: Path | None,
    fresh: bool,
    settings: Mapping[str, Any],
) -> Recipe:
    """Return the recipe that a stage verb runs.

    Without a run in the folder, the stage begins one, from `source` (or from nothing, for `train`). Otherwise
    it is appended to the run's recipe, in place of an earlier stage that was not finished. If a verb was
    interrupted, the same verb goes on with its stage.

    Args:
        stage: the stage's settings as given, with its `kind`.
        settings: the settings of the whole run that were given, in a recipe's form.

    Raises:
        InputError: there is nothing to start from, a setting is out of bounds, or the folder holds something
            else or a run with other settings.
    """
    if source is not None:
        refuse_missing(source, recipe_key("model"))
    refuse_foreign(folder)
    standing = None if fresh else _standing(folder)
    if standing is None:
        if source is None and not STAGES[stage["kind"]].makes_model:
            raise InputError(
                f"no checkpoint is named, and {folder} holds no run to go on from",
                remedy=f"Name the model to start from: {_command(stage['kind'], 'path/to/checkpoint')}",
            )
        # Links keep their names, by which the parts of a split model find one another.
        model = source.absolute() if source else None
        return _parse_here({"name": _name_of(folder), "model": model, "stages": [stage], **settings})
    recipe, finished = standing
    _refuse_other_settings(recipe, settings, folder)
    begins = finished == 0 and recipe.makes_model
    alone = {"name": "any", "model": None if begins else "any", "stages": [stage]}
    wanted = _parse_here(alone).stages[0]
    if source is not None and not _is_newest(source, folder):
        if _began_with(source, recipe) and recipe.stages and _unnamed(recipe.stages[0]) == _unnamed(wanted):
            # The verb that began the run, given again: go on with it, or show its result.
            begun = recipe if finished else recipe.model_copy(update={"stages": recipe.stages[:1]})
            return _renamed(begun, 0, stage)
        # If its first stage was not finished, that verb may be given again with other options.
        if finished or not _began_with(source, recipe):
            raise InputError(
                f"the folder is in use by a run that began with {recipe.model or 'a model it trained'}",
                where=folder,
                remedy="Name another folder with --run, start this one anew with --fresh, "
                "or leave the checkpoint out to go on from the run's newest one.",
            )
    kept, unfinished = recipe.stages[:finished], recipe.stages[finished : finished + 1]
    if not unfinished and not _is_reported(folder):
        unfinished = recipe.stages[-1:]
    if unfinished and _unnamed(unfinished[0]) == _unnamed(wanted):
        begun = recipe.model_copy(update={"stages": recipe.stages[: finished + 1]})
        return _renamed(begun, -1, stage)
    _refuse_after_quantized(kept, stage, folder)
    document = resolved(recipe)
    document["stages"] = [each.model_dump(mode="json") for each in kept]
    document["stages"].append({"name": _free_name(stage["kind"], kept), **stage})
    return _parse_here(document)


def evaluation_request(settings: Mapping[str, Any], model: Path) -> Recipe:
    """Return a recipe without stages: the text and the protocol by which one artifact is measured."""
    return _parse({"name": "evaluation", "model": model, **settings})


def read_resolved(folder: Path) -> Recipe | None:
    """Return the recipe of the run in a folder; None where there is none.

    Raises:
        InputError: the file cannot be read, or is no recipe.
    """
    try:
        # Not `parse_json_object`: the recipe may name files whose names are not valid text.
        settings = json.loads(read_regular(folder / RESOLVED_NAME, _MAX_BYTES))
        if not isinstance(settings, dict):
            raise InputError(f"holds a JSON {type(settings).__name__}, where settings were expected")
        return parse_recipe(settings)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, InputError) as error:
        raise InputError(
            f"cannot be read as the recipe of a run: {_cause(error)}",
            where=folder / RESOLVED_NAME,
            remedy="Start the run anew with --fresh, or name another folder with --run.",
        ) from None


def _standing(folder: Path) -> tuple[Recipe, int] | None:
    """Return the recipe of the run in a folder and how many of its stages are finished."""
    recipe = read_resolved(folder)
    if recipe is None:
        return None
    if recipe.search is not None:
        raise InputError(
            "the search in this run has not ended, so that no stage can be added yet",
            where=folder,
            remedy="Finish it with: roots-compress run RECIPE, or name another folder with --run.",
        )
    rows = len(read_stages(folder)[0])
    return recipe, rows if recipe.makes_model else max(rows - 1, 0)


def _cause(error: Exception) -> str:
    """Return the message without file and remedy: the user did not type these keys."""
    if isinstance(error, InputError):
        return f"{error.where}: {error.message}" if error.where else error.message
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _is_reported(folder: Path) -> bool:
    """Whether the run's figures cover all its finished stages: they are written last."""
    try:
        figures = read_metrics(folder)
    except InputError:
        return False
    return len(figures.stages) == len(read_stages(folder)[0])


def _is_newest(source: Path, folder: Path) -> bool:
    """Whether the named checkpoint is the one that the run would use anyway."""
    newest = read_stages(folder)[0][-1:]
    return any(real_path(source) == real_path(stage.checkpoint) for stage in newest)


def _began_with(source: Path, recipe: Recipe) -> bool:
    return recipe.model is not None and real_path(source) == real_path(recipe.model)


def _refuse_other_settings(recipe: Recipe, settings: Mapping[str, Any], folder: Path) -> None:
    """All rows of a run are measured alike, so the settings at its start hold for each verb."""
    document = resolved(recipe)
    for key, value in settings.items():
        current = document[key]
        pairs = value.items() if isinstance(value, Mapping) else [(None, value)]
        for inner, wanted in pairs:
            held = current if inner is None else current[inner]
            if not _says(held, json.loads(json.dumps(wanted, default=str))):
                raise InputError(
                    f"the run in {folder} was started with {json.dumps(held)}; this command asks for "
                    f"{json.dumps(wanted, default=str)}",
                    where=recipe_key(*(key,) if inner is None else (key, inner)),
                    remedy="Leave the option out, or start another run with --run.",
                )


def _says(held: Any, wanted: Any) -> bool:
    """Whether a setting has the wanted value; for a group, whether all wanted keys have theirs."""
    if isinstance(held, Mapping) and isinstance(wanted, Mapping):
        return all(key in held and _says(held[key], value) for key, value in wanted.items())
    return bool(held == wanted)


def _refuse_after_quantized(kept: Sequence[StageConfig], stage: Mapping[str, Any], folder: Path) -> None:
    if kept and kept[-1].quantizes:
        before = read_stages(folder)[0][-2].checkpoint
        raise InputError(
            f"the run ends in quantized weights ('{kept[-1].name}'), which no stage can change",
            where=folder,
            remedy="Go on from the stage before, in another run:\n"
            f"{_command(stage['kind'], before)} --run ANOTHER, and the options again",
        )


def _command(verb: str, source: str | Path) -> str:
    """Return a stage verb's command line with a checkpoint."""
    words = verb, STAGES[verb].checkpoint_option, quote(str(source))
    return " ".join(["roots-compress", *(word for word in words if word)])


def _unnamed(stage: StageConfig) -> dict[str, Any]:
    return stage.model_dump(exclude={*RESULT_FREE})


def _free_name(kind: str, kept: tuple[StageConfig, ...]) -> str:
    """Return the kind, numbered from 2 on if the run has such a stage already."""
    taken = {BASELINE_NAME, *(stage.name for stage in kept)}
    number = 1
    while (name := kind if number == 1 else f"{kind}-{number}") in taken:
        number += 1
    return name


def _name_of(folder: Path) -> str:
    """Return a run's name, made from its folder's name."""
    cleaned = "".join(char if char.isalnum() and char.isascii() else "-" for char in real_path(folder).name)
    return cleaned.strip("-")[:64] or "run"


def _renamed(recipe: Recipe, index: int, stage: Mapping[str, Any]) -> Recipe:
    """Return the recipe with the label and the gates that a stage was given this time, if any."""
    given = {key: stage[key] for key in RESULT_FREE if key in stage}
    if not given:
        return recipe
    document = resolved(recipe)
    document["stages"][index] |= given
    return _parse(document)


def _parse_here(document: Mapping[str, Any]) -> Recipe:
    """Return the recipe of values that may hold paths; those of its stages start from the current folder."""
    return _parse(document).from_folder(Path.cwd())


def _parse(document: Mapping[str, Any]) -> Recipe:
    """Return the recipe of values that may hold paths."""
    return parse_recipe(json.loads(json.dumps(document, default=str)))
