"""The text model within a checkpoint that reads images too equals what the whole says of text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedModel

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.errors import InputError, SourceWarning
from tests.families.sources import save_source, source_config
from tests.tiny import tiny_tokens

CLASSES = {
    "gemma3": ("Gemma3ForConditionalGeneration", "gemma3_text"),
    "gemma4": ("Gemma4ForConditionalGeneration", "gemma4_text"),
    "llava": ("LlavaForConditionalGeneration", "llama"),
    "mistral3": ("Mistral3ForConditionalGeneration", "mistral"),
    "qwen3_5": ("Qwen3_5ForConditionalGeneration", "qwen3_5_text"),
    "qwen3_5_moe": ("Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe_text"),
    "ministral3": ("Mistral3ForConditionalGeneration", "ministral3"),
}
"""transformers' class, and the family of its text model."""
VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14, "head_dim": 8, "projection_dim": 16,
}  # fmt: skip


def whole(kind: str, **changes: Any) -> PreTrainedModel:
    """Return a tiny model of text and images, with random weights."""
    name, family = CLASSES[kind]
    outer = "mistral3" if name.startswith("Mistral3") else kind
    text = source_config(family).to_dict() | changes
    default = AutoConfig.for_model(outer).vision_config
    vision = AutoConfig.for_model(default.model_type if default else f"{outer}_vision", **VISION)
    config = AutoConfig.for_model(outer, text_config=text, vision_config=vision.to_dict(), image_token_id=3)
    torch.manual_seed(0)
    model: PreTrainedModel = getattr(transformers, name)(config).eval()
    return model


@pytest.mark.parametrize("kind", CLASSES)
def test_its_logits_are_those_of_the_whole(kind: str, tmp_path: Path) -> None:
    theirs = whole(kind)
    source = save_source(theirs, tmp_path / "source")
    with pytest.warns(SourceWarning, match="the text model alone is read, without .*(vision_tower|visual)"):
        ours = load_checkpoint(source)
    tokens = tiny_tokens(2, 24).clamp(min=4)
    with torch.no_grad():
        torch.testing.assert_close(ours.model(tokens).logits, theirs(tokens).logits, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore::roots_compress.errors.SourceWarning")
def test_new_names_and_a_short_text_config_are_understood(tmp_path: Path) -> None:
    """Published Gemma 3 leaves out what its class has by default."""
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
    source = save_source(whole("gemma3", **heads), tmp_path / "source")
    expected = load_checkpoint(source).model(tiny_tokens()).logits
    tensors = load_file(source / "model.safetensors")
    assert any(name.startswith("language_model.model.") for name in tensors), "as transformers writes them"
    new = {
        re.sub(r"^language_model\.model\.", "model.language_model.", name): each
        for name, each in tensors.items()
    }
    save_file(new, source / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    kept = (
        *("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"),
        "max_position_embeddings",
    )
    config["text_config"] = {key: config["text_config"][key] for key in kept}
    (source / "config.json").write_text(json.dumps(config))
    torch.testing.assert_close(load_checkpoint(source).model(tiny_tokens()).logits, expected)


@pytest.mark.filterwarnings("ignore::roots_compress.errors.SourceWarning")
def test_a_llava_is_tied_where_its_text_model_is(tmp_path: Path) -> None:
    theirs = whole("llava", tie_word_embeddings=True)
    source = save_source(theirs, tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert not any("lm_head" in name for name in load_file(source / "model.safetensors"))
    assert type(theirs).from_pretrained(source).config.tie_word_embeddings
    tokens = tiny_tokens(2, 24).clamp(min=4)
    with torch.no_grad():
        expected = theirs(tokens).logits
        torch.testing.assert_close(load_checkpoint(source).model(tokens).logits, expected, atol=1e-4, rtol=0)


def test_a_text_model_that_its_class_refuses_is_told(tmp_path: Path) -> None:
    source = save_source(whole("llava"), tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    for change, told in (
        ({"hidden_size": "wide"}, "text_config is none of"),
        ({"model_type": "mamba"}, "mamba"),
    ):
        changed = config | {"text_config": config["text_config"] | change}
        (source / "config.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=told):
            load_checkpoint(source)
