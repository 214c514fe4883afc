"""Generation and cached scoring through exported graphs equal the checkpoint's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from roots_compress.configs.export import ExportConfig
from roots_compress.export.exporter import export_checkpoint
from roots_compress.runtime.generate import generate
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.tasks.figures.perplexity import perplexity
from tests.evaluation.models import random_windows
from tests.tasks.cached import cached_perplexity
from tests.tiny import VOCAB_SIZE, tiny_checkpoint, tiny_layer, tiny_tokens

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "per_layer_widths": {"layers": [tiny_layer(), tiny_layer(num_attention_heads=2, num_key_value_heads=1)]},
    "learned_positions": {"position": "learned", "norm": "layer_norm", "mlp_bias": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_through_the_graph_equals_transformers(tmp_path: Path, variant: str) -> None:
    checkpoint = tiny_checkpoint(**VARIANTS[variant])
    export_checkpoint(checkpoint, tmp_path / "onnx", ExportConfig())
    engine = OnnxEngine.load(tmp_path, threads=1, provider="cpu")
    prompts = [tiny_tokens(1, length, seed=length)[0].tolist() for length in (9, 4, 1)]
    model: Any = checkpoint.model
    expected = [
        model.generate(
            torch.tensor([prompt]), max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=2
        )[0, len(prompt) :].tolist()
        for prompt in prompts
    ]
    ours = zip(*generate(engine, prompts, max_new_tokens=64), strict=True)
    assert [list(row) for row in ours] == expected


def test_the_graph_s_cache_pays_what_its_prefill_pays(tmp_path: Path) -> None:
    export_checkpoint(tiny_checkpoint(), tmp_path / "onnx", ExportConfig())
    engine = OnnxEngine.load(tmp_path, threads=1, provider="cpu")
    windows = random_windows(count=2, tokens=24, vocab_size=VOCAB_SIZE)
    assert cached_perplexity(engine, windows).nll_nats == pytest.approx(
        perplexity(engine, windows).nll_nats, rel=1e-5
    )
