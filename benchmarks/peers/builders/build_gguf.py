"""Write a Hugging Face directory as a GGUF file for llama.cpp: `build_gguf.py SOURCE TARGET TYPE`.

Runs in llama.cpp's environment. The file holds no vocabulary: the benchmark feeds token ids. TYPE is F32, or
a type that llama.cpp quantizes to.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gpt2": gguf.MODEL_ARCH.GPT2,
}
TYPES = {"Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M}
# GPT-2 keeps these the other way round, as (input, output).
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def main() -> None:
    """Write the float32 file, and quantize it where another type is asked for."""
    source, target, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if kind == "F32":
        write(source, target)
        return
    full = target.with_suffix(".f32")
    write(source, full)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = TYPES[kind]
    code = llama_cpp.llama_model_quantize(str(full).encode(), str(target).encode(), parameters)
    full.unlink()
    if code:
        sys.exit(f"llama_model_quantize returned {code}")


def write(source: Path, target: Path) -> None:
    """Write the float32 GGUF file."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    family = config["model_type"]
    if family not in ARCHITECTURES:
        sys.exit(f"this converter writes {', '.join(ARCHITECTURES)}, not {family}")
    architecture = ARCHITECTURES[family]
    writer = gguf.GGUFWriter(target, gguf.MODEL_ARCH_NAMES[architecture])
    _add_settings(writer, config)
    names = gguf.get_tensor_name_map(architecture, _layers(config))
    for name, tensor in load_file(source / "model.safetensors").items():
        place = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if place is None:
            sys.exit(f"GGUF has no name for the tensor {name}")
        writer.add_tensor(place, np.ascontiguousarray(_arranged(name, tensor.astype(np.float32), config)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _layers(config: dict[str, Any]) -> int:
    return int(config.get("num_hidden_layers") or config["n_layer"])


def _add_settings(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    hidden = config.get("hidden_size") or config["n_embd"]
    heads = config.get("num_attention_heads") or config["n_head"]
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_block_count(_layers(config))
    writer.add_context_length(config.get("max_position_embeddings") or config["n_positions"])
    writer.add_embedding_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    if config["model_type"] == "gpt2":
        writer.add_feed_forward_length(config.get("n_inner") or 4 * hidden)
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        return
    head_size = config.get("head_dim") or hidden // heads
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        sys.exit(f"this converter writes plain rotary positions, not {rope['rope_type']}")
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope.get("rope_theta") or config["rope_theta"])
    writer.add_rope_dimension_count(head_size)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)


def _arranged(name: str, tensor: NDArray[np.float32], config: dict[str, Any]) -> NDArray[np.float32]:
    """Return a tensor as llama.cpp has it: (output, input), Llama's rotary pairs beside one another."""
    if config["model_type"] == "gpt2":
        return tensor.T if name.endswith(TRANSPOSED) else tensor
    if config["model_type"] not in ("llama", "mistral"):
        return tensor
    heads = config["num_attention_heads"]
    for part, count in (("q_proj", heads), ("k_proj", config.get("num_key_value_heads", heads))):
        if f"self_attn.{part}." in name:
            halves = tensor.reshape(count, 2, -1, *tensor.shape[1:])
            return halves.swapaxes(1, 2).reshape(tensor.shape)
    return tensor


if __name__ == "__main__":
    main()
