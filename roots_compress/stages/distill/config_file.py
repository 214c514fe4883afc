"""A student's shape, read from the user's ROOTS config file."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from roots_compress.checkpoints.inspect import BOOKKEEPING, ROOTS_KEYS
from roots_compress.errors import InputError, did_you_mean
from roots_compress.io.json_files import read_json_object
from roots_compress.models.config import RootsConfig
from roots_compress.models.version1 import is_version1


def read_config(path: Path, vocab_size: int | None, **token_ids: int | list[int] | None) -> RootsConfig:
    """Read a student's shape from a ROOTS config file.

    Args:
        path: a JSON file, of either version.
        vocab_size: the teacher's, used if the file names none; None if unknown.
        token_ids: the teacher's, used in the same way.

    Raises:
        InputError: the file is not a usable ROOTS config.
    """
    fields = read_json_object(path)
    known = [*ROOTS_KEYS, *BOOKKEEPING]
    for key in fields:
        if key not in known:
            raise InputError(
                f"unknown key '{key}'{did_you_mean(key, known)}",
                where=path,
                remedy="Correct or remove the key.",
            )
    if fields.pop("model_type", "roots") != "roots":
        raise InputError(
            "the student's config is not a ROOTS config",
            where=path,
            remedy="Name a config with model_type 'roots', or give a checkpoint's folder.",
        )
    embeddings = fields.get("embeddings")
    if is_version1(fields):
        fields = {"vocab_size": vocab_size or 1, **fields}
    elif isinstance(embeddings, dict):
        fields["embeddings"] = {"vocabulary": vocab_size or 1, **embeddings}
    try:
        config = RootsConfig(**{**token_ids, **fields})
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"is no usable ROOTS config: {error.__cause__ or error}", where=path, remedy="Correct the file."
        ) from None
    if not config.spec.layers or config.quantization:
        raise InputError(
            "a student's config needs at least one layer, and no quantization",
            where=path,
            remedy="Correct it.",
        )
    return config
