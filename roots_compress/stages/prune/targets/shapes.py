"""From a target to the shape of each layer: what must go, what each shape saves, which ones are chosen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from math import ceil
from typing import Literal, get_args

from torch import Tensor, nn

from roots_compress.configs.prune import TargetConfig
from roots_compress.errors import InputError, Key
from roots_compress.models.layers import RootsLayer
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.stages.prune.plan import LayerTarget
from roots_compress.stages.prune.sensitivity import LayerCosts
from roots_compress.stages.prune.targets.solver import Option, cheapest, cheapest_equal

FLOAT_BYTES = 4
Axis = Literal["kv_groups", "queries", "mlp_channels"]
AXES: tuple[Axis, ...] = get_args(Axis)
"""The fields of a `LayerTarget`."""
Saves = Callable[[RootsLayer, LayerTarget | None], int]
"""What a layer saves by getting a shape, or by being dropped (None)."""


def parameters_to_save(
    target: TargetConfig, model: RootsForCausalLM, *, multiple_of: int, uniform: bool
) -> int:
    """Return how many parameters must go for a target of parameters or bytes.

    Raises:
        InputError: nothing has to go, or more than can: the smallest legal target is named. Or widths are to
            be equal, and the model's are not.
    """
    layers, total = list(model.model.layers), model.num_parameters()
    # The embeddings, and with them an untied head, are what no layer holds; so is the final norm.
    body = sum(map(_size, layers)) + _size(model.model.norm)
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
    if uniform:
        check_equal(layers)
    _check_reachable(target, needed, layers, body=body, total=total, multiple_of=multiple_of)
    return needed


def check_equal(layers: Sequence[RootsLayer]) -> None:
    """Refuse to choose equal widths for layers that differ in theirs.

    Raises:
        InputError: they do.
    """
    if len({full_shape(layer) for layer in layers}) > 1:
        raise InputError(
            "the model's layers differ in width, so no equal widths can be chosen for them",
            where=Key("target"),
            remedy="Choose the widths layer by layer (uniform: false, or --per-layer).",
        )


def _check_reachable(
    target: TargetConfig,
    needed: int,
    layers: Sequence[RootsLayer],
    *,
    body: int,
    total: int,
    multiple_of: int,
) -> None:
    # One layer has to stay, at its narrowest; which one is not known before the layers are measured.
    least = max(_size(layer) - saved(layer, narrowest(layer, multiple_of)) for layer in layers)
    most = sum(map(_size, layers)) - least
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


def choose_shapes(
    layers: Sequence[RootsLayer],
    costs: Sequence[LayerCosts],
    needed: int,
    *,
    axes: Collection[Axis] = AXES,
    saves: Saves | None = None,
    divergences: Sequence[float] | None,
    uniform: bool,
) -> tuple[list[LayerTarget | None], float]:
    """Return each layer's shape (None: dropped), and what all of them cost in nats per token.

    Args:
        layers: uncut.
        costs: of each layer's shapes.
        needed: what to save: parameters, or what `saves` counts.
        axes: what may be cut of a layer.
        saves: what a layer saves by getting a shape (None: by being dropped); without it, parameters.
        divergences: of dropping each layer; without them none is dropped.
        uniform: whether all layers that stay get the same shape.

    Raises:
        ValueError: no choice saves enough.
    """
    saves = saves or saved
    shapes = [list(_shapes(each, axes)) for each in costs]
    options = [
        [Option(saves(layer, shape), _cost(each, shape)) for shape in of_layer]
        for layer, each, of_layer in zip(layers, costs, shapes, strict=True)
    ]
    # A layer that nobody asked to drop has no such option: one of infinite cost would still save the most.
    dropped = []
    if divergences is not None:
        dropped = [Option(saves(layer, None), each) for layer, each in zip(layers, divergences, strict=True)]
    if uniform:
        numbers = cheapest_equal(options, dropped, needed)
    else:
        numbers = _cheapest_each(options, dropped, needed)
    chosen = [
        None if number is None else of_layer[number] for of_layer, number in zip(shapes, numbers, strict=True)
    ]
    cost = sum(
        dropped[index].cost if number is None else options[index][number].cost
        for index, number in enumerate(numbers)
    )
    return chosen, cost


def _cheapest_each(
    options: Sequence[Sequence[Option]], dropped: Sequence[Option], needed: int
) -> list[int | None]:
    """Return the number of each layer's option, None for those that are dropped; `dropped` may be empty."""
    full = [list(layer) for layer in options]
    if dropped:
        # The layer that would be missed most stays, so that one does.
        missed = max(range(len(dropped)), key=lambda index: dropped[index].cost)
        full = [
            each if index == missed else [*each, loss]
            for index, (each, loss) in enumerate(zip(full, dropped, strict=True))
        ]
    return [
        number if number < len(layer) else None
        for number, layer in zip(cheapest(full, needed), options, strict=True)
    ]


def full_shape(layer: RootsLayer) -> LayerTarget:
    """Return the shape that a layer has."""
    attention = layer.self_attn
    queries = attention.num_heads // attention.num_kv_heads
    return LayerTarget(attention.num_kv_heads, queries, _weight(layer.mlp.down_proj).shape[1])


def saved(layer: RootsLayer, shape: LayerTarget | None) -> int:
    """Return how many parameters a layer loses when it is cut to a shape (None: when it is dropped)."""
    if shape is None:
        return _size(layer)
    full, attention = full_shape(layer), layer.self_attn
    heads, kept_heads = full.kv_groups * full.queries, shape.kv_groups * shape.queries
    rows = [(attention.q_proj, heads, kept_heads)]
    rows += [(each, full.kv_groups, shape.kv_groups) for each in (attention.k_proj, attention.v_proj)]
    producers = [layer.mlp.up_proj, *([layer.mlp.gate_proj] if layer.mlp.gated else [])]
    rows += [(each, full.mlp_channels, shape.mlp_channels) for each in producers]
    columns = [(attention.o_proj, heads, kept_heads)]
    columns += [(layer.mlp.down_proj, full.mlp_channels, shape.mlp_channels)]
    # A bias leaves with its row; the bias of a projection that loses columns stays.
    lost = sum(_size(module) // units * (units - kept) for module, units, kept in rows)
    return lost + sum(_weight(module).numel() // units * (units - kept) for module, units, kept in columns)


def narrowest(layer: RootsLayer, multiple_of: int) -> LayerTarget:
    """Return the narrowest shape that a layer can get."""
    return LayerTarget(1, 1, min(multiple_of, full_shape(layer).mlp_channels))


def _weight(projection: nn.Module) -> Tensor:
    assert isinstance(projection, nn.Linear)
    return projection.weight


def _shapes(costs: LayerCosts, axes: Collection[Axis]) -> Iterator[LayerTarget]:
    """Yield the legal shapes of a layer, the full one first."""
    shapes = [LayerTarget(*heads, width) for heads in costs.attention for width in costs.mlp]
    full = shapes[0]
    for shape in shapes:
        if all(getattr(shape, axis) == getattr(full, axis) for axis in AXES if axis not in axes):
            yield shape


def _cost(costs: LayerCosts, shape: LayerTarget) -> float:
    return costs.attention[shape.kv_groups, shape.queries] + costs.mlp[shape.mlp_channels]


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
