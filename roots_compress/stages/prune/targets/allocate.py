"""The units that every layer keeps: planned from the model's shape, or allocated by costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from roots_compress.configs.prune import PruneConfig
from roots_compress.data.windows import PackedWindows
from roots_compress.events import Events
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.spec import Layer
from roots_compress.progress import Phases, track_made
from roots_compress.results import Json
from roots_compress.stages.prune.plan import AXES, LayerTarget, Plan, best_units, narrowed, ratio_of
from roots_compress.stages.prune.sensitivity import (
    LayerCosts,
    held_against_gradients,
    layer_costs,
    layer_divergences,
)
from roots_compress.stages.prune.targets.decode_time import DecodeTimer
from roots_compress.stages.prune.targets.meet_time import NOISE, meet_time
from roots_compress.stages.prune.targets.shapes import choose_shapes, saved


def measured_axes(config: PruneConfig) -> list[str]:
    """Return the axes of a layer that are cut by measured costs; empty if the plan's widths are final."""
    if config.target is not None:
        return list(AXES)
    return [] if config.uniform else [axis for axis in AXES if ratio_of(config, axis)]


@dataclass(frozen=True)
class Allocation:
    """The units that each layer keeps."""

    targets: list[LayerTarget | None]
    """None: the layer is removed."""
    cost: float | None = None
    """Its measured cost, in nats per token; None if nothing was measured."""
    decode_ms: dict[str, Json] | None = None
    """With a target in milliseconds: the measured times of a token before and with these shapes."""


def allocate(
    config: PruneConfig,
    plan: Plan,
    model: RootsWithHead,
    windows: PackedWindows,
    timer: DecodeTimer | None,
    *,
    device: str,
    events: Phases,
) -> Allocation:
    """Return the units that every layer keeps.

    Args:
        model: the uncut model, on the device.

    Raises:
        InputError: no shape reaches the target.
        StageError: activations or the loss are not finite.
    """
    layers, width = model.config.spec.layers, model.config.spec.width
    targets = list[LayerTarget | None](plan.targets)
    divergences = None
    if sum(plan.layers) < len(layers) or config.target is not None:
        divergences = layer_divergences(model, windows, device=device)
        stays = [
            first + unit
            for (_, first, end), count in zip(model.model.parts_and_layers(), plan.layers, strict=True)
            for unit in best_units(torch.tensor(divergences[first:end]), count)
        ]
        targets = [target if index in stays else None for index, target in enumerate(targets)]
    axes = measured_axes(config)
    if not axes:
        return Allocation(targets)
    measured = track_made(
        layer_costs(model, windows, multiple_of=config.multiple_of, device=device),
        events,
        "measuring layers",
        total=len(layers),
    )
    costs = held_against_gradients(model, list(measured), windows, device=device, events=events)
    if config.target is None:
        return _by_ratios(axes, targets, layers, costs, width=width)
    if timer is not None:
        assert config.target.decode_ms is not None
        uniform, target_ms = config.uniform, config.target.decode_ms
        return _in_time(target_ms, timer, layers, costs, divergences, uniform=uniform, events=events)
    assert plan.needed is not None
    saves = partial(saved, width=width)
    chosen = choose_shapes(
        layers,
        costs,
        plan.needed,
        saves=saves,
        divergences=divergences,
        uniform=config.uniform,
        begins=model.config.spec.begins,
    )
    return Allocation(*chosen)


def _by_ratios(
    axes: Sequence[str],
    targets: Sequence[LayerTarget | None],
    layers: Sequence[Layer],
    costs: Sequence[LayerCosts],
    *,
    width: int,
) -> Allocation:
    """The ratios give the amount and kind of units; the costs decide where."""
    stay = [(index, target) for index, target in enumerate(targets) if target is not None]
    # Units without a measured axis are cut as planned.
    starts = [narrowed(layers[index], _without(target, axes)) for index, target in stay]
    shapes, cost = choose_shapes(
        starts,
        [costs[index] for index, _ in stay],
        sum(saved(layer, target, width=width) for layer, (_, target) in zip(starts, stay, strict=True)),
        axes=axes,
        saves=partial(saved, width=width),
        divergences=None,
        uniform=False,
    )
    chosen = list(targets)
    for (index, _), shape in zip(stay, shapes, strict=True):
        chosen[index] = shape
    return Allocation(chosen, cost)


def _without(target: LayerTarget, axes: Sequence[str]) -> LayerTarget:
    return {
        name: {axis: units for axis, units in kept.items() if axis not in axes}
        for name, kept in target.items()
    }


def _in_time(
    target_ms: float,
    timer: DecodeTimer,
    layers: Sequence[Layer],
    costs: Sequence[LayerCosts],
    divergences: Sequence[float] | None,
    *,
    uniform: bool,
    events: Events,
) -> Allocation:
    """Choose shapes by the fitted times, and time the choice; report it if it is too slow."""

    def saves(layer: Layer, shape: LayerTarget | None) -> int:
        return timer.times.saves(layer, None if shape is None else narrowed(layer, shape))

    def choose(milliseconds: float) -> tuple[list[LayerTarget | None], float]:
        needed = max(1, timer.times.units_above(layers, milliseconds))
        return choose_shapes(layers, costs, needed, saves=saves, divergences=divergences, uniform=uniform)

    def measure(choice: tuple[list[LayerTarget | None], float]) -> float:
        shapes = zip(layers, choice[0], strict=True)
        return timer.measure([None if shape is None else narrowed(layer, shape) for layer, shape in shapes])

    try:
        timed = meet_time(target_ms, choose, measure, cost=lambda chosen: chosen[1])
    except ValueError:
        raise timer.unreachable(target_ms) from None
    met = timed.milliseconds <= target_ms * (1 + NOISE)
    if not met:
        events.say(
            f"prune: decoding takes {timed.milliseconds:.4g} ms a token in the fastest shapes timed, and the "
            f"target is {target_ms:.4g}; the run goes on with these, and ends with code 3"
        )
    measured = {"target": target_ms, "after": timed.milliseconds, "met": met, **timer.notes()}
    return Allocation(*timed.choice, measured)
