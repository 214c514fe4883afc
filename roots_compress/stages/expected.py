"""Lower bounds of a stage's needs, forecasts of its result and work, and its settings for a rehearsal.

These are types of the stage protocol (`Stage.estimate`, `Stage.expect`, `Stage.in_small`). Nothing here
imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

from roots_compress.configs.base import groups_of, with_group
from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.stage import StageSettings
from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.models.spec import ModelSpec

Config = TypeVar("Config", bound=StageSettings)
SHORT = 64
"""Tokens of a calibration window in a rehearsal, if its length does not matter: models write some
themselves."""
MORE_TOKENS = 1.6
"""Calibration tokens in a rehearsal for each input channel of the widest matrix: solvers need at most 1.5."""


@dataclass(frozen=True)
class ExpectedModel:
    """A model that is not made yet."""

    spec: ModelSpec
    quantization: Mapping[str, Any] | None = None
    """The formats of its matrices, as in a checkpoint's config; None: unquantized."""
    weight_bytes: int = 4
    """Bytes of each number that is not quantized."""
    certain: bool = True
    """Whether shape and formats follow from the settings. Otherwise a measurement decides, and these are the
    likeliest."""


@dataclass(frozen=True)
class Expected:
    """The result of a stage, and its work besides training."""

    model: ExpectedModel
    passes: float = 0.0
    """Work in forward passes of one token through the model that it starts from."""
    fast_passes: float = 0.0
    """Further passes, in the precision that the device multiplies fastest."""
    writes: tuple[int, int] = (0, 0)
    """Windows of calibration text that the model writes, and the tokens of each."""
    held_bytes: float = 0.0
    """Bytes of memory besides the weights of that model and of the one made."""


@dataclass(frozen=True)
class Small:
    """The amount of work of a stage in a rehearsal."""

    whole: ModelSpec
    """The model that the stage starts from in the run."""
    cut: ModelSpec
    """The model that it starts from in the rehearsal: fewer layers."""
    steps: int
    """The most optimizer steps of a training."""
    layers: int
    """The most layers in a stack of a new model."""
    stand_in: Callable[[Path], Path] = field(default=lambda path: path)
    """Makes a checkpoint of few layers that can replace one named by a setting."""

    @property
    def tokens(self) -> float:
        """Calibration tokens that suffice."""
        return MORE_TOKENS * max(
            (
                ceil(op.matrices(self.cut.width)[name].width / each.share)
                for _, op in self.cut.blocks()
                for each in op.inputs()
                for name in each.consumers
            ),
            default=0,
        )

    def lessened(self, config: Config, *, shortest: int | None = None) -> Config:
        """Return settings with few training steps and little calibration text, and no cache of the user's.

        Args:
            shortest: windows of calibration text may be cut to this many tokens; None keeps their length.
        """
        for keys, training in groups_of(config, TrainingConfig):
            few = {"steps": min(training.steps, self.steps)}
            config = with_group(config, keys, training.model_copy(update=few))
        for keys, text in groups_of(config, CalibrationConfig):
            length = min(text.block_size, self.cut.max_positions)
            if shortest is not None:
                length = min(length, max(shortest, ceil(self.tokens / text.windows)))
            few = {"windows": min(text.windows, max(2, ceil(self.tokens / length))), "block_size": length}
            config = with_group(config, keys, text.model_copy(update=few))
        for keys, loss in groups_of(config, DistillLossConfig):
            top_k = loss.top_k and min(loss.top_k, self.cut.embeddings.vocabulary)
            config = with_group(config, keys, loss.model_copy(update={"cache": None, "top_k": top_k}))
        return config


FLOAT_BYTES = 4
MOMENT_BYTES = 8
"""AdamW's two moments of a weight, in float32."""


@dataclass(frozen=True)
class Estimate:
    """A lower bound of a stage's needs, and the size of the model it makes.

    It counts weights, their gradients and their optimizer's moments, and leaves out activations, text and
    libraries: a run that it refuses would certainly fail.
    """

    parameters: float
    """The fewest parameters of the model that it makes."""
    kept: float
    """Bytes on disk that remain: a checkpoint and a graph."""
    working: float
    """Bytes on disk while it works."""
    memory: float
    """Bytes of memory."""


def least(
    before: float, made: float, *, width: float = FLOAT_BYTES, trained_on: str | None = None
) -> Estimate:
    """Return the least that holding a model besides its original, and training it, takes.

    Args:
        before: parameters of the original. made: parameters of the new model.
        width: bytes of each of these.
        trained_on: the device on which all weights are trained; None without training. The disk then holds
            the saved states: those kept, and the one being written. Gradients and moments are in memory too,
            on a GPU in the GPU's.
    """
    working, memory = 0.0, FLOAT_BYTES * before + width * made
    if trained_on is not None:
        from roots_compress.training.state import KEPT

        working = (KEPT + 1) * (FLOAT_BYTES + MOMENT_BYTES) * made
        if trained_on == "cpu":
            memory = max(memory, FLOAT_BYTES * before + (2 * FLOAT_BYTES + MOMENT_BYTES) * made)
    return Estimate(parameters=made, kept=2 * width * made, working=working, memory=memory)
