"""The root mean square norm (Zhang and Sennrich 2019), also if input and weight differ in precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` over the last axis, as one fused operator for any precisions."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the norm in the precision of its input.

        Under autocast a norm with weights in float32 may read bfloat16. With two precisions torch uses
        several operators and warns; so both are first converted to the wider one, which gives the same bits.
        """
        wide = torch.promote_types(x.dtype, self.weight.dtype)
        return F.rms_norm(x.to(wide), self.normalized_shape, self.weight.to(wide), self.eps).to(x.dtype)
