"""The interface of blocks, the data they share in a forward pass, and a block with its norms."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from roots_compress.models.attention import View
from roots_compress.models.device import as_multiplied
from roots_compress.models.norm import RMSNorm
from roots_compress.models.ops.attention import Rope
from roots_compress.models.ops.base import OpSpec
from roots_compress.models.quantized import make_linear
from roots_compress.models.relative import Source
from roots_compress.models.rotary import CosSin
from roots_compress.models.spec import Norm

Sees = tuple[int | None, bool]
"""The window of an attention, and whether it is causal."""


class Route(NamedTuple):
    """The rows that a linear layer reads, in its order."""

    row_N: Tensor
    """Indices of the rows, batch and tokens flattened."""
    weight_N: Tensor
    """The factor on the block's output for each row."""


@dataclass(frozen=True)
class Context:
    """Data that the blocks of one forward pass share."""

    views: Mapping[Sees, View]
    """The keys that queries see."""
    angles: Mapping[tuple[Rope, int], CosSin]
    """Cosines and sines, by the rotary positions and the size of the heads."""
    positions_BT: Tensor | None = None
    """Position of each token within its document, padding not counted; None if no block reads it."""
    valid_BT: Tensor | None = None
    """False where a new token is padding; None if there is no padding."""
    cache: Cache | None = None
    source: Source | None = None
    """Input of cross-attention; None without an encoder."""
    layer_inputs_BTLP: Tensor | None = None
    """Per-layer embeddings of the tokens; None if the model has none."""
    given: dict[Hashable, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Keys and values, `BGSD` each, of the last attention that shares them, by the properties that takers
    have in common with it."""

    def to(self, device: torch.device | str | int) -> Context:
        """Return a copy on a device, for its layers; keys and values stay where they are."""
        device = torch.device(device)
        if all(view.device == device for view in self.views.values()):
            return self
        return replace(
            self,
            views={sees: view.to(device) for sees, view in self.views.items()},
            angles={key: (cos.to(device), sin.to(device)) for key, (cos, sin) in self.angles.items()},
            positions_BT=None if self.positions_BT is None else self.positions_BT.to(device),
            valid_BT=None if self.valid_BT is None else self.valid_BT.to(device),
            source=None if self.source is None else self.source.to(device),
            layer_inputs_BTLP=None if self.layer_inputs_BTLP is None else self.layer_inputs_BTLP.to(device),
        )


class Holder(nn.Module):
    """A module whose channels can be traced."""

    def coupled(self, x_BTW: Tensor, axis: str, source_BTW: Tensor | None = None) -> Tensor:
        """Return a sum or product that couples channels as an axis does, for torch-pruning to trace.

        Args:
            source_BTW: the encoder's output for cross-attention; `x_BTW` if None.
        """
        raise NotImplementedError


class Block(Holder):
    """A block of a layer.

    Args:
        name: its module name, such as `model.layers.0.mlp`.
        layer: the number of its layer in its stack, which is its index in a cache.
    """

    spec: OpSpec

    def __init__(self, spec: OpSpec, config: Any, name: str, layer: int) -> None:
        super().__init__()
        self.spec, self.layer_idx = spec, layer
        self.add_holders(config)
        for matrix, shape in spec.matrices(config.hidden_size).items():
            linear = make_linear(config, f"{name}.{matrix}", shape.width, shape.rows, shape.bias)
            self.set_submodule(matrix, linear)

    def add_holders(self, config: Any) -> None:
        """Add the modules other than linear layers, and those that contain linear layers."""

    def forward(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the block's output; hooks see it."""
        return self.contribution(x_BTW, context)

    last: ClassVar[str] = "out_proj"
    """The linear layer that reads what `inner` returns."""

    def contribution(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the block's output for its input, `BTW`."""
        out_BTW: Tensor = getattr(self, self.last)(self.inner(x_BTW, context))
        return out_BTW

    def inner(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the input of the block's last projection, `BTC`.

        Raises:
            NotImplementedError: the block has no single last projection.
        """
        raise NotImplementedError

    def holder(self, projection: str) -> Holder:
        """Return the module in which a linear layer's input channels are coupled: the block, or a part."""
        return self

    def read_by_parts(self, x_BTW: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each part's input, `NC`, times the factor on its output, by the part's name."""
        raise NotImplementedError

    def given_by(self, x_BTW: Tensor, axis: str, kept: Sequence[int]) -> Tensor:
        """Return the block's output with only these units of such an axis, in the shape of `x_BTW`."""
        raise NotImplementedError

    def drop(self, axis: str, kept: Sequence[int]) -> None:
        """Keep only these units of an axis with neither a projection nor parts."""
        raise NotImplementedError

    def routes(self, x_BTW: Tensor) -> Mapping[str, Route]:
        """Return the rows of the linear layers that do not read all, by name."""
        return {}

    def run_on_all(self, names: Collection[str], x_BTW: Tensor) -> None:
        """Run the parts that contain these linear layers on all rows, whether routed to them or not."""
        raise NotImplementedError

    def shares(self, x_BTW: Tensor, axis: str) -> tuple[Tensor, Tensor]:
        """Return the size of the outputs of such an axis's units, and their numbers of tokens, `U` both.

        The size is the norm of a unit's output times its weight in the block's output, summed over its
        tokens.
        """
        raise NotImplementedError

    def readers(self) -> list[nn.Linear]:
        """Return the linear layers that read the block's input."""
        return [self.linear(name) for name in self.spec.readers]

    def source_readers(self) -> list[nn.Linear]:
        """Return the linear layers that read the encoder's output."""
        return [self.linear(name) for name in self.spec.source_readers]

    def writers(self) -> list[nn.Linear]:
        """Return the linear layers whose outputs are the block's output."""
        return [self.linear(name) for name in self.spec.writers]

    def linear(self, name: str) -> nn.Linear:
        """Return an unquantized linear layer."""
        linear = self.get_submodule(name)
        assert isinstance(linear, nn.Linear), f"{name} is {type(linear).__name__}"
        return linear


def make_norm(spec: Norm, width: int) -> nn.Module:
    """Return the normalisation that a specification names, over the last `width` elements."""
    if spec.kind == "layer_norm":
        return nn.LayerNorm(width, eps=spec.eps, bias=spec.bias)
    return RMSNorm(width, eps=spec.eps)


@dataclass(frozen=True)
class Half:
    """A block with the norms around it, in their current state.

    Attributes:
        name: the block's, in its layer.
        parallel: whether the block's output is added only with the next block's, which reads the same stream.
        norm_owner: the block that the norm before this one is named after: itself, or the block before it.
        sharing: the blocks after the norm's owner that read the same norm, by their names.
    """

    name: str
    parallel: bool
    block: Block
    pre_norm: nn.Module | None
    post_norm: nn.Module | None
    joint_norm: nn.Module | None
    stream_norm: nn.Module | None
    stream_scale: Tensor | None
    norm_owner: str
    sharing: Mapping[str, Block]

    def read(self, hidden_BTW: Tensor) -> Tensor:
        """Return the block's input from the residual stream."""
        return as_multiplied(hidden_BTW if self.pre_norm is None else self.pre_norm(hidden_BTW))

    def given(self, block_BTW: Tensor) -> Tensor:
        """Return the addition to the residual stream for the block's output."""
        return block_BTW if self.post_norm is None else self.post_norm(block_BTW)

    def contribution(self, hidden_BTW: Tensor, context: Context) -> Tensor:
        """Return the addition to the residual stream, `BTW`."""
        return self.given(self.block(self.read(hidden_BTW), context))

    def inner(self, hidden_BTW: Tensor, context: Context) -> Tensor:
        """Return the input of the block's last projection, `BTC`."""
        return self.block.inner(self.read(hidden_BTW), context)

    def add(
        self, hidden_BTW: Tensor, contribution_BTW: Tensor, waiting_BTW: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the residual stream after an addition, and the outputs still to be added.

        Args:
            waiting_BTW: outputs of parallel blocks before it, still to be added.
        """
        if waiting_BTW is not None:
            contribution_BTW = waiting_BTW + contribution_BTW
        if self.parallel:
            return hidden_BTW, contribution_BTW
        if self.joint_norm is not None:
            contribution_BTW = self.joint_norm(contribution_BTW)
        after_BTW = hidden_BTW + contribution_BTW
        if self.stream_scale is not None:
            after_BTW = after_BTW * self.stream_scale
        return (after_BTW if self.stream_norm is None else self.stream_norm(after_BTW)), None

    @property
    def only_adds(self) -> bool:
        """Whether the stream after the block is the sum of the stream and the block's output."""
        return not self.parallel and self.stream_norm is None and self.stream_scale is None
