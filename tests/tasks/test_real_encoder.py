"""all-MiniLM-L6-v2 through the recipe that comes along: a real sentence encoder, trained by others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roots_compress.configs.recipe.loading import load_recipe
from roots_compress.configs.recipe.yaml import read_yaml
from roots_compress.events import Events
from roots_compress.pipeline.preflight import prepare
from roots_compress.pipeline.runner import run_recipe

pytestmark = [pytest.mark.real_model, pytest.mark.slow]
RECIPE = Path(__file__).parents[2] / "recipes" / "minilm.yaml"


@pytest.fixture
def source() -> Path:
    path = os.environ.get("ROOTS_MINILM")
    if not path:
        pytest.skip("ROOTS_MINILM does not name the encoder's folder")
    return Path(path)


def test_the_recipe_keeps_its_gates(source: Path, tmp_path: Path) -> None:
    recipe = load_recipe(read_yaml(RECIPE), model=source)
    metrics = run_recipe(prepare(recipe, tmp_path), tmp_path, events=Events())
    assert {gate.gate for gate in metrics.gates} == {"min_cosine", "min_size_ratio"}
    assert all(gate.passed for gate in metrics.gates)
    assert metrics.stages[-1].metrics.bytes < 25e6
