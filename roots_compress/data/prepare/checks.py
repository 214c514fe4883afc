"""Errors of a corpus: its sources changed, or nothing of them is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from roots_compress.configs.prepare import LengthConfig
from roots_compress.data.prepare.datasheet import reasons, removed
from roots_compress.data.prepare.files import Files
from roots_compress.errors import InputError, Text, recipe_key
from roots_compress.results import Json

LONGEST_WORD = 20
"""Bytes: a text of which the words are longer on average has few spaces."""


def check_unchanged(files: Files, key: dict[str, Json]) -> None:
    """Refuse sources that changed while they were read."""
    if {each.name: files.described(each) for each in files.all} != key["files"]:
        raise InputError(
            "a source changed while it was read",
            where=recipe_key("sources"),
            remedy="Give the same command again when its files stay as they are.",
        )


def refuse_empty(documents: int, counts: Sequence[Counter[str]], length: LengthConfig) -> None:
    """Refuse sources of which no document is left; say what removed them."""
    if documents:
        return
    whole = sum(counts, Counter[str]())
    found = removed(whole)
    remedy: str = "Loosen these bounds, or name other sources." if found else "Name sources that hold text."
    mean_bytes = whole["bytes read"] / max(whole["read"], 1)
    if "length.max_word_characters" in found or (
        "length.min_words" in found and mean_bytes > LONGEST_WORD * length.min_words
    ):
        remedy = Text(
            "Words are counted by the spaces between them, and these texts have few. "
            "For Chinese, Japanese or Thai set ",
            recipe_key("length", "min_words"),
            " to 1 and ",
            recipe_key("length", "max_word_characters"),
            " to 1000000.",
        )
    raise InputError(
        f"no document is left of {whole['read']:,}" + (f"; removed: {reasons(found)}" if found else ""),
        where=recipe_key("sources"),
        remedy=remedy,
    )
