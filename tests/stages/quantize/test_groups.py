"""How many weights share a scale, by matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.models.quantized import Format, QuantizedWeight, matrix_bytes
from roots_compress.stages.quantize.groups import group_size_of, usual_group_size
from roots_compress.stages.quantize.rounding import quantize_matrix
from roots_compress.stages.quantize.stage import assemble
from roots_compress.stages.quantize.walk import Rounded
from tests.tiny import tiny_layer, tiny_model


@pytest.mark.parametrize(
    ("width", "size"),
    [(32, 64), (64, 64), (65, 128), (128, 128), (576, 64), (960, 64), (1536, 128), (2048, 128), (2112, 128)],
)
def test_8_bits_take_groups_of_128_where_they_take_no_more_bytes(width: int, size: int) -> None:
    assert group_size_of("auto", "w8", width) == size
    other = 192 - size
    assert matrix_bytes(1, width, "w8", size) <= matrix_bytes(1, width, "w8", other)


@pytest.mark.parametrize("width", [64, 576, 1536])
def test_4_bits_keep_groups_of_64_and_a_given_size_holds_for_all(width: int) -> None:
    formats: tuple[Format, ...] = ("w8", "w4")
    assert group_size_of("auto", "w4", width) == usual_group_size("auto") == 64
    assert {group_size_of(32, each, width) for each in formats} == {usual_group_size(32)} == {32}


def rounded_as(settings: QuantizeConfig, widths: dict[str, Any]) -> Any:
    """Return a model whose matrices were all rounded to nearest in 8 bits, as the settings say."""
    model, rounded = tiny_model(**widths), Rounded()
    state = model.state_dict()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding) or name == "lm_head":
            continue
        size = group_size_of(settings.group_size, "w8", state[f"{name}.weight"].shape[1])
        rounded.add(name, quantize_matrix(state[f"{name}.weight"], "w8", size), 0.0)
    rounded.state["model.embed_tokens.lookup_scale"] = torch.ones(model.config.hidden_size)
    return assemble(model, rounded, settings)


WIDTHS: dict[str, Any] = {"layers": [tiny_layer(intermediate_size=256), tiny_layer()]}


def test_a_checkpoint_says_which_matrices_have_groups_of_another_size() -> None:
    model = rounded_as(QuantizeConfig(), WIDTHS)
    assert model.config.quantization["group_size"] == 64
    assert model.config.quantization["group_sizes"] == {"model.layers.0.mlp.down_proj": 128}
    sizes = {
        name: module.group_size
        for name, module in model.named_modules()
        if isinstance(module, QuantizedWeight)
    }
    assert {name for name, size in sizes.items() if size != 64} == {"model.layers.0.mlp.down_proj"}


def test_one_size_for_all_needs_no_list() -> None:
    assert "group_sizes" not in rounded_as(QuantizeConfig(group_size=32), WIDTHS).config.quantization
