"""The prune stage: drop layers, cut heads and channels layer by layer, refit, and recover by distillation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from roots_compress.data.documents import TextSplit
from roots_compress.data.packing import pack
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import InputError, StageError
from roots_compress.model.checkpoint import Checkpoint
from roots_compress.model.modeling import RootsForCausalLM
from roots_compress.model.surgery import check_resizable, keep_layers
from roots_compress.prune.config import PruneConfig, RecoveryConfig
from roots_compress.prune.layerwise import (
    LayerErrors,
    LayerTarget,
    LayerwiseCutter,
    layer_influences,
    unit_shares,
)
from roots_compress.prune.plan import best_units, global_widths, kept_width
from roots_compress.prune.refit import rows_needed
from roots_compress.results import Json
from roots_compress.training.outcome import StageOutcome
from roots_compress.training.teach import teach


@dataclass(frozen=True)
class Plan:
    """Legal widths, known before anything is measured: those of each layer, and how many layers stay."""

    layers: int
    targets: tuple[LayerTarget, ...]
    """For every layer of the unpruned model, also those that will leave."""


def prune(
    config: PruneConfig,
    checkpoint: Checkpoint,
    text: TextSplit,
    *,
    device: str,
    seed: int,
    work: Path,
    console: Console,
) -> StageOutcome:
    """Return a smaller model and what was decided; the checkpoint that is given stays as it is.

    Args:
        config: what to remove, and how.
        checkpoint: the model to prune; also the teacher of the recovery.
        text: calibration and recovery read its training documents only.
        device: as `resolve_device` returns it.
        seed: orders the text.
        work: holds the recovery's training state.
        console: where progress goes.

    Raises:
        InputError: the ratios leave no legal shape, the model is quantized, or the text is too short.
        StageError: the activations, or the weights that come out, are not finite.
    """
    check_resizable(checkpoint.model)
    plan = make_plan(config, checkpoint.model)
    windows = _calibration_windows(config, checkpoint, text, plan, seed=seed)
    # Half precision serves storage; statistics and refits need the range and the digits of float32.
    plain = checkpoint.model.dtype == torch.float32
    original = checkpoint.model if plain else copy.deepcopy(checkpoint.model).float()
    model = copy.deepcopy(original).eval().requires_grad_(True)
    try:
        dropped, errors = _cut(config, plan, model, windows, device=device, console=console)
        _check_result(model, original)
        notes = _notes(original, model, windows, dropped, errors)
        if config.recovery is not None:
            pruned = Checkpoint(model, checkpoint.tokenizer)
            notes["recovery"] = _recover(
                config.recovery, pruned, original, text, device=device, seed=seed, work=work, console=console
            )
    finally:
        original.requires_grad_(True)
    return StageOutcome(Checkpoint(model, checkpoint.tokenizer), notes)


def make_plan(config: PruneConfig, model: RootsForCausalLM) -> Plan:
    """Return the widths that the ratios ask for; needs nothing but the model's shape.

    Raises:
        InputError: a ratio leaves no legal shape; the nearest that does is named.
    """
    targets = tuple(
        LayerTarget(
            kv_groups=kept_width(widths["num_key_value_heads"], config.head_ratio, 1, key="head_ratio"),
            mlp_channels=kept_width(
                widths["intermediate_size"], config.ratio, config.multiple_of, key="ratio"
            ),
        )
        for widths in model.config.layers
    )
    return Plan(kept_width(len(targets), config.layer_ratio, 1, key="layer_ratio"), targets)


def _calibration_windows(
    config: PruneConfig, checkpoint: Checkpoint, text: TextSplit, plan: Plan, *, seed: int
) -> PackedWindows:
    settings = config.calibration
    block_size = min(settings.block_size, checkpoint.model.config.max_position_embeddings)
    windows = pack(text.train, checkpoint.tokenizer, block_size, seed=seed, limit=settings.windows)
    needed = rows_needed(max(_refitted_widths(config, checkpoint.model, plan), default=0))
    if config.refit and windows.input_ids.size < needed:
        count = len(windows.input_ids)
        raise InputError(
            f"{count} calibration windows of {block_size} tokens are too few for a stable least-squares "
            f"refit; the widest projection needs {needed} tokens",
            where="calibration",
            remedy=f"The text has no more: give {needed} tokens of it, or set refit to false."
            if count < settings.windows
            else f"Set calibration.windows to {ceil(needed / block_size)} or more, or refit to false.",
        )
    return windows


def _refitted_widths(config: PruneConfig, model: RootsForCausalLM, plan: Plan) -> Iterator[int]:
    """Yield the input width of each projection that is to be cut, as it will or at most may be."""
    for widths, target in zip(model.config.layers, plan.targets, strict=True):
        groups = widths["num_key_value_heads"]
        if config.ratio:
            yield target.mlp_channels if config.uniform else widths["intermediate_size"]
        if config.head_ratio:
            each = widths["num_attention_heads"] // groups * widths["head_dim"]
            yield each * (target.kv_groups if config.uniform else groups)


def _cut(
    config: PruneConfig,
    plan: Plan,
    model: RootsForCausalLM,
    windows: PackedWindows,
    *,
    device: str,
    console: Console,
) -> tuple[list[int], list[LayerErrors]]:
    """Cut the model in place; return the numbers of the dropped layers, and the others' errors."""
    nn.Module.to(model, device)
    sources = list(range(len(plan.targets)))
    if plan.layers < len(plan.targets):
        influences = torch.tensor(layer_influences(model, windows, device=device))
        sources = best_units(influences, plan.layers)
        keep_layers(model, sources)
    targets = [plan.targets[source] for source in sources]
    if not config.uniform:
        targets = _spread(config, model, windows, targets, device=device)
    cutter = LayerwiseCutter(model, windows, score=config.score, refitted=config.refit, device=device)
    errors = list(
        track(cutter.cut(targets), "pruning layers", total=len(targets), console=console, transient=True)
    )
    nn.Module.to(model, "cpu")
    return [index for index in range(len(plan.targets)) if index not in sources], errors


def _spread(
    config: PruneConfig,
    model: RootsForCausalLM,
    windows: PackedWindows,
    targets: list[LayerTarget],
    *,
    device: str,
) -> list[LayerTarget]:
    """Return targets with the same totals, ranked over the whole model."""
    groups, channels = unit_shares(model, windows, score=config.score, device=device)
    kv_groups = [target.kv_groups for target in targets]
    mlp_channels = [target.mlp_channels for target in targets]
    if config.head_ratio:
        kv_groups = global_widths(groups, sum(kv_groups), 1)
    if config.ratio:
        mlp_channels = global_widths(channels, sum(mlp_channels), config.multiple_of)
    return [LayerTarget(*kept) for kept in zip(kv_groups, mlp_channels, strict=True)]


def _check_result(model: RootsForCausalLM, original: RootsForCausalLM) -> None:
    """Refuse what must not leave this stage: weights that are not finite, or a model that is no smaller."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise StageError(
                f"pruning left NaN or infinite weights in {name}",
                remedy="Check the checkpoint's weights, or set refit to false.",
            )
    before, after = original.num_parameters(), model.num_parameters()
    if after >= before:
        raise StageError(f"pruning left {after:,} parameters of {before:,}: nothing was removed")


def _notes(
    original: RootsForCausalLM,
    model: RootsForCausalLM,
    windows: PackedWindows,
    dropped: list[int],
    errors: list[LayerErrors],
) -> dict[str, Json]:
    notes: dict[str, Json] = {
        "parameters_before": original.num_parameters(),
        "parameters_after": model.num_parameters(),
        "calibration_tokens": int(windows.input_ids.size),
        "dropped_layers": list(dropped),
        "attention_errors": [error.attention for error in errors],
        "mlp_errors": [error.mlp for error in errors],
    }
    for key in ("intermediate_size", "num_attention_heads", "num_key_value_heads"):
        for when, config in (("before", original.config), ("after", model.config)):
            notes[f"{key}_{when}"] = [layer[key] for layer in config.layers]
    return notes


def _recover(
    config: RecoveryConfig,
    pruned: Checkpoint,
    original: RootsForCausalLM,
    text: TextSplit,
    *,
    device: str,
    seed: int,
    work: Path,
    console: Console,
) -> dict[str, Json]:
    """Train the pruned model in place to give again what the original gives."""
    summary = teach(
        pruned.model,
        Checkpoint(original, pruned.tokenizer),
        text,
        config.loss,
        config.training,
        device=device,
        seed=seed,
        work=work,
        console=console,
        label="recovery",
    )
    return summary.to_json()
