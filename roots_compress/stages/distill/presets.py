"""The shapes of students with a share of their teacher's parameters. Pure functions, torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass

from roots_compress.models.ops.base import OpSpec, changed
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec, Stack

MLP_MULTIPLE = 32
"""Widths of narrowed MLPs are multiples of this, for matrix units and the groups of 4-bit formats."""
NEAR_ENOUGH = 0.95
"""An MLP that would keep more than this fraction of its width keeps its full width."""
NARROWEST = 0.125


@dataclass(frozen=True)
class Preset:
    """A student's share of its teacher."""

    parameters: float
    """Share of the parameters in the layers; embeddings and vocabulary do not change."""
    layers: float
    """Share of the layers; the rest of the saving comes from narrower MLPs."""


PRESETS = {
    "tiny": Preset(parameters=0.25, layers=0.375),
    "small": Preset(parameters=0.5, layers=0.5),
    "medium": Preset(parameters=0.75, layers=0.75),
}


def preset_spec(teacher: ModelSpec, preset: Preset) -> ModelSpec:
    """Return a student with about the given share of the teacher's layer parameters.

    Layers are removed first, at even depths; the rest is saved in the feed-forward blocks: channels, or
    experts.
    """
    chosen: list[int] = []
    for stack, first in zip(teacher.running, (0, teacher.begins), strict=False):
        count = max(1, math.floor(len(stack.layers) * preset.layers + 0.5))
        chosen += (first + index for index in spread_layers(count, stack))
    student = teacher.with_chosen(chosen)
    target = preset.parameters * sum(layer_sizes(teacher))
    fixed, others = layer_sizes(student)
    keep = (target - fixed) / max(others, 1)
    if keep >= NEAR_ENOUGH:
        return student
    return student.with_layers(
        tuple(
            tuple(changed(each, op=_narrowed(each.op, max(keep, NARROWEST))) for each in layer)
            for layer in student.layers
        )
    )


def _narrowed(op: OpSpec, keep: float) -> OpSpec:
    """Return a feed-forward block with about this share of its channels or experts; no other changes."""
    if not isinstance(op, Mlp | Moe):
        return op
    axis = op.axes()[0]
    multiple, least = (1, op.chosen) if isinstance(op, Moe) else (MLP_MULTIPLE, MLP_MULTIPLE)
    narrowed = max(least, round(keep * axis.units / multiple) * multiple)
    return op.cut(axis.name, min(axis.units, narrowed))


def layer_sizes(spec: ModelSpec) -> tuple[int, int]:
    """Return the number of weights in the layers' matrices, and of those in feed-forward blocks."""
    fixed = others = 0
    for _, op in spec.blocks():
        size = sum(matrix.rows * matrix.width for matrix in op.matrices(spec.width).values())
        fixed, others = (fixed, others + size) if isinstance(op, Mlp | Moe) else (fixed + size, others)
    return fixed, others


def spread_layers(count: int, stack: Stack) -> list[int]:
    """Return the numbers of `count` evenly spread layers, with those whose keys other layers take."""
    chosen = list(spread(count, len(stack.layers)))
    for index in sorted(stack.needed - {*chosen}):
        if others := [each for each in chosen if each not in stack.needed]:
            chosen[chosen.index(min(others, key=lambda each: abs(each - index)))] = index
    return sorted(chosen)


def spread(count: int, among: int) -> tuple[int, ...]:
    """Return `count` indices spread evenly over `range(among)`, the first and the last included."""
    if count == 1:
        return (0,)
    return tuple(round(index * (among - 1) / (count - 1)) for index in range(count))
