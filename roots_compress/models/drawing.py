"""Drawing tokens from predictions. Shape legend: R rows, V vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from roots_compress.errors import StageError


def drawn(logits_RV: Tensor, generator: torch.Generator) -> Tensor:
    """Return a token a row, `R1` on the CPU, drawn from the softmax of its logits.

    By inverting the distribution: one random number a row. `torch.multinomial` draws one for every entry,
    which takes several times as long as the softmax.

    Raises:
        StageError: a logit is NaN, or a row has none below infinity.
    """
    cumulative_RV = logits_RV.float().softmax(dim=-1).cpu().cumsum(dim=-1)
    # What is not finite anywhere in a row is not finite in its sum.
    if not torch.isfinite(cumulative_RV[:, -1]).all():
        raise StageError(
            "the model predicts NaN", remedy="Check the checkpoint: its weights or activations overflow."
        )
    level_R1 = torch.rand(len(cumulative_RV), 1, generator=generator) * cumulative_RV[:, -1:]
    return torch.searchsorted(cumulative_RV, level_R1, right=True).clamp(max=cumulative_RV.shape[1] - 1)
