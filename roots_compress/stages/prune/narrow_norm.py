"""Norms over a subset of their channels.

Shape legend: B windows in a batch, T tokens, W channels of the residual stream, K kept channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roots_compress.models.resizing import StreamNorm


class NarrowNorm(nn.Module):
    """A norm over the kept channels only, in full width: the other outputs are zero.

    Args:
        kept: in rising order.
        scale: a factor on its gain.
    """

    def __init__(self, norm: StreamNorm, kept: Sequence[int], scale: float) -> None:
        super().__init__()
        self.norm, self.kept = norm, list(kept)
        self.weight_K: Tensor = norm.weight[self.kept] * scale
        bias_W: Tensor | None = norm.bias if isinstance(norm, nn.LayerNorm) else None
        self.bias_K = None if bias_W is None else bias_W[self.kept]

    def forward(self, hidden_BTW: Tensor) -> Tensor:
        """Return the normed stream."""
        normed_BTK = normalise(self.norm, hidden_BTW[..., self.kept]) * self.weight_K
        out_BTW = torch.zeros_like(hidden_BTW)
        out_BTW[..., self.kept] = normed_BTK if self.bias_K is None else normed_BTK + self.bias_K
        return out_BTW

    def multiply(self, scales_K: Tensor) -> None:
        """Multiply the output, channel by channel."""
        self.weight_K = self.weight_K * scales_K
        if self.bias_K is not None:
            self.bias_K = self.bias_K * scales_K

    def write_back(self) -> StreamNorm:
        """Write gain and bias back into the full norm, which is then cut; return it."""
        self.norm.weight[self.kept] = self.weight_K
        if self.bias_K is not None:
            assert isinstance(self.norm, nn.LayerNorm)
            self.norm.bias[self.kept] = self.bias_K
        return self.norm


def compensation(norm: StreamNorm, batches: Iterable[Tensor], kept: Sequence[int]) -> float:
    """Return the factor on a narrowed norm's gain that best approximates the norm of all channels.

    Least squares over all tokens and kept channels; we know no paper on it. For an RMS norm that is
    the mean over tokens of the root mean square of the kept channels over that of all.
    """
    products = squares = 0.0
    for hidden_BTW in batches:
        narrow_BTK = normalise(norm, hidden_BTW[..., kept])
        products += float((normalise(norm, hidden_BTW)[..., kept] * narrow_BTK).sum())
        squares += float(narrow_BTK.square().sum())
    return products / squares if squares else 1.0


def normalise(norm: StreamNorm, hidden_BTC: Tensor) -> Tensor:
    """Return a norm's output for these channels, without its gain and bias."""
    width = hidden_BTC.shape[-1:]
    if isinstance(norm, nn.RMSNorm):
        return F.rms_norm(hidden_BTC, width, eps=norm.eps)
    return F.layer_norm(hidden_BTC, width, eps=norm.eps)
