from __future__ import annotations

import re
from pathlib import Path

import pytest

from roots_compress.configs.recipe.loading import load_recipe
from roots_compress.configs.recipe.reference import MARKER, reference, rewrite
from roots_compress.configs.recipe.yaml import read_yaml

DOCUMENT = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_the_document_is_up_to_date() -> None:
    _, _, generated = DOCUMENT.read_text(encoding="utf-8").partition(MARKER)
    assert generated.strip() == reference().strip(), (
        "run: python -m roots_compress.configs.recipe.reference docs/recipes.md"
    )


def test_the_documents_example_is_a_recipe(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    (tmp_path / "r.yaml").write_text(example[1])
    assert [stage.kind for stage in load_recipe(read_yaml(tmp_path / "r.yaml")).stages] == [
        "prune",
        "quantize",
    ]


def test_rewriting_keeps_the_head(tmp_path: Path) -> None:
    path = tmp_path / "recipes.md"
    path.write_text(f"# Head\n\n{MARKER}\nold\n")
    rewrite(path)
    assert path.read_text() == f"# Head\n\n{MARKER}\n\n{reference()}"


def test_a_document_without_the_marker_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Other\n")
    with pytest.raises(ValueError, match="no marker"):
        rewrite(tmp_path / "other.md")
    assert (tmp_path / "other.md").read_text() == "# Other\n"
