"""Folding channel scales: exact for the model, and good for what is quantized."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from roots_compress.calibration.activations import InputStatistics, ResidualStream
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.quantized import FORMATS, Format, rounded_input
from roots_compress.stages.quantize.outliers import (
    EXPONENTS,
    best_scale,
    exact_outputs,
    outlier_scales,
    relative_error,
    site_error,
    smoothing_scale,
)
from roots_compress.stages.quantize.sites import Half, Site, SiteInput, attention_sites, halves, mlp_sites
from tests.stages.quantize.windows import random_windows
from tests.tiny import tiny_layer, tiny_model, tiny_tokens

CONSOLE = Console(file=io.StringIO())
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


@torch.no_grad()
def test_the_scales_of_a_model_are_those_of_a_walk_that_folds_as_it_goes() -> None:
    """They can all be found on the float model: a folded site gives the next one what it gave before."""
    model, windows = tiny_model(), random_windows()
    scales, passed = outlier_scales(model, windows, "w8a8", 16, device="cpu", console=CONSOLE)
    stream = ResidualStream(model, windows)
    for index, layer in enumerate(model.model.layers):
        for half in halves(stream, layer, index, "silu"):
            for site in half.sites:
                (seen,) = Half([site], half.forward).observe(stream, "layer")
                expected = best_scale(site, seen, "w8a8", 16)
                scale = scales.get(f"model.layers.{index}.{site.name}")
                assert (expected is None) == (scale is None)
                if expected is not None:
                    torch.testing.assert_close(scale, expected, rtol=1e-4, atol=0.0)
                    site.fold(expected)
            stream.add(half.forward())
    assert scales
    torch.testing.assert_close(torch.cat(passed.hidden), torch.cat(stream.hidden), rtol=1e-4, atol=1e-4)


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
    exact = seen.sample_SC @ weight.T

    def error(scale: Tensor) -> float:
        return relative_error(exact, rounded_input(seen.sample_SC / scale, "w8a8", 0) @ (weight * scale).T)

    assert error(scale) < 0.5 * error(torch.ones_like(scale))


def test_the_scale_for_weights_alone_is_a_power_of_the_inputs_root_mean_squares() -> None:
    """As AWQ has it: the weights' own sizes play no part."""
    site, seen = with_outliers()
    scale = best_scale(site, seen, "w4", 16)
    assert scale is not None
    size = seen.sample_SC.square().mean(dim=0).sqrt()
    powers = [size**exponent for exponent in EXPONENTS]
    expected = [power / power.log().mean().exp() for power in powers]
    assert any(torch.allclose(scale, each, rtol=1e-4) for each in expected)


@torch.no_grad()
@pytest.mark.parametrize("weight_format", FORMATS)
def test_the_error_expected_of_a_scale_is_that_of_the_folded_site(weight_format: Format) -> None:
    site, seen = with_outliers()
    scale = random_scale(site, 1)
    expected = site_error(site, seen, scale, weight_format, 16, exact_outputs(site, seen))
    site.fold(scale)
    statistics = InputStatistics(48)
    statistics.update(seen.sample_SC / scale)
    folded = SiteInput(statistics, seen.sample_SC / scale)
    assert site_error(site, folded, None, weight_format, 16, exact_outputs(site, folded)) == pytest.approx(
        expected, rel=1e-4
    )


def test_a_site_without_producer_gets_no_scale() -> None:
    site, seen = with_outliers()
    assert best_scale(Site(site.consumers), seen, "w8a8", 16) is None


@pytest.mark.parametrize("exponent", [0.2, 0.5, 0.8])
def test_scales_for_quantized_inputs_are_those_of_smoothquant(exponent: float) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, weights = (torch.rand(20, generator=generator) + 0.1 for _ in range(2))
    expected = inputs**exponent / weights ** (1 - exponent)
    scale = smoothing_scale(inputs, weights, exponent)
    torch.testing.assert_close(scale, expected / expected.log().mean().exp())


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
    read, written = Half([reader, writer], lambda: stream.mlp(layer)).observe(stream, "layer")
    hidden = torch.cat([batch.flatten(0, -2) for batch in stream.hidden])
    normed = layer.post_attention_layernorm(hidden)
    inner = torch.nn.functional.silu(layer.mlp.gate_proj(normed)) * layer.mlp.up_proj(normed)
    inner = inner / (hidden + layer.mlp.down_proj(inner)).norm(dim=1, keepdim=True)
    for seen, rows in ((read, normed), (written, inner)):
        assert seen.statistics.gram is not None
        torch.testing.assert_close(seen.statistics.gram.float(), rows.T @ rows, rtol=1e-4, atol=1e-4)
    outputs = writer.consumers["mlp.down_proj"](written.sample_SC).norm(dim=1)
    assert float(outputs.max() / outputs.min()) < 2
