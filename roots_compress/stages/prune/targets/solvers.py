"""The parts of a prune stage that solve equations of the calibration text, and the text they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from roots_compress.configs.prune import PruneConfig
from roots_compress.models.spec import ModelSpec
from roots_compress.stages.prune.plan import Plan, narrowed_block, ratio_of
from roots_compress.stages.prune.refit import rows_needed
from roots_compress.stages.prune.targets.allocate import measured_axes


@dataclass(frozen=True)
class Solver:
    """A part that solves equations of the calibration text."""

    name: str
    tokens: int
    """Tokens of calibration text for the projection that needs most; 0 if it solves for none."""
    without: str
    """The setting that prunes without it."""


def solvers(config: PruneConfig, spec: ModelSpec, plan: Plan) -> Iterator[Solver]:
    """Yield the solving parts of a stage, with their needs."""
    tokens = max(_tokens_of_cuts(config, spec, plan), default=0)
    if config.refit:
        residual = rows_needed(plan.hidden_size) if config.residual_ratio else 0
        yield Solver("a stable least-squares refit", max(tokens, residual), "set refit to false")
    if config.score == "obs":
        yield Solver("the score obs", tokens, "choose another score")
    if config.target is not None:
        yield Solver("measuring what shapes cost", tokens, "give ratios in place of the target")
    elif measured_axes(config):
        yield Solver("measuring what widths cost", tokens, "set uniform to true")


def _tokens_of_cuts(config: PruneConfig, spec: ModelSpec, plan: Plan) -> Iterator[int]:
    """Yield the tokens that each projection to be cut needs, for its planned or largest possible width.

    Each expert reads a share of them.
    """
    measured = bool(measured_axes(config))
    for place, op in spec.blocks():
        axes = [axis for axis in op.axes() if axis.projection is not None or axis.parts]
        if axes and (config.target is not None or any(ratio_of(config, axis.name) for axis in axes)):
            left = op if measured else narrowed_block(op, plan.targets[place.layer][place.name])
            read = {name for axis in axes for name in (axis.projection, *axis.parts)}
            matrices = left.matrices(spec.width)
            for each in left.inputs():
                for name in each.consumers:
                    if name in read:
                        yield ceil(rows_needed(matrices[name].width) / each.share)
