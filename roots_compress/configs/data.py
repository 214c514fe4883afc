"""Settings of the text a run trains, calibrates and evaluates on."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from roots_compress.configs.base import BlockSize, PathListSetting, PositiveInt, Settings, faults_at
from roots_compress.configs.options import Option

RecordKind = Literal["text", "labels", "tags", "scores", "ratings", "pairs", "instructions"]
"""The kind of the data's records.

- `text`: a text.
- `labels`: one or two texts, and their label.
- `tags`: the words of a text, and the label of each.
- `scores`: one or two texts, and their score if it is known.
- `ratings`: one or two texts, and their score.
- `pairs`: a source text, and its target text.
- `instructions`: the turns of a conversation.
"""

NewHead = Literal["classification", "token_classification", "score"]


class FieldsConfig(Settings):
    """Columns or keys that hold the texts of a record, if they do not have one of the usual names.

    A key within an object is written with dots: `translation.de`.
    """

    source: str | None = None
    """Of pairs: the source text, which the model reads."""
    target: str | None = None
    """Of pairs: the target text, which the model is to write."""
    words: str | None = None
    """Of tags: the list of a text's words."""
    tags: str | None = None
    """Of tags: the list of the words' labels, their names or numbers."""
    first: str | None = None
    """Of scores: the first text, such as a query."""
    second: str | None = None
    """Of scores and labels: the second text, such as a passage; optional."""
    score: str | None = None
    """Of scores: the right number; optional, but not for ratings."""
    prompt: str | None = None
    """Of instructions: the question or task."""
    response: str | None = None
    """Of instructions: the expected answer."""
    context: str | None = None
    """Of instructions: further input; it follows the prompt after a blank line."""
    system: str | None = None
    """Of instructions: the system message."""
    messages: str | None = None
    """Of instructions: a list of messages, each with a role and its content."""


class TurnConfig(Settings):
    """The text around a turn of a conversation."""

    prefix: str = ""
    """Text before the content."""
    suffix: str = ""
    """Text after it. If the tokenizer has an end-of-text token and this does not contain it, it follows an
    assistant's turn."""


class ChatConfig(Settings):
    """A chat format in plain fields."""

    system: TurnConfig = TurnConfig()
    """Text around the system message."""
    user: TurnConfig = TurnConfig()
    """Text around a user's message."""
    assistant: TurnConfig = TurnConfig()
    """Text around an answer, which begins after the prefix."""
    separator: str = ""
    """Text between turns."""


class DataConfig(Settings):
    """Training and held-out text. With no path the built-in corpus is used: Python's own documentation."""

    recipe_only: ClassVar[str] = "chat eval_fraction"
    train: Annotated[PathListSetting, Option("--data")] = ()
    """Files and folders for training and calibration: text, CSV, JSON, Parquet or Arrow, compressed or not.
    Without any: the built-in corpus, Python's documentation."""
    eval: Annotated[PathListSetting, Option("--eval-data")] = ()
    """Files and folders held out to measure quality on. Without any, a part of the training documents is held
    out."""
    text_column: str = "text"
    """The column or key that holds the text in CSV, JSON, Parquet and Arrow files."""
    label_column: str = "label"
    """The column or key that holds a text's label (its name or number), for a classifier."""
    labels: Annotated[tuple[str, ...], Field(strict=False), Option("--label")] = ()
    """Names of the labels of a new head. An encoder without labels gets this head, and `tune` trains it. The
    head labels texts; with `records: tags` it labels words; with `records: ratings` it predicts one number,
    named by the only label. A classifier keeps its own labels."""
    records: RecordKind | None = None
    """The kind of the records. By default the model and the stages decide it. With `instructions`, a run
    without `tune` reads instructions too."""
    source_language: str | None = None
    """For a model that translates between many languages: the language of the sources, as its tokenizer's
    code, such as eng_Latn, en_XX or en."""
    target_language: str | None = None
    """The language of the targets, as its code. Each text that the graph writes then begins with this
    language's token."""
    chat: ChatConfig | None = None
    """The chat format of conversations. Default: the model's own chat template, or ChatML if it has none."""
    fields: Annotated[FieldsConfig, Option("--field", by_name="COLUMN")] = FieldsConfig()
    """Columns or keys of pairs (source, target), instructions (prompt, response, context, system, messages),
    tags (words, tags), and scores (first, second, score), if their names are not the usual ones."""
    eval_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Fraction of the documents held out if `eval` names no files."""

    @model_validator(mode="after")
    def _languages_come_together(self) -> Self:
        if (self.source_language is None) != (self.target_language is None):
            lacking = "source_language" if self.source_language is None else "target_language"
            raise faults_at([((lacking,), "is missing: both languages are named, or none")])
        return self

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of source and target that are set."""
        return tuple(each for each in (self.source_language, self.target_language) if each is not None)

    @property
    def new_head(self) -> NewHead:
        """The kind of head that an encoder gets for the labels: of words, of texts, or for their scores."""
        kinds: dict[RecordKind | None, NewHead] = {"tags": "token_classification", "ratings": "score"}
        return kinds.get(self.records, "classification")


SMALLEST_BYTE_BPE = 260
"""256 bytes, and some special tokens."""
TokenName = Annotated[str, Field(min_length=1)]


class TokenizerConfig(Settings):
    """A tokenizer, trained when a model is trained from scratch."""

    recipe_only: ClassVar[str] = "bos_token eos_token pad_token mask_token unk_token"
    kind: Annotated[Literal["byte_bpe", "wordpiece", "unigram", "word"], Option("--tokenizer")] = "byte_bpe"
    """Kind of a new model's tokenizer: byte-level BPE, WordPiece, Unigram, or whole words."""
    vocab_size: Annotated[int, Field(ge=16, le=1_000_000)] = 4096
    """Entries of a new model's vocabulary, special tokens included."""
    min_frequency: PositiveInt = 2
    """Merges (or words, for `word`) seen fewer times are left out. Unigram ignores this."""
    lowercase: Annotated[bool, Option("--lowercase")] = False
    """Convert text to lower case."""
    special_tokens: Annotated[tuple[str, ...], Field(strict=False), Option("--special-token")] = ()
    """More special tokens. Every tokenizer has BOS, EOS and padding tokens already."""
    bos_token: TokenName | None = None
    """Opens a text. Default: <|bos|>; of WordPiece [CLS]."""
    eos_token: TokenName | None = None
    """Ends a text. Default: <|eos|>; of WordPiece [SEP]."""
    pad_token: TokenName | None = None
    """Fills up short texts. Default: <|pad|>; of WordPiece [PAD]."""
    mask_token: TokenName | None = None
    """Replaces a masked token, in an encoder's tokenizer. Default: <|mask|>; of WordPiece [MASK]."""
    unk_token: TokenName | None = None
    """Replaces text that has no token. Default: <|unk|>; of WordPiece [UNK]. Byte-level BPE needs none."""

    @model_validator(mode="after")
    def _bytes_must_fit(self) -> Self:
        if self.kind == "byte_bpe" and self.vocab_size < SMALLEST_BYTE_BPE:
            text = f"must be at least {SMALLEST_BYTE_BPE}, not {self.vocab_size}"
            raise faults_at([(("vocab_size",), text)])
        return self


class CalibrationConfig(Settings):
    """Training text on which a stage measures activations."""

    windows: PositiveInt = 32
    """Windows of training text."""
    block_size: BlockSize = 256
    """Tokens in each window."""
