"""Exports a checkpoint as a folder for any ONNX Runtime: graph, configs and tokenizer, checked first."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from roots_compress.checkpoints.checkpoint import Checkpoint, refuse_occupied
from roots_compress.checkpoints.tokenizer import save_tokenizer
from roots_compress.configs.export import ExportConfig
from roots_compress.errors import StageError
from roots_compress.evaluation.size import graph_bytes, stored_bytes
from roots_compress.export.graph import build_graphs
from roots_compress.export.parity import ParityCase, check_parity
from roots_compress.export.runtimes import write_configs
from roots_compress.io.atomic import system_errors
from roots_compress.io.names import in_utf8
from roots_compress.models.heads import RootsWithHead
from roots_compress.runtime.onnx.graph_folder import GRAPH_NAME
from roots_compress.runtime.onnx.session import SHARED_CACHE

DATA_NAME = "model.onnx.data"
INLINE_LIMIT_BYTES = 16 << 20
"""Weights up to this size stay in the graph's file; larger ones go into a second file, which can be
mapped."""
SMALLEST_EXTERNAL_BYTES = 1024


@dataclass(frozen=True)
class ExportReport:
    """The files of an export, and its agreement with the checkpoint."""

    directory: Path
    graph_bytes: int
    """Every file the graph needs to run."""
    parity: tuple[ParityCase, ...]
    obstacles: tuple[str, ...]
    """Reasons why another runtime cannot load the folder, one sentence each."""

    @property
    def largest_difference(self) -> float:
        """The largest difference of all cases."""
        return max(case.difference for case in self.parity)


def export_checkpoint(
    checkpoint: Checkpoint, directory: Path, config: ExportConfig, *, release: bool = False
) -> ExportReport:
    """Write a checkpoint's graph, configs and tokenizer to a new or empty folder, after checking the logits.

    The files appear all together or not at all. The same checkpoint always gives the same bytes.
    With `release`, the checkpoint's weights are freed before the graph is opened for the check, so that
    memory holds one copy at a time; the checkpoint is then unusable.

    Raises:
        InputError: the folder is not empty.
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
    """Write a model's graph and configs without checking logits and without a tokenizer, for timings.

    Returns:
        The graph's path, and the reasons why another runtime cannot load the folder.

    Raises:
        StageError: the graph is not valid ONNX, or holds more weights than the model.
    """
    graphs = build_graphs(model, portable=portable)
    _check_weights(graphs.values(), model, directory)
    path = save_graphs(graphs, directory)
    shared_cache = any(SHARED_CACHE in graph.metadata_props for graph in graphs.values())
    return path, write_configs(model, directory, shared_cache=shared_cache)


def save_graph(graph: ir.Model, directory: Path, *, inline_limit: int = INLINE_LIMIT_BYTES) -> Path:
    """Write one graph; see `save_graphs`."""
    return save_graphs({GRAPH_NAME: graph}, directory, inline_limit=inline_limit)


def save_graphs(
    graphs: Mapping[str, ir.Model], directory: Path, *, inline_limit: int = INLINE_LIMIT_BYTES
) -> Path:
    """Write graphs by their files' names, and return the path of the first.

    Large or shared weights go into a separate file: each once, written one at a time from its own memory.

    Raises:
        StageError: a file does not pass the ONNX checker.
    """
    weights = _weights(graphs.values())
    external = len(graphs) > 1 or sum(tensor.nbytes for tensor in weights.values()) > inline_limit
    large = [name for name, tensor in weights.items() if external and tensor.nbytes > SMALLEST_EXTERNAL_BYTES]
    paths = [directory / name for name in graphs]
    with system_errors(paths[0]):
        written = (
            ir.external_data.convert_tensors_to_external(
                [weights[name] for name in large], directory, DATA_NAME
            )
            if large
            else []
        )
        for path, graph in zip(paths, graphs.values(), strict=True):
            with _stored(graph, dict(zip(large, written, strict=True))):
                ir.save(graph, path)
    for path in paths:
        _check_valid(path)
    return paths[0]


def _weights(graphs: Iterable[ir.Model]) -> dict[str, ir.TensorProtocol]:
    """Return the initializers of graphs by name; those of one name are one weight."""
    weights: dict[str, ir.TensorProtocol] = {}
    for graph in graphs:
        for name, value in graph.graph.initializers.items():
            if value.const_value is not None:
                weights.setdefault(name, value.const_value)
    return weights


@contextmanager
def _stored(graph: ir.Model, tensors: Mapping[str, ir.TensorProtocol]) -> Iterator[None]:
    """Inside the block, let initializers point to their stored data."""
    values = [graph.graph.initializers[name] for name in tensors if name in graph.graph.initializers]
    own = [value.const_value for value in values]
    for value in values:
        value.const_value = tensors[value.name or ""]
    try:
        yield
    finally:
        for value, tensor in zip(values, own, strict=True):
            value.const_value = tensor


def _check_valid(path: Path) -> None:
    try:
        with in_utf8(path.parent) as folder:
            onnx.checker.check_model(str(folder / path.name), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StageError(
            f"the exporter made a graph that is not valid ONNX: {error}",
            where=path,
            remedy="Nothing was exported. This is a fault of the exporter; please report it.",
        ) from error


def _check_weights(graphs: Iterable[ir.Model], model: RootsWithHead, directory: Path) -> None:
    """Refuse graphs that store a weight twice, such as a tied table.

    Raises:
        StageError: their weights take more bytes than the checkpoint's.
    """
    # 64-bit integers are index tables, not weights.
    sizes = [each.nbytes for each in _weights(graphs).values() if each.dtype != ir.DataType.INT64]
    # The graphs' other constants are smaller than any weight that matters.
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
    # References to the weights end with this call, so that the check can free them.
    path, obstacles = write_graph(model, directory, portable=config.portable)
    if model.can_generate() and model.generation_config is not None:
        model.generation_config.save_pretrained(directory)
    save_tokenizer(checkpoint.tokenizer, directory)
    return check_parity(model, path, config, release=release), obstacles
