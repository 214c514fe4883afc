"""Observed gradients against autograd's own, and the Fisher information's labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from roots_compress.calibration.gradients import observe_gradients
from tests.calibration.test_activations import make_windows
from tests.tiny import tiny_model

NAMES = ("model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj")


def test_inputs_and_gradients_give_the_weights_gradients() -> None:
    model, windows = tiny_model(), make_windows(3)
    found = {name: torch.zeros_like(model.get_parameter(f"{name}.weight")) for name in NAMES}

    def observer(name: str, inputs_TI: Tensor, gradient_TO: Tensor) -> None:
        found[name] += gradient_TO.T @ inputs_TI

    observe_gradients(model, windows, NAMES, observer)
    tokens, segments = torch.from_numpy(windows.input_ids), torch.from_numpy(windows.segment_ids)
    logits = model(tokens, segment_ids=segments).logits.flatten(0, 1)
    F.cross_entropy(logits, torch.from_numpy(windows.targets).flatten(), reduction="sum").backward()
    for name in NAMES:
        expected = model.get_parameter(f"{name}.weight").grad
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-4)


def test_sampled_labels_follow_the_predictions_and_the_seed() -> None:
    model, windows = tiny_model(), make_windows(2)

    def run(seed: int) -> Tensor:
        gradients: list[Tensor] = []
        labels = torch.Generator().manual_seed(seed)
        observe_gradients(
            model, windows, NAMES[1:], lambda *seen: gradients.append(seen[2].clone()), sampled=labels
        )
        return torch.cat(gradients)

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    # In expectation over its own predictions, a model's gradient is zero.
    mean = torch.stack([run(seed) for seed in range(60)]).mean(dim=0)
    assert mean.norm() < 0.25 * run(0).norm()


def test_nothing_is_left_behind() -> None:
    model = tiny_model().train()
    model.lm_head.requires_grad_(False)
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    observe_gradients(model, make_windows(1), NAMES, lambda *_seen: None)
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
