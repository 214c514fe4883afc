"""The pages that are made from the code say what it says."""

from __future__ import annotations

import re
from pathlib import Path

from docs.generate import (
    COMMANDS,
    CORPUS,
    EVENT_SCHEMA,
    EVENTS,
    RECIPE_SCHEMA,
    RECIPES,
    commands_page,
    corpus_page,
    event_schema_text,
    events_page,
    recipes_page,
)
from roots_compress.configs.recipe.json_schema import schema_text
from roots_compress.configs.recipe.loading import load_recipe
from roots_compress.configs.recipe.yaml import read_yaml


def test_the_pages_are_up_to_date() -> None:
    assert RECIPES.read_text(encoding="utf-8") == recipes_page(), "run: make docs"
    assert COMMANDS.read_text(encoding="utf-8") == commands_page(), "run: make docs"
    assert CORPUS.read_text(encoding="utf-8") == corpus_page(), "run: make docs"
    assert EVENTS.read_text(encoding="utf-8") == events_page(), "run: make docs"
    assert RECIPE_SCHEMA.read_text(encoding="utf-8") == schema_text(), "run: make docs"
    assert EVENT_SCHEMA.read_text(encoding="utf-8") == event_schema_text(), "run: make docs"


def test_every_option_of_a_verb_is_listed() -> None:
    page = commands_page()
    for option in ("--teacher", "--ratio", "--int8", "--eval-data", "--max-new-tokens", "--fresh"):
        assert f"`{option}" in page


def test_the_documents_example_is_a_recipe(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", RECIPES.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    (tmp_path / "r.yaml").write_text(example[1])
    assert [stage.kind for stage in load_recipe(read_yaml(tmp_path / "r.yaml")).stages] == [
        "prune",
        "quantize",
    ]


def test_what_fields_of_events_mean_is_said_in_page_and_schema() -> None:
    """Fields are documented by the strings under them; see `descriptions`."""
    said = "As it is typed: `run`, `data prepare`."
    assert f"| `verb` | text | {said} |" in events_page()
    assert f'"description": "{said}"' in event_schema_text()
    told = [line.rsplit("|", 2)[1].strip() for line in events_page().splitlines() if line.startswith("| `")]
    assert sum(map(bool, told)) > len(told) / 3
