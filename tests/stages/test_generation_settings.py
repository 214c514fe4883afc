"""Every stage's checkpoint ends a text where the model that it was made from ends one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from roots_compress.checkpoints.generation_settings import folder_stop_ids
from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.prune import PruneConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.events import Events
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.stages.distill.stage import distill
from roots_compress.stages.distill.student import make_student
from roots_compress.stages.prune.stage import prune
from roots_compress.stages.quantize.stage import quantize
from tests.chains import CALIBRATION, TRAINING
from tests.tiny import TEXT, tiny_checkpoint, tiny_layer

STOP_IDS = (1, 7, 9)
STAGES: dict[str, tuple[Callable[..., StageOutcome], Any, dict[str, Any]]] = {
    "distill": (distill, DistillConfig, {"student": "small", "training": TRAINING}),
    "prune": (
        prune,
        PruneConfig,
        {"ratio": 0.25, "layer_ratio": 0.5, "residual_ratio": 0.25, "multiple_of": 8, "own_windows": 0},
    ),
    "int8": (quantize, QuantizeConfig, {"products": "float", "group_size": 16, "own_windows": 0}),
    "int4": (quantize, QuantizeConfig, {"scheme": "int4", "group_size": 16, "own_windows": 0}),
    "fp16": (quantize, QuantizeConfig, {"scheme": "fp16"}),
}


@pytest.fixture
def source(tmp_path: Path) -> Checkpoint:
    """A model whose generation_config.json names more stop ids than its config.json."""
    folder = tmp_path / "source"
    save_checkpoint(tiny_checkpoint(), folder)
    path = folder / "generation_config.json"
    settings = {**json.loads(path.read_text()), "eos_token_id": list(STOP_IDS), "repetition_penalty": 1.3}
    path.write_text(json.dumps(settings))
    return load_checkpoint(folder)


@pytest.mark.parametrize("name", STAGES)
def test_a_checkpoint_stops_where_its_source_stops(name: str, source: Checkpoint, tmp_path: Path) -> None:
    carry_out, settings, given = STAGES[name]
    config = settings.model_validate(given if name == "distill" else {"calibration": CALIBRATION, **given})
    text = TextSplit((Document.plain(TEXT * 30),), (), "a few lines")
    (tmp_path / "work").mkdir()
    context = StageContext(text, "cpu", 0, tmp_path / "work", Events())
    made = carry_out(config, source, context).checkpoint
    save_checkpoint(made, tmp_path / "made")
    vocab_size = made.model.config.vocab_size
    assert folder_stop_ids(tmp_path / "made", made.tokenizer, vocab_size) == STOP_IDS
    assert made.model.generation_config.repetition_penalty == 1.3


@pytest.mark.parametrize("own", [{}, {"eos_token_id": 5}])
def test_a_students_own_config_file_decides_where_it_names_an_id(
    own: dict[str, int], source: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "student.json"
    path.write_text(json.dumps({"hidden_size": 24, "layers": [tiny_layer()], **own}))
    settings = make_student(str(path), source, seed=0).model.generation_config
    assert settings.eos_token_id == own.get("eos_token_id", list(STOP_IDS))
