"""The newer families go through the whole chain: a student, cuts on each axis they have, int8 and int4."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from roots_compress.results import RunMetrics
from tests.chains import CALIBRATION, DISTILL, QUANTIZE, TRAINING, carry_out, recipe, write_text
from tests.families.sources import FIELDS, save_source, source_model

HEADS = {"head_dim": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4}
"""Layers to spare, and heads that ONNX Runtime's fused attention takes."""
SLIDING = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 9}
LATENT = {
    "num_hidden_layers": 4,
    "qk_rope_head_dim": 16,
    "head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma2": {**HEADS, **SLIDING},
    "gemma3_text": {**HEADS, **SLIDING},
    "gemma4_text": {
        **HEADS,
        "layer_types": ["sliding_attention", "full_attention"] * 3,
        "sliding_window": 9,
        "num_hidden_layers": 6,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "global_head_dim": 32,
    },
    "phi3": {"hidden_size": 64, **HEADS},
    "qwen3_moe": {**HEADS, "norm_topk_prob": True},
    "olmo3": {**HEADS, **SLIDING},
    "smollm3": {**HEADS},
    "granite": {
        **HEADS,
        "residual_multiplier": 0.22,
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.1,
    },
    "granitemoehybrid": {
        **HEADS,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "residual_multiplier": 0.22,
        "mamba_d_state": 8,
        "mamba_n_groups": 2,
    },
    "ministral": {**HEADS, **SLIDING},
    "ministral3": {**HEADS},
    "hunyuan_v1_dense": {**HEADS},
    "exaone4": {**HEADS, **SLIDING},
    "arcee": {**HEADS},
    "nemotron": {**HEADS},
    "starcoder2": {**HEADS},
    "glm": {**HEADS},
    "glm4": {**HEADS},
    "ernie4_5": {**HEADS},
    "helium": {**HEADS, "hidden_size": 64},
    "gpt_neox": {"hidden_size": 64, "num_hidden_layers": 4},
    "phi": {**HEADS},
    "stablelm": {**HEADS, "hidden_size": 64},
    "cohere2": {**HEADS, **SLIDING, "hidden_size": 64},
    "cohere": {**HEADS, "hidden_size": 64},
    "gptj": {"n_embd": 64, "n_layer": 4},
    "falcon": {
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "new_decoder_architecture": True,
        "num_kv_heads": 2,
    },
    "gpt_bigcode": {"n_embd": 64, "n_layer": 4},
    "gpt_neo": {"hidden_size": 64, "num_layers": 4, "attention_types": [[["global", "local"], 2]]},
    "opt": {"hidden_size": 64, "num_hidden_layers": 4},
    "olmoe": {**HEADS, "hidden_size": 64},
    "mixtral": {**HEADS},
    "gpt_oss": {**HEADS, "sliding_window": 9},
    "lfm2": {**HEADS, "full_attn_idxs": [1, 3]},
    "lfm2_moe": {**HEADS, "layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "qwen3_5_text": {**HEADS, "layer_types": ["linear_attention", "full_attention"] * 2},
    "qwen3_5_moe_text": {**HEADS, "layer_types": ["linear_attention", "full_attention"] * 2},
    "qwen3_next": {**HEADS, "layer_types": ["linear_attention", "full_attention"] * 2},
    "qwen2_moe": {**HEADS},
    "deepseek_v2": {**LATENT, "q_lora_rank": None},
    "deepseek_v3": {**LATENT, "n_routed_experts": 8, "n_group": 2, "topk_group": 1},
    "glm4_moe_lite": {**LATENT, "v_head_dim": 32},
    "minicpm3": {**LATENT},
    "glm4_moe": {**HEADS, "n_routed_experts": 8, "n_group": 2, "topk_group": 1, "use_qk_norm": True},
    "dots1": {**HEADS, "sliding_window": 9, "max_window_layers": 2},
    "ernie4_5_moe": {**HEADS},
    "hunyuan_v1_moe": {**HEADS},
    "granitemoeshared": {**HEADS, "residual_multiplier": 0.22},
    "granite_swa": {**HEADS, **SLIDING, "residual_multiplier": 0.22},
    "falcon_h1": {
        **HEADS,
        "hidden_size": 64,
        "mamba_d_ssm": 64,
        "mamba_n_groups": 2,
        "mamba_d_state": 8,
        "mlp_multipliers": [0.7, 0.4],
    },
    "granitemoe": {**HEADS, "residual_multiplier": 0.22},
}
QUICK = {"gemma2", "gemma3_text", "qwen3_moe", "olmo3"}
"""What is new in the others is in these too, in their logits, in a recipe, or in the stages' own tests."""
OF_LATENT = {"deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3"}
ONE_QUERY, ONE_GROUP = {"gpt_neox", "gptj", "gpt_neo", "opt"} | OF_LATENT, {"gpt_bigcode"}
"""Families with one query head in each key/value group, and with one group."""
SHARING = {"gemma4_text"}
"""Families whose groups of keys and values several layers read, so that none is cut."""
FURTHER_AXES = {
    "lfm2": {"conv_ratio": 0.25},
    "lfm2_moe": {"conv_ratio": 0.25},
    "qwen3_5_text": {"key_head_ratio": 0.5, "value_head_ratio": 0.5},
    "qwen3_5_moe_text": {"key_head_ratio": 0.5, "value_head_ratio": 0.5},
    "qwen3_next": {"key_head_ratio": 0.5, "value_head_ratio": 0.5},
    "falcon_h1": {"key_head_ratio": 0.5, "value_head_ratio": 0.5},
    "granitemoehybrid": {"key_head_ratio": 0.5, "value_head_ratio": 0.5},
}
"""Of blocks that few families have."""
NARROWED = {
    "lfm2",
    "qwen3_5_text",
    "qwen2_moe",
    "falcon_h1",
    "gpt_neox",
    "phi",
    "cohere2",
    "nemotron",
    "hunyuan_v1_dense",
    "deepseek_v2",
    "deepseek_v3",
}
"""Families whose residual stream is cut too, those with parallel blocks or new norms among them."""
AXES: dict[str, float] = {"head_ratio": 0.5, "query_ratio": 0.5, "layer_ratio": 0.5}
RECIPES = {"gemma3": "gemma3_text", "phi3": "phi3", "qwen3-moe": "qwen3_moe"}
"""Recipes that come along, and the family that each is for."""
SHRUNKEN: dict[str, dict[str, Any]] = {
    "prune": {"own_windows": 2, "multiple_of": 8, "calibration": CALIBRATION},
    "quantize": {"own_windows": 2, "group_size": 16, "calibration": CALIBRATION},
}
"""What a stage of a recipe is given so that it fits a tiny model and a short text."""
QUANTIZED = {
    family: {"kind": "quantize", "scheme": "int4", **SHRUNKEN["quantize"]}
    for family in ("gemma2", "gemma3_text")
}
"""Families whose chain ends in int4."""


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def prune_of(family: str) -> dict[str, Any]:
    """Return a cut on every axis of a family's blocks, and of layers."""
    has_experts = any(FIELDS.get(family, {}).get(key) for key in EXPERTS)
    mine = {"ratio": 0.25, **({"expert_ratio": 0.3} if has_experts else {})}
    mine |= {"query_ratio": 0.0} if family in ONE_QUERY else {}
    mine |= {"head_ratio": 0.0} if family in (ONE_GROUP | SHARING) else {}
    mine |= FURTHER_AXES.get(family, {})
    mine |= {"residual_ratio": 0.25} if family in NARROWED else {}
    return {"kind": "prune", **SHRUNKEN["prune"], **AXES, **mine}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text; `run` adds each family's model, and a run of it that has its baseline alone."""
    folder = tmp_path_factory.mktemp("families")
    write_text(folder / "text")
    return folder


def run(models: Path, family: str, folder: Path, *stages: dict[str, Any], **more: Any) -> RunMetrics:
    """Carry out stages after a family's baseline."""
    baseline = models / "runs" / family
    if not baseline.exists():
        save_source(source_model(family, **FAMILIES[family]), models / family)
        carry_out(recipe(models / "text", model=str(models / family)), baseline)
    shutil.copytree(baseline, folder)
    return carry_out(recipe(models / "text", *stages, model=str(models / family), **more), folder)


@pytest.mark.parametrize(
    "family",
    [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in FAMILIES],
)
def test_a_chain(family: str, models: Path, tmp_path: Path) -> None:
    metrics = run(
        models, family, tmp_path / "run", DISTILL, prune_of(family), QUANTIZED.get(family, QUANTIZE)
    )
    assert [row.kind for row in metrics.stages] == ["baseline", "distill", "prune", "quantize"]
    sizes = [row.metrics.bytes for row in metrics.stages]
    assert sizes == sorted(sizes, reverse=True)
    if family in QUANTIZED:
        assert sizes[-1] < sizes[-2] / 2


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_comes_along(name: str, models: Path, tmp_path: Path) -> None:
    given = yaml.safe_load(Path(__file__).parents[2].joinpath("recipes", f"{name}.yaml").read_text())
    stages = [{**stage, **SHRUNKEN[stage["kind"]]} for stage in given["stages"]]
    for stage in stages:
        if "recovery" in stage:
            stage["recovery"] = {"training": TRAINING}
    metrics = run(models, RECIPES[name], tmp_path / "run", *stages, gates=given["gates"])
    first, last = metrics.stages[0].metrics, metrics.stages[-1].metrics
    assert [row.kind for row in metrics.stages] == ["baseline", *(stage["kind"] for stage in stages)]
    assert last.bytes < first.bytes / 2
    assert {gate.gate for gate in metrics.gates} == set(given["gates"])
