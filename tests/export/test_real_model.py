"""SmolLM2-135M through the exporter: the one model of this suite that was trained by others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roots_compress.export.config import ExportConfig
from roots_compress.export.exporter import DATA_NAME, export_checkpoint
from roots_compress.model.checkpoint import load_checkpoint


@pytest.mark.real_model
@pytest.mark.slow
def test_smollm2_exports_with_equal_logits_and_its_tied_table_once(tmp_path: Path) -> None:
    path = os.environ.get("ROOTS_SMOLLM2")
    if not path:
        pytest.skip("ROOTS_SMOLLM2 does not name the GGUF file")
    checkpoint = load_checkpoint(Path(path))
    report = export_checkpoint(checkpoint, tmp_path / "onnx", ExportConfig())
    assert report.largest_difference < 1e-4
    weights = sum(parameter.nbytes for parameter in checkpoint.model.parameters())
    assert weights <= report.graph_bytes < weights + 1_000_000
    assert (tmp_path / "onnx" / DATA_NAME).stat().st_size > 0.99 * weights
