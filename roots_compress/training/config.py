"""Settings of the one training loop and its losses, shared by the stages that train."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from roots_compress.settings import PositiveFloat, PositiveInt, Settings


class TrainingConfig(Settings):
    """How a model is optimised: AdamW, linear warm-up, cosine decay."""

    steps: PositiveInt = 300
    """Optimizer steps."""
    batch_size: PositiveInt = 4
    """Windows in each micro-batch."""
    accumulation: PositiveInt = 1
    """Micro-batches whose gradients are averaged before each optimizer step."""
    block_size: Annotated[int, Field(ge=8)] = 256
    """Tokens in each training window."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    final_learning_rate_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """The learning rate at the last step, as a fraction of the peak."""
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Fraction of the steps over which the learning rate rises from zero to its peak."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    """AdamW weight decay, applied to matrices only (not to norms and biases)."""
    beta2: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    """AdamW's second moment decay; the first is 0.9."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this global norm."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast precision; weights stay float32. `auto`: bf16 where the GPU or CPU has matrix units for it."""
    checkpoint_every: PositiveInt = 100
    """Steps between resumable checkpoints of the training state."""


class DistillLossConfig(Settings):
    """Cross-entropy plus temperature-scaled KL divergence to the teacher (Hinton et al. 2015)."""

    cross_entropy_weight: Annotated[float, Field(ge=0.0)] = 0.5
    """Weight of the cross-entropy with the text's next token."""
    kl_weight: Annotated[float, Field(ge=0.0)] = 0.5
    """Weight of the KL divergence to the teacher's distribution, multiplied by the temperature squared."""
    hidden_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the squared error between matched hidden states, relative to the teacher's variance."""
    temperature: PositiveFloat = 2.0
    """Softens both distributions in the KL term."""
    direction: Literal["forward", "reverse"] = "forward"
    """`forward`: KL(teacher || student); `reverse`: KL(student || teacher)."""

    @model_validator(mode="after")
    def _must_minimise_something(self) -> Self:
        if self.cross_entropy_weight == self.kl_weight == self.hidden_weight == 0.0:
            raise ValueError(
                "at least one of cross_entropy_weight, kl_weight and hidden_weight must be above 0"
            )
        return self
