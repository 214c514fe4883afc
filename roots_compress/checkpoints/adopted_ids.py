"""BOS, padding and stop ids, and generation settings, adopted from a model's source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerFast

from roots_compress.checkpoints.generation_settings import (
    GENERATION,
    TOKEN_IDS,
    generation_document,
    read_settings,
    token_ids,
)
from roots_compress.checkpoints.inspect import CONFIG
from roots_compress.checkpoints.source import SourceInfo
from roots_compress.data.special_tokens import as_setting, stop_ids
from roots_compress.errors import InputError
from roots_compress.models.heads import RootsWithHead

START = "decoder_start_token_id"
FOR_SAMPLING = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "top_h",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
)
FOR_BEAMS = ("early_stopping", "length_penalty", "num_return_sequences")


def adopt_token_ids(model: RootsWithHead, tokenizer: PreTrainedTokenizerFast, info: SourceInfo) -> None:
    """Take BOS, padding and stop ids from the source's files or, if absent there, from the tokenizer.

    Raises:
        InputError: a generation setting is invalid, or answers would begin with another token than targets.
    """
    document, path = generation_document(info.path)
    said = read_settings((document, path))
    model.generation_config = _consistent(said) if said else model.generation_config
    rows = model.config.vocab_size
    for name in TOKEN_IDS:
        ours: Any = getattr(tokenizer, name)
        config = token_ids(info.config, name, rows, info.path / CONFIG)
        generation = token_ids(said, name, rows, info.path / GENERATION)
        decided = as_setting(stop_ids(generation, config, ours))
        setattr(model.generation_config, name, decided)
        setattr(model.config, name, decided if config is None or config == [] else config)
    if (start := model.config.decoder_start_token_id) is not None:
        if document.get(START, start) not in (start, None):
            raise InputError(
                f"{START} is {document[START]!r:.60}, and {start} in {CONFIG}; ROOTS begins with one token "
                "what a model writes and the targets that it learns",
                where=path,
                remedy="Make the two equal in a copy, by what the model was trained with.",
            )
        model.generation_config.decoder_start_token_id = start


def _consistent(said: Mapping[str, Any]) -> GenerationConfig:
    """Return generation settings without those that have no effect because of others.

    transformers reads such settings and refuses to write them, and published checkpoints have them: a
    temperature without sampling, say.
    """
    idle: tuple[str, ...] = () if said.get("do_sample") else FOR_SAMPLING
    idle += () if (said.get("num_beams") or 1) > 1 else FOR_BEAMS
    for left_out in ((), idle):
        try:
            settings = GenerationConfig(**{key: said[key] for key in said if key not in left_out})
            settings.validate(strict=True)
        except ValueError:
            continue
        return settings
    return GenerationConfig(**{name: said.get(name) for name in TOKEN_IDS})
