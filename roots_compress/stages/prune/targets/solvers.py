"""What of a prune stage solves equations of the calibration text, and so asks for enough of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from roots_compress.configs.prune import PruneConfig
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.stages.prune.plan import Plan
from roots_compress.stages.prune.targets.allocate import measured_axes


@dataclass(frozen=True)
class Solver:
    """What solves equations of the calibration text."""

    name: str
    widest: int
    """Inputs of the widest projection that it solves for; 0 where there is none."""
    without: str
    """How to prune without it."""


def solvers(config: PruneConfig, model: RootsForCausalLM, plan: Plan) -> Iterator[Solver]:
    """Yield what of a stage solves equations, with what it needs."""
    widest = max(_cut_widths(config, model, plan), default=0)
    if config.refit:
        residual = plan.hidden_size if config.residual_ratio else 0
        yield Solver("a stable least-squares refit", max(widest, residual), "set refit to false")
    if config.score == "obs":
        yield Solver("the score obs", widest, "choose another score")
    if config.target is not None:
        yield Solver("measuring what shapes cost", widest, "give ratios in place of the target")
    elif measured_axes(config):
        yield Solver("measuring what widths cost", widest, "set uniform to true")


def _cut_widths(config: PruneConfig, model: RootsForCausalLM, plan: Plan) -> Iterator[int]:
    """Yield the input width of each projection whose inputs are to be cut, as it will or at most may be."""
    measured = bool(measured_axes(config))
    for widths, target in zip(model.config.layers, plan.targets, strict=True):
        if config.ratio or config.target is not None:
            yield widths["intermediate_size"] if measured else target.mlp_channels
        if config.head_ratio or config.query_ratio or config.target is not None:
            heads = widths["num_attention_heads"] if measured else target.kv_groups * target.queries
            yield heads * widths["head_dim"]
