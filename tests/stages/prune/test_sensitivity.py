"""Costs of shapes against what the model's predictions really do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from roots_compress.calibration.activations import ResidualStream
from roots_compress.data.windows import PackedWindows
from roots_compress.events import Events
from roots_compress.models.blocks.base import Context
from roots_compress.models.drawing import drawn
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.resizing import axis_of, keep_layers, keep_units
from roots_compress.models.spec import Place
from roots_compress.stages.prune.held_inputs import input_gram, unit_order
from roots_compress.stages.prune.layerwise import DAMPING
from roots_compress.stages.prune.plan import best_units
from roots_compress.stages.prune.refit import refit
from roots_compress.stages.prune.sensitivity import (
    FISHER_WINDOWS,
    TRIAL_WINDOWS,
    held_against_gradients,
    layer_costs,
    layer_divergences,
    output_fishers,
)
from roots_compress.stages.prune.surgeon import Trial
from tests.specs import SPECS
from tests.stages.prune.shapes import costs_of
from tests.stages.prune.test_layerwise import make_windows
from tests.tiny import tiny_layer, tiny_model

QUIET = Events()


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
    values, vectors = torch.linalg.eigh(fishers[Place(0, "mlp")])
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
    fisher = fishers[Place(0, "mlp")]
    stream = ResidualStream(model, windows)
    attention, mlp = layer.halves
    stream.add(attention, stream.contributions(attention))
    weight = layer.mlp.down_proj.weight.double()
    gram = input_gram("down", layer.mlp.down_proj, stream.inner(mlp))
    ridge = DAMPING * gram.diagonal().mean()
    costs = []
    for gone in range(48):
        kept = [channel for channel in range(48) if channel != gone]
        change = weight.clone()
        change[:, kept] -= refit(weight, gram, kept, damping=float(ridge / gram.diagonal()[kept].mean()))
        errors = change @ (gram + ridge * torch.eye(48)) @ change.T
        costs.append(float((fisher * errors).sum()) / (2 * windows.input_ids.size))
    assert first["mlp"].costs[47,] == pytest.approx(min(costs), rel=1e-4)


def judged_by_autograd(model: RootsForCausalLM, windows: PackedWindows, name: str, change: Tensor) -> float:
    """Return the mean over tokens of `(g D x)^2 / 2`, with the gradient by each token's output in turn."""
    labels, total = torch.Generator().manual_seed(0), 0.0
    for window in windows.input_ids[:TRIAL_WINDOWS]:
        seen: list[Tensor] = []
        handle = model.get_submodule(name).register_forward_hook(
            lambda _m, inputs, output, seen=seen: seen.extend((inputs[0][0], output))
        )
        logits = model(torch.from_numpy(window)[None]).logits[0]
        handle.remove()
        followed = drawn(logits.detach(), labels).flatten()
        inputs, output = seen
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, followed, reduction="sum"), output)
        for x, g in zip(inputs, gradient[0], strict=True):
            total += float(g @ (change @ x.detach())) ** 2 / 2
    return total / windows.input_ids[:TRIAL_WINDOWS].size


def change_of(trial: Trial, width: int) -> Tensor:
    """Return what a trial takes from the weights of a projection of so many inputs."""
    return trial.lost(torch.eye(width)).T


def test_costs_are_scaled_to_what_the_gradients_say_of_one_cut() -> None:
    model, windows = tiny_model(), make_windows()
    estimated = list(layer_costs(model, windows, multiple_of=8, device="cpu"))
    found = held_against_gradients(model, estimated, windows, device="cpu", events=QUIET)
    for index, (before, after) in enumerate(zip(estimated, found, strict=True)):
        for block, projection, tried in (("self_attn", "o_proj", (2, 1)), ("mlp", "down_proj", (32,))):
            trial, old, new = before[block].trial, before[block].costs, after[block].costs
            assert trial is not None
            assert trial.cost == old[tried]
            name = f"model.layers.{index}.{block}.{projection}"
            change = change_of(trial, 48 if block == "mlp" else 32)
            expected = judged_by_autograd(model, windows, name, change)
            assert new[tried] == pytest.approx(expected, rel=1e-3)
            assert [new[shape] * old[tried] for shape in old] == pytest.approx(
                [cost * new[tried] for cost in old.values()]
            )


@torch.no_grad()
def test_the_trial_is_the_cut_that_the_layer_would_get() -> None:
    """The MLP's at three quarters of its width: the channels that leave, and what the refit changes."""
    model, windows = tiny_model(), make_windows()
    first, _ = layer_costs(model, windows, multiple_of=12, device="cpu")
    trial = first["mlp"].trial
    assert trial is not None
    weight = model.model.layers[0].mlp.down_proj.weight
    change_WC = change_of(trial, 48)
    left = (weight - change_WC).abs().sum(dim=0) > 1e-6
    assert int(left.sum()) == 36
    stream = ResidualStream(model, windows)
    attention, mlp = model.model.layers[0].halves
    stream.add(attention, stream.contributions(attention))
    gram = input_gram("down", mlp.block.linear("down_proj"), stream.inner(mlp))
    kept = left.nonzero().flatten().tolist()
    expected = refit(weight, gram, kept, damping=DAMPING).float()
    torch.testing.assert_close((weight - change_WC)[:, kept], expected, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_cut_is_not_tried() -> None:
    model = tiny_model(layers=[tiny_layer(num_attention_heads=1, num_key_value_heads=1)] * 2)
    costs = list(layer_costs(model, make_windows(), multiple_of=48, device="cpu"))
    assert all(block.trial is None for layer in costs for block in layer.values())
    found = held_against_gradients(model, costs, make_windows(), device="cpu", events=QUIET)
    assert found == [costs_of({(1, 1): 0.0}, {48: 0.0})] * 2


def test_costs_rise_as_shapes_narrow_and_silent_channels_are_free() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[:16] = 0
    first, second = layer_costs(model, make_windows(), multiple_of=8, device="cpu")
    mlp, attention, silent = first["mlp"].costs, first["self_attn"].costs, second["mlp"].costs
    assert list(mlp) == [(48,), (40,), (32,), (24,), (16,), (8,)]
    assert list(mlp.values()) == sorted(mlp.values())
    assert mlp[48,] == 0.0 < mlp[40,]
    assert silent[32,] < 0.1 * silent[24,], "all they cost is the ridge on their weights"
    assert attention[2, 2] == 0.0 < attention[2, 1] < attention[1, 1]


def test_a_dead_layer_costs_nothing() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.zero_()
        model.model.layers[0].self_attn.v_proj.weight.zero_()
    dead, _ = layer_costs(model, make_windows(), multiple_of=8, device="cpu")
    costs = [cost for block in dead.values() for cost in block.costs.values()]
    assert max(costs) == pytest.approx(0.0, abs=1e-12)


def test_costs_of_experts_and_of_their_channels_rise_and_add_up() -> None:
    model, windows = tiny_model(**SPECS["experts"]), make_windows()[:4]
    costs = list(layer_costs(model, windows, multiple_of=8, device="cpu"))
    for layer in (costs, held_against_gradients(model, costs, windows, device="cpu", events=QUIET)):
        for block in (each["mlp"] for each in layer):
            assert block.axes == ("experts", "expert_channels")
            assert set(block.costs) == {(count, width) for count in (4, 3, 2) for width in (24, 16, 8)}
            assert 0 == block.costs[4, 24] < block.costs[3, 24] < block.costs[2, 24]
            assert 0 < block.costs[4, 16] < block.costs[4, 8]
            assert block.costs[3, 16] == pytest.approx(block.costs[3, 24] + block.costs[4, 16])


@torch.no_grad()
def test_the_trial_of_experts_is_what_the_block_would_lose() -> None:
    model, windows = tiny_model(**SPECS["experts"]), make_windows()[:4]
    costs = list(layer_costs(model, windows, multiple_of=8, device="cpu"))
    trial = costs[1]["mlp"].trial
    assert trial is not None
    assert trial.cost == costs[1]["mlp"].costs[3, 24]
    stream = ResidualStream(model, windows)
    stream.advance(model.model.layers[0])
    attention, half = model.model.layers[1].halves
    stream.add(attention, stream.contributions(attention))
    read_BTW = next(stream.read(half))
    axis = axis_of(half.block, "experts")
    scores_U = unit_order(half, stream, axis)
    whole_BTW = half.block(read_BTW, Context({}, {}))
    lost_RW = trial.lost(read_BTW.flatten(0, 1))
    keep_units(model, Place(1, "mlp"), "experts", best_units(scores_U, 3))
    torch.testing.assert_close(lost_RW.view_as(whole_BTW), whole_BTW - half.block(read_BTW, Context({}, {})))
