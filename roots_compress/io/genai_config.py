"""What onnxruntime-genai writes beside a graph in place of config.json and generation_config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roots_compress.io.json_files import read_json_object

GENAI_CONFIG = "genai_config.json"
OF_MODEL = {
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "pad_token_id",
}
"""Its keys, and transformers' names of them."""
HEAD_SIZE = "head_size"
"""Of its decoder; under its own name, for a model's configuration may have heads of several sizes."""
OF_SEARCH = (
    *("repetition_penalty", "no_repeat_ngram_size", "min_length"),
    *("num_beams", "length_penalty", "early_stopping"),
)
"""Keys of its search, which have transformers' names."""


def read_genai_config(folder: Path) -> dict[str, Any]:
    """Return what the file of a folder says, under transformers' names; nothing where there is none.

    Raises:
        InputError: it cannot be read.
    """
    path = folder / GENAI_CONFIG
    if not path.is_file():
        return {}
    document = read_json_object(path)
    model, search = (
        part if isinstance(part, dict) else {} for part in (document.get("model"), document.get("search"))
    )
    said = {ours: model[theirs] for theirs, ours in OF_MODEL.items() if theirs in model}
    decoder = model.get("decoder")
    if isinstance(decoder, dict) and type(decoder.get(HEAD_SIZE)) is int:
        said[HEAD_SIZE] = decoder[HEAD_SIZE]
    return said | {key: search[key] for key in OF_SEARCH if key in search}
