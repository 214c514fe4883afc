"""What ONNX Runtime's fused attention reads beside queries, keys and values.

Shape legend: B batch, T new tokens, N = B * T, S all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import onnx_ir as ir

from roots_compress.export.rotations import CosSin, Turning
from roots_compress.models.config import RootsConfig
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.quantized import format_of


class Place(NamedTuple):
    """Where the graph writes a prompt's tokens into a cache in int8; a single token the operator writes."""

    first_1: ir.Value
    """The first slot: behind the tokens of the longest row, over its padding."""
    end_1: ir.Value
    """The slot after the last."""
    is_step: ir.Value
    """Whether there is one new token a row."""


@dataclass(frozen=True)
class Compact:
    """What `GroupQueryAttention` reads: in cache and prompt, each row's tokens first, its padding after them.

    The operator knows no padding on the left, where callers put it. So the new tokens of each row are turned
    until the real ones come first, and the outputs are turned back. A row's padding then lies after all that
    its tokens see, and in the cache the next token takes its place. Padding on the right, which
    onnxruntime-genai gives, lies there already.
    """

    to_front_N: ir.Value
    """Which flat token stands at each place once the rows are turned."""
    back_N: ir.Value
    """The inverse."""
    past_B: ir.Value
    """Tokens of each row that the caches hold."""
    last_B: ir.Value
    """int32: the slot of each row's last new token, padding included."""
    slots: ir.Value
    """int32 scalar: S."""
    position_ids_BT: ir.Value
    """Positions of the turned tokens."""
    cos_sin: dict[Turning, CosSin]
    """Cosines and sines by position, of the new tokens' positions only."""
    place: Place | None
    """None where the operator writes all of the cache."""


def takes_axes(config: RootsConfig) -> bool:
    """Return whether every operator of the fused layers takes activations with batch and token axes.

    The products of plain matrices do not, nor do blocks that send tokens to places of their own.
    """
    blocks = [(config.spec.path(place), op) for place, op in config.spec.blocks()]
    return all(
        format_of(config, f"{path}.{name}") is not None
        and (
            (isinstance(op, Mlp) and not op.weighed)
            or (isinstance(op, Attention) and op.sharing is None and op.sparse is None)
        )
        for path, op in blocks
        for name in op.matrices(config.spec.width)
    )
