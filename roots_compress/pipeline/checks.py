"""What a recipe asks of a model and of a text, checked stage by stage without loading weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from roots_compress.configs.base import groups_of
from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.recipe.location import Location, dotted
from roots_compress.configs.recipe.schema import (
    Recipe,
    StageConfig,
    context_faults,
    losses_of,
    placed_stages,
    training_of,
)
from roots_compress.data.documents import TextSplit
from roots_compress.data.windows import EvaluationWindows
from roots_compress.errors import InputError, RootsError, Text, located, recipe_key
from roots_compress.io.atomic import real_path
from roots_compress.run.outputs import enclosing_run
from roots_compress.stages.base import ModelInfo
from roots_compress.stages.registry import stage_of
from roots_compress.tasks.base import Task


def check_chain(recipe: Recipe, info: ModelInfo) -> None:
    """Ask every stage, in their order, whether it can be carried out on what the one before it makes.

    Args:
        recipe: what is to be done.
        info: the model that the run begins with, or that its first stage is to train.

    Raises:
        InputError: a stage does not suit its model, windows are longer than a context, or a teacher is asked
            for more tokens than its vocabulary has.
    """
    placed = list(placed_stages(recipe))
    for place, stage in placed:
        for keys, loss in losses_of(stage):
            with located((*place, *keys), of_recipe=True):
                if info.vocab_size is not None:
                    loss.require_vocabulary(info.vocab_size)
                if not info.task.writes:
                    loss.require_written_text()
                if not info.task.predicts:
                    loss.require_teacher()
    along = [info.limits.max_context] * (len(placed) + 1)
    _check_contexts(recipe, along)
    for index, (place, stage) in enumerate(placed):
        chosen = index >= len(recipe.stages)
        # Choices of a search follow the stages, not one another. One that leaves no legal width is left out.
        before = replace(info, spec=None) if chosen else info
        with located(place, of_recipe=True):
            made = stage_of(stage).check(stage, before)
        along[index + 1] = made.limits.max_context
        info = info if chosen else made
    _check_contexts(recipe, along)


def _check_contexts(recipe: Recipe, contexts: Sequence[int | None]) -> None:
    """Refuse windows that are longer than a context.

    Args:
        recipe: what is to be done.
        contexts: of the first model, and after each of `placed_stages`; None where it is not known.
    """
    first = contexts[0]
    if first is None:
        return  # Loading the model will say what is wrong with its configuration.
    for location, text in context_faults(recipe, [each or first for each in contexts]):
        raise InputError(
            text, where=dotted(location), remedy="Lower it, or use a model with a longer context."
        )


def check_start(stage: StageConfig, place: Location, info: ModelInfo, text: TextSplit, *, seed: int) -> None:
    """Refuse at once what a stage would refuse by the text and the shape of the model it starts from.

    Args:
        stage: its settings.
        place: where in the recipe they are.
        info: the model it starts from, whose weights are not read.
        text: what it calibrates on.
        seed: the recipe's.

    Raises:
        InputError, GateMissedError: as the stage raises them.
    """
    try:
        with located(place, of_recipe=True):
            stage_of(stage).check_start(stage, info, text, seed=seed)
    except RootsError as error:
        error.where = error.where or dotted(place)
        raise


def check_text(recipe: Recipe, text: TextSplit, tokenizer: PreTrainedTokenizerFast, info: ModelInfo) -> None:
    """Check that the text fills a window of each length that the recipe asks for.

    Args:
        recipe: what is to be done.
        text: what it is done with.
        tokenizer: of the model the run begins with.
        info: that model; calibration windows longer than its context are cut to it.

    Raises:
        InputError: the held-out or the training text is too short.
    """
    held_out_windows(recipe, text, tokenizer, info.task)
    trained: list[tuple[int, Location]] = []
    calibrated: list[tuple[int, Location]] = []
    for place, stage in placed_stages(recipe):
        for keys, training in training_of(stage):
            trained.append((training.block_size, (*place, *keys)))
        for keys, calibration in groups_of(stage, CalibrationConfig):
            length = calibration.block_size
            calibrated.append((min(length, info.limits.max_context or length), (*place, *keys)))
    for lengths, windows_of in (
        (trained, info.task.training_windows),
        (calibrated, info.task.calibration_windows),
    ):
        if lengths:
            longest, place = max(lengths, key=itemgetter(0))
            with located(place, of_recipe=True):
                windows_of(text.train, tokenizer, longest, seed=recipe.seed, limit=1)


def held_out_windows(
    recipe: Recipe, text: TextSplit, tokenizer: PreTrainedTokenizerFast, task: Task[Any]
) -> EvaluationWindows:
    """Return what a run's quality is measured on, in a tokenizer's tokens.

    Raises:
        InputError: the text is too short for it.
    """
    try:
        return task.examples(text.held_out, tokenizer, recipe.evaluation)
    except InputError as error:
        if not recipe.data.eval:
            error.where = dotted(("data", "train"))
            fraction = recipe_key("data", "eval_fraction")
            error.remedy = Text(
                error.remedy or "", " Held out is ", fraction, f" of it, {recipe.data.eval_fraction}."
            )
        raise


def check_cache_folders(recipe: Recipe, run: Path) -> None:
    """Refuse folders for teachers' caches that cannot be made, or that a run may delete.

    Raises:
        InputError: there is such a one.
    """
    for place, stage in placed_stages(recipe):
        for keys, loss in losses_of(stage):
            if loss.cache is None:
                continue
            where = dotted((*place, *keys, "cache"))
            try:
                there = next(path for path in (loss.cache, *loss.cache.parents) if path.exists())
            except OSError as error:  # such as a name too long for a folder
                raise InputError(
                    f"cannot be made: {error.strerror}", where=where, remedy="Name another folder."
                ) from None
            if not there.is_dir():
                raise InputError(f"cannot be made: {there} is a file", where=where, remedy="Name a folder.")
            within = real_path(loss.cache).is_relative_to(real_path(run))
            if around := run if within else enclosing_run(loss.cache):
                raise InputError(
                    f"lies in {around}, where stages give way to others",
                    where=where,
                    remedy="Name a folder outside, or leave the cache out: the run then keeps one itself.",
                )
