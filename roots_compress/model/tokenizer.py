"""The tokenizer of a checkpoint, which can be had without its weights and, as a rule, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from roots_compress.errors import InputError
from roots_compress.model.sources import TOKENIZER, SourceInfo

TOKENIZER_CONFIG = "tokenizer_config.json"


def load_tokenizer(source: SourceInfo) -> PreTrainedTokenizerFast:
    """Return a checkpoint's tokenizer.

    Raises:
        InputError: it cannot be read, or is not of the fast kind.
    """
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    path = source.path
    try:
        with quiet_transformers():
            if source.kind != "gguf" and (path / TOKENIZER).exists():
                # Taken as it is: a family's own class may add tokens of its own, as Qwen2's does.
                tokenizer = PreTrainedTokenizerFast.from_pretrained(path, **local)
            else:
                tokenizer = _converted(source, **local)
    except Exception as error:  # The tokenizers library raises bare exceptions for every fault in a file.
        raise InputError(
            f"has a tokenizer that cannot be read ({type(error).__name__}: {error})",
            where=path,
            remedy="Copy the tokenizer's files again.",
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            "has a tokenizer that is not of the fast kind", where=path, remedy="Save a tokenizer.json."
        )
    for note in ("is_local", "local_files_only"):
        # How it was loaded is not a property of the tokenizer, and must not be saved with it.
        tokenizer.init_kwargs.pop(note, None)
    return tokenizer


def _converted(source: SourceInfo, **local: Any) -> Any:
    """Return a tokenizer that transformers converts from older files or from GGUF."""
    from transformers import AutoTokenizer  # It imports torch, which the usual tokenizer.json does without.

    if source.kind == "gguf":
        return AutoTokenizer.from_pretrained(source.path.parent, gguf_file=source.path.name, **local)
    return AutoTokenizer.from_pretrained(source.path, **local)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write a tokenizer's files so that transformers 4 and 5 read them alike."""
    tokenizer.save_pretrained(directory)
    path = directory / TOKENIZER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    # transformers 5 writes a new name of the class, which transformers 4 and what builds on it refuse.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_vocabulary(tokenizer: PreTrainedTokenizerFast, vocab_size: int, where: Path) -> None:
    """Check that each of the tokenizer's tokens has its row among the embedding's.

    Raises:
        InputError: it has none at all, or more than there are rows.
    """
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest < 0:
        raise InputError(
            "has a tokenizer without a vocabulary", where=where, remedy="Copy the tokenizer's files again."
        )
    if largest >= vocab_size:
        raise InputError(
            f"the tokenizer has token number {largest}, but the embedding has {vocab_size} rows",
            where=where,
            remedy="Tokenizer and model belong to different checkpoints.",
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within the block transformers draws no progress bars and prints no load reports."""
    bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
