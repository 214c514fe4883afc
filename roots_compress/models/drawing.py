"""Sampling tokens from predictions. Shape legend: R rows, V vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from roots_compress.errors import StageError


def drawn(logits_RV: Tensor, generator: torch.Generator) -> Tensor:
    """Return one token for each row, `R1` on the CPU, sampled from the softmax of its logits.

    It inverts the cumulative distribution: one random number a row. `torch.multinomial` draws one for every
        entry, which takes several times as long as the softmax.

    Raises:
        StageError: a logit is NaN, or a row has no finite maximum.
    """
    cumulative_RV = logits_RV.float().softmax(dim=-1).cpu().cumsum(dim=-1)
    # If any entry of a row is not finite, its sum is not finite.
    if not torch.isfinite(cumulative_RV[:, -1]).all():
        raise StageError(
            "the model predicts NaN", remedy="Check the checkpoint: its weights or activations overflow."
        )
    level_R1 = torch.rand(len(cumulative_RV), 1, generator=generator) * cumulative_RV[:, -1:]
    return torch.searchsorted(cumulative_RV, level_R1, right=True).clamp(max=cumulative_RV.shape[1] - 1)
