"""The hash that identifies a checkpoint, so that a change is always noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from roots_compress.checkpoints.adapters.settings import base_folder, is_adapter
from roots_compress.checkpoints.weight_files import INDEX, WEIGHTS
from roots_compress.io.disk import file_sha256
from roots_compress.io.gguf_file import part_files

READ_SUFFIXES = frozenset({".json", ".safetensors", ".model", ".spm", ".txt", ".jinja", ".gguf"})
"""Files of a checkpoint's directory that loading it may read."""


def source_sha256(source: Path, sha256: Callable[[Path], str] = file_sha256) -> str:
    """Return the sha256 of a checkpoint: of one file, or of the names and contents of several.

    Several are the files of a directory, and the parts of a split GGUF model of which one is named. An
    adapter's covers its base too.

    Raises:
        InputError: an adapter's base is missing.
    """
    files = part_files(source)
    if source.is_dir():  # sentence-transformers keeps each module in a subfolder.
        weights = source.glob("*/model.safetensors") if (source / "modules.json").exists() else ()
        files = sorted([*source.iterdir(), *source.glob("*/config.json"), *weights])
    if files == [source]:
        return sha256(source)
    digest = hashlib.sha256()
    for path in files:
        if path.suffix in READ_SUFFIXES and path.is_file():
            name = path.relative_to(source) if source.is_dir() else path.name
            digest.update(f"{name}\0{sha256(path)}\n".encode())
    if is_adapter(source) and (base := base_folder(source, (WEIGHTS, INDEX))) != source:
        digest.update(f"base\0{source_sha256(base, sha256)}\n".encode())
    return digest.hexdigest()
