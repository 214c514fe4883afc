"""What the JSON files of a checkpoint or graph say of generation: token ids and sampling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from roots_compress.data.special_tokens import TokenIds, stop_ids
from roots_compress.errors import InputError
from roots_compress.model.files import read_json_object
from roots_compress.model.sources import CONFIG

GENERATION = "generation_config.json"
TOKEN_IDS = ("bos_token_id", "pad_token_id", "eos_token_id")
SETTINGS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(TOKEN_IDS, (int, list, type(None))),
    **dict.fromkeys(("temperature", "top_p", "min_p", "repetition_penalty"), (int, float, type(None))),
    **dict.fromkeys(("top_k", "max_length", "max_new_tokens"), (int, type(None))),
    **dict.fromkeys(
        ("do_sample", "use_cache", "output_attentions", "output_hidden_states", "_from_model_config"),
        (bool, type(None)),
    ),
}
"""Keys of generation_config.json that are carried over, and their types. The others are left out: some make
transformers load code."""


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a generation_config.json that are known here; none where there is no such file.

    Raises:
        InputError: it is no JSON object, or a setting has another type than it should.
    """
    if not (path.exists() or path.is_symlink()):
        return {}
    given = {key: value for key, value in read_json_object(path).items() if key in SETTINGS}
    for key, value in given.items():
        _check_type(key, value, path)
    return given


def token_ids(document: Mapping[str, Any], name: str, vocab_size: int, where: Path) -> TokenIds:
    """Return the ids that a config names under a key; None where it names none that the vocabulary has.

    Raises:
        InputError: the value is no id and no list of them.
    """
    value: Any = document.get(name)
    _check_type(name, value, where)
    if isinstance(value, list):
        return [number for number in value if 0 <= number < vocab_size]
    return value if value is not None and 0 <= value < vocab_size else None


def folder_stop_ids(folder: Path, tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> tuple[int, ...]:
    """Return the ids that end a text, by generation_config.json, config.json and tokenizer of a folder.

    Args:
        folder: of a checkpoint or a graph.
        tokenizer: its EOS serves where neither file names an id.
        vocab_size: ids from here on name no token.

    Raises:
        InputError: one of the files cannot be read, or its `eos_token_id` is none.
    """
    end = "eos_token_id"
    generation = token_ids(read_settings(folder / GENERATION), end, vocab_size, folder / GENERATION)
    config = read_json_object(folder / CONFIG) if (folder / CONFIG).exists() else {}
    return stop_ids(generation, token_ids(config, end, vocab_size, folder / CONFIG), tokenizer.eos_token_id)


def _check_type(key: str, value: object, where: Path) -> None:
    parts = value if isinstance(value, list) else []
    if type(value) not in SETTINGS[key] or any(type(part) is not int for part in parts):
        raise InputError(
            f"{key} is {value!r:.100}, which is no such setting",
            where=where,
            remedy="Correct it, or copy the file again.",
        )
