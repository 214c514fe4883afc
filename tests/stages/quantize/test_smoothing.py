"""Folding channel scales: exact for the model, and good for what is quantized."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from roots_compress.calibration.activations import ResidualStream
from roots_compress.events import Events
from roots_compress.models.blocks.base import Context
from roots_compress.models.blocks.moe import MoeBlock
from roots_compress.models.layer import RootsLayer
from roots_compress.models.quantized import FORMATS, Format, rounded_input
from roots_compress.stages.quantize.inputs import BoundInput, SeenInput, bound_inputs, observe
from roots_compress.stages.quantize.smoothing import (
    EXPONENTS,
    best_scale,
    exact_outputs,
    input_error,
    outlier_scales,
    relative_error,
    smoothing_scale,
)
from tests.specs import KINDS, with_experts
from tests.stages.quantize.windows import random_windows
from tests.tiny import tiny_layer, tiny_model, tiny_tokens

EVENTS = Events()
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
    **{name: {"spec": spec} for name, spec in KINDS.items()},
}
FOLDABLE = {
    "plain GELU": 6,
    "parallel blocks, norms after positions": 4,
    "stream norms": 4,
    "linear attention": 7,
    "experts": 2 * (2 + 4),
    "shared keys": 4 * (1 + 2),
    "shared expert": 2 * (2 + 2 + 4),
    "sinks, clamped experts": 4,
}
"""Inputs that can take a scale on, where they are not all eight."""


def inputs_of(layer: RootsLayer) -> list[BoundInput]:
    return [each for half in layer.halves for each in bound_inputs(half)]


def random_scale(each: BoundInput, seed: int) -> Tensor:
    scale = torch.rand(each.width, generator=torch.Generator().manual_seed(seed)) * 8 + 0.1
    return each.shared(scale)


@pytest.mark.parametrize("kind", SWITCHES)
@torch.no_grad()
def test_a_folded_model_computes_the_same(kind: str) -> None:
    model = tiny_model(**SWITCHES[kind])
    before = model(input_ids=tiny_tokens()).logits
    inputs = [each for layer in model.model.layers for each in inputs_of(layer) if each.producers]
    for number, each in enumerate(inputs):
        each.fold(random_scale(each, number))
    after = model(input_ids=tiny_tokens()).logits
    assert len(inputs) == FOLDABLE.get(kind, 8)
    assert float((after - before).abs().max() / before.abs().max()) <= 1e-4


def test_of_heads_that_share_their_values_the_most_outlying_decides() -> None:
    half = (
        tiny_model(layers=[tiny_layer(num_attention_heads=4, num_key_value_heads=2)])
        .model.layers[0]
        .halves[0]
    )
    *_, written = bound_inputs(half)
    values_HD = torch.ones(4, written.width // 4)
    values_HD[1, 3] = 7.0  # Of the second query head, whose values are the first one's too.
    expected_HD = torch.ones_like(values_HD)
    expected_HD[:2, 3] = 7.0
    assert torch.equal(written.shared(values_HD.flatten()), expected_HD.flatten())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gated, grouped values", *KINDS])
def test_the_scales_of_a_model_are_those_of_a_walk_that_folds_as_it_goes(kind: str) -> None:
    """They can all be found on the float model: a folded input gives the next one what it gave before."""
    model, windows = tiny_model(1, **SWITCHES[kind]), random_windows()
    scales, passed = outlier_scales(model, windows, "w8a8", 16, device="cpu", events=EVENTS)
    stream = ResidualStream(model, windows)
    for index, layer in enumerate(model.model.layers):
        for half in layer.halves:
            for number, each in enumerate(bound_inputs(half)):
                expected = best_scale(each, observe(half, stream, "layer")[number], "w8a8", 16)
                scale = scales.get(f"model.layers.{index}.{each.name}") if each.producers else None
                assert (expected is None) == (scale is None)
                if expected is not None:
                    torch.testing.assert_close(scale, expected, rtol=1e-4, atol=0.0)
                    each.fold(expected)
            stream.add(half, stream.contributions(half))
    assert scales
    torch.testing.assert_close(torch.cat(passed.hidden), torch.cat(stream.hidden), rtol=1e-4, atol=1e-4)


def with_outliers() -> tuple[BoundInput, SeenInput]:
    """Return an input, two of whose channels are a hundred times larger than the others."""
    found = inputs_of(tiny_model().model.layers[0])[3]
    sample = torch.randn(256, 48, generator=torch.Generator().manual_seed(0))
    sample[:, :2] *= 100.0
    seen = SeenInput(48, gram=True)
    seen.update(sample)
    return found, seen


def test_the_scale_for_quantized_inputs_tames_outliers() -> None:
    found, seen = with_outliers()
    weight = found.consumers["mlp.down_proj"].weight.detach()
    scale = best_scale(found, seen, "w8a8", 16)
    assert scale is not None
    exact = seen.sample @ weight.T

    def error(scale: Tensor) -> float:
        return relative_error(exact, rounded_input(seen.sample / scale, "w8a8", 0) @ (weight * scale).T)

    assert error(scale) < 0.5 * error(torch.ones_like(scale))


def test_the_scale_for_weights_alone_is_a_power_of_the_inputs_root_mean_squares() -> None:
    """As AWQ has it: the weights' own sizes play no part."""
    found, seen = with_outliers()
    scale = best_scale(found, seen, "w4", 16)
    assert scale is not None
    size = seen.sample.square().mean(dim=0).sqrt()
    powers = [size**exponent for exponent in EXPONENTS]
    expected = [power / power.log().mean().exp() for power in powers]
    assert any(torch.allclose(scale, each, rtol=1e-4) for each in expected)


@torch.no_grad()
@pytest.mark.parametrize("weight_format", FORMATS)
def test_the_error_expected_of_a_scale_is_that_of_the_folded_input(weight_format: Format) -> None:
    found, seen = with_outliers()
    scale = random_scale(found, 1)
    expected = input_error(found, seen, scale, weight_format, 16, exact_outputs(found, seen))
    found.fold(scale)
    folded = SeenInput(48)
    folded.update(seen.sample / scale)
    assert input_error(found, folded, None, weight_format, 16, exact_outputs(found, folded)) == pytest.approx(
        expected, rel=1e-4
    )


def test_one_scale_serves_all_tokens_only_where_none_is_much_larger_than_most() -> None:
    rows = torch.rand(200, 48, generator=torch.Generator().manual_seed(0)) - 0.5
    seen = SeenInput(48)
    scales = [seen.fixed_scale]
    for added, peak in (
        (rows, None),
        (rows[:1] / 100, rows[:1].abs().amax(dim=1)),  # divided rows count as they were before
        (rows[:1] * 10, None),
    ):
        seen.update(added, peak)
        scales.append(seen.fixed_scale)
    expected = rows.abs().max() / 127
    assert scales == [None, expected, expected, None]


def test_an_input_without_producer_gets_no_scale() -> None:
    found, seen = with_outliers()
    assert best_scale(BoundInput(found.spec, found.consumers), seen, "w8a8", 16) is None


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
@pytest.mark.parametrize("kind", ["gated, grouped values", "post-norms and a capped head", "stream norms"])
def test_what_is_written_counts_relative_to_what_the_next_norm_reads(kind: str) -> None:
    """A token with a massive activation gets no more say in the statistics than any other."""
    model = tiny_model(**SWITCHES[kind])
    layer, windows = model.model.layers[0], random_windows()
    for linear in (layer.mlp.gate_proj, layer.mlp.up_proj):
        linear.weight.mul_(100.0)  # What the block gives dwarfs what was in the stream.
    stream = ResidualStream(model, windows)
    half = layer.halves[1]
    before = torch.cat(stream.hidden)
    read, written = observe(half, stream, "layer", advance=True)
    normed = half.read(before).flatten(0, -2)
    inner = torch.nn.functional.silu(layer.mlp.gate_proj(normed)) * layer.mlp.up_proj(normed)
    given = layer.mlp.down_proj(inner)
    joined = given if half.post_norm is not None else before.flatten(0, -2) + given
    inner = inner / joined.norm(dim=1, keepdim=True)
    for seen, rows in ((read, normed), (written, inner)):
        assert seen.statistics.gram is not None
        torch.testing.assert_close(seen.statistics.gram.float(), rows.T @ rows, rtol=1e-4, atol=1e-4)
    outputs = layer.mlp.down_proj(written.sample).norm(dim=1)
    assert float(outputs.max() / outputs.min()) < 2
    after, _waiting = half.add(before, half.given(given.view(before.shape)))
    torch.testing.assert_close(torch.cat(stream.hidden), after, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_experts_inputs_are_the_rows_routed_to_it_or_all_where_those_are_few() -> None:
    """Those of its down projection are weighted as what it gives is."""
    model = tiny_model(spec=with_experts(experts=8, chosen=1, renormalise=False))
    half = model.model.layers[0].halves[1]
    moe, router = half.block, half.block.linear("router").weight
    assert isinstance(moe, MoeBlock)
    router[7] = (router[0] + router[1]) / 2  # It is never the best of the three.
    stream = ResidualStream(model, random_windows(windows=8, tokens=32))
    hidden = torch.cat(stream.hidden).flatten(0, -2)
    seen = dict(zip((each.name for each in bound_inputs(half)), observe(half, stream, "layer"), strict=True))
    rows = half.read(hidden)
    weights, chosen = (each[:, 0] for each in moe.routed(rows))
    norms = (hidden + moe.contribution(rows[None], Context({}, {}))[0]).norm(dim=1)
    few = []
    experts: Any = moe.experts
    for number, expert in enumerate(experts):
        mine = chosen == number
        inner = torch.nn.functional.silu(expert.gate_proj(rows)) * expert.up_proj(rows) / norms[:, None]
        for name, read, own in (("gate_proj", rows, rows), ("down_proj", inner, inner * weights[:, None])):
            found = seen[f"mlp.experts.{number}.{name}"]
            few.append(int(mine.sum()) < read.shape[1])
            expected = read if few[-1] else own[mine]
            gram = found.statistics.gram
            assert gram is not None
            assert found.statistics.rows == len(expected)
            torch.testing.assert_close(gram.float(), expected.T @ expected, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(found.sample, expected)
    assert few[-1]
    assert not all(few)
