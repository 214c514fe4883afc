"""SmolLM2-135M with block attention in a longer context: with all blocks it is the dense model."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.configs.data import CalibrationConfig, DataConfig
from roots_compress.configs.sparsify import SparsifyConfig
from roots_compress.data.corpora import load_text
from roots_compress.events import Events
from roots_compress.export.exporter import write_graph
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.stages.base import StageContext
from roots_compress.stages.sparsify.stage import sparsify

pytestmark = [pytest.mark.real_model, pytest.mark.slow]
PROMPT, TOKENS = 1000, 1016


def test_smollm2_with_all_blocks_is_the_dense_model_in_torch_and_in_the_graph(tmp_path: Path) -> None:
    path = os.environ.get("ROOTS_SMOLLM2")
    if not path:
        pytest.skip("ROOTS_SMOLLM2 does not name the GGUF file")
    dense = load_checkpoint(Path(path))
    text = load_text(DataConfig(), seed=0)
    config = SparsifyConfig(
        size=64,
        blocks=16,
        max_positions=16384,
        calibration=CalibrationConfig(windows=1, block_size=1536),
    )
    outcome = sparsify(config, dense, StageContext(text, "cpu", 0, tmp_path, Events()))
    sparse = outcome.checkpoint.model
    assert sparse.config.max_position_embeddings == 16384

    ids = dense.tokenizer(text.train[0].text + text.train[1].text, return_tensors="pt")["input_ids"][
        :, :TOKENS
    ]
    with torch.no_grad():
        expected = dense.model(ids).logits[0].numpy()
        actual = sparse(ids).logits[0].numpy()
    scale = np.abs(expected).max()
    assert np.abs(actual - expected).max() < 1e-4 * scale
    graph, _obstacles = write_graph(sparse, tmp_path)
    engine = OnnxEngine.open(graph, threads=1, provider="cpu")
    step = engine.prefill(ids[:, :PROMPT].numpy())
    for position in range(PROMPT, TOKENS):
        assert np.abs(step.logits[0] - expected[position - 1]).max() < 1e-4 * scale
        step = engine.decode(ids[:, position].numpy(), step.cache)
