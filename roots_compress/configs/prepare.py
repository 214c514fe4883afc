"""Settings of `data prepare`: the sources of a corpus, the filters, and the output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, Strict, model_validator

from roots_compress.configs.base import (
    PathListSetting,
    PathSetting,
    PositiveFloat,
    PositiveInt,
    Settings,
    StageName,
    faults_at,
)
from roots_compress.configs.options import Option
from roots_compress.errors import Location, printable

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]


class SourceConfig(Settings):
    """One source: files of one origin."""

    path: PathSetting
    """A file, or a folder that is searched for data files."""
    name: StageName | None = None
    """Its name in the datasheet and in the column `source`. Default: the name of its path."""
    priority: int = 0
    """A text in two sources is kept in the one of higher priority; at equal priority, in the first one
    named."""
    weight: PositiveFloat | None = None
    """Its share in the mixture, by bytes of text and relative to the other weights."""


class LengthConfig(Settings):
    """Bounds on a document's length (Rae et al. 2021, Gopher, table A1)."""

    min_words: Count = 50
    """Documents of fewer words are removed."""
    max_words: PositiveInt = 100_000
    """Documents of more words are removed."""
    max_characters: Annotated[int, Field(ge=1, le=1 << 28)] = 2_000_000
    """Documents of more characters are removed, unread by the other filters: this bounds the memory."""
    min_word_characters: Annotated[float, Field(ge=0.0)] = 3.0
    """Documents whose words have fewer characters on average are removed."""
    max_word_characters: PositiveFloat = 10.0
    """Documents whose words have more characters on average are removed."""


class SymbolsConfig(Settings):
    """Bounds on symbols and other non-prose in a document (Rae et al. 2021, Gopher, table A1)."""

    recipe_only: ClassVar[str] = "max_bullet_lines max_ellipsis_lines"
    max_symbols: Annotated[float, Field(ge=0.0), Option("--max-symbols")] = 0.1
    """Most hash signs, or ellipses, per word."""
    max_bullet_lines: Share = 0.9
    """Largest share of lines that begin with a bullet."""
    max_ellipsis_lines: Share = 0.3
    """Largest share of lines that end with an ellipsis."""
    min_alphabetic_words: Share = 0.8
    """Smallest share of words that contain a letter."""
    min_stop_words: Count = 0
    """Smallest number of the English words the, be, to, of, and, that, have, with. Gopher requires 2."""


class RepetitionConfig(Settings):
    """Bounds on repetition in a document (Rae et al. 2021, Gopher, table A1). 1 is no bound."""

    recipe_only: ClassVar[str] = (
        "max_lines max_paragraphs max_line_characters max_paragraph_characters max_top_ngrams max_ngrams"
    )
    max_lines: Share = 0.3
    """Largest share of lines that occur earlier in the document."""
    max_paragraphs: Share = 0.3
    """Largest share of paragraphs that occur earlier in the document."""
    max_line_characters: Share = 0.2
    """Largest share of characters in such lines."""
    max_paragraph_characters: Share = 0.2
    """Largest share of characters in such paragraphs."""
    max_top_ngrams: Annotated[tuple[Share, ...], Field(min_length=3, max_length=3), Strict(False)] = (
        0.2,
        0.18,
        0.16,
    )
    """Largest share of characters in the most frequent run of 2, 3 and 4 words."""
    max_ngrams: Annotated[tuple[Share, ...], Field(min_length=6, max_length=6), Strict(False)] = (
        0.15,
        0.14,
        0.13,
        0.12,
        0.11,
        0.1,
    )
    """Largest share of characters in runs of 5, 6, ... 10 words that occur earlier in the document."""


class LanguageConfig(Settings):
    """Languages to keep, identified by py3langid (`pip install py3langid`: 5 MB, needs only numpy)."""

    keep: Annotated[tuple[str, ...], Strict(False), Option("--language")] = ()
    """Languages to keep by their ISO 639-1 codes, such as en. Without any, languages are not identified."""
    min_probability: Annotated[Share, Option("--min-language-probability")] = 0.5
    """Smallest probability that a document is in one of them."""


class DuplicatesConfig(Settings):
    """Removal of repeated documents, over all sources. The document that is read first is kept."""

    exact: Annotated[bool, Option("--exact-duplicates")] = True
    """Remove documents with the same words as another; the space between words does not count."""
    near: Annotated[bool, Option("--near-duplicates")] = True
    """Remove documents that share most n-grams of words with another, by MinHash (Broder 1997)."""
    threshold: Annotated[float, Field(gt=0.0, le=1.0), Option("--near-threshold")] = 0.8
    """Smallest Jaccard similarity (share of n-grams in common, estimated) of near duplicates."""
    ngram: Annotated[int, Field(ge=1, le=64), Option("--near-ngram")] = 5
    """Words in an n-gram."""
    hashes: Annotated[int, Field(ge=16, le=1024), Option("--near-hashes")] = 128
    """MinHash values per document: the estimate's error falls with their square root."""


class DecontaminationConfig(Settings):
    """Removal of documents that contain parts of held-out texts."""

    held_out: Annotated[PathListSetting, Option("--held-out")] = ()
    """Files and folders of held-out text."""
    ngram: Annotated[int, Field(ge=1, le=64), Option("--held-out-ngram")] = 13
    """A document that shares this many consecutive words with a held-out text is removed (Brown et al. 2020,
    GPT-3)."""


class PrepareConfig(Settings):
    """A corpus made of sources: filtered, without duplicates, mixed, shuffled and in shards."""

    recipe_only: ClassVar[str] = "sources"
    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1), Strict(False)]
    """The sources of the corpus."""
    text_column: str = "text"
    """The column or key that holds the text in CSV, JSON, Parquet and Arrow files."""
    normalise: bool = True
    """Bring texts into Unicode's normalisation form C."""
    length: LengthConfig = LengthConfig()
    """Bounds on a document's length."""
    symbols: SymbolsConfig = SymbolsConfig()
    """Bounds on symbols and other non-prose in a document."""
    repetition: RepetitionConfig = RepetitionConfig()
    """Bounds on repetition in a document."""
    language: LanguageConfig = LanguageConfig()
    """Languages to keep."""
    duplicates: DuplicatesConfig = DuplicatesConfig()
    """Removal of repeated documents."""
    decontamination: DecontaminationConfig = DecontaminationConfig()
    """Removal of held-out text."""
    max_repeats: Annotated[float, Field(ge=1.0, le=100.0)] = 1.0
    """How often a document of a source may be in the mixture. At 1 none is repeated, and sources with a small
    weight are sampled."""
    shuffle: bool = True
    """Write documents in random order, from the seed; otherwise in the order in which they are read."""
    seed: Count = 0
    """Seed of the sampling and of the order."""
    format: Literal["parquet", "jsonl"] = "parquet"
    """Parquet with zstd inside, or JSON Lines in .zst. Both have the columns `text` and `source`."""
    shard_bytes: Annotated[int, Field(ge=1 << 10, le=1 << 32)] = 1 << 26
    """Approximate bytes of text in a shard."""
    processes: Annotated[int, Field(ge=1, le=64)] | None = None
    """Processes that examine documents; the corpus is the same with any number. Default: a process for each
    core, at most 8, and one for sources of less than 16 MB."""

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        names = [name_of(source) for source in self.sources]
        faults: list[tuple[Location, str]] = [
            (("sources", index), f"a source before it is named '{name}' too; give it a name of its own")
            for index, name in enumerate(names)
            if name in names[:index]
        ]
        weighted = [source.weight is not None for source in self.sources]
        if any(weighted) and not all(weighted):
            index = weighted.index(False)
            faults.append((("sources", index), "has no weight, and other sources have one"))
        if self.length.max_words < self.length.min_words:
            faults.append((("length", "max_words"), f"is below min_words, {self.length.min_words}"))
        if faults:
            raise faults_at(faults)
        return self

    @property
    def ordered(self) -> tuple[SourceConfig, ...]:
        """The sources in the order in which they are read: the higher priority first."""
        return tuple(sorted(self.sources, key=lambda source: -source.priority))


def name_of(source: SourceConfig) -> str:
    """Return a source's name."""
    return source.name or printable(Path(source.path).name)
