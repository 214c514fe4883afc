"""Checks of a request before anything is made: whether it can be carried out, and from which model.

Cheap checks come first: files and headers, then tokenizers and text. Nothing is written. Libraries that take
seconds to import, such as torch, are not imported for a request that is refused without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.configs.base import groups_of
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.recipe.walk import losses_of, placed_stages, training_of
from roots_compress.configs.train import ObjectiveConfig
from roots_compress.data.corpora import load_held_out, load_text
from roots_compress.data.documents import TextSplit
from roots_compress.data.fingerprint import text_sha256
from roots_compress.data.languages import translating
from roots_compress.errors import InputError, Text, located, recipe_key
from roots_compress.families.new_head import labelled
from roots_compress.io.disk import FileHashes
from roots_compress.pipeline.checks import check_cache_folders, check_chain, check_start, check_text
from roots_compress.pipeline.gate_checks import check_gates, check_protocol, read_stored
from roots_compress.pipeline.held_out import HeldOut
from roots_compress.results import RunMetrics
from roots_compress.run.marker import refuse_foreign
from roots_compress.run.outputs import refuse_inside
from roots_compress.runtime.onnx.graph_config import spec_of_graph
from roots_compress.runtime.onnx.graph_folder import find_graph, holds_graph
from roots_compress.stages.base import ModelInfo
from roots_compress.stages.registry import stage_of
from roots_compress.system.threads import default_threads
from roots_compress.tasks.base import Task
from roots_compress.tasks.registry import CAUSAL_LM, task_of_graph, task_of_spec
from roots_compress.training.parallel.shares import team_size


@dataclass(frozen=True)
class Setting:
    """Data that is the same for every stage of a run, checked before anything is written."""

    recipe: Recipe
    text: TextSplit
    device: str
    threads: int
    held_out: HeldOut
    """The examples for quality."""
    texts: dict[str, str]
    """sha256 of the training and the held-out text, which every stage reads."""
    first: ModelInfo
    """The facts about the run's first model, or about the model that its first stage makes."""
    task: Task[Any] = CAUSAL_LM
    """The task of the run's models."""
    stored: Mapping[Path, RunMetrics] = field(default_factory=dict)
    """The stored runs that gates compare with, by path, read before anything is made."""
    hashes: FileHashes = field(default_factory=FileHashes)
    """Hashes of the files that the run reads: its model, its students, and its earlier stages."""


def prepare(recipe: Recipe, folder: Path) -> Setting:
    """Check everything that can be checked before a stage runs, and read the text.

    Raises:
        InputError: the folder is in use, the device, the model, a student or the text is missing or cannot be
            used, a ratio leaves the model no legal width, or a run that gates compare with is missing.
    """
    refuse_foreign(folder)
    refuse_inside(folder, recipe.model)
    check_cache_folders(recipe, folder)
    info = _first_model(recipe)
    check_gates(recipe, info.task)
    threads = recipe.evaluation.threads or default_threads()
    stored = read_stored(recipe, folder, info.task, threads)
    recipe = check_chain(recipe, info)
    _check_processes(recipe)
    if recipe.device == "cuda":
        _resolve_device(recipe)  # only torch can tell whether there is one
    text = load_text(recipe.data, seed=recipe.seed, kind=info.task.records, labels=info.labels)
    held_out = HeldOut(recipe, text, info.task)
    if info.tokenizer is not None:
        # Not before the text, unless a stage needs it: reading a large GGUF file's takes seconds.
        check_text(recipe, text, held_out, info.tokenizer(), info)
        check_protocol(recipe, info.task, stored, held_out.examples(info.tokenizer()))
        if recipe.stages:
            check_start(recipe.stages[0], ("stages", 0), info, text, seed=recipe.seed)
    return Setting(
        recipe=recipe,
        text=text,
        device=_resolve_device(recipe),
        threads=threads,
        task=info.task,
        stored=stored,
        first=info,
        held_out=held_out,
        texts={"training text": text_sha256(text.train), "held-out text": text_sha256(text.held_out)},
    )


def prepare_evaluation(recipe: Recipe) -> TextSplit:
    """Check a recipe's `model` for evaluation, which may also be a graph, and read the text.

    Raises:
        InputError: the model or the text is missing or cannot be used.
    """
    assert recipe.model is not None
    # Of a run's own folder `find_graph` says which stages there are to name.
    if holds_graph(recipe.model) or any(recipe.model.glob("[0-9][0-9]-*/onnx")):
        graph = find_graph(recipe.model)
        task = task_for(recipe, task_of_graph(graph))
        labels = task.labels(lambda: spec_of_graph(graph))
    else:
        info = _first_model(recipe)
        check_chain(recipe, info)
        task, labels = info.task, info.labels
    return load_held_out(recipe.data, seed=recipe.seed, kind=task.records, labels=labels)


def task_for(recipe: Recipe, task: Task[Any]) -> Task[Any]:
    """Return the task of a run's models: their own, or the one for the run's records.

    Raises:
        InputError: its models cannot use such records, or cannot be tuned.
    """
    kind = recipe.data.records
    for place, stage in placed_stages(recipe):
        if stage.tunes:
            if task.tuned_on is None:
                raise InputError(
                    f"cannot train models for {task.name}: no records say what is right for them",
                    where=recipe_key(*place, "kind"),
                    remedy=Text(
                        "Name an encoder's labels in ",
                        recipe_key("data", "labels"),
                        " (with ratings one, for a score), or use distill: it learns from a teacher.",
                    ),
                )
            if kind not in (None, task.tuned_on):
                raise InputError(
                    f"asks for records of {kind}, and '{stage.name}' (tune) learns from {task.tuned_on}",
                    where=recipe_key("data", "records"),
                    remedy="Leave it out, or use train: it learns from plain text.",
                )
            kind = task.tuned_on
    return task if kind is None else task.for_records(kind)


def _first_model(recipe: Recipe) -> ModelInfo:
    """Return the facts about the run's first model, or about the model that its first stage makes."""
    info = _shape_of_first(recipe)
    if recipe.data.labels:
        info = _with_labels(recipe, info)
    if recipe.data.languages and (load := info.tokenizer) is not None:
        info = replace(info, tokenizer=cache(lambda: translating(load(), *recipe.data.languages)))
    return replace(info, task=task_for(recipe, info.task))


def _with_labels(recipe: Recipe, info: ModelInfo) -> ModelInfo:
    """Return the facts about an encoder that gets a head for the labels of the settings.

    Raises:
        InputError: the model is no encoder or already has labels, or no stage would train the new head.
    """
    where, spec = recipe_key("data", "labels"), info.spec
    if spec is None or info.labels or [*spec.stacks] != ["encoder"]:
        raise InputError(
            f"models for {info.task.name} get no labels from the settings",
            where=where,
            remedy="Leave it out, or name an encoder without labels of its own.",
        )
    if not (recipe.stages and recipe.stages[0].tunes):
        raise InputError(
            "asks for a new head, and the first stage does not teach it",
            where=where,
            remedy="Begin with a stage of kind 'tune'.",
        )
    try:
        spec = labelled(spec, recipe.data.labels, kind=recipe.data.new_head)
    except ValueError as error:
        remedy = "Name two labels or more, each once; with ratings one."
        raise InputError(str(error), where=where, remedy=remedy) from None
    return replace(info, spec=spec, task=task_of_spec(spec), source=None)


def _shape_of_first(recipe: Recipe) -> ModelInfo:
    if recipe.model is None:
        first = recipe.stages[0]
        spec = stage_of(first).begun(first).spec
        return ModelInfo.foreseen(spec, None, task_of_spec(spec))
    source = inspect_source(recipe.model)
    stages = [stage for _, stage in placed_stages(recipe)]
    if source.quantized and stages:
        raise InputError(
            f"the model is quantized already, and '{stages[0].name}' cannot change quantized weights",
            where=source.path,
            remedy="Name the checkpoint from before quantization.",
        )
    return ModelInfo.of(source)


def _check_processes(recipe: Recipe) -> None:
    """Refuse processes that cannot share a training's steps evenly, or that torchrun did not start.

    Raises:
        InputError: a training needs such processes.
    """
    for place, stage in placed_stages(recipe):
        whole = any(loss.whole_micro_batches for _, loss in losses_of(stage)) or any(
            objective.whole_micro_batches for _, objective in groups_of(stage, ObjectiveConfig)
        )
        for keys, training in training_of(stage):
            with located((*place, *keys), of_recipe=True):
                team_size(training, whole=whole)


def _resolve_device(recipe: Recipe) -> str:
    """Return the device that stages compute on."""
    from roots_compress.models.device import resolve_device

    return resolve_device(recipe.device)
