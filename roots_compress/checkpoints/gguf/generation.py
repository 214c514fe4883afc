"""The generation settings of a GGUF file, by the names of generation_config.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from roots_compress.families.gguf.metadata import shortest
from roots_compress.io.gguf_header import read_gguf_header

TOKENS: Final = "tokenizer.ggml.tokens"
STOP_KEYS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
"""Settings under `general.sampling.`, which converters take from a generation_config.json."""
ENDS = frozenset(
    """
    <|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s>
    <|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <｜end▁of▁sentence｜>
    <turn|> <|tool_response>
    """.split()  # noqa: SIM905
)
"""Spellings of tokens that always end a text in llama.cpp."""
INFILL = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
"""Fill-in-the-middle tokens, which end a text too: one of each kind, by a key or by its spelling."""
NO_ENDS = (
    ("<|end|>", {"<|return|>", "<|call|>"}),
    ("<|end|>", {"<|flush|>", "<|call|>"}),
    ("<|end|>", {"<|flush|>", "<|calls|>"}),
    ("</s>", {"<|tool_response>"}),
)
"""Spellings that do not end a text if the vocabulary has certain others."""


def gguf_generation(path: Path) -> dict[str, Any]:
    """Return the settings of generation that a file's metadata name, and the ids that end a text.

    These are its ends of text, of turn and of message, and all others at which llama.cpp stops.

    Raises:
        InputError: it is no GGUF file.
    """
    header = read_gguf_header(path, arrays=(TOKENS,))
    metadata = header.metadata
    found: dict[str, Any] = {
        name: metadata[f"general.sampling.{key}"]
        for key, name in SAMPLING.items()
        if f"general.sampling.{key}" in metadata
    }
    said = {name: shortest(value) if isinstance(value, float) else value for name, value in found.items()}
    if "temperature" in said:
        said["do_sample"] = said["temperature"] != 0
    ends = end_ids(metadata, header.arrays.get(TOKENS, ()))
    return said | ({"eos_token_id": ends} if ends else {})


def end_ids(metadata: Mapping[str, object], tokens: Sequence[object]) -> list[int]:
    """Return the ids of the tokens that end a text, the end of text that a key names first."""
    ids = {token: index for index, token in enumerate(tokens)}
    named = [metadata.get(key) for key in STOP_KEYS]
    for kind, spellings in INFILL.items():
        spelt = sorted(ids[spelling] for spelling in spellings if spelling in ids)
        named.append(metadata.get(f"tokenizer.ggml.{kind}_token_id", next(iter(spelt), None)))
    found = [index for index in named if type(index) is int]
    found += sorted(ids[spelling] for spelling in ENDS if spelling in ids)
    none = {ids.get(spelling) for spelling, others in NO_ENDS if others <= ids.keys()}
    return [index for index in dict.fromkeys(found) if index not in none]
