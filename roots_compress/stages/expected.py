"""What a stage is expected to make, and how it is carried out in small to see whether it works.

Both are answers of the stage protocol (`Stage.expect`, `Stage.in_small`). Nothing here imports torch.
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
"""Tokens of a calibration window in small, where its length does not matter: models write some themselves."""
MORE_TOKENS = 1.6
"""Calibration tokens in small for each input channel of the widest matrix: solvers need at most 1.5."""


@dataclass(frozen=True)
class ExpectedModel:
    """A model that is not made yet."""

    spec: ModelSpec
    quantization: Mapping[str, Any] | None = None
    """How matrices will be stored, as a checkpoint's config says it; None: unquantized."""
    weight_bytes: int = 4
    """Of each number that is not quantized."""
    certain: bool = True
    """Whether shape and storage follow from the settings. Otherwise measuring or timing decides, and these
    are the likeliest."""


@dataclass(frozen=True)
class Expected:
    """What a stage makes, and its work besides training."""

    model: ExpectedModel
    passes: float = 0.0
    """In forward passes of one token through the model that it starts from."""
    held_bytes: float = 0.0
    """Bytes of memory besides the weights of that model and of the one made."""


@dataclass(frozen=True)
class Small:
    """How much a stage does in small."""

    whole: ModelSpec
    """The model that the stage starts from in the run."""
    cut: ModelSpec
    """The one that it starts from in small: fewer layers."""
    steps: int
    """The most optimizer steps of a training."""
    layers: int
    """The most of a stack of a new model."""
    stand_in: Callable[[Path], Path] = field(default=lambda path: path)
    """Makes a checkpoint of few layers that can take the place of one that a setting names."""

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
            shortest: windows of calibration text may be cut to so many tokens; None keeps their length.
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
