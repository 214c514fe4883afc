"""The tensors of an embedding model, with its dense layers combined into one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from roots_compress.checkpoints.sentence_transformers.modules import dense_folders
from roots_compress.checkpoints.weight_files import WEIGHTS
from roots_compress.errors import InputError
from roots_compress.io.atomic import system_errors
from roots_compress.io.names import in_utf8
from roots_compress.io.safetensors_header import TensorEntry, read_header

OF_WRITERS = frozenset({"lm_head.weight", "logits_bias"})
WEIGHT, BIAS = "linear.weight", "linear.bias"
OURS = "dense."
"""What the layer's tensors begin with in a ROOTS model."""


def of_vectors(
    tensors: Iterable[tuple[str, Tensor]], directory: Path, read: Callable[[str, TensorEntry], Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of an embedding model.

    Args:
        tensors: of the model as its family has it. A head for the next token is left out, as
            sentence-transformers does.
        directory: the model's; its settings have been read.

    Raises:
        InputError: a file is damaged, or has other tensors than a dense layer.
    """
    for name, tensor in tensors:
        if name not in OF_WRITERS:
            yield name, tensor
    yield from _dense_layer(directory, read)


def _dense_layer(directory: Path, read: Callable[[str, TensorEntry], Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield weight and bias of a folder's dense layers combined into one, if any."""
    weight: Tensor | None = None
    bias: Tensor | None = None
    for folder in dense_folders(directory):
        path = folder / WEIGHTS
        entries = read_header(path)
        if not {WEIGHT} <= entries.keys() <= {WEIGHT, BIAS}:
            raise InputError(
                f"holds {', '.join(sorted(entries))[:200]}, not {WEIGHT} and perhaps {BIAS}",
                where=path,
                remedy="Copy the folder again.",
            )
        found = {name: read(name, entry).double() for name, entry in entries.items()}
        if weight is not None and found[WEIGHT].shape[-1:] != weight.shape[:1]:
            raise InputError("does not read what the layer before gives", where=path, remedy="Copy it again.")
        added = found.get(BIAS)
        if bias is not None:
            moved = found[WEIGHT] @ bias
            added = moved if added is None else added + moved
        weight, bias = found[WEIGHT] if weight is None else found[WEIGHT] @ weight, added
    if weight is not None:
        yield f"{OURS}weight", weight.float()
    if bias is not None:
        yield f"{OURS}bias", bias.float()


def write_dense(state: dict[str, Tensor], directory: Path) -> None:
    """Write a model's dense layer, its tensors by their names, where a folder's modules say that it is."""
    for folder in dense_folders(directory):
        tensors = {f"linear.{name.removeprefix(OURS)}": tensor for name, tensor in state.items()}
        with system_errors(folder / WEIGHTS), in_utf8(folder) as place:
            save_file(tensors, place / WEIGHTS)
