"""The kinds of records there are, by name."""

from __future__ import annotations

from collections.abc import Sequence

from roots_compress.configs.data import DataConfig, RecordKind
from roots_compress.data.documents import SECOND
from roots_compress.data.sources import instructions, pairs, scores, tags
from roots_compress.data.sources.instructions import Instructions
from roots_compress.data.sources.labels import Labels
from roots_compress.data.sources.pairs import Pairs
from roots_compress.data.sources.plain import PlainTexts
from roots_compress.data.sources.records import Fields, Records
from roots_compress.data.sources.scores import Ratings, Scores
from roots_compress.data.sources.tags import TaggedWords
from roots_compress.errors import InputError, recipe_key

NAMES: dict[RecordKind, tuple[str, ...]] = {
    "text": (),
    "labels": (SECOND,),
    "tags": tuple(tags.KNOWN),
    "scores": tuple(scores.KNOWN),
    "ratings": tuple(scores.KNOWN),
    "pairs": tuple(pairs.KNOWN),
    "instructions": tuple(instructions.KNOWN),
}
"""The texts of each kind of record whose columns `data.fields` may name."""


def records_of(kind: RecordKind, config: DataConfig, labels: Sequence[str] = ()) -> Records:
    """Return how records of a kind are read.

    Args:
        kind: what each record holds.
        config: names the columns.
        labels: names of the labels, where texts or words have them.

    Raises:
        InputError: a column is named for a text that such records do not have.
    """
    given = {name: column for name, column in config.fields if column is not None}
    for name in given:
        if name not in NAMES[kind]:
            its_kind = next(other for other, names in NAMES.items() if name in names)
            raise InputError(
                f"has no effect: records are read as {kind}, and only {its_kind} have a {name}",
                where=recipe_key("data", "fields", name),
                remedy="Take it out, or use data with a model or a stage that reads such records.",
            )
    match kind:
        case "text":
            return PlainTexts(config.text_column)
        case "labels":
            return Labels(config.text_column, config.label_column, tuple(labels), given.get(SECOND))
        case "tags":
            return TaggedWords(Fields(given, tags.KNOWN), tuple(labels))
        case "scores":
            return Scores(Fields(given, scores.KNOWN))
        case "ratings":
            return Ratings(Fields(given, scores.KNOWN))
        case "pairs":
            return Pairs(Fields(given, pairs.KNOWN))
        case "instructions":
            return Instructions(Fields(given, instructions.KNOWN))
