"""Training of low-rank updates: the model's weights stay frozen, and the updates are merged at the end.

Shape legend: O outputs and C inputs of a linear layer, R the rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roots_compress.errors import InputError, Key
from roots_compress.models.blocks.base import Block
from roots_compress.models.heads import RootsWithHead

ALPHA = 16.0
"""The updates are scaled by this over their rank, so that one learning rate suits every rank."""


class LowRankLinear(nn.Linear):
    """A frozen linear layer with a trained update of its weights, `ALPHA / R * B A`.

    LoRA (Hu et al. 2021, arXiv:2106.09685): A starts random and B at zero, so that training starts from the
    unchanged layer. The product of A and B is never formed, nor its gradient: a step takes memory and work in
    proportion to the rank.

    Args:
        base: the layer; its weight and bias are shared, not copied.
    """

    def __init__(self, base: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__(base.in_features, base.out_features, bias=False, device="meta")
        self.weight, self.bias = base.weight, base.bias
        # Drawn on the CPU, so that it is the same on every device; rows of A x have the scale of x.
        a_RC = torch.randn(rank, base.in_features, generator=generator) * base.in_features**-0.5
        self.lora_a = nn.Parameter(a_RC.to(base.weight.device))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        self.scale = ALPHA / rank

    def forward(self, input: Tensor) -> Tensor:
        """Return the updated layer's output."""
        return super().forward(input) + self.scale * F.linear(F.linear(input, self.lora_a), self.lora_b)

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update to the weight, which the base shares."""
        self.weight.add_(self.lora_b @ self.lora_a, alpha=self.scale)


@contextmanager
def low_rank_updates(model: RootsWithHead, rank: int, *, seed: int) -> Iterator[None]:
    """Within the block only low-rank updates are trainable, one for every projection of the layers.

    Embedding, head, norms, biases, and projections to one number a head are frozen. If the block succeeds,
    the updates are merged into the weights; in any case the model then has plain, trainable layers again.

    Args:
        model: float32 weights.
    """
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    projections = list(_projections(model))
    updates = [LowRankLinear(base, rank, generator) for _, _, base in projections]
    for (block, name, _), update in zip(projections, updates, strict=True):
        block.set_submodule(name, update)
    try:
        yield
        for update in updates:
            update.merge()
    finally:
        for block, name, base in projections:
            block.set_submodule(name, base)
        model.requires_grad_(True)


def check_rank(model: RootsWithHead, rank: int) -> None:
    """Refuse a rank that is too large for a projection.

    Raises:
        InputError: updates of this rank would be no smaller than the weights.
    """
    most = min(min(base.weight.shape) for _, _, base in _projections(model))
    if rank >= most:
        raise InputError(
            f"updates of rank {rank} are no smaller than the smallest projection, which has rank {most}",
            where=Key("rank"),
            remedy=f"Set rank below {most}, or leave it out to train all weights.",
        )


def _projections(model: RootsWithHead) -> Iterator[tuple[Block, str, nn.Linear]]:
    """Yield every matrix of the layers except the smallest, with its block and its name there."""
    for layer in model.model.all_layers():
        for half in layer.halves:
            spec = half.block.spec
            for name in spec.matrices(model.config.hidden_size):
                if name not in spec.scalars:
                    yield half.block, name, half.block.linear(name)
