"""Rotary positions (Su et al. 2021, "RoFormer"): the frequency of each pair of channels, and the rotation.

Shape legend: B batch, T tokens, H heads, D head dimension, d half of the rotated channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from roots_compress.models.ops.attention import LongRopeScaling, Rope

CosSin = tuple[Tensor, Tensor]
"""Cosines and sines of the angles, `BTd` each."""


class Frequencies(NamedTuple):
    """The rotation frequencies of the pairs."""

    short_d: Tensor
    """Radians a position, float32."""
    factor: float
    """On cosines and sines."""
    long_d: Tensor | None = None
    """The frequencies for all positions of a text longer than `length`; None: the same."""
    length: int | None = None


def rotary_frequencies(rope: Rope, head_dim: int, max_positions: int) -> Frequencies:
    """Return the frequencies of the rotated channels.

    Scaled variants are computed by transformers.
    """
    turned = rope.rotary_dim or head_dim
    exponent = torch.arange(0, turned, 2, device="cpu").float() / turned
    plain_d = 1.0 / rope.theta**exponent
    if rope.scaling is None:
        return Frequencies(plain_d, 1.0)
    if isinstance(rope.scaling, LongRopeScaling):
        short, long = (
            1.0 / (torch.tensor(factors, device="cpu") * rope.theta**exponent)
            for factors in (rope.scaling.short_factor, rope.scaling.long_factor)
        )
        length = rope.scaling.original_max_position_embeddings
        return Frequencies(short, rope.scaling.attention_factor, long, length)
    parameters = rope.parameters()
    llama = LlamaConfig(
        hidden_size=turned,
        num_attention_heads=1,
        head_dim=turned,
        max_position_embeddings=max_positions,
        rope_parameters=parameters,
    )
    # Inside `from_pretrained` tensors have no storage unless a device is named.
    with torch.device("cpu"):
        frequencies, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](llama, device=torch.device("cpu"))
    return Frequencies(frequencies.float(), float(factor))


def cos_sin(frequencies: Frequencies, position_ids_BT: Tensor) -> CosSin:
    """Return the cosines and sines at the positions of new tokens."""
    turning_d = frequencies.short_d
    if frequencies.long_d is not None and frequencies.length is not None:
        turning_d = frequencies.long_d if int(position_ids_BT.max()) >= frequencies.length else turning_d
    angles = position_ids_BT[..., None].float() * turning_d.to(position_ids_BT.device)
    return angles.cos() * frequencies.factor, angles.sin() * frequencies.factor


def rotate(x_BHTD: Tensor, cos_sin: CosSin) -> Tensor:
    """Apply rotary positions to a head's first channels; their two halves form the pairs."""
    cos_BTd, sin_BTd = cos_sin
    cos, sin = cos_BTd[:, None].to(x_BHTD.dtype), sin_BTd[:, None].to(x_BHTD.dtype)
    turned = 2 * cos.shape[-1]
    first, second = x_BHTD[..., :turned].chunk(2, dim=-1)
    parts = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat((*parts, x_BHTD[..., turned:]) if turned < x_BHTD.shape[-1] else parts, dim=-1)
