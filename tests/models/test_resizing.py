"""Cuts remove whole channels, heads and layers, and what is left is an ordinary checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from roots_compress.errors import InputError
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.resizing import (
    attention_group,
    head_columns,
    keep_kv_groups,
    keep_layers,
    keep_mlp_channels,
    keep_query_heads,
    keep_residual_channels,
    mlp_group,
    query_group,
)
from tests.faults.commands import Commands
from tests.tiny import tiny_config, tiny_layer, tiny_model, tiny_tokens

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "untied": {"tie_word_embeddings": False},
    "qwen3": {"qk_norm": True, "layers": [tiny_layer(), tiny_layer(num_key_value_heads=4)]},
    "qwen2, biases": {"attention_bias": True, "attention_output_bias": True, "mlp_bias": True},
    "gpt2": {
        "norm": "layer_norm",
        "position": "learned",
        "gated_mlp": False,
        "activation": "gelu_tanh",
        "attention_bias": True,
        "attention_output_bias": True,
        "mlp_bias": True,
        "layers": [tiny_layer(num_key_value_heads=4)] * 2,
    },
    "widths differ": {
        "layers": [
            tiny_layer(),
            tiny_layer(num_attention_heads=6, num_key_value_heads=3, intermediate_size=40),
        ]
    },
    "sparse": {"attention": {"kind": "block", "block_size": 4, "num_blocks": 2}},
}
variants = pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS.keys())


def logits(model: RootsForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(tiny_tokens()).logits
    return found


def parts(group: Any, block: nn.Module) -> dict[str, list[int]]:
    """Return which channels of which linear layers a dependency group names."""
    names = {module: name for name, module in block.named_modules() if isinstance(module, nn.Linear)}
    return {names[item.target.module]: indices for item, indices in group if item.target.module in names}


def test_torch_pruning_ties_a_down_column_to_its_gate_and_up_rows() -> None:
    model = tiny_model()
    found = parts(mlp_group(model, 1, [3, 7]), model.model.layers[1].mlp)
    assert found == {"down_proj": [3, 7], "up_proj": [3, 7], "gate_proj": [3, 7]}


@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (4, 4), (4, 1), (6, 2), (9, 3)])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_torch_pruning_ties_query_heads_to_their_key_value_head(
    heads: int, groups: int, qk_norm: bool
) -> None:
    layer = tiny_layer(num_attention_heads=heads, num_key_value_heads=groups)
    model = tiny_model(layers=[layer], qk_norm=qk_norm)
    each, last = heads // groups, groups - 1
    columns = head_columns([last], each * 8)
    found = parts(attention_group(model, 0, columns), model.model.layers[0].self_attn)
    shared = list(range(last * 8, groups * 8))
    assert columns == list(range(last * each * 8, heads * 8))
    assert found == {"o_proj": columns, "q_proj": columns, "k_proj": shared, "v_proj": shared}


@variants
def test_cutting_silent_channels_changes_nothing(overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides)
    for layer in model.model.layers:
        with torch.no_grad():
            layer.mlp.down_proj.weight[:, 5:21] = 0
            size = layer.self_attn.num_heads // layer.self_attn.num_kv_heads * 8
            layer.self_attn.o_proj.weight[:, size : 2 * size] = 0
    before, parameters = logits(model), model.num_parameters()
    for index, layer in enumerate(model.model.layers):
        width, groups = layer.mlp.down_proj.in_features, layer.self_attn.num_kv_heads
        keep_mlp_channels(model, index, [i for i in range(width) if not 5 <= i < 21])
        keep_kv_groups(model, index, [i for i in range(groups) if i != 1])
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-5)
    assert model.num_parameters() < parameters


@variants
def test_a_cut_model_decodes_as_it_reads(overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides)
    keep_kv_groups(model, 0, [1])
    keep_mlp_channels(model, 1, range(10))
    keep_layers(model, [1])
    tokens, full = tiny_tokens(), logits(model)
    cache, steps = None, []
    with torch.no_grad():
        for position in range(tokens.shape[1]):
            step = model(tokens[:, position : position + 1], past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            steps.append(step.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), full, rtol=1e-4, atol=1e-4)


@variants
def test_modules_and_config_agree_with_a_model_made_from_the_config(overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides)
    keep_kv_groups(model, 0, [0])
    keep_mlp_channels(model, 1, range(0, 40, 4))
    fresh = RootsForCausalLM(model.config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in fresh.state_dict().items()}
    for (name, module), built in zip(model.named_modules(), fresh.modules(), strict=True):
        assert module.extra_repr() == built.extra_repr(), name


def test_the_right_channels_stay() -> None:
    model, whole = tiny_model(), tiny_model()
    keep_mlp_channels(model, 0, [2, 9, 47])
    cut, old = model.model.layers[0].mlp, whole.model.layers[0].mlp
    assert torch.equal(cut.gate_proj.weight, old.gate_proj.weight[[2, 9, 47]])
    assert torch.equal(cut.down_proj.weight, old.down_proj.weight[:, [2, 9, 47]])


@variants
def test_silent_query_heads_leave_keys_and_values_as_they_are(overrides: dict[str, Any]) -> None:
    model = tiny_model(**{**overrides, "layers": [tiny_layer(num_attention_heads=6)] * 2})
    attention = model.model.layers[1].self_attn
    with torch.no_grad():
        attention.o_proj.weight[:, head_columns([1, 3], attention.head_dim)] = 0
    before, keys = logits(model), attention.k_proj.weight.clone()
    keep_query_heads(model, 1, [0, 2, 4, 5])
    torch.testing.assert_close(logits(model), before)
    assert torch.equal(attention.k_proj.weight, keys)
    assert model.config.layers[1]["num_attention_heads"] == 4
    assert parts(query_group(model, 1), attention)["q_proj"] == list(range(32))


def test_key_value_groups_must_keep_equally_many_query_heads() -> None:
    model = tiny_model(layers=[tiny_layer(num_attention_heads=6)])
    with pytest.raises(AssertionError, match=r"would keep \[1, 3\] query heads"):
        keep_query_heads(model, 0, [0, 3, 4, 5])


def test_dropped_layers_leave_the_others_renumbered_for_the_cache() -> None:
    model = tiny_model(
        layers=[tiny_layer(), tiny_layer(intermediate_size=24), tiny_layer(intermediate_size=16)]
    )
    whole = tiny_model(
        layers=[tiny_layer(), tiny_layer(intermediate_size=24), tiny_layer(intermediate_size=16)]
    )
    keep_layers(model, [0, 2])
    assert [layer["intermediate_size"] for layer in model.config.layers] == [48, 16]
    assert model.config.num_hidden_layers == 2
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1]
    assert torch.equal(model.model.layers[1].mlp.up_proj.weight, whole.model.layers[2].mlp.up_proj.weight)


RELOAD = """
import os, sys, numpy, torch
from transformers import AutoModelForCausalLM
import roots_compress.models.modeling
os.chdir(sys.argv[1])
tokens = torch.from_numpy(numpy.load("tokens.npy"))
for name in sys.argv[2:]:
    model, report = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    with torch.no_grad():
        numpy.save(name + ".npy", model.eval()(tokens).logits.numpy())
"""


def test_cut_models_reload_in_a_new_process_with_equal_logits(commands: Commands, tmp_path: Path) -> None:
    names = ("qwen3", "gpt2", "untied")
    expected = {}
    for name in names:
        model = tiny_model(**VARIANTS[name])
        keep_kv_groups(model, 0, [1])
        keep_mlp_channels(model, 0, range(16))
        keep_mlp_channels(model, 1, range(8, 40))
        model.save_pretrained(tmp_path / name)
        expected[name] = logits(model)
    np.save(tmp_path / "tokens.npy", tiny_tokens().numpy())
    commands.python(RELOAD, tmp_path, *names)
    for name in names:
        reloaded = torch.from_numpy(np.load(tmp_path / f"{name}.npy"))
        torch.testing.assert_close(reloaded, expected[name])


def test_frozen_and_inference_models_can_be_cut() -> None:
    model = tiny_model().requires_grad_(False)
    with torch.no_grad():
        keep_mlp_channels(model, 0, range(8))
        keep_kv_groups(model, 0, [0])
    assert logits(model).isfinite().all()


def test_a_quantized_model_is_refused() -> None:
    quantization = {"group_size": 16, "formats": {"model.layers.0.mlp.down_proj": "w8"}}
    model = RootsForCausalLM(tiny_config(quantization=quantization))
    for cut in (
        lambda: keep_mlp_channels(model, 0, [0]),
        lambda: keep_kv_groups(model, 0, [0]),
        lambda: keep_layers(model, [0]),
    ):
        with pytest.raises(InputError, match="quantized"):
            cut()


@variants
def test_a_residual_channel_leaves_every_matrix_and_norm_in_order(overrides: dict[str, Any]) -> None:
    model, before = tiny_model(**overrides), tiny_model(**overrides).state_dict()
    kept = [0, 3, 4, 9, 17, 18, 25, 31]
    keep_residual_channels(model, kept)
    assert model.config.hidden_size == 8
    for name, value in model.state_dict().items():
        expected = before[name]
        if re.search(r"(embed_\w+|lm_head|[qkv]_proj|gate_proj|up_proj)\.weight", name):
            expected = expected[:, kept]
        elif re.search(r"layernorm\.|model\.norm\.|o_proj\.|down_proj\.", name):
            expected = expected[kept]
        assert torch.equal(value, expected), name
    tied = model.lm_head.weight is model.model.embed_tokens.weight  # type: ignore[union-attr]
    assert tied == model.config.tie_word_embeddings
    assert logits(model).isfinite().all()
