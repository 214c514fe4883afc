"""What every layer is to keep: planned from the model's shape alone, and allocated where costs decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from rich.console import Console

from roots_compress.configs.prune import PruneConfig
from roots_compress.data.windows import PackedWindows
from roots_compress.models.layers import RootsLayer
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.progress import Phases, track_made
from roots_compress.results import Json
from roots_compress.stages.prune.plan import LayerTarget, Plan, best_units, plan_ratios
from roots_compress.stages.prune.sensitivity import (
    LayerCosts,
    held_against_gradients,
    layer_costs,
    layer_divergences,
)
from roots_compress.stages.prune.targets.decode_time import Stopwatch
from roots_compress.stages.prune.targets.meet_time import NOISE, meet_time
from roots_compress.stages.prune.targets.shapes import (
    AXES,
    Axis,
    check_equal,
    choose_shapes,
    full_shape,
    parameters_to_save,
    saved,
)


def make_plan(config: PruneConfig, model: RootsForCausalLM) -> Plan:
    """Return what the ratios or the target ask for; needs nothing but the model's shape.

    Raises:
        InputError: no legal shape answers to them; the nearest that does is named.
    """
    plan = plan_ratios(config, model.config.layers, model.config.hidden_size)
    if config.target is None:
        return plan
    if config.target.decode_ms is None:
        needed = parameters_to_save(
            config.target, model, multiple_of=config.multiple_of, uniform=config.uniform
        )
        return replace(plan, needed=needed)
    if config.uniform:
        check_equal(list(model.model.layers))
    return plan


def measured_axes(config: PruneConfig) -> list[Axis]:
    """Return what of a layer is cut where measured costs say; empty where the plan's widths are final."""
    if config.target is not None:
        return list(AXES)
    if config.uniform:
        return []
    ratios: dict[Axis, float] = {
        "kv_groups": config.head_ratio,
        "queries": config.query_ratio,
        "mlp_channels": config.ratio,
    }
    return [axis for axis, ratio in ratios.items() if ratio]


@dataclass(frozen=True)
class Allocation:
    """What each layer is to keep."""

    targets: list[LayerTarget | None]
    """None: nothing."""
    cost: float | None = None
    """What that was measured to cost, in nats per token; None where nothing was measured."""
    decode_ms: dict[str, Json] | None = None
    """With a target in milliseconds: what a token was measured to take before, and with these shapes."""


def allocate(
    config: PruneConfig,
    plan: Plan,
    model: RootsForCausalLM,
    windows: PackedWindows,
    watch: Stopwatch | None,
    *,
    device: str,
    console: Phases,
) -> Allocation:
    """Return what every layer is to keep.

    Args:
        config: what to remove.
        plan: of `make_plan`.
        model: uncut, on the device.
        windows: calibration text.
        watch: has timed the model, where the target is a time.
        device: as `resolve_device` returns it.
        console: where progress goes.

    Raises:
        InputError: no shape reaches the target.
        StageError: activations or the loss are not finite.
    """
    layers = list(model.model.layers)
    targets = list[LayerTarget | None](plan.targets)
    divergences = None
    if plan.layers < len(layers) or config.target is not None:
        divergences = layer_divergences(model, windows, device=device)
        stays = best_units(torch.tensor(divergences), plan.layers)
        targets = [target if index in stays else None for index, target in enumerate(targets)]
    axes = measured_axes(config)
    if not axes:
        return Allocation(targets)
    measured = track_made(
        layer_costs(model, windows, multiple_of=config.multiple_of, device=device),
        console,
        "measuring layers",
        total=len(layers),
    )
    costs = held_against_gradients(model, list(measured), windows, device=device, console=console)
    if config.target is None:
        return _by_ratios(axes, targets, layers, costs)
    if watch is not None:
        assert config.target.decode_ms is not None
        uniform, target_ms = config.uniform, config.target.decode_ms
        return _in_time(
            target_ms, watch, layers, costs, divergences, uniform=uniform, console=console.console
        )
    assert plan.needed is not None
    chosen = choose_shapes(layers, costs, plan.needed, divergences=divergences, uniform=config.uniform)
    return Allocation(*chosen)


def _by_ratios(
    axes: Sequence[Axis],
    targets: Sequence[LayerTarget | None],
    layers: Sequence[RootsLayer],
    costs: Sequence[LayerCosts],
) -> Allocation:
    """The ratios say how much, and of what; where, the costs do."""
    stay = [(index, target) for index, target in enumerate(targets) if target is not None]
    shapes, cost = choose_shapes(
        [layers[index] for index, _ in stay],
        [costs[index] for index, _ in stay],
        sum(saved(layers[index], target) for index, target in stay),
        axes=axes,
        divergences=None,
        uniform=False,
    )
    chosen = list(targets)
    for (index, _), shape in zip(stay, shapes, strict=True):
        chosen[index] = shape
    return Allocation(chosen, cost)


def _in_time(
    target_ms: float,
    watch: Stopwatch,
    layers: Sequence[RootsLayer],
    costs: Sequence[LayerCosts],
    divergences: Sequence[float] | None,
    *,
    uniform: bool,
    console: Console,
) -> Allocation:
    """Choose shapes by the stopwatch's time model, and time what is chosen; say so where that is too slow."""

    def saves(layer: RootsLayer, shape: LayerTarget | None) -> int:
        return watch.times.saves(full_shape(layer), shape)

    def choose(milliseconds: float) -> tuple[list[LayerTarget | None], float]:
        needed = max(1, watch.times.units_above(watch.whole, milliseconds))
        return choose_shapes(layers, costs, needed, saves=saves, divergences=divergences, uniform=uniform)

    try:
        timed = meet_time(
            target_ms, choose, measure=lambda chosen: watch.measure(chosen[0]), cost=lambda chosen: chosen[1]
        )
    except ValueError:
        raise watch.unreachable(target_ms) from None
    met = timed.milliseconds <= target_ms * (1 + NOISE)
    if not met:
        console.print(
            f"prune: decoding takes {timed.milliseconds:.4g} ms a token in the fastest shapes timed, and the "
            f"target is {target_ms:.4g}; the run goes on with these, and ends with code 3",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    measured = {"target": target_ms, "after": timed.milliseconds, "met": met, **watch.notes()}
    return Allocation(*timed.choice, measured)
