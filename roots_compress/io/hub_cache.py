"""Models in the Hugging Face Hub's local cache, by their names there. Nothing is fetched."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

FETCH = "A name on the Hugging Face Hub stands for a model in its local cache: `hf download NAME` fills it."
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_SNAPSHOTS = "snapshots"


def on_disk(path: Path) -> Path:
    """Return the cache's folder of a model such as `Qwen/Qwen3-0.6B`, and any other path as it is.

    A file or folder of that name goes before the cache.
    """
    name = path.as_posix()
    if not _NAME.fullmatch(name) or path.suffix == ".gguf":
        return path
    with suppress(OSError):
        if path.exists():
            return path
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with suppress(HFValidationError):
        found = try_to_load_from_cache(name, "config.json")
        if isinstance(found, str):
            return Path(found).parent
    return path


def model_name(path: Path) -> str:
    """Return the name of a model's file or folder; of one in the cache, its name on the Hub."""
    if path.parent.name == _SNAPSHOTS:
        return path.parent.parent.name.rpartition("--")[2]
    return path.name
