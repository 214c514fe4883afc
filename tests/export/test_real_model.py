"""SmolLM2-135M through the exporter: the one model of this suite that was trained by others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint
from roots_compress.configs.export import ExportConfig
from roots_compress.export.exporter import DATA_NAME, ExportReport, export_checkpoint
from roots_compress.runtime.generate import generate
from roots_compress.runtime.onnx.engine import OnnxEngine

pytestmark = [pytest.mark.real_model, pytest.mark.slow]
NEW_TOKENS = 64


@pytest.fixture(scope="module")
def source() -> Path:
    path = os.environ.get("ROOTS_SMOLLM2")
    if not path:
        pytest.skip("ROOTS_SMOLLM2 does not name the GGUF file")
    return Path(path)


@pytest.fixture(scope="module")
def exported(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, ExportReport]:
    checkpoint = load_checkpoint(source)
    folder = tmp_path_factory.mktemp("smollm2") / "onnx"
    return checkpoint, export_checkpoint(checkpoint, folder, ExportConfig())


def test_smollm2_exports_with_equal_logits_and_its_tied_table_once(
    exported: tuple[Checkpoint, ExportReport],
) -> None:
    checkpoint, report = exported
    assert report.largest_difference < 1e-4
    weights = sum(parameter.nbytes for parameter in checkpoint.model.parameters())
    assert weights <= report.graph_bytes < weights + 1_000_000
    assert (report.directory / DATA_NAME).stat().st_size > 0.99 * weights


def test_the_graph_generates_the_tokens_that_transformers_does(
    source: Path, exported: tuple[Checkpoint, ExportReport]
) -> None:
    checkpoint, report = exported
    prompts = [
        checkpoint.tokenizer.encode(text)
        for text in (
            "Once upon a time, in a village by the sea,",
            "def fibonacci(n):\n",
            "The capital of France",
        )
    ]
    engine = OnnxEngine.load(report.directory, provider="cpu")
    written = [list(step) for step in generate(engine, prompts, max_new_tokens=NEW_TOKENS)]
    model: Any = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32, local_files_only=True
    )
    model.generation_config.eos_token_id = None  # Neither side is to stop early.
    for row, prompt in enumerate(prompts):
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False)
        assert [step[row] for step in written] == expected[0, len(prompt) :].tolist(), prompt
