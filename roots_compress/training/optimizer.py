"""What is trained, and the optimizer that trains it."""

from __future__ import annotations

import torch
from torch import nn

from roots_compress.configs.training import TrainingConfig

BETA1 = 0.9


def trainable(step: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a training step to train by name, the model's first; tied ones appear once."""
    return {name: p for name, p in step.named_parameters() if p.requires_grad}


def make_optimizer(parameters: dict[str, nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter 2019), decaying matrices and not norms and biases."""
    matrices = [p for p in parameters.values() if p.ndim >= 2]
    vectors = [p for p in parameters.values() if p.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(BETA1, config.beta2),
        fused=True,
    )
