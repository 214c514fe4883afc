"""Folding channel scales: exact for the model, and good for what is quantized."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from roots_compress.model.calibration import InputStatistics, ResidualStream
from roots_compress.model.modeling import RootsForCausalLM
from roots_compress.quantize.outliers import best_scale, input_error, smoothing_scale
from roots_compress.quantize.sites import Site, SiteInput, attention_sites, mlp_sites
from roots_compress.quantize.walk import Half
from tests.quantize.windows import random_windows
from tests.tiny import tiny_layer, tiny_model, tiny_tokens

SWITCHES: dict[str, dict[str, Any]] = {
    "gated, grouped values": {},
    "layer norms and biases": {
        "norm": "layer_norm",
        "attention_bias": True,
        "attention_output_bias": True,
        "mlp_bias": True,
    },
    "plain ReLU": {"gated_mlp": False, "activation": "relu", "mlp_bias": True},
    "plain GELU": {"gated_mlp": False, "activation": "gelu"},
    "query and key norms": {"qk_norm": True},
    "one value head": {"layers": [tiny_layer(num_key_value_heads=1), tiny_layer(num_key_value_heads=4)]},
}


def all_sites(model: RootsForCausalLM) -> list[Site]:
    return [
        site
        for layer in model.model.layers
        for site in (*attention_sites(layer), *mlp_sites(layer, model.config.activation))
    ]


def random_scale(site: Site, seed: int) -> Tensor:
    width = next(iter(site.consumers.values())).in_features
    scale = torch.rand(width, generator=torch.Generator().manual_seed(seed)) * 8 + 0.1
    return site.shared(scale)


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES.keys())
@torch.no_grad()
def test_a_folded_model_computes_the_same(switches: dict[str, Any]) -> None:
    model = tiny_model(**switches)
    before = model(input_ids=tiny_tokens()).logits
    folded = 0
    for number, site in enumerate(all_sites(model)):
        if site.producers:
            site.fold(random_scale(site, number))
            folded += 1
    after = model(input_ids=tiny_tokens()).logits
    assert folded == (6 if switches.get("activation") == "gelu" else 8)
    assert float((after - before).abs().max() / before.abs().max()) <= 1e-4


def test_a_plain_gelu_offers_no_way_to_fold() -> None:
    layer = tiny_model(gated_mlp=False, activation="gelu").model.layers[0]
    assert not mlp_sites(layer, "gelu")[1].producers


def test_statistics_of_a_folded_site_need_no_second_look() -> None:
    model = tiny_model()
    windows = random_windows()
    stream = ResidualStream(model, windows)
    layer = model.model.layers[0]
    site = mlp_sites(layer, "silu")[1]

    def observe() -> SiteInput:
        return Half([site], lambda: stream.mlp(layer)).observe(stream, layer, "layer")[0]

    before = observe()
    scale = random_scale(site, 0)
    site.fold(scale)
    expected, divided = observe(), before.divided(scale)
    assert divided.statistics.gram is not None
    assert expected.statistics.gram is not None
    torch.testing.assert_close(divided.statistics.gram, expected.statistics.gram, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(divided.statistics.largest, expected.statistics.largest)
    torch.testing.assert_close(divided.sample_SC, expected.sample_SC)
    torch.testing.assert_close(divided.mean_square, expected.mean_square)


def with_outliers() -> tuple[Site, SiteInput]:
    """Return a site, two of whose input channels are a hundred times larger than the others."""
    site = mlp_sites(tiny_model().model.layers[0], "silu")[1]
    sample = torch.randn(256, 48, generator=torch.Generator().manual_seed(0))
    sample[:, :2] *= 100.0
    statistics = InputStatistics(48, gram=True)
    statistics.update(sample)
    return site, SiteInput(statistics, sample)


def test_the_scale_for_quantized_inputs_tames_outliers() -> None:
    site, seen = with_outliers()
    weight = site.consumers["mlp.down_proj"].weight.detach()
    scale = best_scale(site, seen, "w8a8", 16)
    assert scale is not None
    assert input_error(seen.sample_SC / scale, [weight * scale]) < 0.5 * input_error(seen.sample_SC, [weight])


def test_a_site_without_producer_gets_no_scale() -> None:
    site, seen = with_outliers()
    assert best_scale(Site(site.consumers), seen, "w8a8", 16) is None


def test_scales_are_bounded_and_one_where_nothing_is_known() -> None:
    inputs = torch.tensor([0.0, 1e-30, 1.0, 1e30])
    weights = torch.tensor([1.0, 1.0, 0.0, 1.0])
    scale = smoothing_scale(inputs, weights, 0.5)
    assert scale[0] == 1
    assert scale[2] == 1
    assert scale.min() >= 1e-4
    assert scale.max() <= 1e4
    assert torch.equal(smoothing_scale(torch.zeros(4), weights, 0.5), torch.ones(4))


@torch.no_grad()
def test_what_a_site_writes_counts_relative_to_the_stream_it_joins() -> None:
    """A token with a massive activation gets no more say in the statistics than any other."""
    model = tiny_model()
    layer, windows = model.model.layers[0], random_windows()
    for linear in (layer.mlp.gate_proj, layer.mlp.up_proj):
        linear.weight.mul_(100.0)  # What the half-layer adds to the stream dwarfs what was there.
    stream = ResidualStream(model, windows)
    reader, writer = mlp_sites(layer, "silu")
    read, written = Half([reader, writer], lambda: stream.mlp(layer)).observe(stream, layer, "layer")
    hidden = torch.cat([batch.flatten(0, -2) for batch in stream.hidden])
    normed = layer.post_attention_layernorm(hidden)
    inner = torch.nn.functional.silu(layer.mlp.gate_proj(normed)) * layer.mlp.up_proj(normed)
    inner = inner / (hidden + layer.mlp.down_proj(inner)).norm(dim=1, keepdim=True)
    for seen, rows in ((read, normed), (written, inner)):
        assert seen.statistics.gram is not None
        torch.testing.assert_close(seen.statistics.gram.float(), rows.T @ rows, rtol=1e-4, atol=1e-4)
    outputs = writer.consumers["mlp.down_proj"](written.sample_SC).norm(dim=1)
    assert float(outputs.max() / outputs.min()) < 2
