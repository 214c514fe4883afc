"""The `quantize` stage as the pipeline sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.data.documents import TextSplit
from roots_compress.errors import Key
from roots_compress.models.limits import require_fusible
from roots_compress.results import Json
from roots_compress.stages.base import ModelInfo, Stage, StageContext, StageOutcome
from roots_compress.stages.expected import SHORT, Estimate, Expected, ExpectedModel, Small, least
from roots_compress.stages.quantize.products.caption import choice_caption
from roots_compress.system.machine import has_dot_products

if TYPE_CHECKING:
    from roots_compress.checkpoints.checkpoint import Checkpoint

STORED_BYTES = {"int8": 1.0, "int4": 0.5, "fp16": 2.0}
"""Bytes of a weight, by scheme, without scales."""


class QuantizeStage(Stage[QuantizeConfig]):
    """Stores weights in fewer bits; no later stage can change them."""

    def check(self, config: QuantizeConfig, info: ModelInfo) -> ModelInfo:
        """Refuse an int8 cache that the graph could not read."""
        if config.cache == "int8":
            require_fusible(info.limits.fusible is not False, where=Key("cache"))
        return replace(info, spec=None, source=None)

    def check_start(self, config: QuantizeConfig, info: ModelInfo, text: TextSplit, *, seed: int) -> None:
        """Refuse an impossible calibration or number of bytes."""
        from roots_compress.stages.quantize.stage import planned

        planned(config, info.without_weights(), text, seed=seed)

    def estimate(self, config: QuantizeConfig, parameters: float, *, device: str) -> Estimate:
        """Count the weights by the scheme's width."""
        return least(parameters, parameters, width=STORED_BYTES[config.scheme])

    def expect(self, config: QuantizeConfig, before: ExpectedModel) -> Expected:
        """Return the formats for the settings; timings are assumed to end as on similar machines."""
        from roots_compress.stages.quantize.expected import expected

        return expected(config, before)

    def in_small(self, config: QuantizeConfig, small: Small) -> QuantizeConfig:
        """Remove a bound on the bytes of the whole model."""
        less, changes = small.lessened(config, shortest=SHORT), dict[str, object]()
        if less.calibration.windows * less.calibration.block_size >= small.tokens:
            changes["own_windows"] = min(1, config.own_windows)
        return less.model_copy(update={**changes, "max_bytes": None})

    def caption(self, notes: Mapping[str, Json]) -> str | None:
        """Report the choices by timing: products and cache."""
        return choice_caption(notes)

    def slower_because(self, notes: Mapping[str, Json], machine: Mapping[str, Json]) -> str | None:
        """Name the instructions that integer products need and the processor lacks."""
        formats, instructions = notes.get("formats"), machine.get("instruction_set")
        if (
            machine.get("device") != "cpu"
            or not isinstance(formats, dict)
            or not isinstance(instructions, str)
        ):
            return None
        rounds_inputs = any(name.endswith("a8") for name in formats)
        lacks = rounds_inputs and not has_dot_products(instructions)
        return "this CPU lacks 8-bit dot products" if lacks else None

    def settled(self, config: QuantizeConfig, chosen: Mapping[str, Json]) -> QuantizeConfig:
        """Set the chosen products."""
        return config.settled(chosen)

    def run(self, config: QuantizeConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
        """Measure errors, choose formats, and round."""
        from roots_compress.stages.quantize.stage import quantize

        return quantize(config, checkpoint, context)
