"""What is fuzzed: readers of files that others wrote, each with seeds from real files and a way to be read.

A reader may refuse its input by an error of ours; any other exception, a file written, or more than
`MOST_CPU_SECONDS` is a finding.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.configs.recipe.loading import check_paths, load_recipe, parse_recipe, resolved
from roots_compress.configs.recipe.yaml import read_yaml
from roots_compress.errors import RootsError
from roots_compress.report.html import html
from roots_compress.report.markdown import markdown
from roots_compress.report.reading import read_figures
from roots_compress.report.text import tables
from roots_compress.run.keys import canonical_json, hash_json, with_sha256
from roots_compress.run.manifest import MANIFEST_NAME, ManifestError
from roots_compress.run.stages import METRICS_NAME, read_stage
from roots_compress.runtime.onnx.graph_folder import GRAPH_NAME, graph_files

MOST_CPU_SECONDS = 5.0
REFUSALS = (RootsError, ManifestError)
FINDINGS = Path(__file__).with_name("findings")
"""Inputs that were once answered wrongly, in a folder for each target."""
SPARE_BYTES = 64


@dataclass(frozen=True)
class Target:
    """A reader under test."""

    name: str
    seeds: Callable[[Path], list[bytes]]
    """Makes the first inputs from a folder of undamaged ones (`tests/bad_inputs/materials.py`)."""
    surroundings: str | None
    """The folder of undamaged files that the input lies among; None for an empty one."""
    read: Callable[[bytes, Path], None]
    """Puts an input into that folder and has it read."""
    longest: int
    """Bytes of the longest input tried."""


class FindingError(Exception):
    """A reader did something other than to read its input or to refuse it."""


class Guard:
    """Watches, once made and for good, whether anything but the harness writes a file or starts a process."""

    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    FORBIDDEN = (
        "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.system", "os.exec", "shutil.",
        "subprocess.Popen", "socket.connect", "pickle.find_class",
    )  # fmt: skip

    def __init__(self) -> None:
        self.armed = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & self.WRITING:
            if ".pyc" not in str(arguments[0]):  # what Python compiles when it imports
                self.seen.append(f"opens {arguments[0]} for writing")
        elif event.startswith(self.FORBIDDEN):
            self.seen.append(event)


@cache
def the_guard() -> Guard:
    """Return the process's one guard; a hook of Python's cannot be taken away again."""
    return Guard()


def surround(target: Target, good: Path, folder: Path) -> Path:
    """Return a new folder under `folder` with what a target's input lies among."""
    place = folder / (target.surroundings or target.name)
    if target.surroundings is None:
        place.mkdir()
    elif target.surroundings == STAGE:
        shutil.copytree(good / "run" / STAGE, place)
    else:
        shutil.copytree(good / target.surroundings, place)
    return place


def try_input(target: Target, data: bytes, place: Path) -> None:
    """Have one input read.

    Raises:
        FindingError, or whatever the reader raised: the input was not answered as it should be.
    """
    started = time.process_time()
    try:
        target.read(data, place)
    except REFUSALS as error:
        str(error).encode()  # What is shown must be text.
        if not str(error).strip():
            raise FindingError("an error without words") from error
    finally:
        guard = the_guard()
        guard.armed = False
    if guard.seen:
        raise FindingError(f"the reader {guard.seen.pop()}")
    if time.process_time() - started > MOST_CPU_SECONDS:
        raise FindingError(f"took {time.process_time() - started:.1f} s")


def put(path: Path, data: bytes) -> None:
    """Write an input; until the reader is done nothing else may be written."""
    guard = the_guard()
    guard.armed = False
    path.write_bytes(data)
    guard.seen.clear()
    guard.armed = True


def _recipe(data: bytes, place: Path) -> None:
    path = place / "recipe.yaml"
    put(path, data)
    document = read_yaml(path)
    recipe = load_recipe(document)
    if parse_recipe(resolved(recipe)) != recipe:
        raise FindingError("the recipe is another once it is written out and read again")
    check_paths(recipe)


def _safetensors(data: bytes, place: Path) -> None:
    """Read the input as the weights' file; then as a header with the right length before it."""
    path = place / "model.safetensors"
    put(path, data)
    with suppress(*REFUSALS):
        inspect_source(place)
    put(path, len(data).to_bytes(8, "little") + data + bytes(SPARE_BYTES))
    inspect_source(place)


def _gguf(data: bytes, place: Path) -> None:
    path = place / "model.gguf"
    put(path, data)
    inspect_source(path)


def _graph(data: bytes, place: Path) -> None:
    put(place / GRAPH_NAME, data)
    graph_files(place)


def _config(data: bytes, place: Path) -> None:
    put(place / "config.json", data)
    inspect_source(place)


def _index(data: bytes, place: Path) -> None:
    put(place / "model.safetensors.index.json", data)
    inspect_source(place)


def _manifest(data: bytes, place: Path) -> None:
    """Read the input as a stage's manifest; then again with the hash that would make it genuine."""
    path = place / MANIFEST_NAME
    put(path, data)
    with suppress(*REFUSALS):
        read_stage(place)
    try:
        content = json.loads(data)["content"]
        key = hash_json(content["ingredients"])
        text = canonical_json(with_sha256({**content, "key": key})) + "\n"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    put(path, text.encode())
    read_stage(place)


def _metrics(data: bytes, place: Path) -> None:
    """Read the input as a run's figures, and show them in every form."""
    put(place / METRICS_NAME, data)
    metrics = read_figures(place)
    html(metrics)
    markdown(metrics)
    tables(metrics)


def _file(*names: str) -> Callable[[Path], list[bytes]]:
    return lambda good: [(good / name).read_bytes() for name in names]


def _headers(good: Path) -> list[bytes]:
    """Return the JSON headers of real files, and one whole file."""
    headers = []
    for name in ("ckpt", "llama"):
        data = (good / name / "model.safetensors").read_bytes()
        headers.append(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tiny = b'{"a":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]},"b":{"dtype":"I8","shape":[32],'
    tiny += b'"data_offsets":[32,64]},"__metadata__":{"format":"pt"}}'
    return [*headers, tiny, len(tiny).to_bytes(8, "little") + tiny + bytes(SPARE_BYTES)]


def _recipes(good: Path) -> list[bytes]:
    shipped = Path(__file__).parents[2] / "recipes"
    return [
        (good / "recipe.json").read_bytes(),
        *(path.read_bytes() for path in sorted(shipped.glob("*.yaml"))),
    ]


STAGE = "00-baseline"
CONFIGS = ("ckpt/config.json", "llama/config.json", "gpt2/config.json")
TARGETS = {
    target.name: target
    for target in (
        Target("recipe", _recipes, None, _recipe, 4096),
        Target("safetensors", _headers, "ckpt", _safetensors, 8192),
        Target("gguf", _file("model.gguf"), None, _gguf, 1 << 15),
        Target("graph", _file("graph/model.onnx", "portable/model.onnx"), "graph", _graph, 1 << 16),
        Target(
            "config",
            _file("ckpt/config.json", "llama/config.json", "gpt2/config.json"),
            "ckpt",
            _config,
            4096,
        ),
        Target("index", _file("sharded/model.safetensors.index.json"), "sharded", _index, 8192),
        Target("manifest", _file(f"run/{STAGE}/{MANIFEST_NAME}"), STAGE, _manifest, 8192),
        Target("metrics", _file(f"run/{METRICS_NAME}"), None, _metrics, 8192),
    )
}
