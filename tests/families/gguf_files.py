"""Tiny models of transformers as GGUF files, named and laid out as llama.cpp's converter does it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from tests.families.sources import source_model
from tests.tiny import VOCAB_SIZE, tiny_tokenizer

ROWS = VOCAB_SIZE + 2
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gpt2": gguf.MODEL_ARCH.GPT2,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "qwen3_moe": gguf.MODEL_ARCH.QWEN3MOE,
    "starcoder2": gguf.MODEL_ARCH.STARCODER2,
    "nemotron": gguf.MODEL_ARCH.NEMOTRON,
    "stablelm": gguf.MODEL_ARCH.STABLELM,
    "lfm2": gguf.MODEL_ARCH.LFM2,
}
LAYER_NORM_EPS = {"starcoder2": "norm_epsilon", "nemotron": "norm_eps", "stablelm": "layer_norm_eps"}
"""Keys of the epsilon of families with layer norms."""
Arrays = dict[str, NDArray[Any]]


def gguf_model(family: str, **overrides: Any) -> PreTrainedModel:
    """Return a family's tiny model, with a row for each token of the files' vocabulary."""
    return source_model(family, vocab_size=ROWS, **overrides)


def gguf_arrays(model: PreTrainedModel) -> Arrays:
    """Return a model's tensors under GGUF's names and in its layout."""
    config = model.config
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": getattr(config, "num_key_value_heads", 0)}
    arrays: Arrays = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.numpy()
        if config.model_type == "gpt2" and name.endswith(
            (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
        ):
            array = array.T
        part = name.split(".")[-2]
        if config.model_type in ("llama", "mistral") and part in heads:
            halves = array.reshape(heads[part], 2, -1, *array.shape[1:])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        adds_one = config.model_type.startswith("gemma") or config.model_type == "nemotron"
        if adds_one and "norm" in part and name.endswith(".weight"):
            array = array + 1
        if name.endswith("conv.conv.weight"):
            array = array[:, 0]
        for source, part_of in _unstacked(name, array):
            place = names.get_name(source, try_suffixes=(".weight", ".bias"))
            assert place is not None, source
            arrays[place] = np.ascontiguousarray(part_of)
    if config.model_type == "phi3" and "short_factor" in config.rope_parameters:
        for length in ("short", "long"):
            factors = np.array(config.rope_parameters[f"{length}_factor"], dtype=np.float32)
            arrays[f"rope_factors_{length}.weight"] = factors
    return arrays


def _unstacked(name: str, array: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield a tensor under the names that llama.cpp's table knows: gates and ups of experts apart."""
    stem, _, last = name.rpartition(".")
    if last == "gate_up_proj":
        for part, half in zip(("gate_proj", "up_proj"), np.split(array, 2, axis=1), strict=True):
            yield f"{stem}.{part}.weight", half
    else:
        yield (f"{name}.weight" if last == "down_proj" else name), array


def gguf_settings(model: PreTrainedModel) -> dict[str, Any]:
    """Return what the metadata say of a model without scaled positions."""
    config = model.config
    settings = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "attention.head_count": config.num_attention_heads,
    }
    if config.model_type == "gpt2":
        inner = config.n_inner or 4 * config.n_embd
        return {
            **settings,
            "feed_forward_length": inner,
            "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        }
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    return {
        **settings,
        "feed_forward_length": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "attention.head_count_kv": config.num_key_value_heads,
        **_settings_of(config),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        **_epsilon(config),
        "rope.dimension_count": int(head_dim * (rope.get("partial_rotary_factor") or 1)),
        "rope.freq_base": float(rope.get("full_attention", rope)["rope_theta"]),
    }


def _epsilon(config: Any) -> dict[str, float]:
    """Return the epsilon of the norms."""
    if config.model_type in LAYER_NORM_EPS:
        return {"attention.layer_norm_epsilon": getattr(config, LAYER_NORM_EPS[config.model_type])}
    eps = config.norm_eps if config.model_type == "lfm2" else config.rms_norm_eps
    return {"attention.layer_norm_rms_epsilon": eps}


def _settings_of(config: Any) -> dict[str, Any]:
    """Return what only one architecture has."""
    match config.model_type:
        case "gemma2":
            return {
                "attention.sliding_window": config.sliding_window,
                "attn_logit_softcapping": config.attn_logit_softcapping,
                "final_logit_softcapping": config.final_logit_softcapping,
            }
        case "gemma3_text":
            return {"attention.sliding_window": config.sliding_window}
        case "phi3":
            longrope = {}
            if "short_factor" in config.rope_parameters:
                original, context = config.original_max_position_embeddings, config.max_position_embeddings
                factor = math.sqrt(1 + math.log(context / original) / math.log(original))
                longrope = {
                    "rope.scaling.original_context_length": original,
                    "rope.scaling.attn_factor": factor if context > original else 1.0,
                }
            return {"attention.sliding_window": config.sliding_window or 0, **longrope}
        case "lfm2":
            groups = [config.num_key_value_heads * (kind != "conv") for kind in config.layer_types]
            return {"shortconv.l_cache": config.conv_L_cache, "attention.head_count_kv": groups}
        case "qwen3_moe":
            return {
                "expert_count": config.num_experts,
                "expert_used_count": config.num_experts_per_tok,
                "expert_feed_forward_length": config.moe_intermediate_size,
            }
    return {}


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    *,
    settings: Mapping[str, Any] | None = None,
    general: Mapping[str, Any] | None = None,
    tensors: Mapping[str, NDArray[Any] | None] | None = None,
    storage: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
) -> Path:
    """Write a model with the tiny tokenizer.

    Args:
        path: the file.
        model: of `gguf_model`.
        settings: further keys of the architecture, without its name; None leaves one out.
        general: further keys as they are.
        tensors: further tensors by name; None leaves one out.
        storage: of the matrices.
    """
    architecture = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[model.config.model_type]]
    writer = gguf.GGUFWriter(path, architecture)
    said = {f"{architecture}.{key}": value for key, value in (settings or {}).items()}
    made = {f"{architecture}.{key}": value for key, value in gguf_settings(model).items()}
    for key, value in {**made, **(general or {}), **said}.items():
        _add_value(writer, key, value)
    _add_vocabulary(writer)
    for name, array in {**gguf_arrays(model), **(tensors or {})}.items():
        if array is None:
            continue
        quantized = array.ndim > 1 and storage != gguf.GGMLQuantizationType.F32
        data = gguf.quantize(array, storage) if quantized else array
        writer.add_tensor(name, data, raw_dtype=storage if quantized else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_value(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case None:
            return
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    tokenizer = tiny_tokenizer()
    serialised = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    tokens += ["<unk>", "<|endoftext|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<") and len(token) > 1 else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in serialised["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
