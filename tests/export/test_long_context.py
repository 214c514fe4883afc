"""What a graph holds and takes does not grow with the longest context, only with what is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from roots_compress.configs.export import ExportConfig
from roots_compress.evaluation.memory import peak_rss_bytes
from roots_compress.export.exporter import save_graph
from roots_compress.export.graph import build_graph
from roots_compress.export.parity import check_parity
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.runtime.onnx.engine import OnnxEngine
from tests.export.quantized import with_int8_cache
from tests.tiny import tiny_layer, tiny_model, tiny_tokens

MILLIONS = 1 << 23
FORMS = ["fused", "portable", "int8 cache"]
SCALINGS: dict[str, dict[str, Any] | None] = {
    "default": None,
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


def model_of(context: int, form: str, **overrides: Any) -> RootsForCausalLM:
    layers = [tiny_layer(head_dim=16), tiny_layer(head_dim=32, sliding_window=9)]
    model = tiny_model(**{"layers": layers, "max_position_embeddings": context, **overrides})
    return with_int8_cache(model) if form == "int8 cache" else model


def graph_of(model: RootsForCausalLM, form: str, folder: Path) -> Path:
    folder.mkdir()
    model.config.save_pretrained(folder)
    return save_graph(build_graph(model, portable=form == "portable"), folder)


@pytest.mark.parametrize("form", FORMS)
def test_a_graph_is_the_same_whatever_the_longest_context(tmp_path: Path, form: str) -> None:
    short, long = (
        graph_of(model_of(context, form), form, tmp_path / str(context)) for context in (128, MILLIONS)
    )
    assert short.read_bytes() == long.read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_millions_of_positions_take_no_more_memory(tmp_path: Path, form: str) -> None:
    """A table of cosines and sines of so many positions would take gigabytes."""
    graph = graph_of(model_of(MILLIONS, form), form, tmp_path / "long")
    peak = peak_rss_bytes(graph.parent, context=8, decode_tokens=4, threads=1)
    assert peak < 400e6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_every_scaling_of_positions_agrees_at_such_a_context(tmp_path: Path, scaling: str, form: str) -> None:
    model = model_of(MILLIONS, form, rope_parameters=SCALINGS[scaling])
    graph = graph_of(model, form, tmp_path / "long")
    assert check_parity(model, graph, ExportConfig())


@pytest.mark.parametrize("form", FORMS)
def test_positions_may_go_beyond_the_slots(tmp_path: Path, form: str) -> None:
    """Callers give positions: a prompt's may begin late, and lie where no slot's number is."""
    model = model_of(MILLIONS, form)
    graph = graph_of(model, form, tmp_path / "long")
    session = OnnxEngine.open(graph, threads=1, provider="cpu")._session
    input_ids, positions = tiny_tokens(2, 6), torch.arange(100, 106).repeat(2, 1)
    feeds: dict[str, Any] = {
        "input_ids": input_ids.numpy(),
        "attention_mask": np.ones((2, 6), dtype=np.int64),
        "position_ids": positions.numpy(),
    }
    for value in session.get_inputs():
        if value.name.startswith("past_key_values."):
            kind = np.int8 if form == "int8 cache" else np.float32
            feeds[value.name] = np.zeros((2, value.shape[1], 0, value.shape[3]), dtype=kind)
    logits = session.run(["logits"], feeds)[0]
    with torch.no_grad():
        expected = model(input_ids=input_ids, position_ids=positions).logits.numpy()
    # Levels of an int8 cache may round the other way.
    np.testing.assert_allclose(logits, expected, atol=(0.01 if form == "int8 cache" else 1e-5) * 10)
