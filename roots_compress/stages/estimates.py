"""The least of disk and memory that making a model takes.

Estimates count weights, their gradients and their optimizer's moments, and leave out activations, text and
libraries. They are lower bounds: a run that they refuse would certainly fail.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT_BYTES = 4
MOMENT_BYTES = 8
"""AdamW's two moments of a weight, in float32."""


@dataclass(frozen=True)
class Estimate:
    """What a stage needs at the least, and how large a model it makes."""

    parameters: float
    """The fewest of the model that it makes."""
    kept: float
    """Bytes on the disk that stay: a checkpoint and a graph."""
    working: float
    """Bytes on the disk while it works."""
    memory: float
    """Bytes."""


def least(
    before: float, made: float, *, width: float = FLOAT_BYTES, trained_on: str | None = None
) -> Estimate:
    """Return what it takes to hold a model besides the one it is made from, and to train it.

    Args:
        before: parameters of the model that it is made from.
        made: parameters of the model that is made.
        width: bytes of each of these.
        trained_on: the device on which all weights are trained; None where they are not. The disk then holds
            the saved states: as many as are kept, and the one being written. Memory holds gradients and
            moments as well, on a GPU the GPU's memory.
    """
    working, memory = 0.0, FLOAT_BYTES * before + width * made
    if trained_on is not None:
        from roots_compress.training.state import KEPT

        working = (KEPT + 1) * (FLOAT_BYTES + MOMENT_BYTES) * made
        if trained_on == "cpu":
            memory = max(memory, FLOAT_BYTES * before + (2 * FLOAT_BYTES + MOMENT_BYTES) * made)
    return Estimate(parameters=made, kept=2 * width * made, working=working, memory=memory)
