"""What a checkpoint's files say of its widths is what the model has once it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roots_compress.checkpoints.checkpoint import save_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.outline import WIDTHS, Outline, outline_of
from roots_compress.families.families import FAMILIES
from tests.families.gguf_files import gguf_model, write_gguf
from tests.families.sources import save_source, source_model
from tests.tiny import tiny_checkpoint, tiny_layer

LAYER = dict(zip(WIDTHS, (4, 2, 48), strict=True))


def test_layers_of_a_roots_checkpoint_may_differ(tmp_path: Path) -> None:
    narrow = tiny_layer(num_attention_heads=2, num_key_value_heads=1, intermediate_size=16)
    save_checkpoint(tiny_checkpoint(layers=[tiny_layer(), narrow]), tmp_path / "c")
    expected = Outline([LAYER, dict(zip(WIDTHS, (2, 1, 16), strict=True))], 32)
    assert outline_of(inspect_source(tmp_path / "c")) == expected


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_tells_its_widths(family: str, tmp_path: Path) -> None:
    expected = {**LAYER, **({"num_key_value_heads": 4, "intermediate_size": 128} if family == "gpt2" else {})}
    source = inspect_source(save_source(source_model(family), tmp_path))
    assert outline_of(source) == Outline([expected] * 2, 32)


def test_a_gguf_file_tells_its_widths(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", gguf_model("llama"))
    assert outline_of(inspect_source(path)) == Outline([LAYER] * 2, 32)


@pytest.mark.parametrize("wrong", [None, "48", 0, True, [48]])
def test_what_cannot_be_a_width_is_left_to_the_loading(tmp_path: Path, wrong: object) -> None:
    save_checkpoint(tiny_checkpoint(), tmp_path / "c")
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    config["layers"][1]["intermediate_size"] = wrong
    (tmp_path / "c" / "config.json").write_text(json.dumps(config))
    assert outline_of(inspect_source(tmp_path / "c")) is None
