"""Cuts a model layer by layer, each block scored and refitted on the outputs of the cut blocks before it.

Shape legend: B windows in a batch, T tokens, R rows (flattened tokens), N windows, W hidden size, C input
channels of a projection, K those of them that remain, U units of an axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
import torch_pruning as tp
from torch import Tensor

from roots_compress.calibration.activations import ResidualStream
from roots_compress.calibration.gradients import observe_gradients
from roots_compress.configs.prune import Score
from roots_compress.data.windows import PackedWindows
from roots_compress.models.blocks.base import Half
from roots_compress.models.device import resolve_precision
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.base import Axis
from roots_compress.models.resizing import axis_of, columns_of, group_of, keep_units
from roots_compress.models.spec import ModelSpec, Place
from roots_compress.stages.prune.held_inputs import (
    HeldInputs,
    checked_gram,
    held_bytes,
    input_gram,
    part_statistics,
    unit_order,
    unrouted_statistics,
)
from roots_compress.stages.prune.importance import (
    ActivationImportance,
    MagnitudeImportance,
    SurgeonImportance,
    TaylorImportance,
)
from roots_compress.stages.prune.plan import LayerTarget, Units, best_of_each, best_units
from roots_compress.stages.prune.refit import refit, relative_error, rows_needed
from roots_compress.stages.prune.scores import pool

DAMPING = 1e-2
"""Ridge of the refit, relative to the kept channels' mean square."""
LEAVE_AT_ONCE = 1 / 128
"""Fraction of a projection's units that the surgeon removes before it scores the others again."""

LayerErrors = Mapping[str, float | None]
"""By block: root mean square error of its output, relative to before the cut; None if it is not cut."""


@dataclass(frozen=True)
class Evidence:
    """Calibration statistics of a projection's input channels."""

    gram_CC: Tensor
    contributions_NC: Tensor | None
    """For `taylor`: each window's input times gradient."""

    def of(self, columns: Sequence[int]) -> Evidence:
        """Return the statistics of these channels only."""
        if len(columns) == len(self.gram_CC):
            return self
        index = torch.as_tensor(columns, device=self.gram_CC.device)
        contributions = self.contributions_NC
        return Evidence(
            self.gram_CC[index][:, index], None if contributions is None else contributions[:, index]
        )


class LayerwiseCutter:
    """Walks through a model once, cutting each layer to its target.

    The residual stream of the calibration windows passes through the layers in their current state, so a
    layer is scored and refitted on the real outputs of the cut layers before it. These inputs are held, if
    there is room, and run through the cut projection. Only the gradients for `taylor` come from the uncut
    model.

    If the device multiplies bfloat16 fastest, blocks run in it, but Gram matrices and refits never do. Its
    rounding is a hundredth of a cut's change.

    The model is cut in place.
    """

    def __init__(
        self, model: RootsWithHead, windows: PackedWindows, *, score: Score, refitted: bool, device: str
    ) -> None:
        self.model, self.score, self.refitted = model, score, refitted
        self.contributions: dict[str, Tensor] = {}
        if score == "taylor":
            self.contributions = first_order_contributions(model, windows, device=device)
        self.stream = ResidualStream(
            model, windows, device=device, precision=resolve_precision("auto", device)
        )

    @torch.no_grad()
    def cut(self, targets: Sequence[LayerTarget]) -> Iterator[LayerErrors]:
        """Cut the layers one after another, and yield the errors of each."""
        layers = self.stream.passing(self.model.model.all_layers())
        for index, (layer, target) in enumerate(zip(layers, targets, strict=True)):
            yield {half.name: self._cut_block(index, half, target[half.name]) for half in layer.halves}

    def _cut_block(self, index: int, half: Half, kept: Units) -> float | None:
        """Cut a block, and move the stream past it."""
        place = Place(index, half.name)
        axes = [axis for axis in half.block.spec.axes() if kept[axis.name] < axis.each]
        if not axes:
            self.stream.add(half, self.stream.contributions(half))
            return None
        if any(axis.projection is None for axis in axes):
            return self._drop_units(place, half, axes, kept)
        return self._cut_projection(place, half, axes, kept)

    def _cut_projection(self, place: Place, half: Half, axes: Sequence[Axis], kept: Units) -> float:
        """Cut a block along axes of input channels of its projection, and refit the projection."""
        name = str(half.block.spec.projection)
        projection = half.block.linear(name)
        held = HeldInputs(held_bytes(self.model, self.stream.device))
        inputs = held.passing(self.stream.inner(half))
        gram_CC = input_gram(f"layer {place.layer}'s {place.name}.{name}", projection, inputs)
        full = full_name(self.model.config.spec, place, name)
        evidence = Evidence(gram_CC, self.contributions.get(full))
        before_WC, columns = projection.weight.clone(), list(range(projection.in_features))
        for before in axes:
            axis, each = axis_of(half.block, before.name), kept[before.name]
            importance = make_importance(
                self.score, evidence.of(columns), axis.units, kept=each * axis.groups, groups=axis.groups
            )
            scores_U = pool(importance(group_of(half.block, axis)), axis.units)
            units = best_of_each(scores_U, axis.groups, each)
            keep_units(self.model, place, axis.name, units)
            columns = [columns[column] for column in columns_of(axis, units)]
            if self.refitted:
                projection.weight.copy_(refit(before_WC, gram_CC, columns, damping=DAMPING))
        contributions = held.contributions(
            lambda inputs_BTK: self.stream.given(half, projection, inputs_BTK),
            columns,
            lambda first: self.stream.contributions(half, first=first),
        )
        self.stream.add(half, contributions)
        return relative_error(before_WC, projection.weight, gram_CC, columns)

    def _drop_units(self, place: Place, half: Half, axes: Sequence[Axis], kept: Units) -> float:
        """Cut a block whose units are not all input channels of one projection."""
        before = [given_BTW.float().cpu() for given_BTW in self.stream.contributions(half)]
        for each in axes:
            axis = axis_of(half.block, each.name)
            if axis.parts:
                self._cut_parts(place, half, axis, kept[axis.name])
            else:
                scores_U = unit_order(half, self.stream, axis)
                units = best_of_each(scores_U, axis.groups, kept[axis.name])
                keep_units(self.model, place, axis.name, units)
        after = [given_BTW.float().cpu() for given_BTW in self.stream.contributions(half)]
        self.stream.add(half, (given_BTW.to(self.stream.device) for given_BTW in after))
        lost = sum(float((new - old).square().sum()) for new, old in zip(after, before, strict=True))
        energy = sum(float(old.square().sum()) for old in before)
        return (lost / energy) ** 0.5 if energy else 0.0

    def _cut_parts(self, place: Place, half: Half, axis: Axis, count: int) -> None:
        """Keep the best units of each part of an axis, and refit the part.

        A part that read fewer rows than a refit needs (an expert with few tokens) is scored and refitted on
        all rows. Gradients exist only for its own rows, so `activation` then replaces `taylor`.
        """
        block = half.block
        before, units, grams = {}, {}, {}
        read = part_statistics(half, self.stream, axis)
        few = [part for part, statistics in read.items() if statistics.rows < rows_needed(count * axis.size)]
        for part, statistics in {**read, **unrouted_statistics(half, self.stream, few)}.items():
            name = full_name(self.model.config.spec, place, part)
            gram_CC = grams[part] = checked_gram(name, statistics)
            evidence = Evidence(gram_CC, self.contributions.get(name))
            score = "activation" if part in few and self.score == "taylor" else self.score
            importance = make_importance(score, evidence, axis.units, kept=count)
            scores_U = importance(group_of(block, axis, part=part))
            before[part], units[part] = block.linear(part).weight.clone(), best_units(scores_U, count)
        keep_units(self.model, place, axis.name, units)
        if self.refitted:
            for part, weight_WC in before.items():
                fitted_WK = refit(weight_WC, grams[part], units[part], damping=DAMPING)
                block.linear(part).weight.copy_(fitted_WK)


def make_importance(
    score: Score, evidence: Evidence, units: int, *, kept: int, groups: int = 1
) -> tp.importance.Importance:
    """Return the score in torch-pruning's form, for a projection whose channels form this many units.

    Each of `groups` equal groups keeps equally many units, `kept` in all.
    """
    match score:
        case "magnitude":
            return MagnitudeImportance(units)
        case "activation":
            return ActivationImportance(evidence.gram_CC.diagonal())
        case "taylor":
            assert evidence.contributions_NC is not None
            return TaylorImportance(evidence.contributions_NC, units)
        case "obs":
            at_once = max(1, int(LEAVE_AT_ONCE * units))
            return SurgeonImportance(
                evidence.gram_CC, units, kept=kept, at_once=at_once, damping=DAMPING, groups=groups
            )
        case _:
            assert_never(score)


def first_order_contributions(
    model: RootsWithHead, windows: PackedWindows, *, device: str
) -> dict[str, Tensor]:
    """Return `NC` for every projection that may be cut: each input channel times the loss's gradient.

    Summed over a window's tokens; float32, on the device.
    """
    found: dict[str, list[Tensor]] = {}
    spec = model.config.spec
    names = list(cut_projections(spec).values())
    for place, op in spec.blocks():
        names += [full_name(spec, place, part) for axis in op.axes() for part in axis.parts]

    def observer(name: str, inputs_TC: Tensor, gradient_TW: Tensor) -> None:
        weight_WC = model.get_parameter(f"{name}.weight")
        found.setdefault(name, []).append((inputs_TC * (gradient_TW @ weight_WC)).sum(dim=0).float())

    observe_gradients(model, windows, names, observer, device=device)
    return {name: torch.stack(contributions) for name, contributions in found.items()}


def cut_projections(spec: ModelSpec) -> dict[Place, str]:
    """Return the name of each block's projection whose inputs may be cut, in running order."""
    return {
        place: full_name(spec, place, op.projection)
        for place, op in spec.blocks()
        if op.projection is not None
    }


def full_name(spec: ModelSpec, place: Place, name: str | None = None) -> str:
    """Return the name in the model of a block or of its linear layer."""
    block = spec.path(place)
    return f"{block}.{name}" if name else block
