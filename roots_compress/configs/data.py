"""Settings of the text a run trains, calibrates and evaluates on."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from roots_compress.configs.base import BlockSize, PathListSetting, PositiveInt, Settings, faults_at
from roots_compress.configs.options import Option

RecordKind = Literal["text", "labels", "tags", "scores", "ratings", "pairs", "instructions"]
"""What each record of the data holds.

- `text`: a text.
- `labels`: one or two texts, and their label.
- `tags`: the words of a text, and the label of each.
- `scores`: one or two texts, and their score where it is known.
- `ratings`: one or two texts, and their score.
- `pairs`: a source text, and its target text.
- `instructions`: the turns of a conversation.
"""

NewHead = Literal["classification", "token_classification", "score"]


class FieldsConfig(Settings):
    """Columns or keys that hold the texts of a record, where they have names that are not known.

    One within an object is written with dots: `translation.de`.
    """

    source: str | None = None
    """Of pairs: the text that is read."""
    target: str | None = None
    """Of pairs: the text that it is to become."""
    words: str | None = None
    """Of tags: the list of a text's words."""
    tags: str | None = None
    """Of tags: the list of the words' labels, their names or numbers."""
    first: str | None = None
    """Of scores: the text that is read first, such as a query."""
    second: str | None = None
    """Of scores and labels: the one that is read with it, such as a passage; there may be none."""
    score: str | None = None
    """Of scores: the number that is right; there may be none, but in ratings."""
    prompt: str | None = None
    """Of instructions: what is asked."""
    response: str | None = None
    """Of instructions: what is to be answered."""
    context: str | None = None
    """Of instructions: what the prompt is about; it follows the prompt after a blank line."""
    system: str | None = None
    """Of instructions: what is said before the conversation."""
    messages: str | None = None
    """Of instructions: a list of messages, each with a role and its content."""


class TurnConfig(Settings):
    """The text around a turn of a conversation."""

    prefix: str = ""
    """Before what is said."""
    suffix: str = ""
    """After it. An end-of-text token follows an assistant's turn, where the tokenizer has one and this does
    not say so."""


class ChatConfig(Settings):
    """A chat format in plain fields."""

    system: TurnConfig = TurnConfig()
    """Around what is said before the conversation."""
    user: TurnConfig = TurnConfig()
    """Around what the user says."""
    assistant: TurnConfig = TurnConfig()
    """Around what is answered: an answer begins after the prefix."""
    separator: str = ""
    """Between turns."""


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
    """The column or key that holds a text's label, its name or number, where the model is a classifier."""
    labels: Annotated[tuple[str, ...], Field(strict=False), Option("--label")] = ()
    """Names of the labels of a new head. An encoder without labels gets such a head; `tune` trains it. The
    head labels texts. With `records: tags` it labels words. With `records: ratings` it predicts one number,
    and the one label names it. A classifier keeps its own labels."""
    records: RecordKind | None = None
    """What each record holds. By default the model and the stages decide; with `instructions`, a run without
    `tune` reads instructions too."""
    source_language: str | None = None
    """For a model that translates between many languages: the language of the sources, by the code that its
    tokenizer has for it, such as eng_Latn, en_XX or en."""
    target_language: str | None = None
    """The language of the targets, by its code. The graph then begins each text that it writes with this
    language's token."""
    chat: ChatConfig | None = None
    """The format in which conversations are read. Without it, the model's own chat template, or ChatML where
    it has none."""
    fields: Annotated[FieldsConfig, Option("--field", by_name="COLUMN")] = FieldsConfig()
    """Columns or keys that hold the texts of pairs (source, target) and of instructions (prompt, response,
    context, system, messages), the lists of tags (words, tags), or what is scored (first, second, score), if
    their names are not the usual ones."""
    eval_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Fraction of the documents held out where `eval` names no files."""

    @model_validator(mode="after")
    def _languages_come_together(self) -> Self:
        if (self.source_language is None) != (self.target_language is None):
            lacking = "source_language" if self.source_language is None else "target_language"
            raise faults_at([((lacking,), "is missing: both languages are named, or none")])
        return self

    @property
    def languages(self) -> tuple[str, ...]:
        """Source and target, where they are named."""
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
    """How a new model's tokenizer splits text: byte-level BPE, WordPiece, Unigram, or whole words."""
    vocab_size: Annotated[int, Field(ge=16, le=1_000_000)] = 4096
    """Entries of a new model's vocabulary, special tokens included."""
    min_frequency: PositiveInt = 2
    """Merges (or words, for `word`) seen fewer times are left out. Unigram ignores this."""
    lowercase: Annotated[bool, Option("--lowercase")] = False
    """Whether a new model reads text in small letters."""
    special_tokens: Annotated[tuple[str, ...], Field(strict=False), Option("--special-token")] = ()
    """More special tokens. Every tokenizer gets BOS, EOS and padding tokens without being asked."""
    bos_token: TokenName | None = None
    """Opens a text. Default: <|bos|>; of WordPiece [CLS]."""
    eos_token: TokenName | None = None
    """Ends a text. Default: <|eos|>; of WordPiece [SEP]."""
    pad_token: TokenName | None = None
    """Fills up short texts. Default: <|pad|>; of WordPiece [PAD]."""
    mask_token: TokenName | None = None
    """Stands for a hidden token, in an encoder's tokenizer. Default: <|mask|>; of WordPiece [MASK]."""
    unk_token: TokenName | None = None
    """Stands for what has no token. Default: <|unk|>; of WordPiece [UNK]. Byte-level BPE needs none."""

    @model_validator(mode="after")
    def _bytes_must_fit(self) -> Self:
        if self.kind == "byte_bpe" and self.vocab_size < SMALLEST_BYTE_BPE:
            text = f"must be at least {SMALLEST_BYTE_BPE}, not {self.vocab_size}"
            raise faults_at([(("vocab_size",), text)])
        return self


class CalibrationConfig(Settings):
    """How much training text a stage reads to measure activations."""

    windows: PositiveInt = 32
    """Windows of training text."""
    block_size: BlockSize = 256
    """Tokens in each window."""
