"""Experts in MXFP4 are read as transformers dequantizes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.errors import InputError
from tests.families.sources import save_source, source_model
from tests.families.test_families import assert_same_logits

EXPERTS = ("gate_up_proj", "down_proj")


def packed(folder: Path) -> Any:
    """Save a tiny gpt-oss whose experts are in MXFP4; return transformers' model of what they stand for."""
    theirs: Any = source_model("gpt_oss", intermediate_size=64)
    save_source(theirs, folder)
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for index, layer in enumerate(theirs.model.layers):
        for name in EXPERTS:
            stem = f"model.layers.{index}.mlp.experts.{name}"
            experts, width, rows = tensors.pop(stem).shape
            blocks = torch.randint(0, 256, (experts, rows, width // 32, 16), generator=generator)
            scales = torch.randint(119, 126, (experts, rows, width // 32), generator=generator)
            tensors[f"{stem}_blocks"], tensors[f"{stem}_scales"] = blocks.byte(), scales.byte()
            plain = convert_moe_packed_tensors(blocks.byte(), scales.byte(), dtype=torch.float32)
            getattr(layer.mlp.experts, name).data.copy_(plain)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(config))
    return theirs


def test_experts_are_dequantized(tmp_path: Path) -> None:
    theirs = packed(tmp_path)
    assert_same_logits(theirs, load_checkpoint(tmp_path))
    assert inspect_source(tmp_path).parameters == theirs.num_parameters()


def test_halves_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    packed(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.mlp.experts.down_proj_scales"
    save_file(tensors | {name: tensors[name][:, :-1].contiguous()}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"down_proj_blocks and .*down_proj_scales are not the halves"):
        load_checkpoint(tmp_path)
