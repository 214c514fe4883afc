"""What a GGUF file says of generation, by the names of generation_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roots_compress.families.gguf.metadata import shortest

STOP_KEYS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
"""Settings under `general.sampling.`, which converters take from a generation_config.json."""


def gguf_generation(metadata: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings of generation that a file's metadata name, and the ids that end a text.

    These are its ends of text, of turn and of message.
    """
    found: dict[str, Any] = {
        name: metadata[f"general.sampling.{key}"]
        for key, name in SAMPLING.items()
        if f"general.sampling.{key}" in metadata
    }
    said = {name: shortest(value) if isinstance(value, float) else value for name, value in found.items()}
    if "temperature" in said:
        said["do_sample"] = said["temperature"] != 0
    ends = [metadata[key] for key in STOP_KEYS if type(metadata.get(key)) is int]
    return said | ({"eos_token_id": list(dict.fromkeys(ends))} if ends else {})
