"""The weight files of a directory: those that are read, and those that must not be ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from roots_compress.errors import InputError
from roots_compress.io.json_files import read_json_object
from roots_compress.io.safetensors_header import TensorEntry, read_header

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
BLOCKS, SCALES = "_blocks", "_scales"
"""Ends of the names of the two tensors that a matrix in MXFP4 is stored in; see `mxfp4.py`."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WEIGHTS_OF_OTHERS = (
    "*.safetensors",
    "*.gguf",
    "*model*.bin",
    "*adapter*",
    "*lora*",
    "consolidated*",
    "*.h5",
    "*.msgpack",
    "original",
)
"""Names of weight files of other programs or formats."""
COPY_AGAIN = "The checkpoint is damaged or mixed from two; copy or download it again."


def directory_tensors(directory: Path) -> dict[str, TensorEntry]:
    """Return every tensor of a directory, from the files that transformers reads.

    Raises:
        InputError: they are absent, damaged or of another format, or an index and its shards disagree.
    """
    if (directory / WEIGHTS).exists():
        return read_header(directory / WEIGHTS)
    if (directory / INDEX).exists():
        return _sharded_tensors(directory)
    names = sorted(path.name for path in directory.iterdir())
    if ggufs := [name for name in names if name.endswith(".gguf")]:
        raise InputError(
            f"holds its weights only as GGUF ({ggufs[0]})",
            where=directory,
            remedy=f"Name the file: {directory / ggufs[0]}",
        )
    if others := [name for name in names if name.endswith(".safetensors")]:
        raise InputError(
            f"holds neither {WEIGHTS} nor {INDEX}, which would tell of {others[0]}",
            where=directory,
            remedy=f"Copy {INDEX} there as well, or rename a single file to {WEIGHTS}.",
        )
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        raise InputError(
            f"holds its weights only as pickle ({pickles[0]})",
            where=directory,
            remedy="Pickles can run code and are never read. Where you trust the source, load it with "
            "transformers and call save_pretrained, which writes safetensors.",
        )
    raise InputError(
        f"holds neither {WEIGHTS} nor {INDEX}", where=directory, remedy="Copy the weights there as well."
    )


def _sharded_tensors(directory: Path) -> dict[str, TensorEntry]:
    """Return the tensors of all shards, after checking that index and shards agree."""
    index_path = directory / INDEX
    shard_of = read_json_object(index_path).get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        _refuse("has no weight_map from tensors to files", index_path)
    tensors: dict[str, TensorEntry] = {}
    for shard in sorted(set(shard_of.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise InputError(
                f"names {shard!r}, which is not a safetensors file beside it",
                where=index_path,
                remedy="Shards must lie in the checkpoint's own directory.",
            )
        for name, entry in read_header(directory / shard).items():
            if name in tensors:
                _refuse(
                    f"tensor {name!r} stands in {tensors[name].file.name} and again in {shard}", directory
                )
            tensors[name] = entry
    for name in sorted(tensors.keys() | shard_of.keys()):
        if name not in tensors or shard_of.get(name) != tensors[name].file.name:
            _refuse(f"disagrees with its shards about tensor {name!r}", index_path)
    return tensors


def _refuse(message: str, where: Path) -> NoReturn:
    raise InputError(message, where=where, remedy=COPY_AGAIN)


def numbers_in(tensors: Mapping[str, TensorEntry]) -> int:
    """Return the number of parameters in stored tensors; a byte of an MXFP4 matrix holds two."""

    def factor(name: str) -> int:
        if name.removesuffix(SCALES) + BLOCKS in tensors:
            return 0
        return 2 if name.removesuffix(BLOCKS) + SCALES in tensors else 1

    return sum(math.prod(entry.shape) * factor(name) for name, entry in tensors.items())


def whole_shapes(tensors: Mapping[str, TensorEntry]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that are read: a matrix in MXFP4 is one, with its inputs first."""
    shapes = {name: entry.shape for name, entry in tensors.items()}
    for name in [name for name in shapes if name.endswith(BLOCKS) and len(shapes[name]) == 4]:
        experts, rows, groups, size = shapes.pop(name)
        shapes.pop(name.removesuffix(BLOCKS) + SCALES, None)
        shapes[name.removesuffix(BLOCKS)] = (experts, 2 * groups * size, rows)
    return shapes


def unread_weights(directory: Path, tensors: Mapping[str, TensorEntry]) -> tuple[str, ...]:
    """Return the names of weight files that contain none of the tensors."""
    read = {entry.file.name for entry in tensors.values()}
    names = {path.name for pattern in WEIGHTS_OF_OTHERS for path in directory.glob(pattern)}
    return tuple(sorted(names - read - {WEIGHTS}))
