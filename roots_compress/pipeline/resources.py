"""The least disk and memory that stages need, and a check before they start.

A run that is certain to fail is refused before it starts. One that is let through may still fail, without
losing finished work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from roots_compress.configs.recipe.schema import StageConfig
from roots_compress.errors import InputError
from roots_compress.io.disk import amount
from roots_compress.stages.expected import Estimate, least
from roots_compress.stages.registry import stage_of


@dataclass(frozen=True)
class Needs:
    """The least bytes that some stages need."""

    disk: int
    memory: int


def needs_of(stages: Sequence[StageConfig | None], parameters: float | None, *, device: str) -> Needs:
    """Return the needs of stages in this order.

    The disk holds a checkpoint and a graph of every stage, and the working files of the current one. Memory
    is that of the largest stage.

    Args:
        stages: settings; None for a model that is imported.
        parameters: those of the model that the first of them imports or starts from; None if it makes one.
    """
    estimates: list[Estimate] = []
    for stage in stages:
        if stage is None:
            assert parameters is not None
            estimates.append(least(parameters, parameters))
        else:
            parameters = stage_of(stage).begun(stage).spec.parameters if parameters is None else parameters
            estimates.append(stage_of(stage).estimate(stage, parameters, device=device))
        parameters = round(estimates[-1].parameters)
    kept = sum(estimate.kept for estimate in estimates)
    return Needs(
        disk=round(kept + max(estimate.working for estimate in estimates)),
        memory=round(max(estimate.memory for estimate in estimates)),
    )


def require_room(needs: Needs, *, disk: int, memory: int | None, where: Path) -> None:
    """Refuse a run that cannot succeed.

    Raises:
        InputError: there is too little of either.
    """
    if needs.disk > disk:
        raise InputError(
            f"too little disk: the stages to be made need at least {amount(needs.disk)}, "
            f"and {amount(disk)} are free",
            where=where,
            remedy="Free some space, or choose a folder on another disk with --run.",
            transient=True,
        )
    if memory is not None and needs.memory > memory:
        raise InputError(
            f"too little memory: the stages to be made need at least {amount(needs.memory)}, "
            f"and {amount(memory)} are available",
            where=where,
            remedy="Close other programs, use a machine with more memory, or choose a smaller student.",
            transient=True,
        )
