"""Checks a recipe against its model and text, stage by stage, without loading weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from roots_compress.configs.base import groups_of, with_group
from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.recipe.schema import Recipe, StageConfig
from roots_compress.configs.recipe.walk import losses_of, placed_stages, training_of
from roots_compress.configs.recipe.windows import context_faults, read_along
from roots_compress.data.documents import TextSplit
from roots_compress.errors import InputError, Location, RootsError, located, recipe_key
from roots_compress.io.atomic import real_path
from roots_compress.pipeline.held_out import HeldOut
from roots_compress.run.outputs import enclosing_run
from roots_compress.stages.base import ModelInfo
from roots_compress.stages.registry import stage_of


def check_chain(recipe: Recipe, info: ModelInfo) -> Recipe:
    """Check every stage in order against the result of the one before it.

    Returns:
        The recipe; windows whose length was not given are fitted to all these models.

    Raises:
        InputError: a stage does not suit its model, windows are longer than a context, or `top_k` exceeds a
            teacher's vocabulary.
    """
    placed = list(placed_stages(recipe))
    labels = len(info.labels)
    for place, stage in placed:
        for keys, loss in losses_of(stage):
            with located((*place, *keys), of_recipe=True):
                loss.require_vocabulary(labels or info.vocab_size, labels=labels > 0)
                if not info.task.writes_unasked:
                    loss.require_written_text(targets=info.task.writes)
                if not info.task.predicts:
                    loss.require_teacher()
    first = info.limits.max_context
    assert first is not None
    along = [first] * (len(placed) + 1)
    _check_contexts(recipe, along)
    for index, (place, stage) in enumerate(placed):
        chosen = index >= len(recipe.stages)
        # Each choice of a search follows the stages, not another choice. One without a legal width is left
        # out.
        before = replace(info, spec=None) if chosen else info
        with located(place, of_recipe=True):
            made = stage_of(stage).check(stage, before)
        along[index + 1] = made.limits.max_context or first
        info = info if chosen else made
    _check_contexts(recipe, along)
    return _fitted(recipe, along)


def _fitted(recipe: Recipe, contexts: Sequence[int]) -> Recipe:
    """Return the recipe with windows fitted to its models' contexts, if their length was not given.

    Args:
        contexts: as for `context_faults`.
    """
    placed = []
    for index, (_, stage) in enumerate(placed_stages(recipe)):
        limit = read_along(recipe, contexts, index)
        for keys, training in training_of(stage):
            stage = with_group(stage, keys, training.fitted(limit))
        placed.append(stage)
    stages, choices = tuple(placed[: len(recipe.stages)]), tuple(placed[len(recipe.stages) :])
    return recipe.model_copy(
        update={
            "stages": stages,
            "search": recipe.search and recipe.search.model_copy(update={"choices": choices}),
            "evaluation": recipe.evaluation.fitted(min(contexts)),
        }
    )


def _check_contexts(recipe: Recipe, contexts: Sequence[int]) -> None:
    """Refuse windows that are longer than a context, of the first model or after a stage."""
    for location, text in context_faults(recipe, contexts):
        raise InputError(
            text, where=recipe_key(*location), remedy="Lower it, or use a model with a longer context."
        )


def check_start(stage: StageConfig, place: Location, info: ModelInfo, text: TextSplit, *, seed: int) -> None:
    """Refuse early what a stage would refuse because of the text or its model's shape.

    Raises:
        InputError, GateMissedError: as the stage raises them.
    """
    try:
        with located(place, of_recipe=True):
            stage_of(stage).check_start(stage, info, text, seed=seed)
    except RootsError as error:
        error.where = error.where or recipe_key(*place)
        raise


def check_text(
    recipe: Recipe,
    text: TextSplit,
    held_out: HeldOut,
    tokenizer: PreTrainedTokenizerFast,
    info: ModelInfo,
) -> None:
    """Check that the text fills a window of each length in the recipe.

    Calibration windows longer than the model's context are shortened to it.

    Raises:
        InputError: the held-out or the training text is too short, or the held-out text cannot measure
            quality.
    """
    held_out.check(tokenizer)
    asked: list[tuple[int, Location]] = []
    for place, stage in placed_stages(recipe):
        for keys, training in training_of(stage):
            asked.append((training.block_size, (*place, *keys)))
        for keys, calibration in groups_of(stage, CalibrationConfig):
            length = calibration.block_size
            asked.append((min(length, info.limits.max_context or length), (*place, *keys)))
    if asked:
        longest, place = max(asked, key=itemgetter(0))
        with located(place, of_recipe=True):
            info.task.training_windows(text.train, tokenizer, longest, seed=recipe.seed, limit=1)


def check_cache_folders(recipe: Recipe, run: Path) -> None:
    """Refuse folders for teachers' caches that cannot be made, or that a run may delete.

    Raises:
        InputError: there is one.
    """
    for place, stage in placed_stages(recipe):
        for keys, loss in losses_of(stage):
            if loss.cache is None:
                continue
            where = recipe_key(*place, *keys, "cache")
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
                    f"lies in the run {around}, which may delete what is in its folder",
                    where=where,
                    remedy="Name a folder outside the run, or set no cache: the run then keeps one itself.",
                )
