"""A layer: its blocks in order, each with the norms around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from roots_compress.models.blocks.attention import AttentionBlock
from roots_compress.models.blocks.base import Block, Context, Half, make_norm
from roots_compress.models.blocks.conv import ShortConvBlock
from roots_compress.models.blocks.linear_attention import GatedDeltaNetBlock, Mamba2Block
from roots_compress.models.blocks.mlp import LayerInputBlock, MlpBlock
from roots_compress.models.blocks.moe import MoeBlock
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import OpSpec
from roots_compress.models.ops.conv import ShortConv
from roots_compress.models.ops.linear_attention import GatedDeltaNet, Mamba2
from roots_compress.models.ops.mlp import LayerInput, Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.ops.stack import Op
from roots_compress.models.spec import Place

NORMS = ("pre_norm", "post_norm", "joint_norm", "stream_norm")
BLOCKS: dict[type[OpSpec], Callable[[Any, Any, str, int], Block]] = {
    Attention: AttentionBlock,
    ShortConv: ShortConvBlock,
    GatedDeltaNet: GatedDeltaNetBlock,
    Mamba2: Mamba2Block,
    Mlp: MlpBlock,
    Moe: MoeBlock,
    LayerInput: LayerInputBlock,
}
"""The module of each kind of block."""


class RootsLayer(nn.Module):
    """A layer of a stack. Its modules are `BLOCK`, `BLOCK_pre_norm` and so on, for each block's name.

    Args:
        index: its number, in running order.
    """

    def __init__(self, config: Any, index: int) -> None:
        super().__init__()
        self.recomputed = False
        """Whether activation checkpointing is on."""
        sublayers = config.spec.layers[index]
        self.feeds_decoder = index < config.spec.begins
        """Whether it belongs to the encoder before a decoder."""
        self.names = [sublayer.name for sublayer in sublayers]
        self.parallel = {sublayer.name for sublayer in sublayers if sublayer.parallel}
        self.sharing: list[tuple[str, ...]] = []
        """For each norm in order, the blocks that read it; it is named after the first of them."""
        for sublayer in sublayers:
            name = sublayer.name
            self.sharing.append((*self.sharing.pop(), name) if sublayer.shares_norm else (name,))
            for norm in NORMS:
                # Norms are added before their readers, so that parameters are in running order.
                if norm == "post_norm":
                    self.add_module(name, make_block(sublayer.op, config, Place(index, name)))
                spec = getattr(sublayer, norm)
                if spec is not None and not (norm == "pre_norm" and sublayer.shares_norm):
                    self.add_module(f"{name}_{norm}", make_norm(spec, config.hidden_size))
            if sublayer.stream_scale:
                self.register_buffer(f"{name}_stream_scale", torch.ones(1))

    @property
    def halves(self) -> tuple[Half, ...]:
        """The blocks in their current state, in running order."""
        return tuple(self.half_named(name) for name in self.names)

    def half_named(self, name: str) -> Half:
        """Return one of the blocks, with its norms."""
        owner, *others = next(names for names in self.sharing if name in names)
        return Half(
            name,
            name in self.parallel,
            self._block(name),
            getattr(self, f"{owner}_pre_norm", None),
            getattr(self, f"{name}_post_norm", None),
            getattr(self, f"{name}_joint_norm", None),
            getattr(self, f"{name}_stream_norm", None),
            getattr(self, f"{name}_stream_scale", None),
            owner,
            {each: self._block(each) for each in others},
        )

    def _block(self, name: str) -> Block:
        block = self.get_submodule(name)
        assert isinstance(block, Block)
        return block

    def forward(self, hidden_BTW: Tensor, context: Context) -> Tensor:
        """Return the residual stream after this layer, `BTW`."""
        if self.recomputed and torch.is_grad_enabled():
            recomputed_BTW: Tensor = checkpoint(
                self._run, hidden_BTW, context, use_reentrant=False, preserve_rng_state=False
            )
            return recomputed_BTW
        return self._run(hidden_BTW, context)

    def _run(self, hidden_BTW: Tensor, context: Context) -> Tensor:
        waiting_BTW: Tensor | None = None
        for half in self.halves:
            given_BTW = half.contribution(hidden_BTW, context)
            hidden_BTW, waiting_BTW = half.add(hidden_BTW, given_BTW, waiting_BTW)
        return hidden_BTW


def recompute(model: nn.Module, wanted: bool) -> None:
    """Switch activation checkpointing of a model's layers on or off.

    Only the input of each layer is kept for the backward pass (Chen et al. 2016, arXiv:1604.06174).
    """
    for layer in model.modules():
        if isinstance(layer, RootsLayer):
            layer.recomputed = wanted


def make_block(op: Op, config: Any, place: Place) -> Block:
    """Return the module of a block."""
    begins = config.spec.begins
    layer = place.layer - (begins if place.layer >= begins else 0)
    return BLOCKS[type(op)](op, config, config.spec.path(place), layer)
