"""Inputs of ONNX Runtime's fused attention besides queries, keys and values.

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
    """Where the graph writes a prompt's tokens into an int8 cache; the operator writes single tokens."""

    first_1: ir.Value
    """The first slot: after the tokens of the longest row, over its padding."""
    end_1: ir.Value
    """The slot after the last."""
    is_step: ir.Value
    """Whether there is one new token a row."""


@dataclass(frozen=True)
class Compact:
    """Inputs of `GroupQueryAttention`: in cache and prompt, each row's tokens come first, then its padding.

    The operator does not support padding on the left, where callers put it. So each row is rotated until its
    real tokens come first, and the outputs are rotated back. The padding is then after everything that the
    tokens see, and the next token overwrites it in the cache. Padding on the right, as from
    onnxruntime-genai, is already there.
    """

    to_front_N: ir.Value
    """The flat token at each index after the rotation."""
    back_N: ir.Value
    """The inverse."""
    past_B: ir.Value
    """Tokens of each row that the caches hold."""
    last_B: ir.Value
    """int32: the slot of each row's last new token, padding included."""
    slots: ir.Value
    """int32 scalar: S."""
    position_ids_BT: ir.Value
    """Positions of the rotated tokens."""
    cos_sin: dict[Turning, CosSin]
    """Cosines and sines by position, of the new tokens' positions only."""
    place: Place | None
    """None if the operator writes all of the cache."""


def takes_axes(config: RootsConfig) -> bool:
    """Return whether every operator of the fused layers takes activations with batch and token axes.

    Products of plain matrices do not, nor do blocks that route tokens.
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
