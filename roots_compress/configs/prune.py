"""Settings of the `prune` stage."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from roots_compress.configs.base import PositiveFloat, PositiveInt, Ratio, Settings, StageName, faults_at
from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.options import Option
from roots_compress.configs.stage import StageSettings
from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.errors import Key, Text

Score = Literal["activation", "magnitude", "taylor", "obs"]

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
PER_LAYER = "Let widths differ by layer: cut most where the measured cost is least, to the same total."
RECOVER = "Train this many optimizer steps after the cut, to match the unpruned model."


class RecoveryConfig(Settings):
    """Training after the cut: distillation from the unpruned model."""

    loss: DistillLossConfig = DistillLossConfig(cross_entropy_weight=0.1, divergence_weight=0.9)
    """The objective: mostly the unpruned model's predictions, with little weight on the text itself."""
    training: TrainingConfig = TrainingConfig(learning_rate=2e-4)
    """The training loop."""
    rank: PositiveInt | None = None
    """Train only an update of this rank for each projection of the layers (LoRA), merged into its weights at
    the end. It takes less memory and needs a higher learning rate. Without it all weights are trained."""


class TargetConfig(Settings):
    """The size or speed of the pruned model; set exactly one of the three."""

    parameters: Annotated[Fraction | None, Option("--target-parameters")] = None
    """In place of ratios: fraction of the parameters outside the embeddings that may stay."""
    bytes: Annotated[PositiveInt | None, Option("--target-bytes")] = None
    """In place of ratios: bytes that all weights may take in float32."""
    decode_ms: Annotated[PositiveFloat | None, Option("--target-decode-ms")] = None
    """In place of ratios: the most milliseconds to decode a token with the float32 graph on this machine
    (batch 1, 128 tokens of context; measured in the stage)."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if [self.parameters, self.bytes, self.decode_ms].count(None) != 2:
            keys = Key("parameters"), ", ", Key("bytes"), " and ", Key("decode_ms")
            raise faults_at([((), Text("give exactly one of ", *keys))])
        return self


class PruneConfig(StageSettings):
    """Remove whole channels, heads, experts and layers, then refit the projections that read them."""

    recipe_only: ClassVar[str] = "multiple_of calibration own_windows"
    example: ClassVar[str] = "roots-compress prune --ratio 0.25"
    kind: Literal["prune"] = "prune"
    """Names the stage."""
    name: StageName = "prune"
    """Label of the row in reports."""
    ratio: Ratio = 0.25
    """Fraction of the MLP channels to remove, in experts too. The default is 0 if another ratio or a
    target is given."""
    head_ratio: Ratio = 0.0
    """Fraction of the key/value groups to remove, each with its query heads."""
    query_ratio: Ratio = 0.0
    """Fraction of each key/value group's query heads to remove."""
    key_head_ratio: Ratio = 0.0
    """Fraction of the key heads of linear attention to remove, each with its value heads."""
    value_head_ratio: Ratio = 0.0
    """Fraction of the value heads of each key head of linear attention to remove."""
    conv_ratio: Ratio = 0.0
    """Fraction of the channels of short convolutions to remove."""
    expert_ratio: Ratio = 0.0
    """Fraction of the experts of a mixture to remove: those with the smallest outputs for the tokens routed
    to them."""
    layer_ratio: Ratio = 0.0
    """Fraction of whole layers to remove: those whose removal changes the predictions least."""
    residual_ratio: Ratio = 0.0
    """Fraction of the residual stream's channels to remove; the embedding becomes narrower too."""
    target: TargetConfig | None = None
    """In place of ratios: a bound. The shapes with the least measured cost are chosen to keep it."""
    score: Score = "activation"
    """The score of a channel. `activation`: weight norm times input norm on calibration text; `obs`: the
    error that remains after a refit (optimal brain surgeon); `taylor`: first-order effect on the loss;
    `magnitude`: weight norm alone."""
    refit: bool = True
    """Refit the projection after each cut by least squares on the calibration text."""
    uniform: Annotated[bool, Option("--per-layer", value=False, help=PER_LAYER)] = True
    """Keep equal widths in all layers. Otherwise more is cut where the measured cost is lower."""
    multiple_of: PositiveInt = 16
    """Widths of pruned MLPs, and of a pruned residual stream, are multiples of this."""
    calibration: CalibrationConfig = CalibrationConfig(windows=64, block_size=512)
    """Text on which activations are measured."""
    own_windows: Annotated[int, Field(ge=0)] = 32
    """Windows of calibration text that the model writes itself, so that quality on other kinds of text falls
    less. 0: none."""
    recovery: Annotated[
        RecoveryConfig | None, Option("--recover", sets=("training", "steps"), help=RECOVER)
    ] = None
    """Optional training after the cut."""

    @model_validator(mode="before")
    @classmethod
    def _default_ratio_makes_way(cls, given: object) -> object:
        """The default ratio applies only if no other ratio and no target is given."""
        others = {key for key in cls.model_fields if key.endswith("_ratio")} | {"target"}
        if isinstance(given, dict) and any(given.get(key) for key in others):
            return {"ratio": 0.0, **given}
        return given

    @model_validator(mode="after")
    def _must_remove_something(self) -> Self:
        keys = [key for key in type(self).model_fields if key.endswith("ratio")]
        ratios = any(getattr(self, key) for key in keys)
        if self.target is not None and ratios:
            raise faults_at([((), "a target takes the place of ratios: leave out one or the other")])
        if self.target is None and not ratios:
            fault = (
                f"at least one of {', '.join(keys[:-1])} and {keys[-1]} must be above 0, or a target must be "
                "given"
            )
            raise faults_at([((), fault)])
        return self
