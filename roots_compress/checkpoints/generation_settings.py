"""Generation settings in the files of a checkpoint or graph: token ids and sampling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.gguf.generation import gguf_generation
from roots_compress.checkpoints.inspect import CONFIG
from roots_compress.checkpoints.logit_settings import MOST_PENALTY, LogitSettings
from roots_compress.data.special_tokens import TokenIds, stop_ids
from roots_compress.io.genai_config import GENAI_CONFIG, read_genai_config
from roots_compress.io.json_files import read_json_object

GENERATION = "generation_config.json"
TOKEN_IDS = ("bos_token_id", "pad_token_id", "eos_token_id")
EOS = "eos_token_id"

Ids = int | list[int] | None


class GenerationSettings(LogitSettings):
    """Settings of generation_config.json that are kept; some others make transformers load code."""

    bos_token_id: Ids = None
    pad_token_id: int | None = None
    eos_token_id: Ids = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    top_h: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    num_beams: Annotated[int, Field(ge=1)] | None = None
    num_return_sequences: int | None = None
    early_stopping: bool | Literal["never"] | None = None
    length_penalty: Annotated[float, Field(ge=-MOST_PENALTY, le=MOST_PENALTY)] | None = None
    encoder_repetition_penalty: float | None = None
    encoder_no_repeat_ngram_size: int | None = None
    guidance_scale: float | None = None
    remove_invalid_values: bool | None = None
    token_healing: bool | None = None
    stop_strings: str | list[str] | None = None
    max_time: float | None = None
    max_length: int | None = None
    max_new_tokens: int | None = None
    use_cache: bool | None = None
    output_attentions: bool | None = None
    output_hidden_states: bool | None = None
    from_model_config: bool | None = Field(None, alias="_from_model_config")


CARRIED = frozenset(field.alias or name for name, field in GenerationSettings.model_fields.items())


NOT_DONE: dict[str, tuple[Any, ...]] = {
    "encoder_repetition_penalty": (1,),
    "encoder_no_repeat_ngram_size": (0,),
    "guidance_scale": (1,),
    "token_healing": (False,),
    "stop_strings": ([],),
    "max_time": (),
    "watermarking_config": (),
    "num_beam_groups": (1,),
    "diversity_penalty": (0,),
    "force_words_ids": (),
    "constraints": (),
    "forced_decoder_ids": (),
    "dola_layers": (),
    "penalty_alpha": (0,),
}
"""Settings that would change greedy text but that only other runtimes implement, with the values (besides
null) that have no effect."""


def generation_document(folder: Path) -> tuple[dict[str, Any], Path]:
    """Return the generation settings in a folder's files or a GGUF file, and the file's path.

    Of a folder that is generation_config.json or, as for transformers, config.json where there is none, or
    else the file of onnxruntime-genai.

    Raises:
        InputError: the file is not one JSON object, or no GGUF file.
    """
    if folder.is_file():
        return gguf_generation(folder), folder
    for path in (folder / GENERATION, folder / CONFIG):
        if path.exists() or path.is_symlink():
            return read_json_object(path), path
    said = read_genai_config(folder)
    return said, folder / (GENAI_CONFIG if said else GENERATION)


def read_settings(said: tuple[Mapping[str, Any], Path]) -> dict[str, Any]:
    """Return the generation settings that are kept, from the result of `generation_document`.

    Raises:
        InputError: a setting has a wrong type.
    """
    document, path = said
    given = {key: value for key, value in document.items() if key in CARRIED}
    GenerationSettings.read(given, path)
    return given


def token_ids(document: Mapping[str, Any], name: str, vocab_size: int, where: Path) -> TokenIds:
    """Return the ids under a config's key; None if it names none in the vocabulary.

    Raises:
        InputError: the value is neither an id nor a list of ids.
    """
    value: Any = document.get(name)
    GenerationSettings.read({name: value}, where)
    if isinstance(value, list):
        return [number for number in value if 0 <= number < vocab_size]
    return value if value is not None and 0 <= value < vocab_size else None


def folder_stop_ids(folder: Path, tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> tuple[int, ...]:
    """Return the ids that end a text, by generation_config.json, config.json and tokenizer of a folder.

    Args:
        folder: that of a checkpoint or a graph, or a GGUF file.
        tokenizer: its EOS is used if neither file names an id.
        vocab_size: ids from here on are invalid.

    Raises:
        InputError: one of the files cannot be read, or its `eos_token_id` is none.
    """
    generation, path = generation_document(folder)
    config = read_json_object(folder / CONFIG) if (folder / CONFIG).exists() else {}
    named = token_ids(generation, EOS, vocab_size, path)
    return stop_ids(named, token_ids(config, EOS, vocab_size, folder / CONFIG), tokenizer.eos_token_id)
