"""How a folder of sentence-transformers makes a vector of a text: its modules, read from their JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from roots_compress.errors import InputError
from roots_compress.io.json_files import read_json, read_json_object
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import EmbeddingHead
from roots_compress.models.spec import ModelSpec

MODULES: Final = "modules.json"
POOLINGS: Final = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
SUPPORTED = "Supported are a transformer, pooling of the mean or of the first token, and normalising."


def with_pooling(spec: ModelSpec, directory: Path) -> ModelSpec:
    """Return the specification with the pooling that a folder's modules name; as it is where it has none.

    Raises:
        InputError: a module or a way to pool is beyond ROOTS, or a file is damaged.
    """
    path = directory / MODULES
    if not isinstance(spec.head, EmbeddingHead) or not path.exists():
        return spec
    modules = [_module(entry, path) for entry in _entries(path)]
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or modules[0][1]:
        raise InputError(
            f"has the modules {', '.join(kinds)[:200] or 'none'}, which ROOTS cannot express",
            where=path,
            remedy=SUPPORTED,
        )
    pooling = _pooling(directory / modules[1][1] / "config.json")
    return changed(spec, head=EmbeddingHead(pooling=pooling, normalised=len(kinds) == 3))


def _entries(path: Path) -> list[Any]:
    document = read_json(path)
    if not isinstance(document, list):
        raise InputError("is not a list of modules", where=path, remedy="Copy the file again.")
    return document


def _module(entry: Any, where: Path) -> tuple[str, str]:
    """Return a module's kind and its folder, which must lie in the checkpoint's own."""
    kind, folder = (entry.get(key) if isinstance(entry, dict) else None for key in ("type", "path"))
    if not isinstance(kind, str) or not isinstance(folder, str) or "/" in folder or folder.startswith("."):
        raise InputError("has a module without a type and a folder", where=where, remedy="Copy it again.")
    return kind.rpartition(".")[2], folder


def _pooling(path: Path) -> Any:
    settings = read_json_object(path)
    asked = [name for name, value in settings.items() if name.startswith("pooling_mode_") and value is True]
    if len(asked) != 1 or asked[0] not in POOLINGS:
        raise InputError(
            f"pools by {', '.join(asked)[:200] or 'nothing'}, which ROOTS cannot express",
            where=path,
            remedy=SUPPORTED,
        )
    return POOLINGS[asked[0]]
