"""Linear attention, a chunk of tokens at a time.

A head keeps a matrix S. A token decays it, writes into it under the token's key, and reads it. The gated
delta rule writes the difference from the value stored there; without a rate b the value is added:

    S = exp(g) S;   S = S + k (b (v - S^T k))^T   or   S = S + k v^T;   o = S^T q

With the products of all decays of a chunk, the corrections of its tokens solve one triangular system (Yang et
al. 2025, arXiv:2412.06464, section 3.3). It is as exact as token by token, and takes few large products.

Shape legend: B batch, T tokens, H heads, K channels of a key, V channels of a value, C tokens of a chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from roots_compress.models.device import without_autocast

CHUNK = 64


class Heads(NamedTuple):
    """The heads' inputs for tokens, in float32."""

    query_BHTK: Tensor
    key_BHTK: Tensor
    value_BHTV: Tensor
    decay_BHT: Tensor
    """g, at most 0."""
    rate_BHT: Tensor | None
    """b; None if values are added."""

    def part(self, start: int, end: int) -> Heads:
        """Return the inputs of some tokens."""
        query, key, value, decay = (each[:, :, start:end] for each in self[:4])
        return Heads(
            query, key, value, decay, None if self.rate_BHT is None else self.rate_BHT[:, :, start:end]
        )


def linear_attention(
    heads: Heads, starts_BT: Tensor | None, state_BHKV: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the heads' outputs, `BHTV`, and their matrices after the last token, `BHKV`.

    Args:
        starts_BT: where documents begin; the state is reset there. None: nowhere.
        state_BHKV: the matrices before the first token; None for zeros.
    """
    batch, count, tokens, _ = heads.query_BHTK.shape
    if state_BHKV is None:
        shape = batch, count, heads.key_BHTK.shape[-1], heads.value_BHTV.shape[-1]
        state_BHKV = heads.value_BHTV.new_zeros(shape)
    read = []
    for start in range(0, tokens, CHUNK):
        end = min(start + CHUNK, tokens)
        starts_BC = None if starts_BT is None else starts_BT[:, start:end]
        with without_autocast(state_BHKV.device):  # All later tokens would read a rounding error made here.
            read_BHCV, state_BHKV = _chunk(heads.part(start, end), starts_BC, state_BHKV)
        read.append(read_BHCV)
    return torch.cat(read, dim=2), state_BHKV


def _chunk(heads: Heads, starts_BC: Tensor | None, state_BHKV: Tensor) -> tuple[Tensor, Tensor]:
    query_BHCK, key_BHCK, value_BHCV, decay_BHC, rate_BHC = heads
    total_BHC = decay_BHC.cumsum(dim=-1)
    tokens = total_BHC.shape[-1]
    hidden = torch.ones(tokens, tokens, dtype=torch.bool, device=total_BHC.device).triu(1)
    since_BHC = total_BHC.exp()
    to_end_BHC = (total_BHC[..., -1:] - total_BHC).exp()
    if starts_BC is not None:
        document_BC = starts_BC.cumsum(dim=-1)
        hidden = (hidden | (document_BC[:, :, None] != document_BC[:, None, :]))[:, None]
        since_BHC = since_BHC * (document_BC == 0)[:, None]
        to_end_BHC = to_end_BHC * (document_BC == document_BC[:, -1:])[:, None]
    between_BHCC = (total_BHC[..., :, None] - total_BHC[..., None, :]).masked_fill(hidden, -torch.inf).exp()
    written_BHCV = value_BHCV
    if rate_BHC is not None:
        system_BHCC = rate_BHC[..., None] * (key_BHCK @ key_BHCK.mT) * between_BHCC
        wanted_BHCV = value_BHCV - since_BHC[..., None] * (key_BHCK @ state_BHKV)
        # The diagonal is assumed to be 1.
        written_BHCV = torch.linalg.solve_triangular(
            system_BHCC, rate_BHC[..., None] * wanted_BHCV, upper=False, unitriangular=True
        )
    read_BHCV = since_BHC[..., None] * (query_BHCK @ state_BHKV)
    read_BHCV = read_BHCV + (query_BHCK @ key_BHCK.mT * between_BHCC) @ written_BHCV
    kept_BHKV = since_BHC[..., -1, None, None] * state_BHKV
    return read_BHCV, kept_BHKV + (to_end_BHC[..., None] * key_BHCK).mT @ written_BHCV
