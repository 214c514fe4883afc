"""A checkpoint as a folder that any ONNX Runtime can serve: graph, configs and tokenizer, checked first."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from roots_compress.checkpoints.checkpoint import Checkpoint, refuse_occupied
from roots_compress.checkpoints.tokenizer import save_tokenizer
from roots_compress.configs.export import ExportConfig
from roots_compress.errors import StageError
from roots_compress.evaluate.size import graph_bytes, stored_bytes
from roots_compress.export.graph import build_graph
from roots_compress.export.parity import ParityCase, check_parity
from roots_compress.export.runtimes import write_configs
from roots_compress.io.atomic import system_errors
from roots_compress.io.names import in_utf8
from roots_compress.models.heads import RootsWithHead
from roots_compress.runtime.graph_folder import GRAPH_NAME
from roots_compress.runtime.session import SHARED_CACHE

DATA_NAME = "model.onnx.data"
INLINE_LIMIT_BYTES = 16 << 20
"""Weights up to this size stay in the graph's file; larger ones go beside it, where they can be mapped."""
SMALLEST_EXTERNAL_BYTES = 1024


@dataclass(frozen=True)
class ExportReport:
    """What an export made, and how well it agrees with the checkpoint."""

    directory: Path
    graph_bytes: int
    """Every file the graph needs to run."""
    parity: tuple[ParityCase, ...]
    obstacles: tuple[str, ...]
    """What keeps another runtime from loading the folder, a sentence each."""

    @property
    def largest_difference(self) -> float:
        """The largest of the differences that the cases' tolerances bound."""
        return max(case.difference for case in self.parity)


def export_checkpoint(
    checkpoint: Checkpoint, directory: Path, config: ExportConfig, *, release: bool = False
) -> ExportReport:
    """Write a checkpoint's graph, configs and tokenizer to a new or empty folder, after checking the logits.

    The files appear all together or not at all. The same checkpoint always gives the same bytes.
    With `release`, the checkpoint gives up its weights before the graph is opened for the check, and is of no
    more use then: memory holds one copy at a time.

    Raises:
        InputError: the folder holds something already.
        StageError: the graph is not valid ONNX, holds more weights than the checkpoint, or its logits are not
            the checkpoint's.
    """
    refuse_occupied(directory)
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        cases, obstacles = _write(checkpoint, partial, config, release)
        if directory.exists():
            directory.rmdir()
        partial.rename(directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return ExportReport(directory, graph_bytes(directory), cases, obstacles)


def write_graph(
    model: RootsWithHead, directory: Path, *, portable: bool = False
) -> tuple[Path, tuple[str, ...]]:
    """Write a model's graph and configs, its logits unchecked and without a tokenizer: enough to time it.

    Returns:
        The graph's path, and what keeps another runtime from loading the folder.

    Raises:
        StageError: the graph is not valid ONNX, or holds more weights than the model.
    """
    graph = build_graph(model, portable=portable)
    _check_weights(graph, model, directory)
    path = save_graph(graph, directory)
    return path, write_configs(model, directory, shared_cache=SHARED_CACHE in graph.metadata_props)


def save_graph(graph: ir.Model, directory: Path, *, inline_limit: int = INLINE_LIMIT_BYTES) -> Path:
    """Write a graph, its weights beside it where they are large, and return the graph's path.

    Weights are written one at a time from the memory they lie in.

    Raises:
        StageError: the file does not pass the ONNX checker.
    """
    path = directory / GRAPH_NAME
    weights = (value.const_value for value in graph.graph.initializers.values())
    external = sum(tensor.nbytes for tensor in weights if tensor is not None) > inline_limit
    with system_errors(path):
        ir.save(
            graph,
            path,
            external_data=DATA_NAME if external else None,
            size_threshold_bytes=SMALLEST_EXTERNAL_BYTES,
        )
    try:
        with in_utf8(directory) as folder:
            onnx.checker.check_model(str(folder / GRAPH_NAME), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StageError(
            f"the exporter made a graph that is not valid ONNX: {error}",
            where=path,
            remedy="Nothing was exported. This is a fault of the exporter; please report it.",
        ) from error
    return path


def _check_weights(graph: ir.Model, model: RootsWithHead, directory: Path) -> None:
    """Refuse a graph that stores a weight twice, as a tied table often is.

    Raises:
        StageError: its weights take more bytes than the checkpoint's.
    """
    tensors = (value.const_value for value in graph.graph.initializers.values())
    sizes = [tensor.nbytes for tensor in tensors if tensor is not None]
    # The graph's own constants are smaller than any weight that matters.
    held, stored = sum(size for size in sizes if size >= SMALLEST_EXTERNAL_BYTES), stored_bytes(model)
    if held > stored:
        raise StageError(
            f"the graph would hold {held:,} bytes of weights where the checkpoint has {stored:,}",
            where=directory,
            remedy="Nothing was exported. This is a fault of the exporter; please report it.",
        )


def _write(
    checkpoint: Checkpoint, directory: Path, config: ExportConfig, release: bool
) -> tuple[tuple[ParityCase, ...], tuple[str, ...]]:
    model = checkpoint.model.eval()
    # What holds on to the weights ends with this call, so that the check can give them up.
    path, obstacles = write_graph(model, directory, portable=config.portable)
    if model.can_generate() and model.generation_config is not None:
        model.generation_config.save_pretrained(directory)
    save_tokenizer(checkpoint.tokenizer, directory)
    return check_parity(model, path, config, release=release), obstacles
