"""Models in the Hugging Face Hub's local cache, by their names there. Nothing is fetched."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

FETCH = "A name on the Hugging Face Hub stands for a model in its local cache: `hf download NAME` fills it."
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_SNAPSHOTS = "snapshots"
_MODELS = "models--"
_OF_EACH = ("config.json", "adapter_config.json")
"""Files of which each model, or adapter, has one."""


def on_disk(path: Path, folder: Path = Path()) -> Path:
    """Return the cache's folder of a model such as `Qwen/Qwen3-0.6B`; for any other path, it from a folder.

    A file or folder of that name goes before the cache.
    """
    name, placed = path.as_posix(), folder / path
    if not _NAME.fullmatch(name) or path.suffix == ".gguf":
        return placed
    with suppress(OSError):
        if placed.exists():
            return placed
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with suppress(HFValidationError):
        for file in _OF_EACH:
            found = try_to_load_from_cache(name, file)
            if isinstance(found, str):
                return Path(found).parent.absolute()
    return placed


def model_name(path: Path) -> str:
    """Return the name of a model's file or folder; of one in the cache, its name on the Hub."""
    repository = path.parent.parent.name
    if path.parent.name == _SNAPSHOTS and repository.startswith(_MODELS):
        return repository.rpartition("--")[2]
    return path.name
