"""What a graph's config.json says that the graph itself does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roots_compress.errors import InputError
from roots_compress.io.genai_config import GENAI_CONFIG, OF_MODEL, read_genai_config
from roots_compress.io.json_files import read_json_object

if TYPE_CHECKING:
    from roots_compress.models.spec import ModelSpec

# Of a config.json in another family's words, the key that the ROOTS config stands under.
OURS = "roots"
CONFIG = "config.json"
ONNX_FOLDER = "onnx"
EXPORT_AGAIN = "Export the checkpoint again with `roots-compress export`."
LARGEST = 2**31 - 1


def home_of(graph: Path) -> Path:
    """Return the folder that holds a graph's config.json and tokenizer.

    It is the graph's own or, as in repositories of the hub, the one around a folder `onnx` without them.
    """
    folder = graph.parent
    there = any((folder / name).exists() or (folder / name).is_symlink() for name in (CONFIG, GENAI_CONFIG))
    if there or folder.absolute().name != ONNX_FOLDER:
        return folder
    around = folder.absolute().parent
    return around if (around / CONFIG).is_file() else folder


def _config_path(graph: Path) -> Path:
    """Return a graph's config.json; onnxruntime-genai's file if there is only that."""
    folder = home_of(graph)
    own, genai = folder / CONFIG, folder / GENAI_CONFIG
    return genai if genai.is_file() and not (own.exists() or own.is_symlink()) else own


def config_beside(graph: Path) -> dict[str, Any]:
    """Return the config.json of a graph, or what onnxruntime-genai's file says in its place.

    Raises:
        InputError: there is neither, or one that is not JSON.
    """
    path = _config_path(graph)
    if path.name == GENAI_CONFIG:
        return read_genai_config(path.parent)
    if not (path.exists() or path.is_symlink()):
        raise InputError("the graph's folder holds no config.json", where=path, remedy=EXPORT_AGAIN)
    return read_json_object(path)


def read_config(graph: Path) -> tuple[int, int]:
    """Return the vocabulary's size and the longest context, which a graph itself does not say.

    Raises:
        InputError: the file is missing, or does not give the two as positive whole numbers.
    """
    config, path = config_beside(graph), _config_path(graph)
    if (theirs := spec_of_family(config, path)) is not None:
        return theirs.embeddings.vocabulary, theirs.max_positions
    config = config.get(OURS, config)
    keys = ("vocab_size", "max_position_embeddings")
    if isinstance(config, dict) and "embeddings" in config:
        # Not as a specification: that takes pydantic, whose memory would count as serving's.
        keys = ("embeddings.vocabulary", "max_positions")
    found = [_number_at(config, key.split(".")) for key in keys]
    if None in found:
        key = keys[found.index(None)]
        if path.name == GENAI_CONFIG:
            key = next(f"model.{theirs}" for theirs, ours in OF_MODEL.items() if ours == key)
        raise InputError(
            f"{key} is not a whole number from 1 to {LARGEST}",
            where=path,
            remedy=EXPORT_AGAIN,
        )
    vocab_size, max_context = found
    return vocab_size, max_context


def read_start(graph: Path) -> int:
    """Return the token that each target of an encoder-decoder begins with.

    Raises:
        InputError: the file is missing, or names none.
    """
    config = config_beside(graph)
    ours = config.get(OURS, config)
    head = ours.get("head") if isinstance(ours, dict) else None
    start = head.get("start") if isinstance(head, dict) else config.get("decoder_start_token_id")
    if type(start) is not int or not 0 <= start <= LARGEST:
        raise InputError(
            "no token is named that a target begins with (decoder_start_token_id)",
            where=home_of(graph) / CONFIG,
            remedy=EXPORT_AGAIN,
        )
    return start


def spec_of_graph(graph: Path) -> ModelSpec:
    """Return the specification of a graph's model, as the config.json beside it holds it.

    Raises:
        InputError: config.json is missing, cannot be read, or holds none.
    """
    from roots_compress.models.version1 import read_spec

    config, path = config_beside(graph), home_of(graph) / CONFIG
    if (theirs := spec_of_family(config, path)) is not None:
        return theirs
    try:
        return read_spec(config.get(OURS, config))
    except ValueError as error:
        raise InputError(str(error), where=path, remedy=EXPORT_AGAIN) from None


def spec_of_family(config: dict[str, Any], path: Path) -> ModelSpec | None:
    """Return the specification of a model that another program exported; None where no family reads it."""
    if OURS in config or config.get("model_type", OURS) == OURS:
        return None
    from roots_compress.families.registry import FAMILIES  # It imports torch, as serving does not.
    from roots_compress.families.switches import Switches
    from roots_compress.families.text_encoder import read_config as read_of_family

    family = FAMILIES.get(str(config["model_type"]))
    try:
        return None if family is None else read_of_family(family, Switches(config, path))
    except InputError:
        return None  # Its graph can be served without: it needs two numbers.


def _number_at(config: Any, keys: list[str]) -> Any:
    """Return the number of a size at a key; None where there is none."""
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config if type(config) is int and 0 < config <= LARGEST else None


def renewed_after(graph: Path) -> int | None:
    """Return after how many tokens a text must be read anew, as a graph's config.json tells.

    See `LanguageModel.renewed_after`.
    """
    config = config_beside(graph)
    return min(_longrope_lengths(config.get(OURS, config), None), default=None)


def _longrope_lengths(value: Any, length: Any) -> Iterator[int]:
    """Yield the lengths that a config gives, ours or transformers', which may say it further out."""
    if isinstance(value, dict):
        length = value.get("original_max_position_embeddings", length)
        if "longrope" in [value.get(key) for key in ("kind", "rope_type", "type")] and type(length) is int:
            yield length
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _longrope_lengths(each, length)
