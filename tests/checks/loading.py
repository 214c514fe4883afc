"""Faults in checkpoints, texts and recipes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from roots_compress.checkpoints import inspect
from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from roots_compress.configs.data import DataConfig
from roots_compress.configs.recipe import loading, yaml
from roots_compress.data import corpora
from roots_compress.io import safetensors_header
from tests.checks.removal import Check
from tests.families.gguf_files import gguf_model, write_gguf
from tests.families.sources import save_source, source_model
from tests.tiny import tiny_checkpoint, tiny_model, tiny_tokenizer

NORM = "model.norm.weight"


def saved(folder: Path) -> Path:
    save_checkpoint(tiny_checkpoint(), folder / "model")
    return folder / "model"


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(source: Path, changes: dict[str, Tensor | None]) -> None:
    """Replace, add or (None) take away tensors of a saved checkpoint."""
    tensors = {**load_file(source / "model.safetensors"), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, source / "model.safetensors", {"format": "pt"})


def load_with(changes: dict[str, Tensor | None], folder: Path) -> None:
    source = saved(folder)
    change_tensors(source, changes)
    load_checkpoint(source)


def load_with_settings(folder: Path, **settings: Any) -> None:
    source = saved(folder)
    change_json(source / "config.json", **settings)
    load_checkpoint(source)


def smaller_vocabulary(folder: Path) -> None:
    save_checkpoint(Checkpoint(tiny_model(vocab_size=200), tiny_tokenizer()), folder / "model")
    load_checkpoint(folder / "model")


def duplicate_key(folder: Path) -> None:
    config = saved(folder) / "config.json"
    config.write_text('{"norm_eps": 1.0,' + config.read_text().lstrip()[1:])
    load_checkpoint(folder / "model")


def code_in_the_tokenizer(folder: Path) -> None:
    source = saved(folder)
    change_json(source / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    load_checkpoint(source)


def write_header(folder: Path, *, second: int, size: int) -> None:
    """Read a file of `size` bytes of data and two tensors of 16, the second from byte `second` on."""
    entry = {"dtype": "F32", "shape": [4]}
    header = {
        "a": {**entry, "data_offsets": [0, 16]},
        "b": {**entry, "data_offsets": [second, second + 16]},
    }
    text = json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    safetensors_header.read_header(path)


def tensor_in_two_shards(folder: Path) -> None:
    source = saved(folder)
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    alone = "model.layers.0.input_layernorm.weight"
    save_file({alone: tensors.pop(alone), NORM: tensors[NORM] + 1}, source / "a.safetensors")
    save_file(tensors, source / "b.safetensors")
    names = {**dict.fromkeys(tensors, "b.safetensors"), alone: "a.safetensors"}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    load_checkpoint(source)


def llama(folder: Path, **settings: Any) -> Path:
    source = save_source(source_model("llama"), folder / "llama")
    change_json(source / "config.json", **settings)
    return source


def llama_with_another_tensor(folder: Path) -> None:
    source = llama(folder)
    change_tensors(source, {"model.layers.0.self_attn.rotary_gate.weight": torch.ones(8)})
    load_checkpoint(source)


def gguf_with_scaled_logits(folder: Path) -> None:
    inspect.inspect_source(
        write_gguf(folder / "model.gguf", gguf_model("llama"), settings={"logit_scale": 0.5})
    )


def gguf_with_another_tensor(folder: Path) -> None:
    extra = {"blk.0.attn_sub_norm.weight": np.ones(32, np.float32)}
    inspect.inspect_source(write_gguf(folder / "model.gguf", gguf_model("llama"), tensors=extra))


def seen_held_out_text(folder: Path) -> None:
    for name in ("train.txt", "eval.txt"):
        (folder / name).write_text("A text that stands in both.\n")
    corpora.load_text(DataConfig(train=(folder / "train.txt",), eval=(folder / "eval.txt",)), seed=0)


def parse(*stages: dict[str, Any], **keys: Any) -> None:
    loading.parse_recipe({"name": "demo", "model": "somewhere", "stages": list(stages), **keys})


def key_twice(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("name: demo\nmodel: somewhere\nseed: 1\nseed: 2\n")
    loading.load_recipe(yaml.read_yaml(folder / "recipe.yaml"))


CHECKS = [
    Check(
        "a weight is NaN",
        "its training diverged or it was damaged",
        lambda folder: load_with({NORM: torch.full((32,), torch.nan)}, folder),
    ),
    Check(
        "a tensor is missing",
        "of the model's tensors",
        lambda folder: load_with({NORM: None}, folder),
    ),
    Check(
        "a tensor is left over",
        "has no place in the model",
        lambda folder: load_with({"model.layers.0.self_attn.q_norm.weight": torch.ones(8)}, folder),
        without="continue",
    ),
    Check(
        "a tied head is another matrix",
        "ties the output head to the embedding",
        lambda folder: load_with({"lm_head.weight": torch.ones(300, 32)}, folder),
    ),
    Check(
        "the tokenizer has more tokens than the embedding",
        "but the embedding has",
        smaller_vocabulary,
    ),
    Check(
        "a configuration key is unknown",
        "has keys that no ROOTS model knows",
        lambda folder: load_with_settings(folder, residual_scale=0.5),
    ),
    Check("a JSON key stands twice", "stands twice", duplicate_key),
    Check("a tokenizer names code", "names Python code to run", code_in_the_tokenizer),
    Check(
        "tensors overlap in the file",
        "overlaps the tensor before it",
        lambda folder: write_header(folder, second=0, size=16),
    ),
    Check(
        "bytes are hidden behind the tensors",
        "where its header describes",
        lambda folder: write_header(folder, second=16, size=64),
    ),
    Check("a tensor stands in two shards", "and again in", tensor_in_two_shards),
    Check(
        "a checkpoint to import has another tensor",
        "has no place in a",
        llama_with_another_tensor,
        without="continue",
    ),
    Check(
        "a checkpoint to import has an unknown switch",
        "is not a key this importer knows",
        lambda folder: load_checkpoint(llama(folder, residual_scale=0.5)),
    ),
    Check(
        "a checkpoint to import has a switch set that ROOTS lacks",
        "which ROOTS cannot express",
        lambda folder: load_checkpoint(llama(folder, rope_interleaved=True)),
    ),
    Check(
        "a GGUF file scales its logits",
        "which cannot be imported from GGUF exactly",
        gguf_with_scaled_logits,
    ),
    Check("a GGUF file has another tensor", "layers has", gguf_with_another_tensor),
    Check(
        "held-out text stands in the training text",
        "also stand in the training text",
        seen_held_out_text,
    ),
    Check("a recipe's key stands twice", "stands here a second time", key_twice),
    Check(
        "a recipe's key is unknown",
        "sead",
        lambda _: parse(sead=1),
        without=(
            "Recipe.model_validate(dict(values))",
            "Recipe.model_validate({key: values[key] for key in values if key in Recipe.model_fields})",
        ),
    ),
    Check(
        "a stage comes after quantization",
        "cannot come after",
        lambda _: parse({"kind": "quantize", "scheme": "int8"}, {"kind": "prune", "ratio": 0.25}),
    ),
    Check(
        "two stages have one name",
        "is already the name of",
        lambda _: parse({"kind": "prune", "ratio": 0.25}, {"kind": "prune", "ratio": 0.25}),
    ),
    Check(
        "settings of a new model stand where none is made",
        "would have no effect",
        lambda _: parse({"kind": "train", "architecture": {"hidden_size": 96}}),
    ),
]
