"""The JSON schema of recipes, as editors use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from roots_compress.configs.recipe.json_schema import schema_text

RECIPES = Path(__file__).parents[2] / "recipes"
SCHEMA = Draft202012Validator(json.loads(schema_text()))


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(recipe: Path) -> None:
    SCHEMA.validate(yaml.safe_load(recipe.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "wrong", [{"nmae": "x"}, {"seed": "one"}, {"stages": [{"ratio": 0.25}]}, {"gates": {"max_bytes": -1}}]
)
def test_a_mistake_is_not(wrong: dict[str, Any]) -> None:
    good = {"name": "first", "model": "ckpt", "stages": [{"kind": "prune", "ratio": 0.25}]}
    assert SCHEMA.is_valid(good)
    assert not SCHEMA.is_valid({**good, **wrong})


def test_the_schema_is_one_and_describes_the_keys() -> None:
    schema = json.loads(schema_text())
    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["seed"]["description"]
