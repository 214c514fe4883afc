"""Trained parameters, their optimizer, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from roots_compress.configs.training import TrainingConfig


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the rate of a step, counted from 0: a linear rise, then a cosine down to the final ratio.

    The first step already learns, the peak is reached with the last warm-up step, and the last step runs at
    `final_learning_rate_ratio` of the peak (Loshchilov and Hutter 2017, without restarts).
    """
    warmup = round(config.steps * config.warmup_ratio)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step + 1 - warmup) / (config.steps - warmup)
    floor = config.final_learning_rate_ratio
    return config.learning_rate * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)


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
