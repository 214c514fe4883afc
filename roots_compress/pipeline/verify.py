"""Checks files on disk again: every byte of a run against its hashes, every graph against its checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.configs.export import ExportConfig
from roots_compress.configs.recipe.growth import read_resolved
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.errors import InputError, RootsError
from roots_compress.export.parity import check_parity
from roots_compress.io.atomic import real_path
from roots_compress.io.json_files import read_errors
from roots_compress.pipeline.steps import steps_of
from roots_compress.report.reading import read_figures
from roots_compress.results import RunMetrics, StageResult
from roots_compress.run.manifest import MANIFEST_NAME, ManifestError
from roots_compress.run.marker import MARKER_NAME
from roots_compress.run.run_folder import covered_files
from roots_compress.run.run_manifest import run_manifest_faults
from roots_compress.run.stages import (
    STAGE_FOLDER,
    CommittedStage,
    read_stage,
    read_stages,
    verify,
)
from roots_compress.runtime.onnx.graph_folder import find_graph, graph_files, holds_graph
from roots_compress.tasks.registry import task_of_graph


@dataclass(frozen=True)
class Finding:
    """The result for one part: its faults, or else what was checked."""

    subject: str
    checked: str
    faults: tuple[str, ...] = ()


def verify_folder(folder: Path) -> Iterator[Finding]:
    """Yield the findings in a run, in one stage of a run, or in a folder with a graph.

    Raises:
        InputError: the folder is none of these.
    """
    with read_errors(folder):
        is_run = (folder / MARKER_NAME).is_file()
    if is_run:
        yield from _verify_run(folder)
    elif (stage := _stage_around(folder)) is not None:
        yield _verify_stage_folder(stage)
    elif holds_graph(folder):
        yield _verify_graph(folder)
    else:
        raise InputError(
            "there is nothing here that can be verified" if folder.exists() else "there is no such folder",
            where=folder,
            remedy="Name a run's folder, a stage's folder in it, or a folder that holds model.onnx.",
        )


def _stage_around(folder: Path) -> Path | None:
    """Return the stage that a folder is, or whose graph it is."""
    folder = real_path(folder)
    stage = folder.parent if folder.name == "onnx" else folder
    return stage if STAGE_FOLDER.fullmatch(stage.name) and (stage / MANIFEST_NAME).exists() else None


def _verify_run(run: Path) -> Iterator[Finding]:
    chain, left_out = read_stages(run)
    for name, fault in left_out.items():
        yield Finding(name, "", (fault,))
    faults = list(run_manifest_faults(run, covered_files(run), [stage.path.name for stage in chain]))
    try:
        if (recipe := read_resolved(run)) is not None:
            faults += _contradictions(recipe, read_figures(run), chain)
    except RootsError as error:
        faults.append(f"{error.where}: {error.message}")
    yield Finding("recipe and figures", f"those of the {len(chain)} stages, unchanged", tuple(faults))
    for stage in chain:
        yield _verify_stage(stage)


def _contradictions(recipe: Recipe, metrics: RunMetrics, chain: list[CommittedStage]) -> Iterator[str]:
    """Yield contradictions between the recipe, the run's figures and the committed stages."""
    steps = steps_of(recipe)
    if not len(steps) == len(metrics.stages) == len(chain):
        yield (
            f"the recipe has {len(steps)} rows, metrics.json {len(metrics.stages)}, "
            f"and {len(chain)} stages are committed"
        )
    for step, row, stage in zip(steps, metrics.stages, chain, strict=False):
        if not step.made(stage):
            yield f"{stage.path.name} was made with other settings than the recipe's"
        if _as_committed(row, stage.result) != stage.result:
            yield f"metrics.json has other figures for {stage.path.name} than the stage itself"


def _as_committed(row: StageResult, committed: StageResult) -> StageResult:
    """Return a row of a run's figures without speeds and label, which are added after the commit."""
    return replace(
        row,
        name=committed.name,
        metrics=replace(row.metrics, timings=dict.fromkeys(row.metrics.timings, ())),
    )


def _verify_stage_folder(folder: Path) -> Finding:
    try:
        return _verify_stage(read_stage(folder))
    except ManifestError as error:
        return Finding(folder.name, "", (str(error),))


def _verify_stage(stage: CommittedStage) -> Finding:
    faults = verify(stage)
    if faults:
        return Finding(stage.path.name, "", tuple(faults))  # A damaged checkpoint is not loaded.
    size = sum(record.bytes for record in stage.manifest.files.values())
    intact = f"{len(stage.manifest.files)} files, {size / 1e6:.2f} MB, unchanged"
    # Its graph is checked with its own export settings.
    config = ExportConfig.model_validate(stage.key.ingredients.get("export", {}))
    return _with_parity(stage.path.name, intact, stage.onnx, stage.checkpoint, config)


def _verify_graph(folder: Path) -> Finding:
    """Check a graph without a manifest."""
    try:
        graph, files = find_graph(folder), graph_files(folder)
        checkpoint = graph.parent.parent / "checkpoint"
        intact = f"{sum(path.stat().st_size for path in files) / 1e6:.2f} MB, whole"
        if checkpoint.is_dir():
            return _with_parity(str(folder), intact, graph.parent, checkpoint, ExportConfig())
        task = task_of_graph(graph)
        task.require_sound(task.open_graph(graph, provider="cpu"))
    except RootsError as error:
        return Finding(str(folder), "", (_fault(error),))
    return Finding(str(folder), f"{intact}; no checkpoint beside it to compare its logits with")


def _with_parity(subject: str, intact: str, onnx: Path, checkpoint: Path, config: ExportConfig) -> Finding:
    """Compare a graph's logits with its checkpoint's."""
    try:
        graph_files(onnx)
        cases = check_parity(load_checkpoint(checkpoint).model, find_graph(onnx), config)
    except RootsError as error:
        return Finding(subject, "", (_fault(error),))
    difference = max(case.difference for case in cases)
    return Finding(subject, f"{intact}; graph agrees with the checkpoint within {difference:.1e}")


def _fault(error: RootsError) -> str:
    """Return the fault in an error; an error of the machine (no disk, no memory) is not a file's fault.

    Raises:
        RootsError: it is such a one.
    """
    if error.transient:
        raise error
    return error.message
