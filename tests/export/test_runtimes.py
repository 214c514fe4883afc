"""What other runtimes read of an export folder; benchmarks/other_runtimes.py runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.configs.export import ExportConfig
from roots_compress.export.exporter import export_checkpoint
from roots_compress.export.runtimes import genai_config, served_config
from roots_compress.families.registry import FAMILIES
from roots_compress.models.version1 import read_spec
from roots_compress.runtime.onnx.engine import OnnxEngine
from tests.export.quantized import tiny_quantized
from tests.export.test_graph import SWITCHES
from tests.families.sources import encoder, save_source
from tests.tiny import tiny_checkpoint, tiny_config, tiny_layer, tiny_model


@pytest.mark.parametrize(
    ("switches", "model_type"),
    [({}, "llama"), (SWITCHES["gpt2"], "gpt2"), (SWITCHES["qwen2"], "qwen2")],
    ids=["llama", "gpt2", "qwen2"],
)
def test_a_model_that_a_family_expresses_is_described_in_its_words(
    tmp_path: Path, switches: dict[str, Any], model_type: str
) -> None:
    config = tiny_config(
        **{**switches, "layers": [tiny_layer(num_attention_heads=4, num_key_value_heads=4)] * 2}
    )
    document, obstacles = served_config(config, torch.float32)
    (tmp_path / "config.json").write_text(json.dumps(document))
    read = AutoConfig.from_pretrained(tmp_path)
    assert (read.model_type, read.hidden_size, read.num_hidden_layers) == (model_type, config.hidden_size, 2)
    assert obstacles == ()
    assert read_spec(document["roots"]) == config.spec


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_an_encoder_is_described_in_its_own_familys_words(family: str, tmp_path: Path) -> None:
    changes = dict(FAMILIES[family].variants[0])
    theirs = encoder(family, changes)
    config = load_checkpoint(save_source(theirs, tmp_path)).model.config
    document, _obstacles = served_config(config, torch.float32)
    assert (document["model_type"], document["architectures"]) == (family, changes["architectures"])


def test_quantized_weights_do_not_show_in_the_familys_words() -> None:
    document, _obstacles = served_config(tiny_quantized("w8a8").config, torch.float32)
    assert document["model_type"] == "llama"
    assert "quantization" not in document
    assert document["roots"]["quantization"] is not None


@pytest.mark.parametrize(
    ("switches", "reason"),
    [
        ({"layers": [tiny_layer(), tiny_layer(num_key_value_heads=1)]}, "caches differ in shape"),
        ({"layers": [tiny_layer(), tiny_layer(intermediate_size=40)]}, "no family of transformers"),
        ({"layers": [tiny_layer(head_dim=16)] * 2}, "heads of 8, not 16"),
    ],
)
def test_what_optimum_would_refuse_is_said(switches: dict[str, Any], reason: str) -> None:
    _document, obstacles = served_config(tiny_config(**switches), torch.float32)
    assert len(obstacles) == 1
    assert reason in obstacles[0]


@pytest.mark.parametrize(("context", "slots"), [(128, 128), (8192, 8192), (1 << 20, 8192)])
def test_genai_is_not_told_to_allocate_a_cache_for_a_million_tokens(context: int, slots: int) -> None:
    written = genai_config(tiny_model(max_position_embeddings=context), shared_cache=True)
    assert written["search"]["max_length"] == slots
    assert written["model"]["context_length"] == context


def test_genai_is_told_names_widths_and_how_the_cache_is_kept() -> None:
    model = tiny_model(layers=[tiny_layer(num_key_value_heads=1, head_dim=16)])
    model.generation_config.eos_token_id = [1, 2]
    written = genai_config(model, shared_cache=True)
    decoder = written["model"]["decoder"]
    assert decoder["num_key_value_heads"] == 1
    assert decoder["head_size"] == 16
    assert decoder["session_options"] == {"provider_options": []}  # nothing that is of one processor
    assert decoder["inputs"]["past_key_names"] % 0 == "past_key_values.0.key"
    assert written["model"]["eos_token_id"] == [1, 2]
    assert written["search"]["past_present_share_buffer"] is True
    assert None not in written["model"].values()


@pytest.mark.parametrize("head_dim", [8, 16])
def test_an_export_carries_both_files_and_our_engine_reads_them(tmp_path: Path, head_dim: int) -> None:
    checkpoint = tiny_checkpoint(layers=[tiny_layer(head_dim=head_dim)])
    export_checkpoint(checkpoint, tmp_path / "out", ExportConfig())
    genai = json.loads((tmp_path / "out" / "genai_config.json").read_text())
    # Rotary heads of 8 are not what the fused operator takes.
    assert genai["search"]["past_present_share_buffer"] is (head_dim == 16)
    assert OnnxEngine.load(tmp_path / "out").vocab_size == checkpoint.model.config.vocab_size
    tokenizer = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
