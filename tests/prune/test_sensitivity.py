"""Costs of shapes against what the model's predictions really do."""

from __future__ import annotations

import pytest
import torch

from roots_compress.model.calibration import ResidualStream
from roots_compress.model.surgery import keep_layers
from roots_compress.prune.layerwise import DAMPING, input_gram
from roots_compress.prune.refit import refit
from roots_compress.prune.sensitivity import (
    FISHER_WINDOWS,
    layer_costs,
    layer_divergences,
    output_fishers,
)
from tests.prune.test_layerwise import make_windows
from tests.tiny import tiny_layer, tiny_model


def test_a_layer_that_does_nothing_is_not_missed() -> None:
    model = tiny_model(layers=[tiny_layer()] * 3)
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        model.model.layers[1].mlp.down_proj.weight.zero_()
    found = layer_divergences(model, make_windows(), device="cpu")
    assert found[1] == pytest.approx(0.0, abs=1e-5)
    assert min(found[0], found[2]) > 0.01


def test_the_divergence_is_that_of_the_model_without_the_layer() -> None:
    model, windows = tiny_model(layers=[tiny_layer()] * 3), make_windows()
    tokens = torch.from_numpy(windows.input_ids[:4])
    found = layer_divergences(model, windows, device="cpu")
    for index in range(3):
        without = tiny_model(layers=[tiny_layer()] * 3)
        keep_layers(without, [other for other in range(3) if other != index])
        with torch.no_grad():
            before = model(tokens).logits[:, ::4].log_softmax(-1)
            after = without(tokens).logits[:, ::4].log_softmax(-1)
        expected = float((before.exp() * (before - after)).sum(-1).mean())
        assert found[index] == pytest.approx(expected, rel=1e-4)


def test_the_fisher_information_foretells_small_changes() -> None:
    """Nudge what a half-layer gives along the information's strongest direction, and along a weak one."""
    model, windows = tiny_model(), make_windows()
    fishers = output_fishers(model, windows, device="cpu")
    name = "model.layers.0.mlp.down_proj"
    values, vectors = torch.linalg.eigh(fishers[name])
    tokens, size = torch.from_numpy(windows.input_ids), 0.05

    @torch.no_grad()
    def moved(direction: torch.Tensor) -> float:
        # The change is random from token to token, so that tokens do not add up.
        signs = torch.randint(0, 2, (*tokens.shape, 1), generator=torch.Generator().manual_seed(1)) * 2 - 1
        nudge = size * signs * direction.float()
        before = model(tokens).logits.double().log_softmax(-1)
        handle = model.get_submodule(name).register_forward_hook(lambda _m, _i, output: output + nudge)
        after = model(tokens).logits.double().log_softmax(-1)
        handle.remove()
        return float((before.exp() * (before - after)).sum(-1).mean())

    strong, weak = vectors[:, -1], vectors[:, 4]
    assert moved(strong) == pytest.approx(size**2 * float(values[-1]) / 2, rel=0.35)
    assert moved(weak) < 0.3 * moved(strong)


@torch.no_grad()
def test_the_cost_of_a_width_is_the_error_of_its_refit_weighed_by_the_fisher_information() -> None:
    """A plain reference: of all channels that could leave alone, the one that costs least, each refitted."""
    model, windows = tiny_model(), make_windows()
    layer = model.model.layers[0]
    first, _ = layer_costs(model, windows, multiple_of=1, device="cpu")
    fishers = output_fishers(model, windows[:FISHER_WINDOWS], device="cpu")
    fisher = fishers["model.layers.0.mlp.down_proj"]
    stream = ResidualStream(model, windows)
    stream.add(stream.attention(layer, 0))
    weight = layer.mlp.down_proj.weight.double()
    gram = input_gram(layer.mlp.down_proj, "down", stream.mlp(layer))
    ridge = DAMPING * gram.diagonal().mean()
    costs = []
    for gone in range(48):
        kept = [channel for channel in range(48) if channel != gone]
        change = weight.clone()
        change[:, kept] -= refit(weight, gram, kept, damping=float(ridge / gram.diagonal()[kept].mean()))
        errors = change @ (gram + ridge * torch.eye(48)) @ change.T
        costs.append(float((fisher * errors).sum()) / (2 * windows.input_ids.size))
    assert first.mlp[47] == pytest.approx(min(costs), rel=1e-4)


def test_costs_rise_as_shapes_narrow_and_silent_channels_are_free() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[:16] = 0
    first, second = layer_costs(model, make_windows(), multiple_of=8, device="cpu")
    assert list(first.mlp) == [48, 40, 32, 24, 16, 8]
    assert list(first.mlp.values()) == sorted(first.mlp.values())
    assert first.mlp[48] == 0.0 < first.mlp[40]
    assert second.mlp[32] < 0.1 * second.mlp[24], "all they cost is the ridge on their weights"
    assert first.attention[2, 2] == 0.0 < first.attention[2, 1] < first.attention[1, 1]


def test_a_dead_layer_costs_nothing() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.zero_()
        model.model.layers[0].self_attn.v_proj.weight.zero_()
    dead, _ = layer_costs(model, make_windows(), multiple_of=8, device="cpu")
    assert max(*dead.mlp.values(), *dead.attention.values()) == pytest.approx(0.0, abs=1e-12)
