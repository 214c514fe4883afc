"""Nomic BERT as it is published, and as a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.errors import InputError
from tests.families.sources import encoder, save_source
from tests.tasks.commands import graph_outputs
from tests.tiny import tiny_tokens

VECTORS = {"architectures": ["NomicBertModel"]}
PUBLISHED = {
    "activation_function": "swiglu", "attn_pdrop": 0.0, "bos_token_id": None, "causal": False,
    "dense_seq_output": True, "embd_pdrop": 0.0, "eos_token_id": None, "fused_bias_fc": True,
    "fused_dropout_add_ln": True, "initializer_range": 0.02, "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 48, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "model_type": "nomic_bert",
    "n_embd": 32, "n_head": 4, "n_inner": 48, "n_layer": 2, "n_positions": 8192,
    "pad_vocab_size_multiple": 64, "parallel_block": False, "parallel_block_tied_norm": False,
    "prenorm": False, "qkv_proj_bias": False, "reorder_and_upcast_attn": False, "resid_pdrop": 0.0,
    "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None, "rotary_scaling_factor": None,
    "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True, "summary_activation": None,
    "summary_first_dropout": 0.0, "summary_proj_to_labels": True, "summary_type": "cls_index",
    "summary_use_proj": True, "torch_dtype": "float32", "transformers_version": "4.37.2",
    "type_vocab_size": 2, "use_cache": True, "use_flash_attn": True, "use_rms_norm": False,
    "use_xentropy": True, "architectures": ["NomicBertModel"],
}  # fmt: skip
"""The keys of nomic-embed-text-v1.5, without those of its code, of a smaller model."""


def vectors(theirs: PreTrainedModel) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return two texts of unlike lengths, and the mean states of each, of length 1."""
    ids_BT, mask_BT = tiny_tokens(2, 20), torch.ones(2, 20, dtype=torch.long)
    mask_BT[0, 13:] = 0
    given = {"input_ids": ids_BT, "attention_mask": mask_BT}
    with torch.no_grad():
        states_BTW = theirs(**given).last_hidden_state
    mean_BW = (states_BTW * mask_BT[..., None]).sum(dim=1) / mask_BT.sum(dim=1, keepdim=True)
    return given, torch.nn.functional.normalize(mean_BW)


def require_equal(source: Path, theirs: PreTrainedModel) -> None:
    given, expected_BW = vectors(theirs)
    with torch.no_grad():
        found_BW = load_checkpoint(source).model(**given).last_hidden_state
    torch.testing.assert_close(found_BW, expected_BW, atol=1e-5, rtol=0)


def published(folder: Path, **changes: Any) -> PreTrainedModel:
    """Write a model with the keys of its publishers."""
    theirs = encoder("nomic_bert", dict(VECTORS))
    save_source(theirs, folder)
    said = {**PUBLISHED, "vocab_size": theirs.config.vocab_size, **changes}
    (folder / "config.json").write_text(json.dumps(said))
    return theirs


def test_keys_of_the_publishers_are_understood(tmp_path: Path) -> None:
    theirs = published(tmp_path)
    require_equal(tmp_path, theirs)
    assert inspect_source(tmp_path).spec.max_positions == 48


def test_graphs_make_the_vectors(tmp_path: Path) -> None:
    theirs = published(tmp_path / "source")
    given, expected_BW = vectors(theirs)
    given["token_type_ids"] = torch.zeros_like(given["input_ids"])
    for made_BW in graph_outputs(tmp_path / "source", tmp_path, "sentence_embedding", given):
        np.testing.assert_allclose(made_BW, expected_BW.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("activation_function", "gelu"),
        ("prenorm", True),
        ("qkv_proj_bias", True),
        ("rotary_emb_fraction", 0.5),
        ("causal", True),
        ("use_rms_norm", True),
        ("num_experts", 8),
    ],
)
def test_what_another_model_of_theirs_does_is_refused(key: str, value: object, tmp_path: Path) -> None:
    published(tmp_path, **{key: value})
    with pytest.raises(InputError, match=key if key != "rotary_emb_fraction" else "rotary"):
        load_checkpoint(tmp_path)


def test_a_gguf_file_gives_the_source_s_vectors(tmp_path: Path) -> None:
    theirs = encoder("nomic_bert", {**VECTORS, "vocab_size": 64, "num_hidden_layers": 3})
    theirs.save_pretrained(tmp_path / "theirs")
    config: Any = theirs.config
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "nomic-bert")
    writer.add_block_count(3)
    writer.add_context_length(2048)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_rope_freq_base(1000.0)
    writer.add_tokenizer_model("bert")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [f"\u2581{chr(97 + number % 26)}{number // 26}" for number in range(64 - len(special))]
    writer.add_token_list([*special, *words])
    writer.add_token_types([3] * len(special) + [1] * len(words))
    writer.add_token_type_count(2)
    for name, index in (("padding", 0), ("unknown", 1), ("cls", 2), ("seperator", 3), ("mask", 4)):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", index)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.NOMIC_BERT, 3)
    for name, tensor in load_file(tmp_path / "theirs" / "model.safetensors").items():
        stem, _, part = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{part}", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ids_BT = torch.randint(5, 64, (2, 12))
    with torch.no_grad():
        mean_BW = theirs(ids_BT).last_hidden_state.mean(dim=1)
        found_BW = load_checkpoint(tmp_path / "m.gguf").model(ids_BT).last_hidden_state
    torch.testing.assert_close(found_BW, torch.nn.functional.normalize(mean_BW), atol=1e-5, rtol=0)
