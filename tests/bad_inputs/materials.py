"""The undamaged inputs that malformed ones are made from: models of several forms, graphs, text, a run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from roots_compress.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from roots_compress.configs.export import ExportConfig
from roots_compress.configs.recipe.loading import parse_recipe, resolved
from roots_compress.export.exporter import export_checkpoint
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.mlp import Mlp
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stages import stage_folder_name
from tests.chains import write_text
from tests.families.sources import save_source, source_model
from tests.report import figures
from tests.run.stubs import MACHINE, make_key, make_result
from tests.tiny import VOCAB_SIZE, tiny_checkpoint, tiny_model, tiny_tokenizer

RECIPE: dict[str, Any] = {
    "name": "bad",
    "model": "ckpt",
    "seed": 1,
    "device": "cpu",
    "data": {"train": ["prose"], "eval_fraction": 0.25, "text_column": "text"},
    "evaluation": {
        "windows": 4, "block_size": 32, "contexts": [16], "repeats": 2, "decode_tokens": 2, "threads": 1,
    },
    "stages": [
        {
            "kind": "distill", "name": "smaller", "student": "small",
            "loss": {"temperature": 2.0, "divergence_weight": 0.9, "cross_entropy_weight": 0.1},
            "training": {"steps": 4, "batch_size": 2, "block_size": 32, "learning_rate": 0.001},
        },
        {
            "kind": "prune", "name": "thinner", "ratio": 0.25, "refit": True, "score": "activation",
            "calibration": {"windows": 4, "block_size": 32}, "own_windows": 2,
        },
        {
            "kind": "quantize", "name": "coarser", "scheme": "int8", "group_size": 32,
            "calibration": {"windows": 4, "block_size": 32},
        },
    ],
    "gates": {"max_perplexity_ratio": 50.0},
}  # fmt: skip
"""A recipe that would be carried out."""


def make_materials(folder: Path) -> Path:
    """Make the undamaged inputs, and return the folder that holds them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "prose")
    save_checkpoint(tiny_checkpoint(), folder / "ckpt")
    save_checkpoint(tiny_checkpoint(tie_word_embeddings=False), folder / "untied")
    save_source(source_model("llama"), folder / "llama")
    save_source(source_model("gpt2"), folder / "gpt2")
    save_source(source_model("llama"), folder / "sharded", max_shard_size="40KB")
    for name, portable in (("graph", False), ("portable", True)):
        (folder / name).mkdir()
        checkpoint = load_checkpoint(folder / "ckpt")
        export_checkpoint(checkpoint, folder / name, ExportConfig(portable=portable), release=True)
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    _make_run(folder)
    write_gguf(folder / "model.gguf")
    return folder


def _make_run(folder: Path) -> None:
    """Commit a baseline and its figures, as a run would."""
    recipe = parse_recipe({**RECIPE, "stages": []})
    with RunFolder.open(folder / "run") as run:
        workspace = run.begin(0, "baseline", "baseline", make_key(None, content="baseline"))
        shutil.copytree(folder / "ckpt", workspace.checkpoint, dirs_exist_ok=True)
        shutil.copytree(folder / "graph", workspace.onnx, dirs_exist_ok=True)
        workspace.commit(make_result(0, "baseline", "baseline"), machine=MACHINE)
        row = replace(figures.stage(), onnx=f"{stage_folder_name(0, 'baseline')}/onnx/model.onnx")
        run.write_text("resolved.json", json.dumps(resolved(recipe)))
        run.write_metrics(figures.run(row))
        run.write_text("recipe.yaml", json.dumps(RECIPE))
        run.write_text("report.html", "<!doctype html>")
        run.finish()


def write_gguf(path: Path) -> None:
    """Write the tiny model as a GGUF file of the Llama architecture that transformers can read."""
    # Two tokens more than the tokenizer has: transformers' conversion would add them.
    model, tokenizer = tiny_model(vocab_size=VOCAB_SIZE + 2), tiny_tokenizer()
    config = model.config
    attention, mlp = (sublayer.op for sublayer in config.spec.layers[0])
    assert isinstance(attention, Attention)
    assert isinstance(mlp, Mlp)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(mlp.channels)
    writer.add_head_count(attention.heads)
    writer.add_head_count_kv(attention.kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    serialised = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])] + [
        "<unk>",
        "<|endoftext|>",
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<") and len(token) > 1 else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in serialised["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }
    parts = {
        "self_attn_pre_norm": "attn_norm", "mlp_pre_norm": "ffn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for number in range(config.num_hidden_layers):
        for ours, theirs in parts.items():
            names[f"model.layers.{number}.{ours}.weight"] = f"blk.{number}.{theirs}.weight"
    state = model.state_dict()
    for ours, theirs in names.items():
        writer.add_tensor(theirs, state[ours].detach().numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
