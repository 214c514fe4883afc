"""What stages will need of disk and memory, at the least, and whether it is there before they start.

The estimates count weights, their gradients and their optimizer's moments, and leave out activations, text
and libraries. So what they refuse could not have come about; what they let through may still fail, and then
loses nothing that was finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.prune import PruneConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.configs.recipe.schema import StageConfig, training_of
from roots_compress.errors import InputError
from roots_compress.io.disk import amount
from roots_compress.io.json_files import read_json_object
from roots_compress.stages.distill.config_file import read_config
from roots_compress.stages.distill.student import PRESETS, parameters_of
from roots_compress.training.state import KEPT

FLOAT_BYTES = 4
MOMENT_BYTES = 8
"""AdamW's two moments of a weight, in float32."""
QUANTIZED_BYTES = {"int8": 1.0, "int4": 0.5, "fp16": 2.0}
TIMED_GRAPHS = 3
"""What the graphs hold at the least that are timed for a target in milliseconds, in sizes of the model."""


@dataclass(frozen=True)
class Needs:
    """Bytes that a number of stages need at the least."""

    disk: int
    memory: int


def needs_of(stages: Sequence[StageConfig | None], parameters: int, *, device: str) -> Needs:
    """Return what stages need that are carried out in this order.

    On the disk stand a checkpoint and a graph of every stage, and while one trains, its saved states: as many
    as are kept, and the one being written. In memory stand the model a stage starts from beside the one it
    makes; training takes gradients and moments as well, on a GPU in the GPU's memory.

    Args:
        stages: settings; None for a model that is imported.
        parameters: of the model that the first of them imports, makes or starts from.
        device: `cpu` or `cuda`.
    """
    kept, working, memory = 0.0, 0.0, 0.0
    for stage in stages:
        made, width = _made(stage, parameters)
        if isinstance(stage, PruneConfig) and stage.target is not None and stage.target.decode_ms is not None:
            # The whole model and smaller ones stand and run side by side to be timed.
            working = max(working, TIMED_GRAPHS * FLOAT_BYTES * parameters)
            memory = max(memory, (1 + TIMED_GRAPHS) * FLOAT_BYTES * parameters)
        kept += 2 * width * made
        memory = max(memory, FLOAT_BYTES * parameters + width * made)
        if stage is not None and _trains_all_weights(stage):
            working = max(working, (KEPT + 1) * (FLOAT_BYTES + MOMENT_BYTES) * made)
            if device == "cpu":
                memory = max(memory, FLOAT_BYTES * parameters + (2 * FLOAT_BYTES + MOMENT_BYTES) * made)
        parameters = round(made)
    return Needs(disk=round(kept + working), memory=round(memory))


def require_room(needs: Needs, *, disk: int, memory: int | None, where: Path) -> None:
    """Refuse what cannot come about.

    Args:
        needs: what is needed.
        disk: bytes that are free.
        memory: bytes that are available; None where the system does not tell.
        where: the run's folder.

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
            remedy="Close other programs, take a machine with more memory, or a smaller student.",
            transient=True,
        )


def _trains_all_weights(stage: StageConfig) -> bool:
    """Whether gradients and moments of every weight are held; updates of low rank are nothing beside them."""
    if isinstance(stage, PruneConfig) and stage.recovery is not None and stage.recovery.rank is not None:
        return False
    return any(True for _ in training_of(stage))


def _made(stage: StageConfig | None, parameters: int) -> tuple[float, float]:
    """Return the fewest parameters a stage may make of a model, and the bytes of each."""
    match stage:
        case DistillConfig():
            # Presets leave embeddings as they are, so this is the least.
            preset = PRESETS.get(stage.student)
            return preset.parameters * parameters if preset else _student(stage.student), FLOAT_BYTES
        case PruneConfig():
            return _left_by(stage, parameters), FLOAT_BYTES
        case QuantizeConfig():
            return parameters, QUANTIZED_BYTES[stage.scheme]
        case _:
            return parameters, FLOAT_BYTES


def _student(name: str) -> float:
    """Return the parameters of a student of a shape of its own; what a checkpoint holds is not asked for."""
    path = Path(name)
    if path.suffix != ".json":
        return 0.0
    vocab_size = read_json_object(path).get("vocab_size", 1)
    return float(parameters_of(read_config(path, {"vocab_size": vocab_size})))


def _left_by(stage: PruneConfig, parameters: int) -> float:
    """Return the fewest parameters that pruning may leave, embeddings counted as if they shrank too."""
    if stage.target is not None:
        # A target may be missed by a channel, downwards, which is nothing beside the room that is asked for.
        wanted = stage.target.parameters
        return wanted * parameters if wanted is not None else (stage.target.bytes or 0) / FLOAT_BYTES
    heads = (1 - stage.head_ratio) * (1 - stage.query_ratio)
    outer = (1 - stage.layer_ratio) * (1 - stage.residual_ratio)
    return (1 - stage.ratio) * heads * outer * parameters
