"""Costs of the shapes of a block whose units are not one projection's input channels, such as experts.

Shape legend: W hidden size, C input channels of a part, R rows (tokens), U units of an axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

from torch import Tensor

from roots_compress.calibration.activations import ResidualStream
from roots_compress.models.blocks.base import Block, Half
from roots_compress.models.ops.base import Axis
from roots_compress.stages.prune.held_inputs import checked_gram, part_statistics, unit_order
from roots_compress.stages.prune.layerwise import DAMPING
from roots_compress.stages.prune.plan import best_of_each, fewest, step
from roots_compress.stages.prune.surgeon import Operation, Trial, narrowing

MOST_COUNTS = 8
"""How many numbers of whole units are tried: each runs the block once on all text."""
TRIED = 3 / 4
"""Share of whole units that stay in the trial."""

Costs = dict[int, float]
"""Nats per token, by the units that stay; all of them first."""


def counts(axis: Axis) -> list[int]:
    """Return the numbers of units to try, falling from all to the fewest, evenly spread."""
    least = fewest(axis, 1)
    steps = min(MOST_COUNTS, axis.each - least + 1)
    if steps < 2:
        return [axis.each]
    return [round(axis.each - number * (axis.each - least) / (steps - 1)) for number in range(steps)]


def costs_of_units(
    half: Half, stream: ResidualStream, axis: Axis, scores_U: Tensor, factor_WW: Tensor, tokens: int
) -> Costs:
    """Return the cost of keeping only the best units of an axis; other tokens are rerouted to these.

    Args:
        scores_U: the order of its units.
        factor_WW: `L`, with `L @ L.T` the Fisher information of the block's output, per token.
    """
    block, found = half.block, dict.fromkeys(counts(axis), 0.0)
    kept = {count: best_of_each(scores_U, axis.groups, count) for count in found if count < axis.each}
    for read_BTW in stream.read(half):
        whole_BTW = block.given_by(read_BTW, axis.name, range(axis.units))
        for count, units in kept.items():
            lost_RW = (whole_BTW - block.given_by(read_BTW, axis.name, units)).flatten(0, -2)
            found[count] += float((lost_RW.double() @ factor_WW).square().sum()) / (2 * tokens)
    return found


def costs_of_parts(
    half: Half, stream: ResidualStream, axis: Axis, factor_WW: Tensor, tokens: int, *, multiple_of: int
) -> Costs:
    """Return the cost of narrower parts, each refitted by the surgeon, all of one width.

    Args:
        multiple_of: the number of single channels is a multiple of this.
    """
    block, found = half.block, Costs()
    for part, statistics in part_statistics(half, stream, axis).items():
        gram_CC = checked_gram(part, statistics)
        weight_WC = factor_WW.T @ block.linear(part).weight.double()
        operation = Operation.begin(weight_WC, gram_CC / (2 * tokens), axis.units, damping=DAMPING)
        for cut in narrowing(operation, step(axis, multiple_of)):
            count = len(cut.units)
            found[count] = found.get(count, 0.0) + cut.lost
    return found


def routed_costs(
    half: Half, stream: ResidualStream, factor_WW: Tensor, tokens: int, *, multiple_of: int
) -> tuple[dict[tuple[int, ...], float], Trial | None]:
    """Return the costs of a block's shapes, assumed to add up over its axes, and a trial cut.

    Args:
        multiple_of: the number of single channels is a multiple of this.
    """
    by_axis: list[Costs] = []
    trial = None
    for axis in half.block.spec.axes():
        if axis.parts:
            by_axis.append(costs_of_parts(half, stream, axis, factor_WW, tokens, multiple_of=multiple_of))
            continue
        scores_U = unit_order(half, stream, axis)
        costs = costs_of_units(half, stream, axis, scores_U, factor_WW, tokens)
        by_axis.append(costs)
        if len(costs) > 1:
            tried = TRIED * axis.each
            count = min(list(costs)[1:], key=lambda each: abs(each - tried))
            units = best_of_each(scores_U, axis.groups, count)
            trial = Trial(partial(_lost, half.block, axis, units), costs[count])
    shapes = product(*by_axis)
    found = {kept: sum(costs[units] for costs, units in zip(by_axis, kept, strict=True)) for kept in shapes}
    return found, trial


def _lost(block: Block, axis: Axis, kept: Sequence[int], inputs_RW: Tensor) -> Tensor:
    """Return the change of a block's output with these units only, `RW`."""
    whole_RW = block.given_by(inputs_RW, axis.name, range(axis.units))
    return whole_RW - block.given_by(inputs_RW, axis.name, kept)
