"""Files of weights that are not read: each verb that loads their folder says so, once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from roots_compress.checkpoints.checkpoint import save_checkpoint
from roots_compress.cli.app import app
from tests.chains import EVALUATION, TRAINING
from tests.tiny import TEXT, tiny_checkpoint, tiny_layer


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose folder holds a second file of weights."""
    folder = tmp_path_factory.mktemp("source") / "model"
    save_checkpoint(tiny_checkpoint(layers=[tiny_layer()] * 2), folder)
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    (folder.parent / "text.txt").write_text(TEXT * 40)
    return folder


def recipe(source: Path, folder: Path, *stages: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    settings = {
        "name": "tiny",
        "model": str(source),
        "data": {"train": [str(source.parent / "text.txt")], "eval_fraction": 0.25},
        "evaluation": EVALUATION,
        "stages": list(stages),
    }
    path.write_text(json.dumps(settings))  # JSON is YAML.
    return path


@pytest.mark.parametrize("verb", ["import", "export", "eval", "run", "distill"])
def test_a_verb_says_once_what_it_does_not_read(verb: str, source: Path, tmp_path: Path) -> None:
    text = str(source.parent / "text.txt")
    student: dict[str, Any] = {"kind": "distill", "student": str(source), "training": TRAINING}
    arguments = {
        "import": ["import", str(source), "--out", str(tmp_path / "out")],
        "export": ["export", str(source), "--out", str(tmp_path / "out")],
        "eval": ["eval", str(source), "--eval-data", text, "--block-size", "32", "--windows", "2"],
        "run": ["run", str(recipe(source, tmp_path)), "--run", str(tmp_path / "run")],
        "distill": ["run", str(recipe(source, tmp_path, student)), "--run", str(tmp_path / "run")],
    }[verb]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    said = f"{source}: not read, as transformers does not read them: other.safetensors"
    assert result.stderr.count(said) == 1
    assert said not in result.stdout
