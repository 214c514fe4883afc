"""What rounding costs each input, against a plain reference."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roots_compress.data.windows import PackedWindows
from roots_compress.events import Events
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.heads import ClassificationHead, EmbeddingHead
from roots_compress.models.quantized import FORMATS, Format, QuantizedWeight, matrix_bytes, rounded_input
from roots_compress.stages.quantize.inputs import bound_inputs
from roots_compress.stages.quantize.plan import InputCost
from roots_compress.stages.quantize.rounding import quantize_matrix
from roots_compress.stages.quantize.sensitivity import rounding_costs
from tests.encoders import tiny_encoder
from tests.specs import with_experts
from tests.stages.prune.test_encoders import texts_of
from tests.stages.prune.test_encoders import windows as labelled_windows
from tests.stages.quantize.windows import random_windows
from tests.tiny import tiny_model

QUIET = Events()

NAME = "model.layers.1.mlp.down_proj"


def costs(
    model: RootsWithHead,
    windows: PackedWindows,
    weight_format: Format,
    seed: int = 0,
    scales: Mapping[str, Tensor] | None = None,
) -> dict[str, InputCost]:
    return rounding_costs(
        model, windows, weight_format, 16, scales or {}, seed=seed, device="cpu", events=QUIET
    )


@pytest.mark.parametrize("folded", [False, True], ids=["as it is", "folded"])
@pytest.mark.parametrize("weight_format", ["w4", "w8a8"])
@torch.no_grad()
def test_the_head_side_of_a_model_against_the_exact_divergence(weight_format: Format, folded: bool) -> None:
    """With every input but one left alone, the cost of the last down projection is the divergence it makes.

    Its outputs come in like pairs, which are read alike, so that their errors add up.
    """
    model = tiny_model()
    for tensor in (model.model.embed_tokens.weight.T, model.model.norm.weight):
        tensor[1::2] = tensor[::2]
    windows = random_windows(windows=8, tokens=32)
    linear = model.get_submodule(NAME)
    assert isinstance(linear, nn.Linear)
    linear.weight[1::2] = linear.weight[::2]
    scale = torch.rand(linear.in_features, generator=torch.Generator().manual_seed(0)) * 4 + 0.2
    scales = {NAME: scale} if folded else {}
    predicted = sum(costs(model, windows, weight_format, seed, scales)[NAME].loss for seed in range(8)) / 8
    tokens = torch.from_numpy(windows.input_ids)
    before = model(input_ids=tokens).logits.log_softmax(-1)
    if folded:
        list(bound_inputs(model.model.layers[1].halves[1]))[1].fold(scale)
    if weight_format == "w4":
        linear.weight.copy_(quantize_matrix(linear.weight, "w4", 16, clip=False).dequantize())
    else:
        linear.register_forward_pre_hook(lambda _module, inputs: rounded_input(inputs[0], "w8a8", 16))
    after = model(input_ids=tokens).logits.log_softmax(-1)
    divergence = float(F.kl_div(after, before, log_target=True, reduction="sum")) / tokens.numel()
    assert 0.8 * divergence < predicted < 1.25 * divergence


@pytest.mark.parametrize("vectors", [False, True], ids=["labels", "vectors"])
@torch.no_grad()
def test_where_a_text_is_one_prediction_costs_are_per_text(vectors: bool) -> None:
    """They are the divergence that rounding one projection makes, of each text by itself."""
    head = EmbeddingHead(pooling="first") if vectors else ClassificationHead(labels=3)
    model, packed = tiny_encoder(head.kind, head=head), labelled_windows()[:8]
    predicted = sum(costs(model, packed, "w4", seed)[NAME].loss for seed in range(8)) / 8
    texts = texts_of(packed)

    def answers() -> Tensor:
        outputs = [model(ids_1T) for ids_1T, _ in texts]
        if vectors:
            return torch.cat([output.last_hidden_state for output in outputs])
        return torch.cat([output.logits for output in outputs]).log_softmax(-1)

    before = answers()
    weight = model.get_parameter(f"{NAME}.weight")
    weight.copy_(quantize_matrix(weight, "w4", 16, clip=False).dequantize())
    after = answers()
    divergence = float(F.kl_div(after, before, log_target=True, reduction="batchmean"))
    if vectors:
        divergence = float((after - before).square().sum(dim=1).mean()) / 2
    assert 0.6 * divergence < predicted < 1.6 * divergence


@pytest.mark.parametrize("weight_format", ["w4", "w8a8"])
def test_an_input_that_leads_nowhere_costs_nothing(weight_format: Format) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.get_submodule("model.layers.0.mlp.down_proj").get_parameter("weight").zero_()
    found = costs(model, random_windows(), weight_format)
    assert found["model.layers.0.mlp.gate_proj"].loss == 0.0
    assert found["model.layers.1.mlp.gate_proj"].loss > 0.0


def test_experts_cost_what_their_own_tokens_lose_and_are_priced_by_them() -> None:
    model = tiny_model(spec=with_experts(experts=4, chosen=1))
    expert = "model.layers.0.mlp.experts.3.gate_proj"
    with torch.no_grad():
        model.get_submodule("model.layers.0.mlp.router").get_parameter("weight")[3] = 0.0
        model.get_submodule("model.layers.0.mlp.router").get_parameter("weight")[0] *= 50.0
    found = costs(model, random_windows(), "w8a8")
    assert found["model.layers.0.mlp.experts.0.gate_proj"].loss > found[expert].loss
    assert found[expert].price == 2 * 32 * 24 // 4
    assert found["model.layers.0.self_attn.o_proj"].price == 32 * 32


def stored(rows: int, width: int, weight_format: Format) -> int:
    state = QuantizedWeight(rows, width, weight_format, 16).state_dict()
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def test_bytes_of_a_matrix_are_those_of_its_module() -> None:
    for weight_format in FORMATS:
        for width in (32, 40, 70):
            assert matrix_bytes(5, width, weight_format, 16) == stored(5, width, weight_format)


def test_the_price_of_eight_bits_is_what_they_take_more_than_four() -> None:
    found = costs(tiny_model(), random_windows(), "w4")
    more = stored(32, 32, "w8") - stored(32, 32, "w4")
    assert found["model.layers.0.self_attn.o_proj"].price == more
