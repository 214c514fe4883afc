"""From a file and options to the settings of a corpus."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from roots_compress.configs.prepare import PrepareConfig
from roots_compress.configs.recipe.loading import naming_lines, parse_settings, refuse_missing
from roots_compress.configs.recipe.yaml import Document, read_yaml
from roots_compress.errors import InputError, recipe_key

REMEDY = "docs/reference/corpus.md describes every key."


def load_corpus(recipe: Path | None, given: dict[str, Any]) -> PrepareConfig:
    """Return the settings of a corpus. Relative paths in a file start from its folder.

    Args:
        given: settings of the command line; none of them may also be in the file.

    Raises:
        InputError: there are none, or a path that they name does not exist.
    """
    document = None if recipe is None else read_yaml(recipe)
    if document is None:
        config = parse_settings(PrepareConfig, given, None, remedy=REMEDY)
    else:
        config = parse_settings(PrepareConfig, _joined(document, given), document, remedy=REMEDY)
        config = config.from_folder(document.source.absolute().parent)
    with naming_lines(document) if document else nullcontext():
        for index, source in enumerate(config.sources):
            refuse_missing(source.path, recipe_key("sources", index, "path"))
        for path in config.decontamination.held_out:
            refuse_missing(path, recipe_key("decontamination", "held_out"))
    return config


def _joined(document: Document, given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a file with those of the command line.

    Raises:
        InputError: the file has no settings, or one is given twice.
    """
    if not isinstance(document.value, dict):
        raise InputError(
            "the settings of a corpus are a group of keys ('sources: ...')",
            where=document.place(()),
            remedy=REMEDY,
        )
    joined: dict[str, Any] = dict(document.value)
    for key, value in given.items():
        old = joined.get(key)
        if not isinstance(old, dict) or not isinstance(value, dict):
            twice = key in joined
        else:
            twice = bool(old.keys() & value.keys())
        if twice:
            raise InputError(
                "is set in the file, and on the command line",
                where=document.place((key,)),
                remedy="Give every setting once.",
            )
        joined[key] = {**old, **value} if isinstance(old, dict) else value
    return joined
