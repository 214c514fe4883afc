"""Tiny models of transformers as GGUF files, named and laid out as llama.cpp's converter does it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from tests.families.gguf_settings import gguf_settings as gguf_settings
from tests.families.gguf_tensors import Arrays
from tests.families.gguf_tensors import gguf_arrays as arrays_of
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
    "mixtral": gguf.MODEL_ARCH.LLAMA,
    "gpt_oss": gguf.MODEL_ARCH.GPT_OSS,
    "granite": gguf.MODEL_ARCH.GRANITE,
    "granitemoe": gguf.MODEL_ARCH.GRANITE_MOE,
    "granitemoeshared": gguf.MODEL_ARCH.GRANITE_MOE,
    "granitemoehybrid": gguf.MODEL_ARCH.GRANITE_HYBRID,
    "falcon_h1": gguf.MODEL_ARCH.FALCON_H1,
    "smollm3": gguf.MODEL_ARCH.SMOLLM3,
    "olmo2": gguf.MODEL_ARCH.OLMO2,
    "olmo3": gguf.MODEL_ARCH.OLMO2,
    "olmoe": gguf.MODEL_ARCH.OLMOE,
    "glm4": gguf.MODEL_ARCH.GLM4,
    "glm": gguf.MODEL_ARCH.CHATGLM,
    "cohere": gguf.MODEL_ARCH.COMMAND_R,
    "cohere2": gguf.MODEL_ARCH.COHERE2,
    "exaone4": gguf.MODEL_ARCH.EXAONE4,
    "ernie4_5": gguf.MODEL_ARCH.ERNIE4_5,
    "hunyuan_v1_dense": gguf.MODEL_ARCH.HUNYUAN_DENSE,
    "arcee": gguf.MODEL_ARCH.ARCEE,
    "ministral3": gguf.MODEL_ARCH.MISTRAL3,
    "lfm2_moe": gguf.MODEL_ARCH.LFM2MOE,
    "qwen3_5_text": gguf.MODEL_ARCH.QWEN35,
    "qwen3_5_moe_text": gguf.MODEL_ARCH.QWEN35MOE,
    "qwen3_next": gguf.MODEL_ARCH.QWEN3NEXT,
    "qwen2_moe": gguf.MODEL_ARCH.QWEN2MOE,
    "gemma4_text": gguf.MODEL_ARCH.GEMMA4,
    "glm4_moe": gguf.MODEL_ARCH.GLM4_MOE,
    "deepseek_v2": gguf.MODEL_ARCH.DEEPSEEK2,
    "deepseek_v3": gguf.MODEL_ARCH.DEEPSEEK2,
    "phi": gguf.MODEL_ARCH.PHI2,
    "gpt_neox": gguf.MODEL_ARCH.GPTNEOX,
    "falcon": gguf.MODEL_ARCH.FALCON,
    "gpt_bigcode": gguf.MODEL_ARCH.STARCODER,
}


def gguf_model(family: str, **overrides: Any) -> PreTrainedModel:
    """Return a family's tiny model, with a row for each token of the files' vocabulary."""
    torch.manual_seed(0)
    rows = {"vocab_size_per_layer_input": ROWS} if family == "gemma4_text" else {}
    return source_model(family, vocab_size=ROWS, **rows, **overrides)


def gguf_arrays(model: PreTrainedModel) -> Arrays:
    """Return a model's tensors under GGUF's names and in its layout."""
    return arrays_of(model, ARCHITECTURES[model.config.model_type])


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
