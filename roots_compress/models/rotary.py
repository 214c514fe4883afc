"""Rotary positions (Su et al. 2021, "RoFormer"): how fast each pair of channels turns, and the turning.

Shape legend: B batch, T tokens, H heads, D head dimension, d half of it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from roots_compress.models.config import RootsConfig

CosSin = tuple[Tensor, Tensor]
"""Cosines and sines of the angles, `BTd` each."""


def rotary_frequencies(config: RootsConfig, head_dim: int) -> tuple[Tensor, float]:
    """Return the inverse frequencies (`head_dim / 2`, float32) and the factor on cosines and sines.

    Scaled variants (`linear`, `llama3`, `yarn`) are computed by transformers.
    """
    parameters = dict(config.rope_parameters or {})
    if parameters["rope_type"] == "default":
        exponent = torch.arange(0, head_dim, 2, device="cpu").float() / head_dim
        return 1.0 / parameters["rope_theta"] ** exponent, 1.0
    llama = LlamaConfig(
        hidden_size=head_dim,
        num_attention_heads=1,
        head_dim=head_dim,
        max_position_embeddings=config.max_position_embeddings,
        rope_parameters=parameters,
    )
    # Inside `from_pretrained` tensors are made without storage unless a device is named.
    with torch.device("cpu"):
        frequencies, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](llama, device=torch.device("cpu"))
    return frequencies.float(), float(factor)


def rotate(x_BHTD: Tensor, cos_sin: CosSin) -> Tensor:
    """Apply rotary positions, the two halves of the head dimension forming the rotated pairs."""
    cos_BTd, sin_BTd = cos_sin
    cos, sin = cos_BTd[:, None].to(x_BHTD.dtype), sin_BTd[:, None].to(x_BHTD.dtype)
    first, second = x_BHTD.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
