"""Settings of the text a run trains, calibrates and evaluates on."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from roots_compress.configs.base import BlockSize, PathListSetting, PositiveInt, Settings
from roots_compress.configs.options import Option


class DataConfig(Settings):
    """Training and held-out text. With no path the built-in corpus is used: Python's own documentation."""

    recipe_only: ClassVar[str] = "eval_fraction"
    train: Annotated[PathListSetting, Option("--data")] = ()
    """Files and folders for training and calibration: text, CSV, JSON or Parquet, compressed or not.
    Without any: the built-in corpus, Python's documentation."""
    eval: Annotated[PathListSetting, Option("--eval-data")] = ()
    """Files and folders held out to measure quality on. Without them a part of the training documents is."""
    text_column: str = "text"
    """The column or key that holds the text in CSV, JSON and Parquet files."""
    label_column: str = "label"
    """The column or key that holds a text's label, its name or number, where the model is a classifier."""
    eval_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Fraction of the documents held out where `eval` names no files."""


class TokenizerConfig(Settings):
    """A byte-level BPE tokenizer, trained when a model is trained from scratch."""

    vocab_size: Annotated[int, Field(ge=260, le=1_000_000)] = 4096
    """Entries of a new model's vocabulary, special tokens included."""
    min_frequency: PositiveInt = 2
    """Pairs seen less often are not merged."""
    special_tokens: Annotated[tuple[str, ...], Field(strict=False), Option("--special-token")] = ()
    """More special tokens. Every tokenizer gets BOS, EOS and padding tokens without being asked."""


class CalibrationConfig(Settings):
    """How much training text a stage looks at to measure activations."""

    windows: PositiveInt = 32
    """Windows of training text."""
    block_size: BlockSize = 256
    """Tokens in each window."""
