"""Carries out a recipe in a run: reuses finished stages, makes the others, and writes the figures.

Speeds come last, in one pass over the graphs of all stages, because timings compare only inside one run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import assert_never

import torch

from roots_compress.checkpoints.inspect import CONFIG, inspect_source
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.recipe.writing import recipe_json
from roots_compress.errors import RootsError, StageError, Text, located
from roots_compress.evaluation.artifact import protocol_of
from roots_compress.evaluation.speed import Speeds, measure_speed
from roots_compress.events import Events, RunFinished, RunStarted
from roots_compress.io.atomic import disk_errors
from roots_compress.pipeline.checks import check_start
from roots_compress.pipeline.forecast.outlook import expected_seconds
from roots_compress.pipeline.gate_checks import check_protocol
from roots_compress.pipeline.preflight import Setting
from roots_compress.pipeline.stage_runner import make_stage
from roots_compress.pipeline.statuses import reasons_of, statuses_of
from roots_compress.pipeline.steps import Step, keys_of, steps_of
from roots_compress.pipeline.telling import tell_chain, tell_run, tell_stage
from roots_compress.progress import bar
from roots_compress.report.gates import judge_recipe
from roots_compress.report.html import html
from roots_compress.report.reading import read_recipe
from roots_compress.results import RunMetrics, SearchResult
from roots_compress.run.keys import StageKey
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stages import CommittedStage, read_stages, verify
from roots_compress.runtime.onnx.graph_config import read_config
from roots_compress.runtime.text import load_tokenizer
from roots_compress.stages.base import ModelInfo
from roots_compress.system.machine import describe_machine
from roots_compress.system.memory import memory_errors


def plan_recipe(setting: Setting, folder: Path) -> Iterator[str]:
    """Yield what `run_recipe` would do with each stage, and why, one line each.

    Raises:
        InputError: as `check_next_stage` raises it.
    """
    check_next_stage(setting, folder)
    committed, left_out = read_stages(folder)
    for status in statuses_of(setting, folder):
        step = status.step
        label = f"{status.index:02d} {step.kind}" + (f" ({step.name})" if step.name != step.kind else "")
        match status.action:
            case "make":
                yield f"{label}: to be made"
            case "again":
                yield f"{label}: to be made again: {'; '.join(status.reasons)}"
            case "reuse":
                yield f"{label}: finished, will be reused"
            case _ as never:
                assert_never(never)
    if setting.recipe.search is None:
        surplus = committed[len(steps_of(setting.recipe)) :]
        yield from (f"{stage.path.name}: to be removed: the recipe does not have it" for stage in surplus)
    yield from (f"not usable: {name}: {why}" for name, why in left_out.items())


def run_recipe(
    setting: Setting, folder: Path, *, fresh: bool = False, events: Events, recipe_text: str | None = None
) -> RunMetrics:
    """Carry out a recipe in a run folder, reusing finished stages of earlier tries.

    Raises:
        InputError: the request cannot be carried out. If this shows before any stage is finished, a run begun
            for it is removed again; if `check_next_stage` finds it, a run is not changed.
        StageError: a stage failed; the stages before it are safe.
    """
    with RunFolder.open(folder, fresh=fresh) as run:
        check_next_stage(setting, folder)
        describe(run, setting.recipe, recipe_text)
        events.emit(RunStarted(setting.recipe.name, str(folder)))
        return finish(run, make_rows(run, setting, events), setting, events)


def check_next_stage(setting: Setting, folder: Path) -> None:
    """Refuse early what the first unfinished stage would refuse because of its model's shape or the text.

    `prepare` checks the same for a recipe's first stage. The run is not changed, so a finished run stays
    finished when an impossible stage is added to it. The starting models of later stages are not known yet.

    Raises:
        InputError, GateMissedError: as `check_start` raises them.
    """
    committed, _ = read_stages(folder)
    for index, (step, key) in enumerate(keys_of(setting)):
        if index < len(committed) and committed[index].key.asked == key.asked:
            if index == 0 and setting.stored:
                examples = setting.held_out.examples(load_tokenizer(committed[0].onnx))
                check_protocol(setting.recipe, setting.task, setting.stored, examples)
            continue
        asked = index == 0 or step.place == ("stages", 0)
        if not asked and step.config is not None and not verify(committed[index - 1], setting.hashes.sha256):
            info = ModelInfo.of(inspect_source(committed[index - 1].checkpoint))
            info = replace(info, task=setting.task)
            check_start(step.config, step.place, info, setting.text, seed=setting.recipe.seed)
        return


def describe(run: RunFolder, recipe: Recipe, recipe_text: str | None) -> None:
    """Write a run's recipe: as the user wrote it, and with every default filled in."""
    document = recipe_json(recipe)
    # JSON is YAML too: a recipe that verbs made has no other form.
    run.write_text("recipe.yaml", recipe_text if recipe_text is not None else document)
    run.write_text("resolved.json", document)


def make_rows(run: RunFolder, setting: Setting, events: Events) -> list[CommittedStage]:
    """Make the recipe's stages, each from the one before it; finished ones are reused.

    Raises:
        InputError, StageError: as `run_recipe` raises them.
    """
    torch.set_num_threads(setting.threads)
    committed, _ = read_stages(run.path)
    tell_chain(events, steps_of(setting.recipe), expected_seconds(setting, run.path, committed))
    return [
        _reuse_or_make(run, index, step, key, setting, events)
        for index, (step, key) in enumerate(keys_of(setting))
    ]


def finish(
    run: RunFolder,
    rows: list[CommittedStage],
    setting: Setting,
    events: Events,
    search: SearchResult | None = None,
) -> RunMetrics:
    """Time a run's rows together, and write its figures and its report.

    Stages after the rows are removed. `search` says how the recipe was found.
    """
    if len(run.stages()) > len(rows):
        events.say(f"removing stages that the recipe no longer has, from {len(rows):02d} on")
        run.discard(len(rows))
    metrics = replace(_measure_together(rows, setting, events), search=search)
    run.write_metrics(metrics)
    run.write_text("report.html", html(metrics, recipe=read_recipe(run.path)))
    run.finish()
    tell_run(events, metrics)
    events.emit(RunFinished(metrics.name, str(run.path)))
    return metrics


def _reuse_or_make(
    run: RunFolder, index: int, step: Step, key: StageKey, setting: Setting, events: Events
) -> CommittedStage:
    chain, left_out = read_stages(run.path)
    title = f"{index:02d} {step.kind}"
    committed = chain[index] if index < len(chain) else None
    if committed is None:
        reasons = [f"{name}: {why}" for name, why in left_out.items() if name.startswith(f"{index:02d}-")]
    else:
        reasons = reasons_of(committed, key, setting.hashes.sha256)
        if not reasons:
            tell_stage(events, committed.result, setting.task, "reused")
            return committed
    kept = run.restore(index, key)
    if kept is not None:
        tell_stage(events, kept.result, setting.task, "restored")
        return kept
    # A search puts different candidates' stages in the same place: their difference needs no message.
    in_turn = committed is not None and committed.key.asked != key.asked and run.keeps_displaced
    if reasons and not in_turn:
        events.say(f"{title}: made again: {'; '.join(reasons)}")
    before = chain[index - 1] if index else None
    try:
        with located(step.place, of_recipe=True), disk_errors(run.path, StageError), memory_errors():
            return make_stage(run, index, step, key, before, setting, events)
    except RootsError as error:
        error.message = Text(f"{title} failed: ", error.message)
        if index:
            safe = f"Stages before it are safe in {run.path}, and the run goes on from there."
            error.remedy = Text(error.remedy, "\n", safe) if error.remedy else safe
        raise


def time_rows(
    rows: Sequence[CommittedStage], setting: Setting, events: Events, label: str
) -> dict[str, Speeds]:
    """Return the speeds of the rows' graphs, timed in turns, by folder name."""
    evaluation = setting.recipe.evaluation
    with bar(events, label) as progress:
        return measure_speed(
            {row.path.name: row.onnx for row in rows},
            contexts=evaluation.contexts,
            decode_tokens=evaluation.decode_tokens,
            repeats=evaluation.repeats,
            threads=setting.threads,
            progress=progress,
        )


def _measure_together(rows: list[CommittedStage], setting: Setting, events: Events) -> RunMetrics:
    """Time all graphs in one interleaved pass, and put the run's figures together."""
    recipe, task = setting.recipe, setting.task
    began = time.perf_counter()
    speeds = time_rows(rows, setting, events, "speed of all stages")
    spent = time.perf_counter() - began
    stages = tuple(
        replace(
            row.result,
            name=step.name,
            metrics=replace(
                row.result.metrics,
                timings={each.figure: speeds[row.path.name][each.phase] for each in task.workloads},
            ),
        )
        for row, step in zip(rows, steps_of(recipe), strict=True)
    )
    contexts = [read_config(row.onnx / CONFIG)[1] for row in rows]
    metrics = RunMetrics(
        name=recipe.name,
        machine=describe_machine(threads=setting.threads, device=setting.device),
        protocol=protocol_of(
            task,
            recipe.evaluation,
            setting.held_out.examples(load_tokenizer(rows[0].onnx)),
            max_context=min(contexts),
            threads=setting.threads,
            text=setting.text.description,
        ),
        stages=stages,
        task=task.name,
        timing_seconds=spent,
    )
    return replace(metrics, gates=judge_recipe(recipe, metrics, setting.stored))
