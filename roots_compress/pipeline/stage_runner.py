"""Makes one stage of a run: the stage's work, its graph, its figures, its commit.

A stage is made from the checkpoint on disk of the stage before it, never from one in memory, so that a
resumed run and an undisturbed one do the same work. It is exported, checked and measured before its commit.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import (
    load_checkpoint,
    save_checkpoint,
    with_label_head,
    with_languages,
)
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.tokenizer import load_tokenizer
from roots_compress.errors import InputError, StageError
from roots_compress.evaluation.artifact import First, measure_quality
from roots_compress.evaluation.memory import own_peak_rss_bytes
from roots_compress.evaluation.samples import held_out_prompts, written
from roots_compress.events import Events, StageStarted
from roots_compress.export.exporter import export_checkpoint
from roots_compress.io.disk import free_disk
from roots_compress.io.hub_cache import model_name
from roots_compress.models.limits import Limits
from roots_compress.pipeline.checks import check_chain, check_text
from roots_compress.pipeline.gate_checks import check_protocol
from roots_compress.pipeline.preflight import Setting
from roots_compress.pipeline.resources import needs_of, require_room
from roots_compress.pipeline.steps import Step, inputs_of, steps_of
from roots_compress.pipeline.telling import tell_stage
from roots_compress.progress import Display, bar
from roots_compress.results import Sample, StageResult
from roots_compress.run.keys import StageKey, explain_change
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stage_commit import Workspace
from roots_compress.run.stages import CommittedStage, verify
from roots_compress.runtime.onnx.graph_folder import find_graph
from roots_compress.runtime.text import load_wishes
from roots_compress.stages.base import ModelInfo, StageContext, StageOutcome
from roots_compress.stages.registry import stage_of
from roots_compress.system.machine import describe_machine
from roots_compress.system.memory import available_memory, forget_peak


def make_stage(
    run: RunFolder,
    index: int,
    step: Step,
    key: StageKey,
    before: CommittedStage | None,
    setting: Setting,
    events: Events,
) -> CommittedStage:
    """Make a stage: carry it out, save, export, measure, commit.

    Raises:
        InputError: disk or memory do not suffice, or the text does not suit the new model.
        StageError: the stage failed, or one of its inputs was changed meanwhile. Nothing is committed.
    """
    _require_room(run, index, step, before, setting)
    workspace = run.begin(index, step.kind, step.name, key)
    events = events.of_stage(index)
    events.emit(StageStarted(index, step.kind, step.name))
    counted = forget_peak()
    start = time.perf_counter()
    outcome = _carry_out(step, before, workspace, setting, events)
    worked = time.perf_counter()
    save_checkpoint(outcome.checkpoint, workspace.checkpoint)
    with Display(events, "exporting the graph, and checking it"):
        parity = export_checkpoint(outcome.checkpoint, workspace.onnx, setting.recipe.export, release=True)
    # From here on the files on disk count: they will be committed and read by the next stage.
    tokenizer = load_tokenizer(inspect_source(workspace.checkpoint))
    task = setting.task
    with bar(events, task.metric.heading) as progress:
        metrics, samples = measure_quality(
            task,
            workspace.onnx,
            lambda: load_checkpoint(workspace.checkpoint).model,
            setting.held_out.examples(tokenizer),
            setting.recipe.evaluation,
            threads=setting.threads,
            first=_first(run) if index else None,
            sample=lambda engine: _samples(engine, tokenizer, workspace, setting),
            progress=progress,
        )
    result = StageResult(
        index=index,
        kind=step.kind,
        name=step.name,
        seconds=worked - start,
        metrics=metrics,
        onnx=f"{workspace.final_onnx}/{find_graph(workspace.onnx).name}",
        notes={**outcome.notes, "parity": {case.name: case.difference for case in parity.parity}},
        gates=outcome.gates,
        samples=samples,
        curves=outcome.curves,
        layer_errors=outcome.layer_errors,
        check_seconds=time.perf_counter() - worked,
        making_rss_bytes=own_peak_rss_bytes() if counted else None,
    )
    committed = workspace.commit(
        result,
        machine=describe_machine(threads=setting.threads, device=setting.device),
        inputs=_unchanged_inputs(step, key, before, setting),
        chosen=outcome.chosen,
    )
    tell_stage(events, result, task, "made", largest_difference=parity.largest_difference)
    return committed


def _first(run: RunFolder) -> First:
    """Return the run's first model."""
    row = run.stages()[0]
    return First(lambda: load_checkpoint(row.checkpoint).model, row.result.metrics)


def _samples(
    engine: Any, tokenizer: PreTrainedTokenizerFast, workspace: Workspace, setting: Setting
) -> tuple[Sample, ...]:
    """Return a graph's continuations of held-out prompts; none if models write no text."""
    if not setting.task.writes:
        return ()
    wishes = load_wishes(workspace.onnx, tokenizer, engine.vocab_size)
    prompts = held_out_prompts(setting.text.held_out, tokenizer)
    return written(engine, tokenizer, prompts, stop_tokens=wishes.stop_tokens, settings=wishes.settings)


def _require_room(
    run: RunFolder, index: int, step: Step, before: CommittedStage | None, setting: Setting
) -> None:
    """Refuse to start if this stage and those after it lack disk or memory.

    Raises:
        InputError: they do.
    """
    parameters = None
    if before is not None:
        parameters = before.result.metrics.parameters
    elif setting.recipe.model is not None:
        parameters = inspect_source(setting.recipe.model).parameters
    ahead = [each.config for each in steps_of(setting.recipe)[index:]]
    require_room(
        needs_of(ahead, parameters, device=setting.device),
        disk=free_disk(run.path) + run.reclaimable_bytes(),
        memory=available_memory(),
        where=run.path,
    )


def _unchanged_inputs(
    step: Step, key: StageKey, before: CommittedStage | None, setting: Setting
) -> dict[str, str]:
    """Return the hashes of a stage's inputs, after checking that they still match its key.

    Raises:
        StageError: a file that the stage read has changed since its key was taken.
    """
    try:
        inputs = inputs_of(step, setting)
        changed = explain_change({"inputs": key.ingredients["inputs"]}, {"inputs": dict(inputs)})
    except (InputError, OSError) as error:
        changed = [str(error)]
    if before is not None:
        changed += [f"{before.path.name}: {fault}" for fault in verify(before, setting.hashes.sha256)]
    if changed:
        raise StageError(
            f"its input changed while the stage was being made: {'; '.join(changed)}",
            remedy="Nothing was committed. Give the same command again once nothing writes to it any more.",
            transient=True,
        )
    return inputs


def _carry_out(
    step: Step, before: CommittedStage | None, workspace: Workspace, setting: Setting, events: Events
) -> StageOutcome:
    """Do the stage's own work on the checkpoint before it."""
    recipe, config = setting.recipe, step.config
    if config is None:
        assert recipe.model is not None
        checkpoint, notes = load_checkpoint(recipe.model), {"source": model_name(recipe.model)}
        if (source := inspect_source(recipe.model)).adapter is not None:
            notes["base"] = model_name(source.path)
        if recipe.data.labels:
            checkpoint = with_label_head(
                checkpoint, recipe.data.labels, kind=recipe.data.new_head, seed=recipe.seed
            )
            notes["head"] = "new, for the labels of the settings"
        if recipe.data.languages:
            checkpoint = with_languages(checkpoint, *recipe.data.languages)
        return StageOutcome(checkpoint, {**notes})
    context = StageContext(
        text=setting.text,
        device=setting.device,
        seed=recipe.seed,
        work=workspace.work,
        events=events,
        export=recipe.export,
        chosen=workspace.chosen,
    )
    stage = stage_of(config)
    if before is not None:
        return stage.run(config, load_checkpoint(before.checkpoint), context)
    new = stage.make(config, context)
    # Its tokenizer is known only now, so the checks of `prepare` are made before training.
    shape = new.model.config
    info = ModelInfo(
        Limits.of(shape.spec), shape.vocab_size, tokenizer=lambda: new.tokenizer, task=setting.task
    )
    check_chain(recipe, info)
    check_text(recipe, setting.text, setting.held_out, new.tokenizer, info)
    check_protocol(recipe, setting.task, setting.stored, setting.held_out.examples(new.tokenizer))
    return stage.run(config, new, replace(context, new=True))
