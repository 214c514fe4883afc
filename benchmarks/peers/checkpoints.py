"""The one source checkpoint in the forms that the engines take, and the tokens that all of them read."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers.engines import OURS, Engine
from benchmarks.peers.environments import PeerError
from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.tokenizer import load_tokenizer
from roots_compress.checkpoints.write_back import write_back
from roots_compress.configs.data import DataConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.errors import InputError
from roots_compress.families.registry import FAMILIES
from roots_compress.runtime.onnx.graph_folder import graph_files, holds_graph

GREEDY_PROMPT = "The capital of France is"
WEIGHT_SUFFIXES = (".onnx", ".data", ".onnx_data", ".safetensors", ".gguf")


@dataclass(frozen=True)
class Tokens:
    """What every engine reads."""

    windows: list[list[int]]
    """Held-out text; every token after a window's first is scored once."""
    greedy_prompt: list[int]
    timed: list[int]
    """Random tokens for timings."""
    text_sha256: str
    bos: bool

    @property
    def scored(self) -> int:
        """Tokens whose probability enters the perplexity."""
        return sum(len(window) - 1 for window in self.windows)


def make_tokens(source: Path, text: Path, *, windows: int, block_size: int, timed: int) -> Tokens:
    """Cut the held-out text into windows with the checkpoint's tokenizer.

    Raises:
        InputError: the text or the checkpoint cannot be read, or the text is shorter than a window.
    """
    info = inspect_source(source)
    tokenizer = load_tokenizer(info)
    held_out = load_text(DataConfig(eval=(text,)), seed=0).held_out
    cut = evaluation_windows(held_out, tokenizer, block_size=block_size, limit=windows)
    vocab_size = info.vocab_size or len(tokenizer)
    return Tokens(
        windows=cut.input_ids.tolist(),
        greedy_prompt=tokenizer(GREEDY_PROMPT, add_special_tokens=False)["input_ids"],
        timed=np.random.default_rng(0).integers(vocab_size, size=timed).tolist(),
        text_sha256=cut.text_sha256,
        bos=cut.bos,
    )


def source_key(source: Path) -> str:
    """Return a short name for a checkpoint as it is now: its path, and sizes and times of its files."""
    files = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    seen = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:12]


def hugging_face_directory(source: Path, target: Path) -> Path:
    """Write the checkpoint back as the first family that can express it.

    Raises:
        InputError: the checkpoint cannot be read.
        PeerError: no family can express it, so that no peer can load it.
    """
    if target.exists():
        return target
    checkpoint = load_checkpoint(source)
    own = inspect_source(source).model_type
    families = sorted(FAMILIES, key=lambda family: family != own)
    reasons = []
    for family in families:
        try:
            write_back(checkpoint, family, target)
        except InputError as error:
            shutil.rmtree(target, ignore_errors=True)
            reasons.append(error.message)
            continue
        _make_readable(target)
        return target
    raise PeerError(f"no family that the peers know expresses this model: {reasons[0]}")


def _make_readable(directory: Path) -> None:
    """Say in the words of transformers 4, which optimum-onnx needs, what transformers 5 says in its own."""
    for name, changes in (
        ("config.json", lambda config: {"rope_theta": config["rope_parameters"]["rope_theta"]}),
        ("tokenizer_config.json", lambda _: {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ):
        path = directory / name
        document = json.loads(path.read_text(encoding="utf-8"))
        if name != "config.json" or "rope_parameters" in document:
            document.update(changes(document))
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def opened_file(engine: Engine, artifact: Path) -> Path:
    """Return what the worker opens.

    Raises:
        InputError: a folder of ours is not a whole graph.
    """
    if engine.environment != OURS:
        return artifact / engine.file if engine.file else artifact
    stages: Sequence[Path] = [artifact] if holds_graph(artifact) else sorted(artifact.glob("*-quantize"))
    if not stages:
        raise InputError("holds neither a graph nor a quantize stage", where=artifact)
    return graph_files(stages[-1])[0]


def artifact_bytes(engine: Engine, artifact: Path) -> int:
    """Return the bytes of weights and graph; tokenizers and settings, which differ little, are left out."""
    if engine.environment == OURS:
        return sum(path.stat().st_size for path in graph_files(opened_file(engine, artifact).parent))
    files = [path for path in artifact.iterdir() if path.suffix in WEIGHT_SUFFIXES]
    return sum(path.stat().st_size for path in files)
