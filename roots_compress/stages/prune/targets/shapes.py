"""From a target to the shape of each layer: the savings needed, each shape's savings, and the choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import ceil
from typing import TYPE_CHECKING

from roots_compress.configs.prune import PruneConfig, TargetConfig
from roots_compress.errors import InputError, Key
from roots_compress.models.spec import Layer, ModelSpec
from roots_compress.stages.prune.plan import (
    AXES,
    LayerTarget,
    Plan,
    fewest,
    narrowed,
    plan_ratios,
    shape_of,
)
from roots_compress.stages.prune.targets.knapsack import Option, cheapest, cheapest_equal

if TYPE_CHECKING:
    from roots_compress.stages.prune.sensitivity import LayerCosts

FLOAT_BYTES = 4
Saves = Callable[[Layer, LayerTarget | None], int]
"""The savings of a layer with a shape, or if it is removed (None)."""


def make_plan(config: PruneConfig, spec: ModelSpec) -> Plan:
    """Return the plan for the ratios or the target; needs only the model's shape.

    Raises:
        InputError: no legal shape meets them; the message names the nearest that does.
    """
    plan = plan_ratios(config, spec)
    if config.target is None:
        return plan
    if config.uniform:
        check_equal(spec.layers)
    if config.target.decode_ms is not None:
        return plan
    return replace(plan, needed=parameters_to_save(config.target, spec, multiple_of=config.multiple_of))


def parameters_to_save(target: TargetConfig, spec: ModelSpec, *, multiple_of: int) -> int:
    """Return how many parameters to remove for a target of parameters or bytes.

    Raises:
        InputError: nothing has to be removed, or more than possible; the message names the smallest legal
            target.
    """
    # Embeddings and an untied head are outside the layers.
    body, total = spec.body_parameters, spec.parameters
    if target.parameters is not None:
        needed = ceil((1 - target.parameters) * body)
    else:
        assert target.bytes is not None
        needed = total - target.bytes // FLOAT_BYTES
    if needed <= 0:
        raise InputError(
            f"the weights take {FLOAT_BYTES * total:,} bytes in float32, no more than {target.bytes:,}",
            where=Key("target"),
            remedy="Ask for less, or leave the stage out.",
        )
    # One layer of each stack must stay, at its narrowest; which one is unknown before the measurement.
    sizes = [parameters_of(layer, spec.width) for layer in spec.layers]
    least = sum(
        max(parameters_of(narrowest(layer, multiple_of), spec.width) for layer in stack.layers)
        for stack in spec.running
    )
    most = sum(sizes) - least
    if needed > most:
        smallest = (
            f"{ceil((1 - most / body) * 10_000) / 10_000} of the parameters"
            if target.parameters is not None
            else f"{FLOAT_BYTES * (total - most)} bytes"
        )
        raise InputError(
            f"the target leaves no legal shape: {needed:,} parameters would have to go, and {most:,} can",
            where=Key("target"),
            remedy=f"The nearest legal one is {smallest}, which keeps a single layer, as narrow as can be.",
        )
    return needed


def check_equal(layers: Sequence[Layer]) -> None:
    """Refuse equal widths for layers whose widths differ.

    Raises:
        InputError: they do.
    """
    if any(shape_of(layer) != shape_of(layers[0]) for layer in layers):
        raise InputError(
            "the model's layers differ in width, so no equal widths can be chosen for them",
            where=Key("target"),
            remedy="Choose the widths layer by layer (uniform: false, or --per-layer).",
        )


def choose_shapes(
    layers: Sequence[Layer],
    costs: Sequence[LayerCosts],
    needed: int,
    *,
    axes: Collection[str] = tuple(AXES),
    saves: Saves,
    divergences: Sequence[float] | None,
    uniform: bool,
    begins: int = 0,
) -> tuple[list[LayerTarget | None], float]:
    """Return each layer's shape (None: removed), and their total cost in nats per token.

    Args:
        axes: the axes of a layer that may be cut.
        saves: a layer's savings with a shape (None: if it is removed).
        divergences: those of removing each layer; without them none is removed.
        uniform: whether all remaining layers get the same shape.
        begins: how many of the layers belong to an encoder before a decoder.

    Raises:
        ValueError: no choice saves enough.
    """
    shapes = [list(_shapes(layer, each, axes)) for layer, each in zip(layers, costs, strict=True)]
    options = [
        [Option(saves(layer, shape), _cost(each, shape)) for shape in of_layer]
        for layer, each, of_layer in zip(layers, costs, shapes, strict=True)
    ]
    # A layer that must stay has no option of removal: with infinite cost it would still save the most.
    dropped = []
    if divergences is not None:
        dropped = [Option(saves(layer, None), each) for layer, each in zip(layers, divergences, strict=True)]
    if uniform:
        numbers = cheapest_equal(options, dropped, needed)
    else:
        numbers = _cheapest_each(options, dropped, needed, begins)
    chosen = [
        None if number is None else of_layer[number] for of_layer, number in zip(shapes, numbers, strict=True)
    ]
    cost = sum(
        dropped[index].cost if number is None else options[index][number].cost
        for index, number in enumerate(numbers)
    )
    return chosen, cost


def _cheapest_each(
    options: Sequence[Sequence[Option]], dropped: Sequence[Option], needed: int, begins: int
) -> list[int | None]:
    """Return the number of each layer's option, None for removed layers; `dropped` may be empty."""
    full = [list(layer) for layer in options]
    if dropped:
        # The most important layer of each stack stays, so that one does, and all layers that must.
        stacks = [each for each in (range(begins), range(begins, len(dropped))) if len(each)]
        missed = [max(stack, key=lambda index: dropped[index].cost) for stack in stacks]
        missed += [index for index, each in enumerate(dropped) if each.cost == math.inf]
        full = [
            each if index in missed else [*each, loss]
            for index, (each, loss) in enumerate(zip(full, dropped, strict=True))
        ]
    return [
        number if number < len(layer) else None
        for number, layer in zip(cheapest(full, needed), options, strict=True)
    ]


def saved(layer: Layer, shape: LayerTarget | None, *, width: int) -> int:
    """Return how many parameters a layer loses when it is cut to a shape (None: removed)."""
    whole = parameters_of(layer, width)
    return whole if shape is None else whole - parameters_of(narrowed(layer, shape), width)


def parameters_of(layer: Layer, width: int) -> int:
    """Return a layer's number of parameters."""
    return sum(sublayer.parameters(width) for sublayer in layer)


def narrowest(layer: Layer, multiple_of: int) -> Layer:
    """Return a layer at its narrowest legal shape."""
    target = {each.name: {axis.name: fewest(axis, multiple_of) for axis in each.op.axes()} for each in layer}
    return narrowed(layer, target)


def _shapes(layer: Layer, costs: LayerCosts, axes: Collection[str]) -> Iterator[LayerTarget]:
    """Yield the legal shapes of a layer, the full one first."""
    full = shape_of(layer)
    for each in product(*(block.costs for block in costs.values())):
        chosen = {
            name: dict(zip(block.axes, units, strict=True))
            for (name, block), units in zip(costs.items(), each, strict=True)
        }
        pairs = ((name, axis) for name, block in costs.items() for axis in block.axes if axis not in axes)
        if all(chosen[name][axis] == full[name][axis] for name, axis in pairs):
            yield {name: {**units, **chosen[name]} for name, units in full.items()}


def _cost(costs: LayerCosts, shape: LayerTarget) -> float:
    return sum(block.costs[tuple(shape[name][axis] for axis in block.axes)] for name, block in costs.items())
