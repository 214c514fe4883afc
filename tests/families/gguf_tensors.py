"""Tensors of tiny models of transformers under GGUF's names, laid out as llama.cpp's converter does it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from transformers import PreTrainedModel

Array = NDArray[Any]
Arrays = dict[str, Array]
EXPERT = re.compile(r"(.*\.experts)\.\d+\.(.*)")
TURNED = {"llama", "mistral", "mixtral", "smollm3", "arcee", "ministral3"}
TURNED |= {"granite", "granitemoe", "granitemoeshared", "granitemoehybrid"}
"""Families whose rows of q and k the converter turns from halves into pairs."""
ADDED = ("gemma", "gemma2", "gemma3_text", "nemotron", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")
"""Families whose norms hold their gain's distance from 1."""
RENAMED = {
    "mixtral": (r"model\.(layers\.\d+)\.block_sparse_moe\.experts", r"\1.feed_forward.experts"),
    "lfm2_moe": (r"model\.(layers\.\d+\.feed_forward\.experts)", r"\1"),
}


def plain_config(model: PreTrainedModel) -> Any:
    """Return a model's configuration; one that differs by layer as it is written, with what is usual."""
    said = model.config.to_dict()
    return SimpleNamespace(**said) if said.get("per_layer_config") is not None else model.config


def gguf_arrays(model: PreTrainedModel, architecture: gguf.MODEL_ARCH) -> Arrays:
    """Return a model's tensors under GGUF's names and in its layout."""
    config = plain_config(model)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    arrays: Arrays = {}
    for name, array in _stacked(model):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        for source, part in _laid_out(name, array, config):
            source = re.sub(*RENAMED.get(config.model_type, ("$^", "")), source)
            if source.startswith("blk."):
                arrays[source] = np.ascontiguousarray(part)
                continue
            place = names.get_name(source, try_suffixes=(".weight", ".bias"))
            assert place is not None, source
            arrays[place] = np.ascontiguousarray(part)
    return arrays | _factors(config)


def _stacked(model: PreTrainedModel) -> Iterator[tuple[str, Array]]:
    """Yield a model's tensors as it is saved, those of experts stacked."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        arrays = load_file(f"{folder}/model.safetensors")

    def joined(name: str) -> str:
        found = EXPERT.fullmatch(name)
        return f"{found[1]}.{found[2]}" if found else name

    def place(name: str) -> tuple[str, list[int]]:
        return joined(name), [int(number) for number in re.findall(r"\d+", name)]

    numbered = sorted(arrays, key=place)
    for name, group in groupby(numbered, joined):
        members = list(group)
        yield name, np.stack([arrays[each] for each in members]) if members != [name] else arrays[name]


def _laid_out(name: str, array: Array, config: Any) -> Iterator[tuple[str, Array]]:
    """Yield a tensor as the converter names and lays it out; of some it makes several."""
    family, part, kind = config.model_type, name.split(".")[-2], name.rpartition(".")[2]
    heads = {"q_proj": config.num_attention_heads, "k_proj": getattr(config, "num_key_value_heads", 0)}
    if family in TURNED and part in heads:
        halves = array.reshape(heads[part], 2, -1, *array.shape[1:])
        array = halves.swapaxes(1, 2).reshape(array.shape)
    if family in ADDED and "norm" in part and kind == "weight" and "linear_attn.norm" not in name:
        array = array + 1
    if family == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
        array = array.T
    if "query_key_value" in name:
        array = _by_kind(array, config)
    if family == "falcon_h1":
        array = _multiplied(name, array, config)
    if "conv" in part and array.ndim == 3:
        array = array[:, 0]
    for pattern, change in CHANGES:
        if re.search(pattern, name):
            yield from change(name, array, config)
            return
    yield name, array


def _by_kind(array: Array, config: Any) -> Array:
    """Return rows of q, k and v that lie group by group with those of each kind together."""
    kv_heads = config.num_attention_heads
    if config.model_type == "falcon":
        kv_heads = config.num_kv_heads if config.new_decoder_architecture or not config.multi_query else 1
    size = config.hidden_size // config.num_attention_heads
    groups = array.reshape(kv_heads, -1, size, *array.shape[1:])
    parts = groups[:, :-2], groups[:, -2:-1], groups[:, -1:]
    return np.concatenate([part.reshape(-1, *array.shape[1:]) for part in parts])


def _factors(config: Any) -> Arrays:
    """Return the factors of frequencies that are tensors in the file."""
    rope = getattr(config, "rope_parameters", None) or {}
    if config.model_type == "phi3" and "short_factor" in rope:
        return {
            f"rope_factors_{length}.weight": np.array(rope[f"{length}_factor"], dtype=np.float32)
            for length in ("short", "long")
        }
    if config.model_type == "gemma4_text":
        sizes = [each["head_dim"] for each in config.per_layer_config.values()]
        half = max([config.head_dim, *sizes]) // 2
        turned = int(half * rope["full_attention"].get("partial_rotary_factor", 1))
        return {"rope_freqs.weight": np.array([1] * turned + [1e30] * (half - turned), dtype=np.float32)}
    return {}


Changed = Iterator[tuple[str, Array]]


def _granite_halves(name: str, array: Array, config: Any) -> Changed:
    """Gates and ups that lie one after another."""
    layer = name.split(".")[2]
    experts = "_exps" if "block_sparse_moe" in name else "_shexp" if config.num_local_experts else ""
    if "output_linear" in name:
        yield f"blk.{layer}.ffn_down{experts}.weight", array
        return
    for part, half in zip(("gate", "up"), np.split(array, 2, axis=-2), strict=True):
        yield f"blk.{layer}.ffn_{part}{experts}.weight", half


def _gpt_oss_experts(name: str, array: Array, config: Any) -> Changed:
    """Gates and ups whose columns take turns."""
    stem, kind = name.removesuffix("_bias"), "bias" if name.endswith("_bias") else "weight"
    array = array if kind == "bias" else array.swapaxes(1, 2)
    if "down_proj" in stem:
        yield f"{stem}.{kind}", array
        return
    for part, first in (("gate", 0), ("up", 1)):
        yield stem.replace("gate_up", part) + f".{kind}", array[:, first::2]


def _suffixed(suffix: str) -> Callable[[str, Array, Any], Changed]:
    def change(name: str, array: Array, config: Any) -> Changed:
        yield f"{name}{suffix}", array

    return change


def _named(place: str) -> Callable[[str, Array, Any], Changed]:
    def change(name: str, array: Array, config: Any) -> Changed:
        yield f"blk.{name.split('.')[2]}.{place}", array

    return change


def _correction(name: str, array: Array, config: Any) -> Changed:
    """Numbers of experts that count in the choice alone."""
    yield name.replace("correction_bias", "correction.bias"), array


def _multiplied(name: str, array: Array, config: Any) -> Array:
    """Return a tensor of Falcon-H1 with the factors on what it reads and gives."""
    gate, down = config.mlp_multipliers
    reads = config.attention_in_multiplier
    factors = {
        "down_proj": down,
        "gate_proj": gate,
        "q_proj": reads,
        "k_proj": reads * config.key_multiplier,
        "v_proj": reads,
        "o_proj": config.attention_out_multiplier,
        "out_proj": config.ssm_out_multiplier,
        "lm_head": config.lm_head_multiplier,
        "embed_tokens": config.embedding_multiplier,
    }
    part = name.split(".")[-2]
    if part != "in_proj":
        return array * np.float32(factors.get(part, 1.0))
    inner, keys = config.mamba_n_heads * config.mamba_d_head, config.mamba_n_groups * config.mamba_d_state
    sizes = [inner, inner, keys, keys, config.mamba_n_heads]
    each = np.repeat(np.float32(config.ssm_multipliers), sizes)
    return array * each[:, None] * np.float32(config.ssm_in_multiplier)


def _by_key_head(name: str, array: Array, config: Any) -> Changed:
    """Rows of queries, keys and values that lie key head by key head, and of their gate."""
    groups, size = config.linear_num_key_heads, config.linear_key_head_dim
    values = config.linear_num_value_heads // groups * config.linear_value_head_dim
    heads = array.reshape(groups, -1, array.shape[1])
    parts = np.split(heads, [size, 2 * size, 2 * size + values], axis=1)
    q, k, v, z = (part.reshape(-1, array.shape[1]) for part in parts)
    layer = name.split(".")[2]
    yield f"blk.{layer}.attn_qkv.weight", np.concatenate((q, k, v))
    yield f"blk.{layer}.attn_gate.weight", z


def _state_space(name: str, array: Array, config: Any) -> Changed:
    """Rates, biases of steps and norms of Mamba-2 and Gated DeltaNet."""
    if name.endswith("A_log"):
        array = -np.exp(array)
    array = _tiled(name, array, config)
    if ".mamba." in name and name.endswith(("A_log", ".D")):
        array = array[:, None]
    if name.endswith("mamba.norm.weight"):
        array = array.reshape(config.mamba_n_groups, -1)
    yield name.replace("dt_bias", "dt_proj.bias"), array


def _tiled(name: str, array: Array, config: Any) -> Array:
    """Return value heads that take turns over the key heads."""
    if "linear_attn" not in name or config.model_type == "qwen3_next":
        return array
    groups, heads = config.linear_num_key_heads, config.linear_num_value_heads
    keys = config.linear_key_head_dim * groups * 2
    part = name.split("linear_attn.")[1]
    if part == "norm.weight":
        return array
    first = keys if part.startswith(("in_proj_qkv", "conv1d")) else 0
    axis = 1 if part.startswith("out_proj") else 0
    moved = np.moveaxis(array, axis, 0)
    kept, turned = moved[:first], moved[first:]
    by_group = turned.reshape(groups, heads // groups, -1, *turned.shape[1:]).swapaxes(0, 1)
    return np.moveaxis(np.concatenate([kept, by_group.reshape(turned.shape)]), 0, axis)


def _of_latent(name: str, array: Array, config: Any) -> Changed:
    """Matrices of keys and of values, one for each head; those of keys the other way round."""
    heads = array.reshape(config.num_attention_heads, -1, array.shape[1])
    keys, values = np.split(heads, [config.qk_nope_head_dim], axis=1)
    yield name.replace("kv_b_proj", "k_b_proj"), keys.swapaxes(1, 2)
    yield name.replace("kv_b_proj", "v_b_proj"), values


CHANGES: tuple[tuple[str, Callable[[str, Array, Any], Changed]], ...] = (
    (r"block_sparse_moe\.(input|output)_linear|shared_mlp\.", _granite_halves),
    (r"mlp\.experts\.(gate_up|down)_proj(_bias)?$", _gpt_oss_experts),
    (r"linear_attn\.in_proj_qkvz", _by_key_head),
    (r"mamba\.(A_log|D|dt_bias|norm)|linear_attn\.", _state_space),
    (r"(self_attn\.sinks|layer_scalar|\d\.experts\.(gate_up|down)_proj)$", _suffixed(".weight")),
    (r"feed_forward\.expert_bias$", _suffixed(".bias")),
    (r"mlp\.gate\.e_score_correction_bias$", _correction),
    (r"kv_b_proj", _of_latent),
    (r"router\.scale$", _named("ffn_gate_inp.scale")),
    (r"per_expert_scale$", _named("ffn_down_exps.scale")),
)
"""What the converter does to tensors whose names match."""
