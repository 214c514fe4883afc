"""Faults in graphs, and in what engines are asked to read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.configs.export import ExportConfig
from roots_compress.errors import StageError
from roots_compress.evaluation import artifact
from roots_compress.export import exporter, parity
from roots_compress.export.graph import build_graphs
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.runtime.onnx import graph_folder
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.prompts import left_pad
from roots_compress.runtime.torch_engine import TorchEngine
from roots_compress.tasks.figures import perplexity as perplexities
from roots_compress.tasks.registry import CAUSAL_LM
from tests.checks.removal import Check
from tests.evaluation.models import BigramModel, random_windows
from tests.export.quantized import tiny_quantized
from tests.export.test_parity import plant, swap_caches, written
from tests.runtime.graphs import history_model, random_weights, write_graph
from tests.tiny import VOCAB_SIZE, tiny_checkpoint, tiny_model

DOWN = "model.layers.1.mlp.down_proj.weight"


def parity_after(change: Callable[[Path], object], model: RootsForCausalLM, folder: Path) -> None:
    """Export a model, change the graph, and compare the two."""
    graph = written(model, folder)
    change(graph)
    parity.check_parity(model, graph, ExportConfig())


def graph_files_after(change: Callable[[Path], object], folder: Path) -> None:
    """Change the file with a graph's weights, then look which files the graph needs."""
    graph = write_graph(folder / "graph", history_model(random_weights()), external=True)
    change(graph / "model.onnx.data")
    graph_folder.graph_files(graph)


def table_twice(folder: Path) -> None:
    """Export a tied model with a graph that holds its head as well."""
    tied = tiny_checkpoint()
    untied = tiny_model(tie_word_embeddings=False)
    untied.load_state_dict(tied.model.state_dict())
    with patch.object(exporter, "build_graphs", lambda _model, **forms: build_graphs(untied, **forms)):
        exporter.export_checkpoint(tied, folder / "onnx", ExportConfig())


def graph_of_another(folder: Path) -> None:
    """Measure a checkpoint beside the graph of another."""
    exporter.export_checkpoint(tiny_checkpoint(), folder / "onnx", ExportConfig())
    config = EvaluationConfig(windows=3, block_size=16, contexts=(4,), decode_tokens=2, repeats=3)
    artifact.measure_quality(
        CAUSAL_LM, folder, lambda: tiny_model(1), random_windows(3, 16, VOCAB_SIZE), config, threads=1
    )


def link_elsewhere(data: Path) -> None:
    data.rename(data.parent.parent / "secret")
    data.hardlink_to(data.parent.parent / "secret")


def cut_short(data: Path) -> None:
    data.write_bytes(data.read_bytes()[:-1])


def fixed_batch(folder: Path) -> None:
    graph = history_model(random_weights())
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    OnnxEngine.load(write_graph(folder / "graph", graph), threads=1, provider="cpu")


def negative_token(folder: Path) -> None:
    graph = write_graph(folder / "graph", history_model(random_weights()))
    OnnxEngine.load(graph, threads=1, provider="cpu").logits(np.array([[-1, 2]]))


def read(tokens: list[int], mask: list[int] | None = None, **overrides: Any) -> None:
    """Read one prompt with a model in torch."""
    engine = TorchEngine(tiny_model(**overrides))
    engine.logits(np.array([tokens]), None if mask is None else np.array([mask]))


def score(fill: float = 1.0, *, vocab_size: int = 7, **model: Any) -> None:
    """Score windows of 12 tokens with a model whose every logit is `fill`."""
    table = np.full((7, 7), fill, dtype=np.float32)
    perplexities.perplexity(BigramModel(table, **model), random_windows(vocab_size=vocab_size))


CHECKS = [
    Check(
        "a weight of the graph is wrong",
        "check_parity",
        lambda folder: parity_after(lambda graph: plant(graph, DOWN, 1.5), tiny_model(), folder),
        StageError,
    ),
    Check(
        "the graph's caches are swapped",
        "CausalLM.parity_runs",
        lambda folder: parity_after(swap_caches, tiny_model(), folder),
        StageError,
        guard="yield (..., np.stack(...), ...)",
    ),
    Check(
        "the graph's logits are NaN",
        "ParityCase.passed",
        lambda folder: parity_after(lambda graph: plant(graph, DOWN, np.nan), tiny_model(), folder),
        StageError,
        guard="self.difference <= self.tolerance",
        without="not self.difference > self.tolerance",
    ),
    Check(
        "a scale of a quantized graph is wrong",
        "_compare_exactly",
        lambda folder: parity_after(
            lambda graph: plant(graph, "model.layers.0.mlp.down_proj.weight_scale", 1.2),
            tiny_quantized("w8a8"),
            folder,
        ),
        StageError,
        guard="config.tolerance",
        without="1.0",
    ),
    Check(
        "a tied table is written twice",
        "_check_weights",
        table_twice,
        StageError,
    ),
    Check(
        "a graph is measured beside another's checkpoint",
        "_require_agreement",
        graph_of_another,
        StageError,
    ),
    Check(
        "a graph's data is a link",
        "_data_file",
        lambda folder: graph_files_after(link_elsewhere, folder),
        guard="if linked or ...: ...",
    ),
    Check(
        "a graph's data is cut short",
        "_data_file",
        lambda folder: graph_files_after(cut_short, folder),
        guard="if status.st_size < end: ...",
    ),
    Check(
        "a graph serves one batch size only",
        "decoder_graph.cached_tensors",
        fixed_batch,
        guard="if wrong: ...",
    ),
    Check(
        "a token is outside the vocabulary",
        "check_ids",
        negative_token,
        guard="if low < 0 or ...: ...",
    ),
    Check(
        "a prompt has no token",
        "left_pad",
        lambda _: left_pad([[5, 6], []]),
    ),
    Check(
        "a prompt is padded on the right",
        "check_prompt",
        lambda _: read([5, 6, 7], [1, 1, 0]),
        guard="if not attention_mask[:, -1].all() or ...: ...",
    ),
    Check(
        "a prompt is longer than the context",
        "check_context",
        lambda _: read([5, 6, 7], max_position_embeddings=2),
    ),
    Check(
        "scored windows are longer than the context",
        "perplexity._check_windows",
        lambda _: score(max_context=8),
        guard="if tokens - 1 > model.max_context: ...",
    ),
    Check(
        "scored logits are NaN",
        "check_finite",
        lambda _: score(np.nan),
        StageError,
    ),
]
