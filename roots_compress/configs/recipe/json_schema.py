"""The JSON schema of recipes, by which editors complete and check them."""

from __future__ import annotations

import json
from typing import Any

from roots_compress.configs.recipe.schema import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of recipes: keys, types and bounds; not the rules between keys."""
    schema = Recipe.model_json_schema()
    for group in schema["$defs"].values():
        # `kind` identifies a stage, so it is required although the field has a default.
        if kinds := [key for key, field in group["properties"].items() if key == "kind" and "const" in field]:
            group["required"] = sorted({*group.get("required", []), *kinds})
    return {"$schema": DIALECT, **schema, "title": "A recipe of roots-compress"}


def schema_text() -> str:
    """Return the schema as the file `docs/reference/recipe.schema.json` holds it."""
    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"
