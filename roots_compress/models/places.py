"""Which slots hold tokens, and where these are in their documents.

Shape legend: B batch, S all tokens (cached and new).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def valid_slots(batch: int, slots: int, attention_mask: Tensor | None, device: torch.device) -> Tensor:
    """Return `valid_BS`, False at padding.

    Raises:
        ValueError: the mask does not cover the cached tokens and the new ones.
    """
    if attention_mask is None:
        return torch.ones((1, slots), dtype=torch.bool, device=device).expand(batch, -1)
    if attention_mask.shape != (batch, slots):
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; with the cached tokens it must be "
            f"{(batch, slots)}"
        )
    return attention_mask.bool()


def positions_of(valid_BS: Tensor, segment_ids: Tensor | None) -> Tensor:
    """Return the position of each slot within its document, padding not counted."""
    count_BS = valid_BS.long().cumsum(dim=1)
    if segment_ids is None:
        return (count_BS - 1).clamp(min=0)
    starts_BS = F.pad(segment_ids[:, 1:] != segment_ids[:, :-1], (1, 0), value=True)
    before_BS = torch.where(starts_BS, count_BS - valid_BS.long(), 0).cummax(dim=1).values
    return (count_BS - before_BS - 1).clamp(min=0)
