"""Walks a recipe over a run: makes what is missing, measures every stage, and writes the figures down.

A stage is made from the checkpoint on disk of the stage before it, never from one in memory, so that a
resumed run and an undisturbed one do the same work. It is exported, checked and measured before its commit.
Speeds come last, in one pass over the graphs of all stages, because timings compare only inside one run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

import torch
from rich.console import Console

from roots_compress.distill.config import DistillConfig
from roots_compress.distill.stage import distill
from roots_compress.errors import InputError, RootsError, StageError, printable
from roots_compress.evaluate.artifact import measure_quality, protocol_of
from roots_compress.evaluate.progress import bar
from roots_compress.evaluate.speed import Speeds, measure_speed
from roots_compress.export.exporter import export_checkpoint
from roots_compress.model.checkpoint import load_checkpoint, save_checkpoint
from roots_compress.model.sources import CONFIG, inspect_source
from roots_compress.needs import available_memory, free_disk, needs_of, require_room
from roots_compress.preparation import Setting, check_students, check_text, held_out_windows
from roots_compress.prune.config import PruneConfig
from roots_compress.prune.stage import prune
from roots_compress.quantize.config import QuantizeConfig
from roots_compress.quantize.stage import quantize
from roots_compress.recipe.schema import Recipe
from roots_compress.report.gates import judge
from roots_compress.report.html import html
from roots_compress.results import RunMetrics, SearchResult, StageResult
from roots_compress.run.atomic import disk_errors
from roots_compress.run.keys import StageKey, explain_change
from roots_compress.run.machine import describe_machine
from roots_compress.run.stages import CommittedStage, read_stages, verify
from roots_compress.run.store import RunFolder
from roots_compress.run.workspace import Workspace
from roots_compress.runtime.session import read_config
from roots_compress.runtime.text import load_tokenizer
from roots_compress.steps import Step, inputs_of, keys_of, steps_of
from roots_compress.train.config import TrainConfig
from roots_compress.train.stage import new_model, planned_parameters, train
from roots_compress.training.outcome import StageOutcome


def plan_recipe(setting: Setting, folder: Path) -> Iterator[str]:
    """Yield what `run_recipe` would do with each stage, and why, one line each."""
    committed, left_out = read_stages(folder)
    for index, (step, key) in enumerate(keys_of(setting)):
        label = f"{index:02d} {step.kind}" + (f" ({step.name})" if step.name != step.kind else "")
        if index >= len(committed):
            yield f"{label}: to be made"
        elif committed[index].key.sha256 == key.sha256:
            yield f"{label}: finished, will be reused"
        else:
            yield f"{label}: to be made again: {'; '.join(_reasons(committed[index], key))}"
    yield from (f"not usable: {reason}" for reason in left_out)


def run_recipe(
    setting: Setting, folder: Path, *, fresh: bool = False, console: Console, recipe_text: str | None = None
) -> RunMetrics:
    """Carry a recipe out in a run folder, reusing the stages an earlier try has finished.

    Args:
        setting: what to do, as `prepare` returns it.
        folder: the run; made where it does not exist.
        fresh: delete the run that stands there first.
        console: where progress goes.
        recipe_text: the recipe as the user wrote it, kept in the run.

    Raises:
        InputError: the request cannot be carried out. Where that shows before any stage is finished, a run
            that was begun for it is removed again.
        StageError: a stage failed; the stages before it stand.
    """
    with RunFolder.open(folder, fresh=fresh) as run:
        describe(run, setting.recipe, recipe_text)
        return finish(run, make_rows(run, setting, console), setting, console)


def describe(run: RunFolder, recipe: Recipe, recipe_text: str | None) -> None:
    """Write down what a run is to do: the recipe as the user wrote it, and with every default filled in."""
    document = recipe.model_dump_json(indent=2) + "\n"
    # JSON is YAML too: what a verb appended has no other form.
    run.write_text("recipe.yaml", recipe_text if recipe_text is not None else document)
    run.write_text("resolved.json", document)


def make_rows(run: RunFolder, setting: Setting, console: Console) -> list[CommittedStage]:
    """Bring the recipe's stages about, each from the one before it; what is finished is reused.

    Raises:
        InputError, StageError: as `run_recipe` raises them.
    """
    torch.set_num_threads(setting.threads)
    return [
        _reuse_or_make(run, index, step, key, setting, console)
        for index, (step, key) in enumerate(keys_of(setting))
    ]


def finish(
    run: RunFolder,
    rows: list[CommittedStage],
    setting: Setting,
    console: Console,
    search: SearchResult | None = None,
) -> RunMetrics:
    """Time a run's rows together, and write down its figures and its report.

    Args:
        run: the folder they stand in.
        rows: as `make_rows` returns them; stages after them are removed.
        setting: what was asked for.
        console: where progress goes.
        search: how the recipe was found, where it was searched for.
    """
    if len(run.stages()) > len(rows):
        console.print(f"removing stages that the recipe no longer has, from {len(rows):02d} on")
        run.discard(len(rows))
    metrics = replace(_measure_together(run, rows, setting, console), search=search)
    run.write_metrics(metrics)
    run.write_text("report.html", html(metrics))
    run.seal()
    return metrics


def _reuse_or_make(
    run: RunFolder, index: int, step: Step, key: StageKey, setting: Setting, console: Console
) -> CommittedStage:
    chain = run.stages()
    title = f"{index:02d} {step.kind}"
    standing = chain[index] if index < len(chain) else None
    if standing is not None and standing.key.sha256 == key.sha256:
        reasons = verify(standing)
        if not reasons:
            console.print(f"{title}: finished earlier, reused")
            return standing
    else:
        reasons = _reasons(standing, key) if standing is not None and not run.keeps_displaced else []
    kept = run.restore(index, key)
    if kept is not None:
        console.print(f"{title}: finished earlier, taken back")
        return kept
    if reasons:
        console.print(printable(f"{title}: made again: {'; '.join(reasons)}"), markup=False)
    before = chain[index - 1] if index else None
    try:
        with disk_errors(run.path, StageError):
            return _make(run, index, step, key, before, setting, console)
    except RootsError as error:
        error.message = f"{title} failed: {error.message}"
        if index:
            safe = f"Stages before it are safe in {run.path}; the same command goes on from there."
            error.remedy = f"{error.remedy}\n{safe}" if error.remedy else safe
        raise


def _make(
    run: RunFolder,
    index: int,
    step: Step,
    key: StageKey,
    before: CommittedStage | None,
    setting: Setting,
    console: Console,
) -> CommittedStage:
    """Make one stage: carry it out, save, export, measure, commit."""
    _require_room(run, index, step, before, setting)
    workspace = run.begin(index, step.kind, step.name, key)
    console.rule(f"{index:02d} {step.kind}", align="left")
    start = time.perf_counter()
    outcome = _carry_out(step, before, workspace, setting, console)
    seconds = time.perf_counter() - start
    save_checkpoint(outcome.checkpoint, workspace.checkpoint)
    parity = export_checkpoint(outcome.checkpoint, workspace.onnx, setting.recipe.export)
    windows = held_out_windows(setting.recipe, setting.text, outcome.checkpoint.tokenizer)
    with bar(console, "perplexity") as progress:
        quality = measure_quality(
            workspace.onnx,
            outcome.checkpoint.model,
            windows,
            setting.recipe.evaluation,
            threads=setting.threads,
            progress=progress,
        )
    console.print(
        f"{index:02d} {step.kind}: {quality.bytes / 1e6:.2f} MB, perplexity {quality.perplexity:.3f}, "
        f"graph agrees with the checkpoint within {parity.largest_difference:.1e}"
    )
    result = StageResult(
        index=index,
        kind=step.kind,
        name=step.name,
        seconds=seconds,
        metrics=quality.with_speed(Speeds((), ())),
        onnx=workspace.final_onnx,
        notes={**outcome.notes, "parity": {case.name: case.difference for case in parity.parity}},
    )
    return workspace.commit(
        result,
        machine=describe_machine(threads=setting.threads, device=setting.device),
        inputs=_unchanged_inputs(step, key, before, setting),
    )


def _require_room(
    run: RunFolder, index: int, step: Step, before: CommittedStage | None, setting: Setting
) -> None:
    """Refuse to start where this stage and those after it lack disk or memory.

    Raises:
        InputError: they do.
    """
    if before is not None:
        parameters = before.result.metrics.parameters
    elif isinstance(step.config, TrainConfig):
        parameters = planned_parameters(step.config)
    else:
        assert setting.recipe.model is not None
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
    """Return the hashes of what a stage was made from, after checking that they still are those of its key.

    Raises:
        StageError: a file that the stage read has changed since its key was taken.
    """
    try:
        inputs = inputs_of(step, setting)
        changed = explain_change({"inputs": key.ingredients["inputs"]}, {"inputs": dict(inputs)})
    except (InputError, OSError) as error:
        changed = [str(error)]
    if before is not None:
        changed += [f"{before.path.name}: {fault}" for fault in verify(before)]
    if changed:
        raise StageError(
            f"its input changed while the stage was being made: {'; '.join(changed)}",
            remedy="Nothing was committed. Give the same command again once nothing writes to it any more.",
        )
    return inputs


def _carry_out(
    step: Step, before: CommittedStage | None, workspace: Workspace, setting: Setting, console: Console
) -> StageOutcome:
    """Do the stage's own work on the checkpoint before it."""
    common: dict[str, Any] = {
        "device": setting.device,
        "seed": setting.recipe.seed,
        "work": workspace.work,
        "console": console,
    }
    text, config = setting.text, step.config
    if before is None:
        if config is None:
            assert setting.recipe.model is not None
            return StageOutcome(load_checkpoint(setting.recipe.model), {"source": setting.recipe.model.name})
        assert isinstance(config, TrainConfig)
        new = new_model(config, text, seed=setting.recipe.seed)
        # Its tokenizer is known only now: what `prepare` checks of other models is checked before training.
        context = new.model.config.max_position_embeddings
        check_students(
            setting.recipe, new.tokenizer, vocab_size=new.model.config.vocab_size, max_context=context
        )
        check_text(setting.recipe, text, new.tokenizer, max_context=context)
        return train(config, new, text, **common)
    checkpoint = load_checkpoint(before.checkpoint)
    match config:
        case TrainConfig():
            return train(config, checkpoint, text, **common)
        case DistillConfig():
            return distill(config, checkpoint, text, **common)
        case PruneConfig():
            return prune(config, checkpoint, text, **common)
        case QuantizeConfig():
            return quantize(config, checkpoint, text, **common)
        case None:
            raise AssertionError("only a baseline is imported")
        case _:
            assert_never(config)


def _measure_together(
    run: RunFolder, rows: list[CommittedStage], setting: Setting, console: Console
) -> RunMetrics:
    """Time all graphs in one interleaved pass, and put the run's figures together."""
    recipe = setting.recipe
    evaluation = recipe.evaluation
    with bar(console, "speed of all stages") as progress:
        speeds = measure_speed(
            {row.path.name: row.onnx for row in rows},
            contexts=evaluation.contexts,
            decode_tokens=evaluation.decode_tokens,
            repeats=evaluation.repeats,
            threads=setting.threads,
            progress=progress,
        )
    stages = tuple(
        replace(
            row.result,
            name=step.name,
            metrics=replace(
                row.result.metrics,
                prefill_tokens_per_second=speeds[row.path.name].prefill,
                decode_tokens_per_second=speeds[row.path.name].decode,
            ),
        )
        for row, step in zip(rows, steps_of(recipe), strict=True)
    )
    contexts = [read_config(row.onnx / CONFIG)[1] for row in rows]
    metrics = RunMetrics(
        name=recipe.name,
        machine=describe_machine(threads=setting.threads, device=setting.device),
        protocol=protocol_of(
            evaluation,
            held_out_windows(recipe, setting.text, load_tokenizer(rows[0].onnx)),
            max_context=min(contexts),
            threads=setting.threads,
            text=setting.text.description,
        ),
        stages=stages,
    )
    return replace(metrics, gates=judge(recipe.gates, metrics))


def _reasons(stage: CommittedStage, key: StageKey) -> list[str]:
    """Say why a committed stage cannot be reused; that the one before it changed is said there already."""
    changes = explain_change(stage.key.ingredients, key.ingredients)
    own = [change for change in changes if not change.startswith("parent:")]
    return own or ["the stage before it changed"]
