"""The learning rate as a function of the step, which is all its state."""

from __future__ import annotations

import math

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
