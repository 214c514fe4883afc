"""Cuts remove whole channels, heads and layers, and what is left is an ordinary checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import nn

from roots_compress.errors import InputError
from roots_compress.models.blocks.base import Block
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.ops.base import Axis
from roots_compress.models.resizing import (
    axis_of,
    block_at,
    columns_of,
    group_of,
    keep_layers,
    keep_residual_channels,
    keep_units,
)
from roots_compress.models.spec import Place
from tests.faults.commands import Commands
from tests.specs import SPECS, with_experts
from tests.tiny import tiny_config, tiny_layer, tiny_model, tiny_tokens

ATTENTION, MLP = (Place(0, "self_attn"), Place(1, "self_attn")), (Place(0, "mlp"), Place(1, "mlp"))

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
ALL = VARIANTS | SPECS
every_model = pytest.mark.parametrize("overrides", ALL.values(), ids=ALL.keys())


def logits(model: RootsForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(tiny_tokens()).logits
    return found


def cuttable(model: RootsForCausalLM) -> list[tuple[Place, Block, Axis]]:
    return [
        (place, block_at(model, place), axis)
        for place, op in model.config.spec.blocks()
        for axis in op.axes()
        if axis.units > axis.groups
    ]


def halved(axis: Axis) -> list[int]:
    """Return the units that stay where each group of an axis loses the first half of its own."""
    return [unit for unit in range(axis.units) if unit % axis.each >= axis.each // 2]


def traced(
    block: Block, axis: Axis, units: list[int], part: str | None = None
) -> dict[tuple[str, int], list[int]]:
    """Return which entries of which parameters of linear layers torch-pruning ties to these units."""
    names = {module: name for name, module in block.named_modules() if isinstance(module, nn.Linear)}
    found: dict[tuple[str, int], list[int]] = {}
    for item, indices in group_of(block, axis, units, part=part):
        module = item.target.module
        if module not in names:
            continue
        columns = item.handler is tp.prune_linear_in_channels
        found[f"{names[module]}.weight", int(columns)] = indices
        if not columns and module.bias is not None:
            found[f"{names[module]}.bias", 0] = indices
    return found


@every_model
def test_the_axes_are_what_torch_pruning_traces(overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides)
    seen = 0
    for _, block, axis in cuttable(model):
        if axis.projection is None and not axis.parts:
            continue
        for units in ([axis.units - 1], halved(axis)):
            declared = {
                (each.parameter, each.dimension): [
                    unit * each.size + offset for unit in units for offset in range(each.size)
                ]
                for each in axis.members
                if each.traced
                and isinstance(block.get_submodule(each.parameter.rpartition(".")[0]), nn.Linear)
            }
            found: dict[tuple[str, int], list[int]] = {}
            for part in axis.parts or (None,):
                found |= traced(block, axis, units, part)
            assert found == declared
            seen += 1
    assert seen


@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (4, 4), (4, 1), (6, 2), (9, 3)])
def test_the_last_group_goes_with_its_query_heads(heads: int, groups: int) -> None:
    model = tiny_model(layers=[tiny_layer(num_attention_heads=heads, num_key_value_heads=groups)])
    block, each = block_at(model, ATTENTION[0]), heads // groups
    found = traced(block, axis_of(block, "kv_groups"), [groups - 1])
    columns, shared = list(range((heads - each) * 8, heads * 8)), list(range((groups - 1) * 8, groups * 8))
    rows = {(f"{name}.weight", 0): shared for name in ("k_proj", "v_proj")}
    assert found == {("o_proj.weight", 1): columns, ("q_proj.weight", 0): columns, **rows}


@every_model
def test_a_specification_counts_the_parameters_of_its_model(overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides)
    assert model.config.spec.parameters == model.num_parameters()
    for place, _, axis in cuttable(model):
        keep_units(model, place, axis.name, halved(axis_of(block_at(model, place), axis.name)))
    assert model.config.spec.parameters == model.num_parameters()


@variants
def test_cutting_silent_units_changes_nothing(overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides)
    before, parameters = None, model.num_parameters()
    for place, name in ((MLP[0], "mlp_channels"), (ATTENTION[1], "kv_groups"), (ATTENTION[0], "queries")):
        block = block_at(model, place)
        axis = axis_of(block, name)
        gone = [unit for unit in range(axis.units) if unit not in halved(axis)]
        with torch.no_grad():
            block.linear(str(axis.projection)).weight[:, columns_of(axis, gone)] = 0
        before = logits(model)
        keep_units(model, place, name, halved(axis))
        torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-5)
    assert model.num_parameters() < parameters


def test_norms_over_the_projection_are_cut_with_their_heads() -> None:
    model, whole = (tiny_model(**SPECS["norms over the projection"]) for _ in range(2))
    keep_units(model, ATTENTION[0], "kv_groups", [1])
    keep_units(model, ATTENTION[0], "queries", [1])
    cut, old = block_at(model, ATTENTION[0]), block_at(whole, ATTENTION[0])
    assert torch.equal(cut.get_parameter("q_norm.weight"), old.get_parameter("q_norm.weight")[24:])
    assert torch.equal(cut.get_parameter("k_norm.weight"), old.get_parameter("k_norm.weight")[8:])


def test_experts_that_no_token_chooses_go_without_a_trace() -> None:
    model = tiny_model(spec=with_experts(chosen=1))
    router = block_at(model, MLP[1]).get_parameter("router.weight")
    with torch.no_grad():
        router[1] = (router[0] + router[2]) / 2  # It is never the best of the three.
        before = logits(model)
        keep_units(model, MLP[1], "experts", [0, 2, 3])
    fresh = RootsForCausalLM(model.config).eval()
    fresh.load_state_dict(model.state_dict())
    for each in (model, fresh):
        torch.testing.assert_close(logits(each), before)
    assert axis_of(block_at(model, MLP[1]), "experts").units == 3


@every_model
def test_a_cut_model_decodes_as_it_reads(overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides)
    for place, _, axis in cuttable(model):
        keep_units(model, place, axis.name, halved(axis_of(block_at(model, place), axis.name)))
    keep_layers(model, [1])
    tokens, full = tiny_tokens(), logits(model)
    cache, steps = None, []
    with torch.no_grad():
        for position in range(tokens.shape[1]):
            step = model(tokens[:, position : position + 1], past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            steps.append(step.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), full, rtol=1e-4, atol=1e-4)


@every_model
def test_modules_and_config_agree_with_a_model_made_from_the_config(overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides)
    for place, _, axis in cuttable(model):
        keep_units(model, place, axis.name, halved(axis_of(block_at(model, place), axis.name)))
    fresh = RootsForCausalLM(model.config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in fresh.state_dict().items()}
    for (name, module), built in zip(model.named_modules(), fresh.modules(), strict=True):
        assert module.extra_repr() == built.extra_repr(), name


def test_the_right_channels_stay() -> None:
    model, whole = tiny_model(), tiny_model()
    keep_units(model, MLP[0], "mlp_channels", [2, 9, 47])
    cut, old = model.model.layers[0].mlp, whole.model.layers[0].mlp
    assert torch.equal(cut.gate_proj.weight, old.gate_proj.weight[[2, 9, 47]])
    assert torch.equal(cut.down_proj.weight, old.down_proj.weight[:, [2, 9, 47]])


@variants
def test_silent_query_heads_leave_keys_and_values_as_they_are(overrides: dict[str, Any]) -> None:
    model = tiny_model(**{**overrides, "layers": [tiny_layer(num_attention_heads=6)] * 2})
    block = block_at(model, ATTENTION[1])
    with torch.no_grad():
        block.linear("o_proj").weight[:, columns_of(axis_of(block, "queries"), [1, 3])] = 0
    before, keys = logits(model), block.linear("k_proj").weight.clone()
    keep_units(model, ATTENTION[1], "queries", [0, 2, 4, 5])
    torch.testing.assert_close(logits(model), before)
    assert torch.equal(block.linear("k_proj").weight, keys)
    assert model.config.spec.attentions()[1].heads == 4


def test_key_value_groups_must_keep_equally_many_query_heads() -> None:
    model = tiny_model(layers=[tiny_layer(num_attention_heads=6)])
    with pytest.raises(AssertionError, match=r"would keep \[1, 3\] units of queries"):
        keep_units(model, ATTENTION[0], "queries", [0, 3, 4, 5])


def test_dropped_layers_leave_the_others_renumbered_for_the_cache() -> None:
    model = tiny_model(
        layers=[tiny_layer(), tiny_layer(intermediate_size=24), tiny_layer(intermediate_size=16)]
    )
    whole = tiny_model(
        layers=[tiny_layer(), tiny_layer(intermediate_size=24), tiny_layer(intermediate_size=16)]
    )
    keep_layers(model, [0, 2])
    assert [axis.units for _, op in model.config.spec.blocks() for axis in op.axes()][2::3] == [48, 16]
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
        keep_units(model, ATTENTION[0], "kv_groups", [1])
        keep_units(model, MLP[0], "mlp_channels", range(16))
        keep_units(model, MLP[1], "mlp_channels", range(8, 40))
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
        keep_units(model, MLP[0], "mlp_channels", range(8))
        keep_units(model, ATTENTION[0], "kv_groups", [0])
    assert logits(model).isfinite().all()


def test_a_quantized_model_is_refused() -> None:
    quantization = {"group_size": 16, "formats": {"model.layers.0.mlp.down_proj": "w8"}}
    model = RootsForCausalLM(tiny_config(quantization=quantization))
    for cut in (
        lambda: keep_units(model, MLP[0], "mlp_channels", [0]),
        lambda: keep_units(model, ATTENTION[0], "kv_groups", [0]),
        lambda: keep_layers(model, [0]),
    ):
        with pytest.raises(InputError, match="quantized"):
            cut()


@every_model
def test_a_residual_channel_leaves_every_matrix_and_norm_in_order(overrides: dict[str, Any]) -> None:
    model, before = tiny_model(**overrides), tiny_model(**overrides).state_dict()
    kept = [0, 3, 4, 9, 17, 18, 25, 31]
    keep_residual_channels(model, kept)
    assert model.config.hidden_size == 8
    for name, value in model.state_dict().items():
        expected = before[name]
        readers = r"(embed_\w+|projection|lm_head|([qkvabcxz]|gate|up|rope)_proj|router)\.weight"
        reads = re.search(readers, name)
        if reads and expected.shape[1] == 32:  # Latent attention has matrices that read what it made.
            expected = expected[:, kept]
        elif re.search(r"(pre|post|joint|stream)_norm\.|model\.norm\.|o_proj\.|out_proj\.|down_proj\.", name):
            expected = expected[kept]
        assert torch.equal(value, expected), name
    tied = model.lm_head.weight is model.model.embed_tokens.weight  # type: ignore[union-attr]
    assert tied == model.config.tie_word_embeddings
    assert logits(model).isfinite().all()
