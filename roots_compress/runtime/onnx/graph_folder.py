"""A graph on disk: where it lies, which files belong to it, and what is refused before anything is opened."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import NoReturn

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

from roots_compress.errors import InputError
from roots_compress.io.json_files import read_errors, read_json_object, regular_file
from roots_compress.runtime.onnx.graph_config import CONFIG, EXPORT_AGAIN, ONNX_FOLDER, OURS, home_of
from roots_compress.runtime.onnx.seq2seq_graph import DECODER_GRAPH, ENCODER_GRAPH

GRAPH_NAME, GRAPH_SUFFIX = "model.onnx", ".onnx"
SERVED_BY: dict[str, tuple[str, ...]] = {GRAPH_NAME: (), DECODER_GRAPH: (ENCODER_GRAPH,)}
"""By the file of the graph that an artifact is named by, those of the graphs that it needs beside it."""
GRAPH_PLACES = tuple(place + name for place in ("", f"{ONNX_FOLDER}/") for name in SERVED_BY)
MAX_GRAPH_BYTES = 2**31 - 1
EXTENT_KEYS = {"location", "offset", "length", "checksum"}
"""What ONNX knows of external data."""
IN_MEMORY = "_ORT_MEM_ADDR_"
"""In the location by which ONNX Runtime means an address in its own memory rather than a file."""


def holds_graph(folder: Path) -> bool:
    """Whether a path means a graph: `find_graph` finds one by it, and it is no checkpoint with graphs within.

    Repositories of the hub keep graphs in a folder `onnx` beside the checkpoint's weights.
    """
    try:
        if _is_graph_file(folder):
            return True
        graph = _graph_in(folder)
        shares_config = graph is not None and home_of(graph) != graph.parent
        return graph is not None and not (shares_config and any(folder.glob("*.safetensors")))
    except OSError:  # such as a name too long for a file
        return False


def find_graph(folder: Path) -> Path:
    """Return the graph of an export folder, or of a run's stage folder (`onnx/` in it).

    Of several graphs it is the one that the others serve. A graph's own file may be named, too.

    Raises:
        InputError: there is no such folder, or it holds no graph that is an ordinary file.
    """
    with read_errors(folder):
        if _is_graph_file(folder):
            return _served(folder)
        is_folder, exists = folder.is_dir(), folder.exists()
    if not is_folder:
        if exists and folder.suffix == ".gguf":
            raise InputError("is a checkpoint, not a graph", where=folder, remedy=_export_first(folder))
        raise InputError(
            "is not a graph" if exists else "there is no such folder",
            where=folder,
            remedy=_near(folder),
        )
    if (graph := _graph_in(folder)) is not None:
        return graph
    # As in a run, whose newest stage may be meant.
    stages = sorted(path for name in SERVED_BY for path in folder.glob(f"[!.]*/onnx/{name}"))
    if stages:
        remedy = f"Name a stage of the run, such as {stages[-1].parent.parent}."
    elif others := sorted([*folder.glob(f"*{GRAPH_SUFFIX}"), *folder.glob(f"{ONNX_FOLDER}/*{GRAPH_SUFFIX}")]):
        remedy = f"Name the graph itself, such as {others[0]}."
    elif any(folder.glob("*.safetensors")):
        remedy = _export_first(folder)
    else:
        remedy = EXPORT_AGAIN
    raise InputError(f"the folder holds no {GRAPH_NAME}", where=folder, remedy=remedy)


def _near(folder: Path) -> str:
    """Return what to name instead: the stages of the run that a folder would be in."""
    stages = sorted(each.parent.name for each in folder.parent.glob("[0-9][0-9]-*/onnx"))
    named = f"Name a stage of {folder.parent}: {', '.join(stages)}."
    return named if stages else f"Name a folder that holds {GRAPH_NAME}."


def _graph_in(folder: Path) -> Path | None:
    return next((folder / name for name in GRAPH_PLACES if (folder / name).is_file()), None)


def _is_graph_file(path: Path) -> bool:
    return path.suffix == GRAPH_SUFFIX and path.is_file()


def _served(graph: Path) -> Path:
    """Return the graph that a graph serves: itself, unless it lies beside such a one."""
    for name, others in SERVED_BY.items():
        if graph.name in others and (served := graph.with_name(name)).is_file():
            return served
    return graph


def _export_first(checkpoint: Path) -> str:
    return f"Export the checkpoint first: roots-compress export {quote(str(checkpoint))} --out GRAPH"


def graph_files(folder: Path) -> tuple[Path, ...]:
    """Return every file the graph needs to run, the graph itself first, after checking each and config.json.

    The graphs that it needs beside it are among them. Each is parsed without its external data. Data must be
    ordinary files in the graph's own folder, long enough for every tensor that points into them: links,
    absolute paths and paths out of the folder could make a downloaded graph read any file of this machine.

    Raises:
        InputError: no graph, or only one of two, one that does not parse, or external data that is missing,
            short or outside.
    """
    graph = find_graph(folder)
    graphs = (graph, *(graph.with_name(name) for name in SERVED_BY.get(graph.name, ())))
    ends: dict[PurePosixPath, int] = {}
    for each in graphs:
        for location, end in _needed(each).items():
            ends[location] = max(end, ends.get(location, 0))
    _check_specification(home_of(graph) / CONFIG)
    return (*graphs, *(_data_file(graph, location, end) for location, end in sorted(ends.items())))


def _needed(graph: Path) -> dict[PurePosixPath, int]:
    """Check a graph's own file; return the files of its external data, and how long each must be."""
    if not (graph.exists() or graph.is_symlink()):
        raise InputError(
            "the graph is missing, and the one beside it needs it", where=graph, remedy=EXPORT_AGAIN
        )
    size = regular_file(graph)
    if size > MAX_GRAPH_BYTES:
        raise InputError(
            f"the graph has {size} bytes in one file; {MAX_GRAPH_BYTES} is the most that ONNX allows",
            where=graph,
            remedy="Export it with its weights in a file beside it.",
        )
    try:
        with read_errors(graph):
            model = onnx.load(graph, load_external_data=False)
    except (DecodeError, ValueError):
        _refuse("the graph is truncated or is not ONNX", graph)
    if not model.graph.node:
        _refuse("the graph has no nodes: it is empty or not ONNX", graph)
    needed: dict[PurePosixPath, int] = {}
    for tensor in tensors_of(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            location, end = _external_extent(tensor, graph)
            needed[location] = max(end, needed.get(location, 0))
    return needed


def _check_specification(path: Path) -> None:
    """Refuse a damaged specification of the model beside its graph; configs of others have none."""
    config = read_json_object(path) if path.exists() else {}
    ours = config.get(OURS, config if config.get("model_type") == OURS else None)
    if ours is None:
        return
    from roots_compress.models.version1 import read_spec  # Not before it is needed.

    try:
        if not isinstance(ours, dict):
            raise ValueError(f"{OURS} is {ours!r:.60}; it must be an object")
        read_spec(ours)
    except ValueError as error:
        _refuse(f"the model's specification is damaged: {error}", path)


def tensors_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of a graph, those in its operators and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    yield from (attribute.t, *attribute.tensors)
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        yield from (sparse.values, sparse.indices)
    # The singular field of an absent graph is an empty graph, so the walk ends.
    for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
        yield from _graph_tensors(graph)


def _refuse(message: str, where: Path) -> NoReturn:
    raise InputError(message, where=where, remedy=EXPORT_AGAIN) from None


def _external_extent(tensor: TensorProto, graph: Path) -> tuple[PurePosixPath, int]:
    """Return the file a tensor's data lies in, and the byte after its last."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) < len(tensor.external_data) or entries.keys() - EXTENT_KEYS:
        _refuse(f"tensor {tensor.name!r} has external data with keys twice, or of no known meaning", graph)
    try:
        location = entries["location"]
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
    except (KeyError, ValueError):
        _refuse(
            f"tensor {tensor.name!r} has external data without a readable location, offset and length", graph
        )
    if offset < 0 or length < 0:
        _refuse(f"tensor {tensor.name!r} has external data at a negative offset or of negative length", graph)
    return PurePosixPath(location.replace("\\", "/")), offset + length


def _data_file(graph: Path, location: PurePosixPath, end: int) -> Path:
    outside = location.is_absolute() or ".." in location.parts or ":" in str(location)
    if outside or not location.parts or IN_MEMORY in location.parts:
        raise InputError(
            f"external data '{str(location)[:200]}' lies outside the graph's folder",
            where=graph,
            remedy="Do not open this graph unless you know who made it.",
        )
    path = graph.parent / location
    try:
        missing = not path.exists()
    except OSError:  # a name too long for a file
        missing = True
    if missing:
        raise InputError(
            f"external data '{str(location)[:200]}' is missing",
            where=graph,
            remedy="Keep the data file beside the graph: the two belong together.",
        )
    status = path.lstat()
    linked = path.resolve() != graph.parent.resolve() / location or status.st_nlink > 1
    if linked or not stat.S_ISREG(status.st_mode):
        raise InputError(
            f"external data '{location}' is a link or not an ordinary file",
            where=graph,
            remedy="Copy the data file itself beside the graph.",
        )
    if status.st_size < end:
        _refuse(f"external data '{location}' is truncated: {status.st_size} bytes of at least {end}", graph)
    return path
