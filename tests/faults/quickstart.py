"""The quickstart with all its stages in less time: fewer steps, windows, timings and documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from roots_compress.configs.recipe.loading import load_recipe
from roots_compress.configs.recipe.yaml import read_yaml
from roots_compress.data.builtin import builtin_documents

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
SHORTENED = {"steps": 2, "windows": 4, "own_windows": 2, "repeats": 2}
"""Settings that are scaled, and the least that each stage can do with."""

TEXT_SHARE = 0.2
"""Of the built-in corpus; its held-out part must fill the windows."""


def write_quickstart(path: Path, *, scale: float) -> None:
    """Write the quickstart's recipe, its work times `scale` where that is below 1.

    A shortened one computes on one thread, saves training states ten times in each training, so that kills
    find some to go on from, and reads a part of the built-in corpus from a file beside the recipe, which is
    sooner done than gathering it.
    """
    document = load_recipe(read_yaml(QUICKSTART)).model_dump(mode="json")
    if scale < 1:
        _shorten(document, scale)
        document["evaluation"]["threads"] = 1
        documents = builtin_documents()
        text = path.with_name("text.jsonl")
        lines = [json.dumps({"text": each.text}) for each in documents[: round(len(documents) * TEXT_SHARE)]]
        text.write_text("\n".join(lines), encoding="utf-8")
        document["data"]["train"] = [str(text)]
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")


def _shorten(settings: Any, scale: float) -> None:
    if isinstance(settings, list):
        for item in settings:
            _shorten(item, scale)
    elif isinstance(settings, dict):
        for key, least in SHORTENED.items():
            if key in settings:
                settings[key] = max(least, round(settings[key] * scale))
        if "checkpoint_every" in settings:
            settings["checkpoint_every"] = max(1, settings["steps"] // 10)
        for item in settings.values():
            _shorten(item, scale)
