"""The prune stage: drop layers, cut heads and channels layer by layer, refit, and recover by distillation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from torch import nn

from roots_compress.calibration.own_text import with_own_text
from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.prune import PruneConfig, RecoveryConfig
from roots_compress.data.documents import TextSplit
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import InputError, Key, StageError, located
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.resizing import check_resizable, keep_layers
from roots_compress.models.spec import ModelSpec
from roots_compress.models.working_copy import part_with, sharing_copy
from roots_compress.progress import Phases, track_made
from roots_compress.results import GateResult, Json, LayerError, Point
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.stages.prune.expected_cost import phases_of
from roots_compress.stages.prune.layerwise import LayerErrors, LayerwiseCutter
from roots_compress.stages.prune.plan import AXES, Plan, adapted, narrowed
from roots_compress.stages.prune.residual import cut_residual
from roots_compress.stages.prune.targets.allocate import Allocation, allocate
from roots_compress.stages.prune.targets.decode_time import DecodeTimer
from roots_compress.stages.prune.targets.shapes import make_plan
from roots_compress.stages.prune.targets.solvers import solvers
from roots_compress.tasks.registry import task_of_model
from roots_compress.training.further import teach_further
from roots_compress.training.low_rank import check_rank, low_rank_updates
from roots_compress.training.summary import FitSummary


@dataclass(frozen=True)
class Pruned:
    """The changes to a model."""

    dropped: list[int]
    """Numbers of the removed layers."""
    errors: list[LayerErrors]
    """Errors of the other layers."""
    allocation: Allocation
    residual_errors: list[float] | None = None
    """Errors of their blocks' inputs from a narrower residual stream; None if that is not cut."""


def prune(config: PruneConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
    """Return a smaller model and the decisions; the given checkpoint is not changed.

    Args:
        checkpoint: the model to prune; also the teacher of the recovery.
        context: calibration and recovery read its training documents; its seed orders them.

    Raises:
        InputError: no legal shape meets the ratios or the target, the model is quantized, the text is
            too short, or the rank of the recovery too large.
        StageError: activations or resulting weights are not finite.
    """
    device, seed = context.device, context.seed
    config = adapted(config, checkpoint.model.config.spec)
    plan, windows = planned(config, checkpoint, context.text, seed=seed)
    # Half precision is for storage; statistics and refits need the range and precision of float32.
    plain = checkpoint.model.dtype == torch.float32
    original = checkpoint.model if plain else copy.deepcopy(checkpoint.model).float()
    # The residual stream is narrowed in place, and a move to another device moves the weights.
    apart = config.residual_ratio > 0 or device != "cpu"
    model = (copy.deepcopy(original) if apart else sharing_copy(original)).eval().requires_grad_(True)
    try:
        nn.Module.to(model, device)
        own = Checkpoint(model, checkpoint.tokenizer)
        with (
            Phases(context.events, "prune", phases_of(config, *windows.input_ids.shape)) as phases,
            _timed(config, checkpoint, context.work / "timing", phases) as timer,
        ):
            windows = with_own_text(windows, own, config.own_windows, seed=seed, events=phases)
            cut = _cut(config, plan, model, windows, timer, device=device, events=phases)
        part_with(model, original)
        _check_result(model, original, cut.allocation)
        notes = _notes(original, model, windows, cut)
        curves: dict[str, tuple[Point, ...]] = {}
        if config.recovery is not None:
            pruned = Checkpoint(model, checkpoint.tokenizer)
            summary = _recover(config.recovery, pruned, original, context)
            notes["recovery"], curves = summary.to_json(), summary.curves
    finally:
        original.requires_grad_(True)
    return StageOutcome(
        Checkpoint(model, checkpoint.tokenizer),
        notes,
        gates=_gates(config, cut),
        curves=curves,
        layer_errors=_layer_errors(model.config.spec, cut),
    )


def planned(
    config: PruneConfig, checkpoint: Checkpoint, text: TextSplit, *, seed: int
) -> tuple[Plan, PackedWindows]:
    """Return the legal widths for the settings, and the text to calibrate on.

    The model's weights are not read; they may be without storage.

    Raises:
        InputError: as `prune` does.
    """
    check_resizable(checkpoint.model)
    plan = make_plan(config, checkpoint.model.config.spec)
    if config.recovery is not None and config.recovery.rank is not None:
        with located(("recovery",)):
            check_rank(checkpoint.model, config.recovery.rank)
    return plan, _calibration_windows(config, checkpoint, text, plan, seed=seed)


@contextmanager
def _timed(
    config: PruneConfig, checkpoint: Checkpoint, folder: Path, events: Phases
) -> Iterator[DecodeTimer | None]:
    """Time the model if the target is a reachable time; None for any other target."""
    target = config.target
    if target is None or target.decode_ms is None:
        yield None
        return
    model = checkpoint.model.config
    with DecodeTimer(model, folder, multiple_of=config.multiple_of, events=events) as timer:
        timer.check_reachable(target.decode_ms)
        yield timer


def _calibration_windows(
    config: PruneConfig, checkpoint: Checkpoint, text: TextSplit, plan: Plan, *, seed: int
) -> PackedWindows:
    settings, task = config.calibration, task_of_model(checkpoint.model)
    block_size = min(settings.block_size, checkpoint.model.config.max_position_embeddings)
    windows = task.training_windows(
        text.train, checkpoint.tokenizer, block_size, seed=seed, limit=settings.windows
    )
    count = len(windows.input_ids)
    tokens = (count + config.own_windows) * block_size
    short = [each for each in solvers(config, checkpoint.model.config.spec, plan) if tokens < each.tokens]
    if short:
        needed = max(each.tokens for each in short)
        more = ceil(needed / block_size) - config.own_windows
        enough = f"Set calibration.windows to {more} or more"
        if count < settings.windows:
            enough = f"The text has no more: give {more * block_size} tokens of it"
        own = "raise own_windows, " if task.writes else ""
        raise InputError(
            f"{count + config.own_windows} calibration windows of {block_size} tokens are too few for "
            f"{' and '.join(each.name for each in short)}; the widest projection needs {needed} tokens",
            where=Key("calibration"),
            remedy=f"{enough}, {own}or {' and '.join(each.without for each in short)}.",
        )
    return windows


def _cut(
    config: PruneConfig,
    plan: Plan,
    model: RootsWithHead,
    windows: PackedWindows,
    timer: DecodeTimer | None,
    *,
    device: str,
    events: Phases,
) -> Pruned:
    """Cut the model in place."""
    allocation = allocate(config, plan, model, windows, timer, device=device, events=events)
    targets = allocation.targets
    sources = [index for index, target in enumerate(targets) if target is not None]
    keep_layers(model, sources)
    left = [target for target in targets if target is not None]
    residual_errors = None
    if plan.hidden_size < model.config.hidden_size:
        residual_errors = cut_residual(model, windows, plan.hidden_size, refitted=config.refit, device=device)
    cutter = LayerwiseCutter(model, windows, score=config.score, refitted=config.refit, device=device)
    errors = list(track_made(cutter.cut(left), events, "pruning layers", total=len(left)))
    nn.Module.to(model, "cpu")
    dropped = [index for index in range(len(targets)) if index not in sources]
    return Pruned(dropped, errors, allocation, residual_errors)


def _check_result(model: RootsWithHead, original: RootsWithHead, allocation: Allocation) -> None:
    """Refuse a wrong result: weights that are not finite, or layers that are not as planned."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise StageError(
                f"pruning left NaN or infinite weights in {name}",
                remedy="Check the checkpoint's weights, or set refit to false.",
            )
    before, after = original.num_parameters(), model.num_parameters()
    if after >= before:
        raise StageError(
            f"pruning left {after:,} parameters of {before:,}: nothing was removed",
            remedy="Raise the ratios, or lower the target or multiple_of.",
        )
    planned = zip(original.config.spec.layers, allocation.targets, strict=True)
    shapes = [narrowed(layer, target) for layer, target in planned if target is not None]
    for index, (layer, shape) in enumerate(zip(model.model.all_layers(), shapes, strict=True)):
        for half, sublayer in zip(layer.halves, shape, strict=True):
            for name, matrix in sublayer.op.matrices(model.config.hidden_size).items():
                found, meant = tuple(half.block.linear(name).weight.shape), (matrix.rows, matrix.width)
                if found != meant:
                    raise StageError(
                        f"pruning left layer {index}'s {half.name}.{name} with the shape {found}, and meant "
                        f"{meant}",
                        remedy="This is a fault of roots-compress: please report it.",
                    )


def _notes(
    original: RootsWithHead,
    model: RootsWithHead,
    windows: PackedWindows,
    cut: Pruned,
) -> dict[str, Json]:
    notes: dict[str, Json] = {
        "parameters_before": original.num_parameters(),
        "parameters_after": model.num_parameters(),
        "calibration_tokens": int(windows.input_ids.size),
        "dropped_layers": list(cut.dropped),
    }
    for place, op in model.config.spec.blocks():
        errors = notes.setdefault(f"{op.kind}_errors", [])
        assert isinstance(errors, list)
        errors.append(cut.errors[place.layer][place.name])
    if cut.residual_errors is not None:
        notes["residual_errors"] = list(cut.residual_errors)
        notes["hidden_size_before"] = original.config.hidden_size
        notes["hidden_size_after"] = model.config.hidden_size
    if cut.allocation.cost is not None:
        notes["estimated_divergence"] = cut.allocation.cost
    if cut.allocation.decode_ms is not None:
        notes["decode_ms"] = cut.allocation.decode_ms
    for when, spec in (("before", original.config.spec), ("after", model.config.spec)):
        for axis in (axis for _, op in spec.blocks() for axis in op.axes()):
            widths = notes.setdefault(f"{AXES[axis.name].width}_{when}", [])
            assert isinstance(widths, list)
            widths.append(axis.units)
    return notes


def _layer_errors(spec: ModelSpec, cut: Pruned) -> tuple[LayerError, ...]:
    """Return the error of each cut block's output on the calibration text, after the refit."""
    found = ((spec.path(place), cut.errors[place.layer][place.name]) for place, _ in spec.blocks())
    return tuple(LayerError(name, error**2) for name, error in found if error is not None)


def _gates(config: PruneConfig, cut: Pruned) -> tuple[GateResult, ...]:
    """Return whether a target in milliseconds was met, by the measured time of the chosen shapes."""
    timed = cut.allocation.decode_ms
    if timed is None:
        return ()
    assert config.target is not None
    limit, value = config.target.decode_ms, timed["after"]
    assert limit is not None
    assert isinstance(value, float)
    return (GateResult("target.decode_ms", limit, value, passed=timed["met"] is True),)


def _recover(
    config: RecoveryConfig,
    pruned: Checkpoint,
    original: RootsWithHead,
    context: StageContext,
) -> FitSummary:
    """Train the pruned model in place to match the original's outputs."""
    rank = config.rank
    updates = nullcontext() if rank is None else low_rank_updates(pruned.model, rank, seed=context.seed)
    with located(("recovery",)), updates:
        return teach_further(
            pruned.model,
            Checkpoint(original, pruned.tokenizer),
            context.text,
            task_of_model(original).training_windows,
            config.loss,
            config.training,
            context.training("recovery"),
        )
