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
    config.write_text('{"model_type": "llama",' + config.read_text().lstrip()[1:])
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
    alone = next(name for name in tensors if name != NORM)
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
        "fitting.fitted_tensor",
        lambda folder: load_with({NORM: torch.full((32,), torch.nan)}, folder),
        guard="if not torch.isfinite(fitted).all(): ...",
    ),
    Check(
        "a tensor is missing",
        "checkpoint._assemble",
        lambda folder: load_with({NORM: None}, folder),
        guard="if missing := ...: ...",
    ),
    Check(
        "a tensor is left over",
        "checkpoint._assemble",
        lambda folder: load_with({"model.layers.0.self_attn.q_norm.weight": torch.ones(8)}, folder),
        guard="if name not in expected: ...",
        without="if name not in expected: continue",
    ),
    Check(
        "a tied head is another matrix",
        "checkpoint._assemble",
        lambda folder: load_with({"lm_head.weight": torch.ones(300, 32)}, folder),
        guard="if head is not None and ...: ...",
    ),
    Check(
        "the tokenizer has more tokens than the embedding",
        "tokenizer.check_vocabulary",
        smaller_vocabulary,
        guard="if largest >= vocab_size: ...",
    ),
    Check(
        "a configuration key is unknown",
        "_inspect_directory",
        lambda folder: load_with_settings(folder, residual_scale=0.5),
        guard="sorted(config.keys() - ROOTS_KEYS - BOOKKEEPING)",
        without="[]",
    ),
    Check(
        "a JSON key stands twice",
        "_without_duplicates",
        duplicate_key,
        guard="raise ValueError(...)",
    ),
    Check(
        "a tokenizer names code",
        "refuse_code",
        code_in_the_tokenizer,
    ),
    Check(
        "tensors overlap in the file",
        "_check_layout",
        lambda folder: write_header(folder, second=0, size=16),
        guard="if entry.start != expected: ...",
    ),
    Check(
        "bytes are hidden behind the tensors",
        "_check_layout",
        lambda folder: write_header(folder, second=16, size=64),
        guard="if expected != data_bytes: ...",
    ),
    Check(
        "a tensor stands in two shards",
        "_sharded_tensors",
        tensor_in_two_shards,
        guard="if name in tensors: ...",
    ),
    Check(
        "a checkpoint to import has another tensor",
        "to_roots",
        llama_with_another_tensor,
        guard="raise InputError(..., remedy=_advice(...))",
    ),
    Check(
        "a checkpoint to import has an unknown switch",
        "Switches.finish",
        lambda folder: load_checkpoint(llama(folder, residual_scale=0.5)),
        guard="raise InputError(..., remedy='If it does not, remove it from a copy of config.json.')",
    ),
    Check(
        "a checkpoint to import has a switch set that ROOTS lacks",
        "Switches.finish",
        lambda folder: load_checkpoint(llama(folder, rope_interleaved=True)),
        guard="if not is_among(value, HARMLESS[key]): ...",
    ),
    Check(
        "a GGUF file scales its logits",
        "Metadata._refuse_unknown",
        gguf_with_scaled_logits,
        guard="if unread: ...",
    ),
    Check(
        "a GGUF file has another tensor",
        "gguf.spec._check_tensors",
        gguf_with_another_tensor,
        guard="if name not in known and ...: ...",
    ),
    Check(
        "held-out text stands in the training text",
        "_separate_documents",
        seen_held_out_text,
        guard="if shared: ...",
    ),
    Check(
        "a recipe's key stands twice",
        "yaml._build",
        key_twice,
        guard="if key in mapping: ...",
    ),
    Check(
        "a recipe's key is unknown",
        "parse_settings",
        lambda _: parse(sead=1),
        guard="dict(values)",
        without="{key: values[key] for key in values if key in kind.model_fields}",
    ),
    Check(
        "a stage comes after quantization",
        "_order_faults",
        lambda _: parse({"kind": "quantize", "scheme": "int8"}, {"kind": "prune", "ratio": 0.25}),
        guard="quantized is not None",
        without="False",
    ),
    Check(
        "two stages have one name",
        "_name_faults",
        lambda _: parse({"kind": "prune", "ratio": 0.25}, {"kind": "prune", "ratio": 0.25}),
        guard="stage.name in taken",
        without="False",
    ),
    Check(
        "settings of a new model stand where none is made",
        "TrainConfig.faults_in_recipe",
        lambda _: parse({"kind": "train", "architecture": {"hidden_size": 96}}),
        guard="getattr(self, key) != ...",
        without="False",
    ),
]
