"""The expected costs of a prune stage's phases, relative to one another."""

from __future__ import annotations

from roots_compress.calibration.own_text import writing_passes
from roots_compress.configs.prune import PruneConfig
from roots_compress.stages.prune.sensitivity import FISHER_WINDOWS, TRIAL_WINDOWS
from roots_compress.stages.prune.targets.allocate import measured_axes

MEASURING, GRADIENTS, CUTTING, FAST_CUTTING = 4.0, 6.0, 0.4, 1.15
"""Costs of a token, in forward passes of a token, by timing SmolLM2; the last in the fastest precision."""

TIMING = 5e4
"""Cost of five graphs; a choice is timed together with the whole model."""


def phases_of(config: PruneConfig, given: int, block_size: int) -> dict[str, float]:
    """Return the cost of each phase, in the order of the phases."""
    own = config.own_windows * block_size
    tokens = given * block_size + own
    timed = config.target is not None and config.target.decode_ms is not None
    costs = {"timing shapes": TIMING} if timed else {}
    costs["writing text"] = writing_passes(config.own_windows, block_size)
    if measured_axes(config):
        # The Fisher information of a few windows comes before the first layer.
        costs["measuring layers"] = MEASURING * tokens + GRADIENTS * FISHER_WINDOWS * block_size
        costs["taking gradients"] = GRADIENTS * TRIAL_WINDOWS * block_size
    if timed:
        costs["timing the choice"] = TIMING / 2
    return costs | {"pruning layers": (CUTTING + FAST_CUTTING) * tokens}
