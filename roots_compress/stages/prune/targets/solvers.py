"""What of a prune stage solves equations of the calibration text, and so asks for enough of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from roots_compress.configs.prune import PruneConfig
from roots_compress.models.spec import ModelSpec
from roots_compress.stages.prune.plan import Plan, narrowed_block, ratio_of
from roots_compress.stages.prune.targets.allocate import measured_axes


@dataclass(frozen=True)
class Solver:
    """What solves equations of the calibration text."""

    name: str
    widest: int
    """Inputs of the widest projection that it solves for; 0 where there is none."""
    without: str
    """How to prune without it."""


def solvers(config: PruneConfig, spec: ModelSpec, plan: Plan) -> Iterator[Solver]:
    """Yield what of a stage solves equations, with what it needs."""
    widest = max(_cut_widths(config, spec, plan), default=0)
    if config.refit:
        residual = plan.hidden_size if config.residual_ratio else 0
        yield Solver("a stable least-squares refit", max(widest, residual), "set refit to false")
    if config.score == "obs":
        yield Solver("the score obs", widest, "choose another score")
    if config.target is not None:
        yield Solver("measuring what shapes cost", widest, "give ratios in place of the target")
    elif measured_axes(config):
        yield Solver("measuring what widths cost", widest, "set uniform to true")


def _cut_widths(config: PruneConfig, spec: ModelSpec, plan: Plan) -> Iterator[int]:
    """Yield the input width of each projection whose inputs are to be cut, as it will or at most may be."""
    measured = bool(measured_axes(config))
    for place, op in spec.blocks():
        axes = [axis for axis in op.axes() if axis.projection is not None]
        if axes and (config.target is not None or any(ratio_of(config, axis.name) for axis in axes)):
            left = op if measured else narrowed_block(op, plan.targets[place.layer][place.name])
            yield left.matrices(spec.width)[str(op.projection)].width
