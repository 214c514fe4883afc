"""A recipe written as YAML loads as the same recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from roots_compress.configs.recipe.loading import load_recipe
from roots_compress.configs.recipe.writing import recipe_yaml
from roots_compress.configs.recipe.yaml import read_yaml

RICH = """\
name: rich
model: m
seed: 12
data:
  train: ["a b.txt", "on", "1e3"]
  text_column: "1e3"
  label_column: "-1.E5"
  fields: {source: "0o17", target: "0x1F", words: "08", tags: "-.5", first: "~", second: "1_0", score: "1:20"}
evaluation: {contexts: [16, 32], threads: 2}
stages:
  - kind: distill
    student: medium
    loss: {top_k: 8, cache: caches/one}
    training: {learning_rate: 1e-5, steps: 3}
  - kind: prune
    target: {parameters: 0.5}
    recovery: {}
    calibration: {windows: 8}
  - kind: prune
    name: again
    recovery: {training: {learning_rate: 0.001}}
  - {kind: quantize, name: "no", fold: false}
gates: {max_bytes: 12345678, max_perplexity_ratio: 1.0}
"""


@pytest.mark.parametrize("text", [RICH, "name: bare\nmodel: m\n"])
def test_what_is_written_is_read_back(text: str, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(read_yaml(tmp_path / "one.yaml"))
    written = recipe_yaml(recipe, "Found by a search\nof \x1b[2J two lines")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "two.yaml").write_text(written, encoding="utf-8")
    assert load_recipe(read_yaml(elsewhere / "two.yaml")) == recipe
    assert written.startswith("# Found by a search\n# of ")
    assert "\x1b" not in written


def test_defaults_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(RICH, encoding="utf-8")
    written = recipe_yaml(load_recipe(read_yaml(tmp_path / "one.yaml")), "")
    assert "multiple_of" not in written
    assert "null" not in written
    assert "export" not in written
