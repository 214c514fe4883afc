"""What four bits cost each site, against a plain reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from roots_compress.model.quantized import FORMATS, QuantizedWeight, matrix_bytes
from roots_compress.quantize.rounding import quantize_matrix
from roots_compress.quantize.sensitivity import four_bit_costs
from tests.quantize.windows import random_windows
from tests.tiny import tiny_model


def test_the_head_side_of_a_model_against_the_exact_divergence() -> None:
    """With every site but one left alone, the cost of the last down projection is the divergence it makes."""
    model = tiny_model()
    windows = random_windows(windows=8, tokens=32)
    name = "model.layers.1.mlp.down_proj"
    linear = model.get_submodule(name)
    assert isinstance(linear, torch.nn.Linear)
    predicted = sum(
        four_bit_costs(model, windows, 16, seed=seed, device="cpu")[name].loss for seed in range(8)
    )
    tokens = torch.from_numpy(windows.input_ids)
    with torch.no_grad():
        before = model(input_ids=tokens).logits.log_softmax(-1)
        linear.weight.copy_(quantize_matrix(linear.weight, "w4", 16, clip=False).dequantize())
        after = model(input_ids=tokens).logits.log_softmax(-1)
        divergence = float(F.kl_div(after, before, log_target=True, reduction="sum")) / tokens.numel()
    assert 0.8 * divergence < predicted / 8 < 1.25 * divergence


def test_a_site_that_leads_nowhere_costs_nothing() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.get_submodule("model.layers.0.mlp.down_proj").get_parameter("weight").zero_()
    costs = four_bit_costs(model, random_windows(), 16, seed=0, device="cpu")
    assert costs["model.layers.0.mlp.gate_proj"].loss == 0.0
    assert costs["model.layers.1.mlp.gate_proj"].loss > 0.0


def test_bytes_of_a_matrix_are_those_of_its_module() -> None:
    for weight_format in FORMATS:
        for width in (32, 40, 70):
            module = QuantizedWeight(5, width, weight_format, 16)
            stored = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
            assert matrix_bytes(5, width, weight_format, 16) == stored
