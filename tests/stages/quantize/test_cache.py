"""Scales of a cache in int8: right for every position, and kept through checkpoint and graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from roots_compress.models.ops.attention import LongRopeScaling, QkNorm, Rope
from roots_compress.models.quantized import CacheRounding
from roots_compress.models.rotary import rotate
from roots_compress.models.spec import ModelSpec
from roots_compress.stages.quantize.cache import MARGIN, observed_cache, rotated_range, scale_of
from tests.specs import with_attention
from tests.tiny import tiny_config, tiny_layer, tiny_model, tiny_tokens


def test_rounding_is_to_the_nearest_of_256_levels() -> None:
    rounding = CacheRounding(2, 3)
    rounding.key_scale.copy_(torch.tensor([[1.0, 0.5, 0.1], [2.0, 1.0, 1.0]]))
    key = torch.randn(2, 2, 5, 3, generator=torch.Generator().manual_seed(0)) * 60
    rounded, value = rounding(key, torch.full((2, 2, 5, 3), 0.4))
    step = rounding.key_scale.numpy()[:, None]
    expected = np.clip(np.round(key.numpy() / step), -128, 127) * step
    np.testing.assert_allclose(rounded, expected, rtol=1e-6)
    assert (expected != key.numpy()).any()
    assert (np.abs(expected / step) > 127.5).any()
    assert value.abs().max() == 0


@pytest.mark.parametrize("factor", [1.0, 1.4])
def test_a_range_holds_at_every_position(factor: float) -> None:
    key = torch.randn(40, 2, 8, generator=torch.Generator().manual_seed(0))
    angles = torch.arange(3000.0)[:, None] * torch.tensor([1.0, 0.3, 0.01, 0.007])
    cos_sin = factor * angles.cos()[None], factor * angles.sin()[None]
    # Every key as a row of the batch, at each of 3,000 positions.
    turned = rotate(key[:, :, None].expand(-1, -1, 3000, -1), cos_sin).abs().amax(dim=(0, 2))
    bound = rotated_range(key, 8, factor)
    assert (turned <= bound * (1 + 1e-5)).all()
    # Some position comes close: the bound is no looser than it must be.
    assert (turned >= bound * 0.99).all()
    # Channels that are not turned keep their own range.
    assert torch.equal(rotated_range(key, 0, factor), key.abs().amax(dim=0))
    partly = rotated_range(key, 6, factor)
    assert torch.equal(partly[:, :6], rotated_range(key[..., :6], 6, factor))
    assert torch.equal(partly[:, 6:], key[..., 6:].abs().amax(dim=0))


def test_a_channel_that_is_always_zero_has_a_scale() -> None:
    scale = scale_of(torch.tensor([[0.0, 127.0]]))
    assert scale.tolist() == [[1.0, MARGIN]]


YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "original_max_position_embeddings": 8}
LONG = LongRopeScaling(
    short_factor=(1.0, 2.0),
    long_factor=(4.0, 9.0),
    original_max_position_embeddings=16,
    attention_factor=1.3,
)
ONE_HEAD = [tiny_layer(num_key_value_heads=1)]
CACHED: dict[str, ModelSpec] = {
    "plain": with_attention(),
    "yarn": tiny_config(layers=ONE_HEAD, rope_parameters=YARN).spec,
    "no rotary": with_attention(rope=None),
    "norms of heads": with_attention(qk_norm=QkNorm()),
    "norms of projections": with_attention(qk_norm=QkNorm(over="projection")),
    "partial": with_attention(rope=Rope(rotary_dim=4)),
    "long": with_attention(rope=Rope(rotary_dim=4, scaling=LONG)),
}


@pytest.mark.parametrize("spec", CACHED.values(), ids=CACHED.keys())
def test_what_is_observed_covers_what_attention_caches(spec: ModelSpec) -> None:
    model = tiny_model(spec=spec)
    (block, _) = (half.block for half in model.model.layers[0].halves)
    with torch.no_grad(), observed_cache(block, spec.max_positions) as seen:
        cache = model(input_ids=tiny_tokens(), use_cache=True).past_key_values
    assert block.cache_observer is None
    keys, values = cache.layers[0].keys, cache.layers[0].values
    assert (keys.abs().amax(dim=(0, 2)) <= seen.key * (1 + 1e-5)).all()
    torch.testing.assert_close(values.abs().amax(dim=(0, 2)), seen.value)
    assert (seen.key <= 2 * keys.abs().amax(dim=(0, 2)).amax()).all()
