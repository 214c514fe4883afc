"""The root mean square norm (Zhang and Sennrich 2019), also of another precision than its weight's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` over the last elements, in one fused operator whatever the precisions."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the norm in the precision of what is read.

        Under autocast a norm with weights in float32 may read bfloat16. Of two precisions torch makes several
        operators and a warning; both are converted to the wider one beforehand, which gives the same bits.
        """
        wide = torch.promote_types(x.dtype, self.weight.dtype)
        return F.rms_norm(x.to(wide), self.normalized_shape, self.weight.to(wide), self.eps).to(x.dtype)
