"""A teacher that tuning cannot learn from is refused before anything is trained, by the key that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from roots_compress.checkpoints.checkpoint import Checkpoint, save_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.configs.tune import TuneConfig
from roots_compress.errors import InputError
from roots_compress.stages.base import ModelInfo
from roots_compress.stages.tune.protocol import TuneStage
from tests.encoders import encoder_tokenizer, tiny_encoder
from tests.tiny import tiny_checkpoint


def test_a_teacher_is_checked_against_the_model(tmp_path: Path) -> None:
    save_checkpoint(tiny_checkpoint(), tmp_path / "model")
    save_checkpoint(tiny_checkpoint(seed=1), tmp_path / "teacher")
    save_checkpoint(tiny_checkpoint(max_position_embeddings=8), tmp_path / "short")
    save_checkpoint(Checkpoint(tiny_encoder(), encoder_tokenizer()), tmp_path / "encoder")
    info = ModelInfo.of(inspect_source(tmp_path / "model"))

    def check(name: str) -> ModelInfo:
        config = TuneConfig.model_validate({"teacher": str(tmp_path / name), "training": {"block_size": 16}})
        return TuneStage().check(config, info)

    assert check("teacher").spec == info.spec
    for name, said in (
        ("short", "reads 8 tokens, and the training's windows have 16"),
        ("encoder", "head is of the kind 'lm', the teacher's 'masked_lm'"),
        ("nothing", "nothing"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            check(name)
        assert "teacher" in str(caught.value.where)
        assert str(tmp_path / name) in str(caught.value.message)
