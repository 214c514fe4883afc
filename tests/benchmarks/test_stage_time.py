"""The benchmark of a stage's parts does what the stage does."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.stage_time import Parts, time_quantize
from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.events import Events
from roots_compress.stages.base import StageContext
from roots_compress.stages.quantize.stage import quantize
from tests.tiny import TEXT, tiny_checkpoint


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_the_same_sites_get_the_same_formats(scheme: str, tmp_path: Path) -> None:
    settings = {
        "scheme": scheme,
        "group_size": 16,
        "own_windows": 2,
        "calibration": CalibrationConfig(windows=8, block_size=32),
        **({"products": "integer", "activation_loss": 3e-4} if scheme == "int8" else {}),
    }
    config = QuantizeConfig.model_validate(settings)
    text = TextSplit((Document.plain(TEXT * 8),), (), "a few lines")
    context = StageContext(text, "cpu", 0, tmp_path, Events())
    outcome = quantize(config, tiny_checkpoint(), context)
    quantization = outcome.checkpoint.model.config.quantization
    assert quantization is not None
    assert 0 < len(outcome.notes["spared_sites"]) < 8  # type: ignore[arg-type]
    rounded = time_quantize(config, tiny_checkpoint(), text, Parts())
    assert dict(sorted(rounded.formats.items())) == quantization["formats"]
